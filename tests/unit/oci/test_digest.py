# SPDX-License-Identifier: Apache-2.0
"""Digests."""

import pytest

from worker.errors import InvalidArgument
from worker.oci.digest import Digest

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_prints_as_it_was_parsed() -> None:
    """Parsing and printing are each other's inverse."""
    assert str(Digest.parse(EMPTY)) == EMPTY


def test_content_hashes_to_its_digest() -> None:
    """`of` and `hasher` agree with the algorithm's published value for nothing at all."""
    digest = Digest.of(b"")

    assert digest == Digest.parse(EMPTY)
    assert digest.hasher().hexdigest() == digest.hex


def test_sha512_is_a_digest_too() -> None:
    """The other registered algorithm works the same way."""
    digest = Digest.of(b"x", algorithm="sha512")

    assert Digest.parse(str(digest)) == digest
    assert len(digest.hex) == 128


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "md5:" + "a" * 32,
        "a" * 64,
        "sha256:../../../etc/passwd",
        None,
        7,
    ],
)
def test_what_is_no_digest_is_refused(text: object) -> None:
    """A digest becomes a file name and part of a URL: nothing but the exact form passes (CVE-2024-3727)."""
    with pytest.raises(InvalidArgument, match="digest"):
        Digest.parse(text)
