# SPDX-License-Identifier: Apache-2.0
"""`Layer`: the tar of a layer, at hand or to be had when somebody wants it."""

import abc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from typing_extensions import override

from worker.oci.descriptor import Descriptor
from worker.pullers.content import Extent


class Layer(abc.ABC):
    """A layer of an image.

    Attributes:
        descriptor: Of its tar, which is not compressed: its digest is also the DiffID.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor

    @abc.abstractmethod
    def open(self, offset: int = 0) -> AbstractContextManager[Iterator[bytes]]:
        """Yield the tar from a byte on, in chunks of about 1 MiB; safe to call from several threads at once."""


class SpooledLayer(Layer):
    """A layer in an open file, which is `extent`."""

    def __init__(self, descriptor: Descriptor, extent: Extent) -> None:
        super().__init__(descriptor)
        self._extent = extent

    @override
    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Iterator[bytes]]:
        yield self._extent.chunks(offset)


class DistantLayer(Layer):
    """A layer that is fetched, with the whole of its archive, each time it is opened.

    Args:
        descriptor: What it is known to be.
        fetch: Gives the layer for a context's time.
    """

    def __init__(self, descriptor: Descriptor, fetch: Callable[[], AbstractContextManager[Layer]]) -> None:
        super().__init__(descriptor)
        self._fetch = fetch

    @override
    @contextmanager
    def open(self, offset: int = 0) -> Iterator[Iterator[bytes]]:
        with self._fetch() as layer, layer.open(offset) as chunks:
            yield chunks
