# SPDX-License-Identifier: Apache-2.0
"""Numbers as tar writes them: octal and base-256 fields, decimal PAX values, times to the nanosecond.

Never through a float and never through `int()` unguarded, which takes signs, underscores and blanks that other readers
refuse: where two readers see different numbers, an archive can hide an entry from one of them.
"""

import re
from functools import lru_cache

from worker.layers.refusal import Refusal

MAX_SIZE = 2**63 - 1
MAX_ID = 2**32 - 2
"""2**32 - 1 means "leave it as it is" to chown(2)."""

_NANOSECONDS = 10**9
_MAX_SECONDS = 2**63 - 1
_MAX_DIGITS = 19
_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]{0,100}))?")


def parse_field(field: bytes) -> int:
    """Read a numeric field of a header: octal digits, or base-256 when its top bit is set; may be negative.

    An empty field is 0. What follows a NUL does not count.

    Raises:
        Refusal: Anything else.
    """
    digits = field.strip(b" \0")
    if not digits.isdigit():
        if field[0] & 0x80:
            return _parse_base256(field)
        digits = digits.partition(b"\0")[0].rstrip(b" ") or b"0"
    if digits.strip(b"01234567"):
        raise Refusal(f"a header holds {digits!r}, which is no octal number")
    return int(digits, 8)


parse_repeated_field = lru_cache(maxsize=1024)(parse_field)
"""The same for fields that are alike in most headers, faster."""


def _parse_base256(field: bytes) -> int:
    """Read two's complement, big-endian, of all bits but the top one, which marks the form (GNU tar, star)."""
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def parse_decimal(text: bytes) -> int:
    """Read a PAX number.

    Raises:
        Refusal: Anything but 1 to 19 digits.
    """
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise Refusal(f"an extended header holds {text[:40]!r}, which is no number")
    return int(text)


def parse_time(text: bytes) -> int:
    """Read PAX decimal seconds as nanoseconds, dropping what is finer.

    Raises:
        Refusal: Anything else, or what no filesystem's clock can hold.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise Refusal(f"an extended header holds {text[:40]!r}, which is no time")
    sign, seconds, fraction = match.groups()
    nanoseconds = int(seconds) * _NANOSECONDS + int((fraction or b"")[:9].ljust(9, b"0"))
    return checked_time(-nanoseconds if sign else nanoseconds)


def seconds_to_time(seconds: int) -> int:
    """Return a header's seconds as nanoseconds.

    Raises:
        Refusal: No filesystem's clock can hold them.
    """
    return checked_time(seconds * _NANOSECONDS)


def checked_time(nanoseconds: int) -> int:
    """Return the time if a `time_t` of 64 bits holds it.

    Raises:
        Refusal: It does not.
    """
    if abs(nanoseconds) // _NANOSECONDS > _MAX_SECONDS:
        raise Refusal("a time is out of range")
    return nanoseconds


def checked_size(size: int) -> int:
    """Return a count of bytes if it is one.

    Raises:
        Refusal: It is negative or beyond 2**63 - 1.
    """
    if not 0 <= size <= MAX_SIZE:
        raise Refusal(f"a size of {size} bytes is out of range")
    return size


def checked_id(owner: int) -> int:
    """Return a user or group id if the kernel takes it as one.

    Raises:
        Refusal: It is out of range: cut to 32 bits it could become root's.
    """
    if not 0 <= owner <= MAX_ID:
        raise Refusal(f"user or group id {owner} is out of range")
    return owner
