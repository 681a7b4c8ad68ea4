# SPDX-License-Identifier: Apache-2.0
"""PAX extended headers: the records a reader must obey, and what they say about an entry.

Source: POSIX.1-2017, pax, "pax Extended Header"; star(5) for SCHILY.xattr; libarchive's tar(5) for LIBARCHIVE.xattr.
"""

import base64
import binascii
import urllib.parse
from collections.abc import Iterator, Mapping

from worker.layers.refusal import Refusal, shown
from worker.layers.tar_entry import NO_XATTRS
from worker.layers.tar_numbers import parse_decimal

PATH = b"path"
LINKPATH = b"linkpath"
SIZE = b"size"
UID = b"uid"
GID = b"gid"
MTIME = b"mtime"
SPARSE_MAJOR = b"GNU.sparse.major"
SPARSE_MINOR = b"GNU.sparse.minor"
SPARSE_NAME = b"GNU.sparse.name"
SPARSE_REAL_SIZE = b"GNU.sparse.realsize"
SPARSE_SIZE = b"GNU.sparse.size"
SPARSE_MAP = b"GNU.sparse.map"

_SPARSE_OFFSET = b"GNU.sparse.offset"
_SPARSE_LENGTH = b"GNU.sparse.numbytes"
_SPARSE_PREFIX = b"GNU.sparse."
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_XATTRS = (_SCHILY_XATTR, _LIBARCHIVE_XATTR)
_OBEYED = frozenset({PATH, LINKPATH, SIZE, UID, GID, MTIME})
_GLOBAL = frozenset({UID, GID, MTIME})
_MAX_LENGTH_DIGITS = 10

Records = dict[bytes, bytes]
"""What matters of an extended header; an empty value takes back what a global header said."""


def parse_records(content: bytes) -> Records:
    """Read the records of an extended header.

    The offset and length records of sparse format 0.0, which repeat, become the one map of format 0.1.

    Raises:
        Refusal: A record is malformed. Skipping it, as some readers do, lets two readers see different archives.
    """
    records: Records = {}
    sparse_map: list[bytes] = []
    for key, value in _split(content):
        if key in (_SPARSE_OFFSET, _SPARSE_LENGTH):
            if (len(sparse_map) % 2 == 1) != (key == _SPARSE_LENGTH):
                raise Refusal("a sparse map is out of step")
            sparse_map.append(value)
        elif key in _OBEYED or key.startswith((_SPARSE_PREFIX, *_XATTRS)):
            records[key] = value
    if sparse_map:
        records[SPARSE_MAP] = b",".join(sparse_map)
    return records


def parse_global_records(content: bytes) -> Records:
    """Read the records of a global header: owners and times at most, so that what they leave in force stays small.

    Raises:
        Refusal: A record is malformed, or says of all entries what can be true of one only.
    """
    records = parse_records(content)
    for key in records.keys() - _GLOBAL:
        raise Refusal(f"a global header sets {shown(key)}")
    return records


def merged(defaults: Records, records: Records | None) -> Records:
    """Return the records in force for an entry: its own before the global ones; empty ones take back what was said."""
    both = defaults | (records or {}) if defaults else records or {}
    if b"" not in both.values():
        return both
    return {key: value for key, value in both.items() if value or key.startswith(_XATTRS)}


def xattrs_of(records: Records) -> Mapping[bytes, bytes]:
    """Return the extended attributes by full name; SCHILY's form goes before libarchive's.

    Raises:
        Refusal: A name is empty or holds a NUL, or a value is no base64.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if not key.startswith(_XATTRS):
            continue
        if key.startswith(_LIBARCHIVE_XATTR):
            name = urllib.parse.unquote_to_bytes(key.removeprefix(_LIBARCHIVE_XATTR))
            found.setdefault(_checked_name(name), _decode_base64(value))
        else:
            found[_checked_name(key.removeprefix(_SCHILY_XATTR))] = value
    return found or NO_XATTRS


def _split(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Take `<length> <key>=<value>` lines apart, the length counting all of the record."""
    position = 0
    while position < len(content):
        space = content.find(b" ", position, position + _MAX_LENGTH_DIGITS + 1)
        end = position + parse_decimal(content[position : max(space, position)])
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if end > len(content) or content[end - 1 : end] != b"\n" or not (key and equals) or b"\0" in key:
            raise Refusal("an extended header holds a malformed record")
        yield key, value
        position = end


def _checked_name(name: bytes) -> bytes:
    if not name or b"\0" in name:
        raise Refusal("an extended attribute has no proper name")
    return name


def _decode_base64(value: bytes) -> bytes:
    """Decode base64, which libarchive writes without padding."""
    try:
        return base64.b64decode(value.rstrip(b"=") + b"=" * (-len(value.rstrip(b"=")) % 4), validate=True)
    except binascii.Error as error:
        raise Refusal("an extended attribute is no base64") from error
