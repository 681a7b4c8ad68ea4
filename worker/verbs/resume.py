# SPDX-License-Identifier: Apache-2.0
"""A layer's blob, with what an earlier attempt got of it coming from disk.

Whether a retry helps decides what becomes of the kept part::

    the layer is made and verified             deleted, before a sync could take its pages to the disk
    the source went away, the worker died      stays for the next attempt
    anything else, and some came from disk     deleted; `Spoilt`, since the part may be torn or corrupt
    the store is full                          deleted; `Spoilt`, since without it there may be room
    anything else                              deleted; what the source sends is wrong
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

from worker.errors import StorageExhausted, TransientError
from worker.oci.descriptor import Descriptor
from worker.puller import RemoteImage
from worker.store.partial import Partial, Partials


class Spoilt(Exception):
    """The attempt failed, and the part of the blob kept on disk may be why; it is gone."""


@contextmanager
def resumed_blob(
    partials: Partials,
    remote: RemoteImage,
    descriptor: Descriptor,
    *,
    check: Callable[[], None],
    on_replay: Callable[[int], None],
) -> Iterator[Iterator[bytes]]:
    """Stream a layer's blob from its first byte, keeping it on disk until the body ends without an error.

    Args:
        partials: Where it is kept.
        remote: Where the rest comes from.
        descriptor: Of the blob.
        check: Raises if the body's error is only that it was stopped, which says nothing about the blob.
        on_replay: Called with the bytes that come from disk.

    Raises:
        Spoilt: See above.
    """
    with partials.hold(descriptor.digest, size_bytes=descriptor.size_bytes) as partial:
        if partial is None:
            with remote.blob(descriptor) as chunks:
                yield chunks
            return
        replayed_bytes = partial.bytes_kept
        on_replay(replayed_bytes)
        with (
            _judging(partial, replayed_bytes=replayed_bytes, check=check),
            remote.blob(descriptor, offset=replayed_bytes) as rest,
        ):
            yield chain(partial.replay(), partial.keeping(rest))
        partial.discard()


@contextmanager
def _judging(partial: Partial, *, replayed_bytes: int, check: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        is_full = isinstance(error, StorageExhausted) and partial.has_taken_room
        if isinstance(error, TransientError) and not is_full:
            raise
        check()
        partial.discard()
        if replayed_bytes or is_full:
            raise Spoilt from error
        raise
