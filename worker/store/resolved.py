# SPDX-License-Identifier: Apache-2.0
"""`ResolvedReference`: what a reference led to, and to whom its source gave it; a file below `references/`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from worker.errors import InvalidArgument, RecordCorrupt
from worker.oci.digest import Digest

MAX_OPENERS: Final = 128
"""Marks a reference keeps; whose was forgotten asks the source again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedReference:
    """What a reference resolved to, the last time its source was asked.

    Attributes:
        reference: Normalised.
        platform: It was asked for.
        digest: Of the manifest.
        openers: Marks of those to whom the source gave it, the latest last; None if it gives it to anybody.
    """

    reference: str
    platform: str
    digest: Digest
    openers: tuple[str, ...] | None

    def also_for(self, opener: str | None) -> Self:
        """Return the same for one more, or for anybody; what anybody may have stays so."""
        if self.openers is None or opener is None:
            return replace(self, openers=None)
        if opener in self.openers:
            return self
        return replace(self, openers=(*self.openers, opener)[-MAX_OPENERS:])

    def to_document(self) -> dict[str, Any]:
        """Return what `read_reference` reads."""
        openers = None if self.openers is None else list(self.openers)
        names = {"reference": self.reference, "platform": self.platform}
        return {**names, "digest": str(self.digest), "openers": openers}


def read_reference(path: Path) -> ResolvedReference:
    """Read a file below `references/`. One that does not say who opened the image was opened by nobody.

    Raises:
        FileNotFoundError: There is none.
        RecordCorrupt: It holds something else.
    """
    try:
        document = json.loads(path.read_bytes())
        openers = document.get("openers", ())
        return ResolvedReference(
            reference=document["reference"],
            platform=document["platform"],
            digest=Digest.parse(document["digest"]),
            openers=None if openers is None else tuple(map(str, openers)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, InvalidArgument) as error:
        raise RecordCorrupt(path=str(path), reason="it is no resolved reference") from error
