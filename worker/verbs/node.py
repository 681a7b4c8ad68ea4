# SPDX-License-Identifier: Apache-2.0
"""`Node`: everything the verbs work with, put together once per process by `worker.runtime`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from worker.backend import Backend
from worker.backends import choose_backend
from worker.containers import Containers
from worker.epoch import Epoch
from worker.errors import BackendUnsupported, InvalidArgument
from worker.image import LayerFormat
from worker.layers.limits import LayerLimits
from worker.lock import Lease, LockMode, ReadWriteLock
from worker.observer import Observe, ignore
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.paths import WorkPaths
from worker.puller import Credential, Puller
from worker.secrets import Secrets
from worker.settings import Settings
from worker.store.image_mounts import ImageMounts
from worker.store.store import Store
from worker.verbs.observed import observed_lock
from worker.verbs.waits import CLUSTER_LOCK, NOWHERE, Waits

_FENCE_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """The request belongs to another node."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a pull is.

    Attributes:
        bytes_fetched: Compressed bytes so far.
        bytes_total: Compressed bytes of the layers being fetched.
        layers_done: Layers there by now.
        layers_total: Layers of the image.
    """

    bytes_fetched: int
    bytes_total: int
    layers_done: int
    layers_total: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node's parts.

    Attributes:
        settings: What the node was told.
        store: Where its images and layers are.
        work: Where its containers are.
        lock: The cluster lock of the store.
        containers: The containers' state.
        epoch: Whether that state shows all there is.
        pullers: By transport, of those that it takes images from.
        secrets: What tasks name and this node has.
        backends: All that work here, by name.
        default_backend: What is used unless a request names another.
        layer_formats: All that can be used here.
        image_mounts: Images in EROFS format, as this node shows them.
        is_squashed: Whether ownership in layers is given up, because the node does not run as root.
        observe: Told what happens.
    """

    settings: Settings
    store: Store
    work: WorkPaths
    lock: ReadWriteLock
    containers: Containers
    epoch: Epoch
    pullers: Mapping[Transport, Puller]
    secrets: Secrets
    backends: Mapping[str, Backend]
    default_backend: Backend
    layer_formats: frozenset[LayerFormat]
    image_mounts: ImageMounts
    is_squashed: bool
    observe: Observe = ignore

    @property
    def name(self) -> str:
        """The node's name."""
        return self.settings.node

    @property
    def platform(self) -> Platform:
        """What the node runs unless a request says otherwise."""
        text = self.settings.platform
        return Platform.parse(text) if text else Platform.of_host()

    @property
    def limits(self) -> LayerLimits:
        """What a layer may be at most."""
        return LayerLimits.from_settings(self.settings)

    @contextmanager
    def shared(self, waits: Waits = NOWHERE) -> Iterator[Lease]:
        """Hold the cluster lock and the fence below it, together with provisions and destroys anywhere."""
        seconds = self.settings.lock_timeout_seconds
        with (
            observed_lock(self.observe, LockMode.SHARED) as (note_grant, note_entry),
            self.lock.shared(timeout_seconds=seconds, on_wait=partial(waits.begin, CLUSTER_LOCK)) as lease,
        ):
            note_grant()
            with self.store.fence.shared(token=lease.token, timeout_seconds=seconds):
                lease.check()
                note_entry()
                waits.end(CLUSTER_LOCK)
                yield lease

    @contextmanager
    def exclusive(self) -> Iterator[Lease]:
        """Hold the cluster lock and the fence below it, alone.

        Whoever still has the fence when the lock is granted has stopped, its lease lapsed. It is not waited for: all
        others would wait as well.
        """
        seconds = self.settings.lock_timeout_seconds
        with (
            observed_lock(self.observe, LockMode.EXCLUSIVE) as (note_grant, note_entry),
            self.lock.exclusive(timeout_seconds=seconds) as lease,
        ):
            note_grant()
            patience_seconds = min(seconds, _FENCE_PATIENCE_SECONDS)
            with self.store.fence.exclusive(token=lease.token, timeout_seconds=patience_seconds):
                lease.check()
                note_entry()
                yield lease

    def backend(self, name: str | None) -> Backend:
        """Return the backend a request or a record names.

        Cost: for one that did not work at the start, another trial: its module may have been loaded since.

        Raises:
            BackendUnsupported: It does not exist, or why it does not work here.
        """
        if name is None:
            return self.default_backend
        if name in self.backends:
            return self.backends[name]
        return choose_backend(name, work_dir=self.work.work_dir, store_dir=self.store.paths.store_dir)

    def layer_format(self, backend: Backend) -> LayerFormat:
        """Choose the format in which this node makes layers for the backend."""
        wanted = self.settings.layer_format
        formats = backend.formats_on(work_dir=self.work.work_dir, store_dir=self.store.paths.store_dir)
        usable = [each for each in formats if each in self.layer_formats]
        chosen = next((each for each in usable if wanted in (None, each)), None)
        if chosen is None:
            reason = f"it cannot use layers of format {wanted or ', '.join(backend.layer_formats)} here"
            raise BackendUnsupported(backend=backend.name, reason=reason)
        return chosen

    def puller(self, source: ImageSource) -> Puller:
        """Return what opens the source; errors as `check_source`."""
        self.check_source(source)
        return self.pullers[source.transport]

    def check_source(self, source: ImageSource) -> None:
        """Make sure that the node takes images of this kind, whether or not the store has the image.

        Raises:
            InvalidArgument: It does not.
        """
        if source.transport not in self.pullers:
            reason = f"PROVISIONER_IMAGE_SOURCES of node {self.name} does not list {source.transport}"
            raise InvalidArgument(argument="image", value=source.normalised, reason=reason)

    def credential(self, secret: str | None, source: ImageSource) -> Credential | None:
        """Return what the secret holds for the host of the source; None without a secret, or for files of this node.

        Raises:
            SecretNotFound: There is none that could be used.
            SecretsUnavailable: A retry may find it.
        """
        if secret is None or source.host is None:
            return None
        return self.secrets.credential(secret, registry=source.host)
