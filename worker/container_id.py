# SPDX-License-Identifier: Apache-2.0
"""`ContainerId`: a container's name, nested by dots (`pod.sidecar`)."""

import re
from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from worker.errors import InvalidArgument

MAX_CHARS = 1024
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class ContainerId:
    """A parsed container id.

    Attributes:
        parts: From the outermost ancestor to the container itself; at least one. Each is safe as a file name.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: object) -> Self:
        """Parse `part[.part…]`.

        Raises:
            InvalidArgument: When `text` is no string or breaks the grammar.
        """
        if not isinstance(text, str):
            raise InvalidArgument(argument="container_id", value=repr(text), reason="it must be a string")
        if len(text) > MAX_CHARS:
            raise InvalidArgument(
                argument="container_id", value=f"{text[:40]}…", reason=f"it has more than {MAX_CHARS} characters"
            )
        parts = tuple(text.split("."))
        if not all(_PART.fullmatch(part) for part in parts):
            reason = f"each part between dots must match {_PART.pattern}"
            raise InvalidArgument(argument="container_id", value=text, reason=reason)
        return cls(parts)

    @classmethod
    def outermost(cls, name: str) -> Self:
        """Parse the id of a container that is nested in none. Raises InvalidArgument for anything else."""
        found = cls.parse(name)
        if len(found.parts) > 1:
            raise InvalidArgument(argument="container_id", value=name, reason="it is nested in another one")
        return found

    def child(self, name: str) -> Self:
        """Return the container of this name nested directly in this one. Raises InvalidArgument for no such name."""
        return self.parse(f"{self}.{self.outermost(name)}")

    @property
    def parent(self) -> Self | None:
        """The container this one is nested in, or None for an outermost one."""
        return type(self)(self.parts[:-1]) if len(self.parts) > 1 else None

    @property
    def root(self) -> Self:
        """The outermost ancestor, which decides the node."""
        return type(self)(self.parts[:1])

    @property
    def ancestors(self) -> tuple[Self, ...]:
        """All containers this one is nested in, outermost first."""
        return tuple(type(self)(self.parts[:depth]) for depth in range(1, len(self.parts)))

    @override
    def __str__(self) -> str:
        return ".".join(self.parts)
