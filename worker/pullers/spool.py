# SPDX-License-Identifier: Apache-2.0
"""A file that has no name: what a stream must be put into to be read at random, gone when it is closed or we die."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from worker.errors import InvalidImage
from worker.linux.durable import make_dirs, reporting_full_disk


@contextmanager
def spooled(chunks: Iterable[bytes], *, spool_dir: Path, max_bytes: int, image: str) -> Iterator[int]:
    """Write all chunks to a file and give its descriptor for the context's time.

    Cost: disk space for all of `chunks`, up to `max_bytes`.

    Raises:
        InvalidImage: They are more than `max_bytes`.
        StorageExhausted: The filesystem is full.
    """
    make_dirs(spool_dir)
    with reporting_full_disk(spool_dir):
        file = tempfile.TemporaryFile(dir=spool_dir, buffering=0)  # noqa: SIM115 - closed below, opened apart from it
    with file:
        written = 0
        for chunk in chunks:
            written += len(chunk)
            if written > max_bytes:
                raise InvalidImage(image=image, reason=f"its archive has more than the {max_bytes} bytes allowed")
            with reporting_full_disk(spool_dir):
                _write_all(file, chunk)
        yield file.fileno()


def _write_all(file: RawIOBase, chunk: bytes) -> None:
    """Write the whole chunk: on a disk nearly full the kernel takes a part, and says so only when asked again."""
    remaining = memoryview(chunk)
    while remaining:
        remaining = remaining[file.write(remaining) or 0 :]
