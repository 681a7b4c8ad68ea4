# SPDX-License-Identifier: Apache-2.0
"""What a doctor says of one thing."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """GOOD; NOTE, for what may be meant so; WRONG, for what keeps the node from its work or endangers it."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        verdict: How it is.
        detail: What was seen, and what to do about it.
    """

    subject: str
    verdict: Verdict
    detail: str

    def to_document(self) -> dict[str, Any]:
        """Return the JSON object for `provisioner doctor`."""
        return asdict(self)


def good(subject: str, detail: str) -> Finding:
    """Say that a thing is as it should be."""
    return Finding(subject=subject, verdict=Verdict.GOOD, detail=detail)


def note(subject: str, detail: str) -> Finding:
    """Say that a thing may be as it should be."""
    return Finding(subject=subject, verdict=Verdict.NOTE, detail=detail)


def wrong(subject: str, detail: str) -> Finding:
    """Say that a thing must be mended."""
    return Finding(subject=subject, verdict=Verdict.WRONG, detail=detail)
