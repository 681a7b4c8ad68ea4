# SPDX-License-Identifier: Apache-2.0
"""A tar writer for layers: PAX for what ustar cannot say, byte for byte the same every time.

Python's tarfile writes PAX times from floats and cannot write binary xattrs, so this is our own.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BLOCK = 512
DEFAULT_MTIME_NS = 1_700_000_000_000_000_000
_END = bytes(2 * BLOCK)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member of a layer; the subclasses say which."""

    path: str = field(kw_only=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = DEFAULT_MTIME_NS
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    typeflag: bytes = b"0"
    content: bytes = b""
    linkname: str = ""
    device: tuple[int, int] = (0, 0)
    records: Mapping[str, bytes] = field(default_factory=dict)


def File(path: str, content: bytes = b"", **attributes: object) -> Entry:  # noqa: N802 - reads as a type in a layer
    """A regular file."""
    return Entry(path, content=content, **attributes)  # type: ignore[arg-type]


def Dir(path: str, **attributes: object) -> Entry:  # noqa: N802
    """A directory."""
    return Entry(path.rstrip("/") + "/", **{"mode": 0o755, "typeflag": b"5", **attributes})  # type: ignore[arg-type]


def Symlink(path: str, target: str, **attributes: object) -> Entry:  # noqa: N802
    """A symbolic link."""
    return Entry(path, **{"mode": 0o777, "typeflag": b"2", "linkname": target, **attributes})  # type: ignore[arg-type]


def Hardlink(path: str, target: str, **attributes: object) -> Entry:  # noqa: N802
    """A hard link to the member `target`."""
    return Entry(path, **{"typeflag": b"1", "linkname": target, **attributes})  # type: ignore[arg-type]


def CharDevice(path: str, major: int, minor: int, **attributes: object) -> Entry:  # noqa: N802
    """A character device."""
    return Entry(path, **{"typeflag": b"3", "device": (major, minor), **attributes})  # type: ignore[arg-type]


def BlockDevice(path: str, major: int, minor: int, **attributes: object) -> Entry:  # noqa: N802
    """A block device."""
    return Entry(path, **{"typeflag": b"4", "device": (major, minor), **attributes})  # type: ignore[arg-type]


def Fifo(path: str, **attributes: object) -> Entry:  # noqa: N802
    """A named pipe."""
    return Entry(path, **{"typeflag": b"6", **attributes})  # type: ignore[arg-type]


def Sparse(path: str, size_bytes: int, extents: Mapping[int, bytes], **attributes: object) -> Entry:  # noqa: N802
    """A regular file of holes but for `extents`, in PAX format 0.1."""
    pairs = ",".join(f"{offset},{len(content)}" for offset, content in extents.items())
    records = {"GNU.sparse.map": pairs.encode(), "GNU.sparse.size": str(size_bytes).encode()}
    return Entry(path, content=b"".join(extents.values()), records=records, **attributes)  # type: ignore[arg-type]


def Whiteout(path: str) -> Entry:  # noqa: N802
    """What hides `path` of the layers below."""
    parent, _, name = path.rpartition("/")
    return Entry(f"{parent}/.wh.{name}" if parent else f".wh.{name}")


def Opaque(path: str = "") -> Entry:  # noqa: N802
    """What hides everything the layers below have in the directory `path`."""
    return Entry(f"{path.rstrip('/')}/.wh..wh..opq" if path else ".wh..wh..opq")


def tar_bytes(entries: Iterable[Entry]) -> bytes:
    """Return the archive of `entries`, in their order, with its end mark."""
    return b"".join(member_bytes(entry) for entry in entries) + _END


def member_bytes(entry: Entry) -> bytes:
    """Return one member: a PAX header if it needs one, the header, the content, padding."""
    records = pax_records(entry)
    pax = b""
    if records:
        body = b"".join(pax_record(key, value) for key, value in records.items())
        pax = header(b"PaxHeaders/0", typeflag=b"x", size=len(body)) + padded(body)
    main = header(
        entry.path.encode("utf-8", "surrogateescape"),
        typeflag=entry.typeflag,
        size=len(entry.content),
        mode=entry.mode,
        ids=(entry.uid, entry.gid),
        mtime=max(entry.mtime_ns // 10**9, 0),
        linkname=entry.linkname.encode("utf-8", "surrogateescape"),
        device=entry.device,
    )
    return pax + main + padded(entry.content)


def pax_records(entry: Entry) -> dict[str, bytes]:
    """Return what ustar cannot say of `entry`."""
    records: dict[str, bytes] = {}
    path, link = (text.encode("utf-8", "surrogateescape") for text in (entry.path, entry.linkname))
    if len(path) > 100 or not path.isascii():
        records["path"] = path
    if len(link) > 100 or not link.isascii():
        records["linkpath"] = link
    for name, number in (("uid", entry.uid), ("gid", entry.gid)):
        if number >= 8**7:
            records[name] = str(number).encode()
    if entry.mtime_ns % 10**9 or not 0 <= entry.mtime_ns < 8**11 * 10**9:
        records["mtime"] = decimal_seconds(entry.mtime_ns).encode()
    records |= {f"SCHILY.xattr.{name}": value for name, value in entry.xattrs.items()}
    records |= entry.records
    return records


def decimal_seconds(nanoseconds: int) -> str:
    """Return nanoseconds as decimal seconds, exactly."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09d}"


def pax_record(key: str, value: bytes) -> bytes:
    """Return `length key=value`, the length counting itself."""
    tail = b" " + key.encode() + b"=" + value + b"\n"
    length = len(tail)
    while length != len(tail) + len(str(length)):
        length = len(tail) + len(str(length))
    return str(length).encode() + tail


def header(
    name: bytes,
    *,
    typeflag: bytes,
    size: int = 0,
    mode: int = 0o644,
    ids: tuple[int, int] = (0, 0),
    mtime: int = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Return a ustar header; what does not fit is cut, for PAX to say."""
    block = bytearray(BLOCK)
    numbers = [
        (100, 8, mode),
        (108, 8, ids[0] % 8**7),
        (116, 8, ids[1] % 8**7),
        (124, 12, size),
        (136, 12, mtime % 8**11),
    ]
    numbers += [(329, 8, device[0]), (337, 8, device[1])]
    for offset, width, number in numbers:
        block[offset : offset + width] = b"%0*o\0" % (width - 1, number)
    for offset, width, text in ((0, 100, name), (156, 1, typeflag), (157, 100, linkname), (257, 8, b"ustar\00000")):
        block[offset : offset + min(width, len(text))] = text[:width]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    """Return `content` up to the next block."""
    return content + bytes(-len(content) % BLOCK)
