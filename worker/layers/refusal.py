# SPDX-License-Identifier: Apache-2.0
"""How the parts of this package say no, knowing neither the layer nor who asked.

`build_layer` turns these into the errors of `worker.errors`; so must whoever uses the reader for another archive.
"""

import errno

_ARCHIVE_FAULTS = {
    errno.E2BIG: "an extended attribute is too large",
    errno.EFBIG: "the file is too large for the filesystem",
    errno.EILSEQ: "the filesystem cannot hold this name",
    errno.EINVAL: "the filesystem finds an attribute or the name invalid",
    errno.EMLINK: "too many hard links",
    errno.ENAMETOOLONG: "a name or link target is too long",
    errno.EOPNOTSUPP: "the filesystem cannot hold one of its attributes",
    errno.EOVERFLOW: "a number is out of the filesystem's range",
    errno.ERANGE: "an extended attribute's name is too long",
}


class Refusal(Exception):
    """The layer is corrupt, hostile or uses what is not supported.

    Args:
        reason: Why, for people.
        entry: The entry's name as far as it is known where this is raised.
    """

    def __init__(self, reason: str, *, entry: bytes | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.entry = entry


class Excess(Exception):
    """The layer goes beyond a limit of the settings."""

    def __init__(self, limit: str, maximum: int) -> None:
        super().__init__(f"{limit} of {maximum}")
        self.limit = limit
        self.maximum = maximum


def refusal_of(error: OSError, *, entry: bytes) -> Refusal | None:
    """Tell an error that the archive provoked from one of the node, for which the answer is None."""
    reason = _ARCHIVE_FAULTS.get(error.errno or 0)
    return None if reason is None else Refusal(reason, entry=entry)


def shown(name: bytes) -> str:
    """Return a name from an archive as text that any JSON and any terminal can carry."""
    return name.decode("utf-8", "backslashreplace")
