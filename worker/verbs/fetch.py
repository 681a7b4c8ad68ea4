# SPDX-License-Identifier: Apache-2.0
"""Fetch an image's missing layers, several at a time, each once per store however many ask.

No cluster lock is held here: the image is pinned, so prune leaves it and its layers alone.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from worker.image import LayerFormat
from worker.layers.build import build_layer, make_durable
from worker.layers.limits import LayerLimits
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.puller import RemoteImage
from worker.verbs.node import Node, OnProgress, Progress
from worker.verbs.observed import observed_pull
from worker.verbs.resume import Spoilt, resumed_blob
from worker.verbs.waits import NOWHERE, Waits, other_pull


class _Stopped(Exception):
    """Another layer of the same image failed; this one's work is pointless."""


class _Tally:
    """Counts what the layers' threads report and passes it on."""

    def __init__(self, remote: RemoteImage, on_progress: OnProgress, check: Callable[[], None]) -> None:
        self._total = len(set(remote.image_config.diff_ids))
        self._on_progress = on_progress
        self._check = check
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._done = 0
        self._bytes_total = 0
        self._bytes_replayed = 0
        self._bytes_taken = 0

    def expect(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes_total += size_bytes

    def stop(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Raise when the fetch is to end early."""
        if self._stop.is_set():
            raise _Stopped
        self._check()

    def add_bytes(self, count: int) -> None:
        self.check()
        with self._lock:
            self._bytes_taken += count
        self._report()

    def add_replay(self, count: int) -> None:
        """Count bytes that come from an earlier attempt: they are progress, but this one did not fetch them."""
        with self._lock:
            self._bytes_replayed += count

    @property
    def bytes_fetched(self) -> int:
        return max(self._bytes_taken - self._bytes_replayed, 0)

    def add_layer(self) -> None:
        with self._lock:
            self._done += 1
        self._report()

    def _report(self) -> None:
        with self._lock:
            progress = Progress(
                bytes_fetched=self._bytes_taken,
                bytes_total=max(self._bytes_total, self._bytes_taken),
                layers_done=self._done,
                layers_total=self._total,
            )
        self._on_progress(progress)


def fetch_layers(  # noqa: PLR0913 - four ways to be told, by keyword
    node: Node,
    remote: RemoteImage,
    *,
    layer_format: LayerFormat,
    check: Callable[[], None],
    on_progress: OnProgress,
    waits: Waits = NOWHERE,
) -> int:
    """Bring every layer of the image into the store and return the compressed bytes fetched.

    `check` is called often, from several threads, and ends the fetch by raising. `on_progress` is called likewise.

    Effect: on return all layers are committed and durable, not necessarily by this call. On an error the layers
    finished so far stay, the others leave nothing behind.
    """
    tally = _Tally(remote, on_progress, check)
    layers = dict(zip(remote.image_config.diff_ids, remote.layers, strict=True))
    missing = node.store.layers.missing(layers, layer_format=layer_format)
    for diff_id, descriptor in layers.items():
        if diff_id in missing:
            tally.expect(descriptor.size_bytes)
        else:
            tally.add_layer()
    if not missing:
        return 0
    # By the image, not by what is missing of it: whether it is refused must not depend on what is there already.
    limits = node.limits.shared_by(min(node.settings.parallel_layers, len(layers)))
    fetch = _Fetch(node=node, remote=remote, layer_format=layer_format, limits=limits, tally=tally, waits=waits)
    with (
        observed_pull(node.observe, lambda: tally.bytes_fetched),
        _pool(node.settings.parallel_layers, tally) as submit,
    ):
        # The largest first: it is what the others would have to wait for at the end.
        for diff_id in sorted(missing, key=lambda each: -layers[each].size_bytes):
            submit(partial(fetch.run, diff_id, layers[diff_id]))
    return tally.bytes_fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetch:
    """What all layers of one image share."""

    node: Node
    remote: RemoteImage
    layer_format: LayerFormat
    limits: LayerLimits
    tally: _Tally
    waits: Waits

    def run(self, diff_id: Digest, descriptor: Descriptor) -> None:
        """Bring one layer; once more from its first byte if what an earlier attempt left of it is in the way."""
        self.tally.check()
        try:
            self._make(diff_id, descriptor, self._resumed(descriptor))
        except Spoilt:
            self._make(diff_id, descriptor, self.remote.blob(descriptor))
        self.tally.add_layer()

    def _resumed(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Open the blob, with what an earlier attempt left of it where that is worth it."""
        partials, settings = self.node.store.partials, self.node.settings
        if not self.remote.can_resume or descriptor.size_bytes < settings.resume_min_bytes:
            return self.remote.blob(descriptor)
        partials.sweep(unused_seconds=settings.resume_keep_seconds)
        tally = self.tally
        return resumed_blob(partials, self.remote, descriptor, check=tally.check, on_replay=tally.add_replay)

    def _make(self, diff_id: Digest, descriptor: Descriptor, blob: AbstractContextManager[Iterator[bytes]]) -> None:
        """Build and commit the layer unless somebody else did; the blob is opened only if it is needed."""
        layers, what = self.node.store.layers, other_pull(diff_id)

        def check() -> None:
            self.tally.check()
            self.waits.begin(what)

        with layers.stage(diff_id, layer_format=self.layer_format, check=check) as staging_dir:
            self.waits.end(what)
            if staging_dir is None:
                return
            with blob as chunks:
                build_layer(
                    chunks,
                    descriptor=descriptor,
                    diff_id=diff_id,
                    layer_format=self.layer_format,
                    staging_dir=staging_dir,
                    limits=self.limits,
                    is_squashed=self.node.is_squashed,
                    on_progress=self.tally.add_bytes,
                )
            make_durable(staging_dir, layer_format=self.layer_format)
            layers.commit(staging_dir, diff_id, layer_format=self.layer_format)


@contextmanager
def _pool(size: int, tally: _Tally) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run what is submitted in threads; the first failure stops the others and is what is raised."""
    futures: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=size, thread_name_prefix="layer") as executor:
        try:
            yield lambda work: futures.append(executor.submit(work))
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            tally.stop()
    failures = [error for future in futures if (error := future.exception()) is not None]
    for error in failures:
        if not isinstance(error, _Stopped):
            raise error
