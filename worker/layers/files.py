# SPDX-License-Identifier: Apache-2.0
"""Write what an archive holds into a file, without copying it again."""

import os
from collections.abc import Iterable, Iterator

from worker.layers.tar_entry import Extent


def write_data(descriptor: int, views: Iterator[memoryview]) -> None:
    """Append all of `views`."""
    for view in views:
        written = os.write(descriptor, view)
        while written < len(view):
            written += os.write(descriptor, view[written:])


def write_extents(descriptor: int, views: Iterator[memoryview], extents: Iterable[Extent]) -> None:
    """Put `views` where the extents say, leaving holes between.

    Args:
        descriptor: An empty file.
        views: As many bytes as all extents together.
        extents: None of them empty.
    """
    remaining = iter(extents)
    offset = length = 0
    for data in views:
        view = data
        while view:
            if length == 0:
                offset, length = next(remaining)
            written = os.pwrite(descriptor, view[:length], offset)
            view, offset, length = view[written:], offset + written, length - written
