# SPDX-License-Identifier: Apache-2.0
"""A blob as one stream of bytes, however often the connection under it breaks.

Source: distribution-spec v1.1.1, "Pulling blobs" and "Resumable Pull"; RFC 9110, sections 14 and 15.3.7.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

from worker.errors import RegistryUnavailable, RegistryUnusable, SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.media_types import FOREIGN_LAYERS
from worker.registry.channel import CHUNK_BYTES, Reply
from worker.registry.retries import RetryPolicy
from worker.registry.session import NOT_FOUND, OK, PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, Session

_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,19})-\d{1,19}|\*)/(\d{1,19}|\*)", re.IGNORECASE)


class BlobStream:
    """Reads one blob from its first byte to its last, over as many connections as it takes.

    Bytes are not verified; one byte more than the descriptor's size is passed on so that the reader can tell.

    Args:
        session: With the blob's repository.
        descriptor: Of the blob.
        retries: Applied anew whenever a connection brought at least a chunk.
    """

    def __init__(self, session: Session, descriptor: Descriptor, *, retries: RetryPolicy) -> None:
        self._session = session
        self._descriptor = descriptor
        self._retries = retries
        self._ranges_work = True

    def chunks(self, offset: int = 0) -> Generator[bytes, None, None]:
        """Yield the blob from `offset`, at most its size, in chunks of about 1 MiB.

        At its size there is nothing left to ask for.

        Raises:
            AccessDenied: Refused.
            ImageNotFound: The registry does not have the blob.
            RegistryUnavailable: Broken off more often than the policy allows without progress between.
            RegistryUnusable: Answered against the specification.
            SizeMismatch: The registry itself says that the blob has another size.
        """
        failures, resumed_at = 0, offset
        is_whole = 0 < offset == self._descriptor.size_bytes
        while not is_whole:
            try:
                for chunk in self._chunks_from(offset):
                    offset += len(chunk)
                    yield chunk
            except RegistryUnavailable as error:
                failures = 1 if offset - resumed_at >= CHUNK_BYTES else failures + 1
                resumed_at = offset
                self._retries.pause(failures, error)
            else:
                return

    def segment(self, start: int, end: int, *, take: Callable[[int], bool]) -> list[bytes] | None:
        """Return the bytes from `start` to before `end` in chunks; safe to call from several threads at once.

        A connection that breaks is replaced as long as each brings something; there is no waiting between.

        Args:
            start: At least 0.
            end: More than `start`, at most the blob's size.
            take: Called with the size of each chunk; false ends the transfer.

        Returns:
            None if the registry does not send exactly this range, or if `take` ended it.

        Raises:
            RegistryUnavailable: A connection brought nothing.
            Others: As `Session.get`.
        """
        chunks: list[bytes] = []
        position = start
        while position < end:
            before = position
            try:
                with closing(self._exactly(position, end)) as arriving:
                    for chunk in arriving:
                        chunks.append(chunk)
                        position += len(chunk)
                        if not take(len(chunk)):
                            return None
            except RegistryUnavailable:
                if position == before:
                    raise
                continue
            if position in {before, end + 1}:
                return None
        return chunks

    def _exactly(self, start: int, end: int) -> Generator[bytes, None, None]:
        """Yield what one connection brings of a range, and one byte too many if it sends more; nothing of another."""
        with self._get({"Range": f"bytes={start}-{end - 1}"}) as reply:
            wanted = f"bytes {start}-{end - 1}/{self._descriptor.size_bytes}"
            if reply.status != PARTIAL_CONTENT or reply.headers.get("content-range", "").strip().lower() != wanted:
                return
            # To read beyond the end is also what tells urllib3 that the connection is free for the next segment.
            yield from _joined(reply, limit_bytes=end - start + 1)

    def _chunks_from(self, offset: int) -> Iterator[bytes]:
        """Yield what one connection brings of the blob from `offset` on."""
        with self._open(offset) as (reply, start):
            position, end = start, self._descriptor.size_bytes + 1
            for chunk in _joined(reply, limit_bytes=end - start):
                if position + len(chunk) > offset:
                    yield chunk[max(offset - position, 0) :]
                position += len(chunk)
            if position < end - 1:
                reason = f"it broke off after {position} of {end - 1} bytes"
                raise RegistryUnavailable(registry=reply.origin.netloc, reason=reason)

    @contextmanager
    def _open(self, offset: int) -> Iterator[tuple[Reply, int]]:
        """Yield a reply with the offset at which its body starts: `offset`, or 0 where ranges do not work."""
        if offset and self._ranges_work:
            with self._get({"Range": f"bytes={offset}-"}) as reply:
                if (start := self._start_of(reply, offset)) is not None:
                    yield reply, start
                    return
            self._ranges_work = False
        with self._get({}) as reply:
            if reply.status != OK:
                raise self._session.refusal(reply, subject=f"blob {self._descriptor.digest}")
            self._check_size(reply.content_length)
            yield reply, 0

    def _start_of(self, reply: Reply, offset: int) -> int | None:
        """Return where the answer to a range request starts, or None if it is of no use."""
        if reply.status == OK:
            self._check_size(reply.content_length)
            return 0
        if reply.status not in {PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE}:
            raise self._session.refusal(reply, subject=f"blob {self._descriptor.digest}")
        match = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
        if match is None:
            return None
        self._check_size(None if match[2] == "*" else int(match[2]))
        is_as_asked = reply.status == PARTIAL_CONTENT and match[1] is not None and int(match[1]) == offset
        return offset if is_as_asked else None

    def _check_size(self, told: int | None) -> None:
        expected = self._descriptor.size_bytes
        if told is not None and told != expected:
            raise SizeMismatch(subject=f"blob {self._descriptor.digest}", expected=expected, actual=told)

    @contextmanager
    def _get(self, headers: Mapping[str, str]) -> Iterator[Reply]:
        with self._session.get(f"blobs/{self._descriptor.digest}", headers=headers) as reply:
            if reply.status != NOT_FOUND or not self._foreign_urls:
                yield reply
                return
        with self._get_foreign(headers) as reply:
            yield reply

    @property
    def _foreign_urls(self) -> tuple[str, ...]:
        """Where a layer is that registries may not keep; other blobs' URLs are not followed."""
        return self._descriptor.urls if self._descriptor.media_type in FOREIGN_LAYERS else ()

    @contextmanager
    def _get_foreign(self, headers: Mapping[str, str]) -> Iterator[Reply]:
        """Ask the layer's own URLs in turn and yield the first useful answer.

        Raises:
            RegistryUnavailable: None has one; the last one's trouble.
            RegistryUnusable: Likewise.
        """
        failure: Exception | None = None
        for url in self._foreign_urls:
            with ExitStack() as stack:
                try:
                    reply = stack.enter_context(self._session.get_foreign(url, headers=headers))
                except (RegistryUnavailable, RegistryUnusable) as error:
                    failure = error
                    continue
                if reply.status in {OK, PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE}:
                    yield reply
                    return
                failure = self._session.refusal(reply, subject=f"foreign blob {self._descriptor.digest}")
        if failure is not None:
            raise failure


def _joined(reply: Reply, *, limit_bytes: int) -> Iterator[bytes]:
    """Yield the body, up to a limit, in chunks: what a connection brings at a time can be a few kilobytes only.

    What had come before a break is yielded before the break is raised.
    """
    parts: list[bytes] = []
    room = CHUNK_BYTES
    try:
        while limit_bytes and (part := reply.read_some(min(limit_bytes, room))):
            parts.append(part)
            limit_bytes -= len(part)
            room -= len(part)
            if not room:
                yield b"".join(parts)
                parts, room = [], CHUNK_BYTES
    except RegistryUnavailable:
        if parts:
            yield b"".join(parts)
        raise
    if parts:
        yield b"".join(parts)
