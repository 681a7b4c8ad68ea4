# SPDX-License-Identifier: Apache-2.0
"""`Layers`: committed layers by format and DiffID."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from worker.errors import InvalidArgument, LayerDamaged, LayerVanished, RecordCorrupt
from worker.image import LayerFormat, LayerRecord
from worker.layers.build import RECORD
from worker.layers.directory import TREE
from worker.layers.erofs.build import BLOB, TAR
from worker.layers.record import read_record
from worker.linux import durable
from worker.oci.digest import Digest
from worker.paths import StorePaths
from worker.store.staging import staging
from worker.store.trash import discard


class Layers:
    """The shelf of layers. A layer is either there, complete and durable, or not there."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths

    def has(self, diff_id: Digest, *, layer_format: LayerFormat) -> bool:
        """Tell whether the layer is committed; one system call."""
        return (self._dir(diff_id, layer_format) / RECORD).exists()

    def record(self, diff_id: Digest, *, layer_format: LayerFormat) -> LayerRecord:
        """Read a committed layer's record.

        Raises:
            LayerVanished: It is not there (any more).
            RecordCorrupt: Its record does not parse.
        """
        if not self.has(diff_id, layer_format=layer_format):
            raise LayerVanished(layer=str(diff_id))
        return read_record(self._dir(diff_id, layer_format) / RECORD)

    def missing(self, diff_ids: Iterable[Digest], *, layer_format: LayerFormat) -> tuple[Digest, ...]:
        """Return which of the layers are not committed, in order, each once."""
        unique = dict.fromkeys(diff_ids)
        return tuple(diff_id for diff_id in unique if not self.has(diff_id, layer_format=layer_format))

    @contextmanager
    def stage(
        self, diff_id: Digest, *, layer_format: LayerFormat, check: Callable[[], None] | None = None
    ) -> Iterator[Path | None]:
        """Hold an empty directory to make the layer in, or None if it is committed (by now).

        One maker per layer and store, whichever process or node: others wait here, calling `check` between tries, and
        find it committed. What is not committed at the end is deleted.
        """
        if self.has(diff_id, layer_format=layer_format):
            yield None
            return
        with self.stage_again(diff_id, layer_format=layer_format, check=check) as staging_dir:
            yield None if self.has(diff_id, layer_format=layer_format) else staging_dir

    @contextmanager
    def stage_again(
        self, diff_id: Digest, *, layer_format: LayerFormat, check: Callable[[], None] | None = None
    ) -> Iterator[Path]:
        """Hold an empty directory to make the layer in, also if it is committed: to replace it."""
        directory = self._paths.layer_staging_dir(str(diff_id), layer_format=layer_format)
        with staging(directory, check=check) as staging_dir:
            yield staging_dir

    def commit(self, staging_dir: Path, diff_id: Digest, *, layer_format: LayerFormat) -> None:
        """Rename a finished, durable layer into place; survives power loss on return.

        Remains without a record that lie there are moved to the trash.

        Locking: within `stage`, so nobody else commits the same layer.
        """
        target = self._dir(diff_id, layer_format)
        if not target.parent.exists():
            durable.make_dirs(target.parent)
        discard(target, self._paths.trash_dir)
        durable.rename(staging_dir, target)

    def replace(self, staging_dir: Path, diff_id: Digest, *, layer_format: LayerFormat) -> None:
        """Put a finished, durable layer in the place of a damaged one, which is in `staging_dir` afterwards.

        Effect: atomic where the filesystem can; survives power loss on return. Who has files of the old one open keeps
            them.
        Locking: within `stage_again`; the caller holds the cluster lock and the fence exclusively.
        """
        target = self._dir(diff_id, layer_format)
        if target.exists():
            durable.exchange(staging_dir, target)
        else:
            self.commit(staging_dir, diff_id, layer_format=layer_format)

    def check(self, diff_id: Digest, *, layer_format: LayerFormat) -> LayerRecord:
        """Return a committed layer's record after a look at the layer that costs three system calls.

        Raises:
            LayerVanished: The layer is not there (any more).
            LayerDamaged: It has no usable record, or its data are missing, or not as long as they were.
        """
        try:
            record = self.record(diff_id, layer_format=layer_format)
        except RecordCorrupt as error:
            raise LayerDamaged(layer=str(diff_id), reason=str(error)) from error
        fault = _fault(self._dir(diff_id, layer_format), record, diff_id=diff_id, layer_format=layer_format)
        if fault is not None:
            raise LayerDamaged(layer=str(diff_id), reason=fault)
        return record

    def directory(self, diff_id: Digest, *, layer_format: LayerFormat) -> Path:
        """Return where the layer lies or would lie."""
        return self._dir(diff_id, layer_format)

    def stack(self, diff_ids: Sequence[Digest], *, layer_format: LayerFormat) -> list[tuple[Path, LayerRecord]]:
        """Return the directories of the layers that count, with their records, base first.

        A layer that stands twice counts at its upper place only: what it repeats was there already, and kernels refuse
        the same directory twice. What lies below an opaque layer is left out.

        Raises:
            LayerVanished: A layer is not there.
            LayerDamaged: A look at a layer shows that it is damaged.
        """
        top_first: list[tuple[Path, LayerRecord]] = []
        for diff_id in dict.fromkeys(reversed(diff_ids)):
            record = self.check(diff_id, layer_format=layer_format)
            top_first.append((self._dir(diff_id, layer_format), record))
            if record.is_opaque:
                break
        return top_first[::-1]

    def committed(self) -> Iterator[tuple[LayerFormat, Digest]]:
        """List all committed layers."""
        for layer_format in LayerFormat:
            with suppress(FileNotFoundError):
                for path in (self._paths.layers_dir / layer_format.value).iterdir():
                    with suppress(InvalidArgument):
                        yield layer_format, Digest.parse(path.name)

    def _dir(self, diff_id: Digest, layer_format: LayerFormat) -> Path:
        return self._paths.layer_dir(str(diff_id), layer_format=layer_format.value)


def _fault(layer_dir: Path, record: LayerRecord, *, diff_id: Digest, layer_format: LayerFormat) -> str | None:
    if (record.diff_id, record.layer_format) != (diff_id, layer_format):
        return f"its record is of {record.layer_format} layer {record.diff_id}"
    if layer_format is not LayerFormat.EROFS:
        return None if (layer_dir / TREE).is_dir() else f"{layer_dir / TREE} is missing"
    fault = _size_fault(layer_dir / TAR, record.tar_bytes)
    if fault is None and record.sparse_bytes is not None:
        fault = _size_fault(layer_dir / BLOB, record.sparse_bytes or None)
    return fault


def _size_fault(path: Path, expected: int | None) -> str | None:
    """Say what is wrong with a file's size, None meaning that there is to be no file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None if expected is None else f"{path} is missing"
    if expected is None:
        return f"{path} is none of its files"
    return None if size == expected else f"{path} has {size} bytes instead of {expected}"
