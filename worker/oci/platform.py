# SPDX-License-Identifier: Apache-2.0
"""`Platform`: what an image runs on, and which of an index's manifests suits a host best.

Source: image-spec v1.1.1, image-index.md, "Platform Variants"; containerd platforms v1.0, `compare.go` and
`database.go`, whose normalisation and order of fallbacks are followed.
"""

import platform as host
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from typing_extensions import override

from worker.errors import InvalidArgument

UNKNOWN: Final = "unknown"
"""What build tools write for manifests that run on nothing, such as attestations."""

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MIN_PARTS, _MAX_PARTS = 2, 3

_OPERATING_SYSTEMS = {"macos": "darwin"}
_ARCHITECTURES: dict[str, tuple[str, str | None]] = {
    "i386": ("386", None),
    "i686": ("386", None),
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "aarch64": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
}
_DEFAULT_VARIANTS = {"amd64": ("v1",), "arm64": ("v8", "v8.0")}
_ARM_OLDEST = 5
_ARM64_V9_IMPLIES_V8 = 5


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor.

    Build it with `parse` or `normalised`: values made by the constructor alone compare as written.

    Attributes:
        os: As Go's GOOS.
        architecture: As Go's GOARCH.
        variant: Of the architecture; None where it is the architecture's default (amd64/v1, arm64/v8).
    """

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse `os/architecture[/variant]`.

        Raises:
            InvalidArgument: When `text` is no string or breaks the grammar.
        """
        parts = text.split("/") if isinstance(text, str) else []
        if not _MIN_PARTS <= len(parts) <= _MAX_PARTS or not all(_WORD.fullmatch(part) for part in parts):
            reason = "expected os/architecture[/variant], such as linux/amd64"
            raise InvalidArgument(argument="platform", value=str(text)[:160], reason=reason)
        return cls.normalised(*parts)

    @classmethod
    def normalised(cls, os: str, architecture: str, variant: str | None = None) -> Self:
        """Spell a platform in the one way that compares equal: `linux/aarch64/v8` is `linux/arm64`."""
        os, architecture = os.lower(), architecture.lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, None))
        return cls(
            _OPERATING_SYSTEMS.get(os, os),
            architecture,
            _normalise_variant(architecture, (variant or "").lower(), implied),
        )

    @classmethod
    def of_host(cls) -> Self:
        """Return this machine's platform, as the kernel names it."""
        return cls.normalised(host.system(), host.machine())

    @property
    def is_unknown(self) -> bool:
        """Whether nothing runs on it: the mark of attestation manifests, or of a configuration that does not say."""
        return UNKNOWN in (self.os, self.architecture)

    @property
    def candidates(self) -> tuple[Self, ...]:
        """The platforms whose images run on this one, the best first, this one itself included."""
        return tuple(type(self)(self.os, *pair) for pair in _runnable(self.architecture, self.variant))

    def accepts(self, other: "Platform") -> bool:
        """Tell whether images for `other` run here."""
        return other in self.candidates

    @override
    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def _normalise_variant(architecture: str, variant: str, implied: str | None) -> str | None:
    if variant and variant[0].isdigit() and architecture in {"arm", "arm64", "amd64"}:
        variant = f"v{variant}"
    if architecture == "arm":
        return variant or implied or "v7"
    if architecture == "arm64" and variant == "v9.0":
        return "v9"
    if not variant or variant in _DEFAULT_VARIANTS.get(architecture, ()):
        return None
    return variant


def _runnable(architecture: str, variant: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield (architecture, variant) pairs that run on the given one, newest first."""
    yield architecture, variant
    if architecture == "amd64":
        yield from (("amd64", None if level == 1 else f"v{level}") for level in range(_level(variant) - 1, 0, -1))
        yield "386", None
    elif architecture == "arm":
        yield from (("arm", f"v{level}") for level in range(_level(variant) - 1, _ARM_OLDEST - 1, -1))
    elif architecture == "arm64":
        yield from (("arm64", older) for older in _older_arm64(variant or "v8"))
        yield from (("arm", f"v{level}") for level in range(8, _ARM_OLDEST - 1, -1))


def _level(variant: str | None) -> int:
    """Return N of `vN`, at most 9; 0 for anything else, which has no older levels that we know."""
    return int(variant[1:]) if variant is not None and re.fullmatch(r"v[1-9]", variant) else 0


def _older_arm64(variant: str) -> Iterator[str | None]:
    """Yield the older arm64 variants; an ARMv9.N processor also is an ARMv8.(N+5)."""
    match = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant)
    if match is None:
        return
    newest = int(match[2] or 0)
    if match[1] == "9":
        yield from ("v9" if minor == 0 else f"v9.{minor}" for minor in range(newest - 1, -1, -1))
        newest += _ARM64_V9_IMPLIES_V8 + 1
    yield from (None if minor == 0 else f"v8.{minor}" for minor in range(newest - 1, -1, -1))
