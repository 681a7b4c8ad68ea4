# SPDX-License-Identifier: Apache-2.0
"""Platforms."""

import pytest

from worker.errors import InvalidArgument
from worker.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armv6l", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_one_platform_has_one_spelling(text: str, normalised: str) -> None:
    """Aliases and default variants disappear, as in containerd's normalisation; the spelling parses to itself."""
    platform = Platform.parse(text)

    assert str(platform) == normalised
    assert Platform.parse(normalised) == platform


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/amd 64", "a\n/b", None, 3]
)
def test_what_is_no_platform_is_refused(text: object) -> None:
    """The error names the argument."""
    with pytest.raises(InvalidArgument, match="invalid platform"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("host", "candidates"),
    [
        ("linux/amd64", "linux/amd64 linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
        ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        (
            "linux/arm64/v8.2",
            "linux/arm64/v8.2 linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5",
        ),
        ("linux/s390x", "linux/s390x"),
        ("linux/arm64/strange", "linux/arm64/strange linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
    ],
)
def test_a_host_runs_older_variants_newest_first(host: str, candidates: str) -> None:
    """The order is containerd's: own variant, older variants, the 32-bit architecture."""
    assert [str(candidate) for candidate in Platform.parse(host).candidates] == candidates.split()


def test_armv9_includes_the_armv8_it_implies() -> None:
    """ARMv9.1 is ARMv9.0 and ARMv8.6 and all before."""
    host = Platform.parse("linux/arm64/v9.1")

    assert all(host.accepts(Platform.parse(f"linux/arm64/{variant}")) for variant in ("v9", "v8.6", "v8"))
    assert not host.accepts(Platform.parse("linux/arm64/v8.7"))


def test_a_platform_accepts_no_newer_variant_and_no_other_system() -> None:
    """What would end in SIGILL, or in no program at all, is not chosen."""
    host = Platform.parse("linux/amd64")

    assert host.accepts(Platform.parse("linux/x86_64"))
    assert not host.accepts(Platform.parse("linux/amd64/v2"))
    assert not host.accepts(Platform.parse("windows/amd64"))
    assert not host.accepts(Platform.parse("linux/arm64"))


def test_this_machine_is_a_platform() -> None:
    """The kernel's names are normalised like anybody's."""
    host = Platform.of_host()

    assert Platform.parse(str(host)) == host
    assert not host.is_unknown
