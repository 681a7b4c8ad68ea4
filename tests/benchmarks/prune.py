# SPDX-License-Identifier: Apache-2.0
"""How long prune keeps everybody else waiting: `python -m tests.benchmarks.prune`.

A store is written to disk with so many images, layers and refs, then pruned for real, over a real Redis; `exclusive_ms`
is what the task answers. Beside each figure stands the least it could be: a bare rename for everything that went.
The goal is 50 ms with 10,000 refs and 1,000 images.

Manifests are small and files are written without fsync, which tells nothing to what is measured: names and counts do.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, dump, sha256
from tests.support.redis_server import redis_server
from worker.image import LayerFormat
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner
from worker.settings import Settings
from worker.store.images import RefOwner

_IMAGES_PER_BASE = 10
_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A store before its prune.

    Attributes:
        refs: Containers, spread over the images that are used.
        images: All images; each has a layer of its own, shares one with nine others and one with all.
        removed: How many of the images nobody uses.
    """

    refs: int
    images: int
    removed: int


CASES = (
    Case(refs=10_000, images=1000, removed=0),
    Case(refs=10_000, images=1000, removed=100),
    Case(refs=10_000, images=1000, removed=500),
    Case(refs=10_000, images=1000, removed=999),
    Case(refs=1000, images=1000, removed=500),
    Case(refs=50_000, images=1000, removed=500),
    Case(refs=10_000, images=100, removed=50),
    Case(refs=10_000, images=3000, removed=100),
    Case(refs=10_000, images=3000, removed=1500),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One prune.

    Attributes:
        exclusive_ms: As the prune answered.
        total_ms: The whole prune, survey and deletion included.
        bare_ms: As many renames and nothing else.
        moved: Images and layers that went.
    """

    exclusive_ms: float
    total_ms: float
    bare_ms: float
    moved: int


def fill(node: Provisioner, case: Case) -> None:
    """Write the case's images, layers, references and refs into the node's empty store."""
    layers = set()
    for number in range(case.images):
        own = [f"own-{number}", f"base-{number // _IMAGES_PER_BASE}", "common"]
        layers.update(own)
        is_used = number >= case.removed
        used = case.images - case.removed
        refs = range(number - case.removed, case.refs, used) if is_used else range(0)
        _write_image(node, number, [sha256(name.encode()) for name in own], refs=refs)
    for name in layers:
        _write_layer(node, sha256(name.encode()))


def _write_image(node: Provisioner, number: int, diff_ids: Sequence[str], *, refs: range) -> None:
    paths = node.node.store.paths
    manifest, config = _documents(number, diff_ids)
    digest = sha256(manifest)
    paths.refs_dir(digest).mkdir(parents=True)
    paths.manifest_path(digest).write_bytes(manifest)
    paths.config_path(digest).write_bytes(config)
    reference = f"docker://registry.test/team/image-{number}:latest"
    document = {"reference": reference, "platform": "linux/amd64", "digest": digest}
    paths.reference_path(reference, platform="linux/amd64").write_text(json.dumps(document))
    for ref in refs:
        # Of a node that shares the store: refs of one's own without records are taken for a dead worker's.
        owner = RefOwner(node="n2", container_id=f"container-{ref}", name="rootfs")
        path = paths.ref_path(digest, node=owner.node, container_id=owner.container_id, name=owner.name)
        path.write_text(json.dumps({"node": "n2", "container_id": owner.container_id, "name": "rootfs"}))


def _documents(number: int, diff_ids: Sequence[str]) -> tuple[bytes, bytes]:
    platform = {"os": "linux", "architecture": "amd64"}
    config = dump({**platform, "config": {"Env": [f"N={number}"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    descriptor = {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)}
    layers = [{"mediaType": OCI_LAYER, "digest": diff_id, "size": 1024} for diff_id in diff_ids]
    return dump({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, "layers": layers}), config


def _write_layer(node: Provisioner, diff_id: str) -> None:
    directory = node.node.store.paths.layer_dir(diff_id, layer_format=LayerFormat.DIRECTORY.value)
    (directory / "tree").mkdir(parents=True)
    (directory / "layer.json").write_text("{}")


def bare_renames(directory: Path, count: int) -> float:
    """Return the milliseconds of `count` renames of directories, done as quickly as Python can."""
    source, target = directory / "source", directory / "target"
    source.mkdir()
    target.mkdir()
    names = [f"sha256:{uuid.uuid4().hex}{uuid.uuid4().hex}" for _ in range(count)]
    for name in names:
        (source / name).mkdir()
    pairs = [(str(source / name), str(target / name)) for name in names]
    started = time.perf_counter()
    for old, new in pairs:
        os.rename(old, new)  # noqa: PTH104 - the least there is
    return (time.perf_counter() - started) * 1000


def measure(case: Case, redis_url: str) -> Measured:
    """Fill a store, prune it once, and count what went."""
    with _scratch() as directory:
        settings = Settings(
            redis_url=redis_url, node="n1", work_dir=directory / "work", store_dir=directory / "store", backend="copy"
        )
        node = make_provisioner(settings)
        fill(node, case)
        os.sync()
        started = time.perf_counter()
        answer = node.prune({})
        total_ms = (time.perf_counter() - started) * 1000
        assert not isinstance(answer, Elsewhere)
        assert len(answer["images"]) == case.removed
        moved = len(answer["images"]) + len(answer["layers"])
        bare_ms = bare_renames(directory, moved)
    return Measured(exclusive_ms=answer["exclusive_ms"], total_ms=total_ms, bare_ms=bare_ms, moved=moved)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-prune-") as directory:
        yield Path(directory)


def main() -> None:
    """Measure all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=_RUNS, help="prunes per case; the median is shown")
    arguments = parser.parse_args()
    table = Table("refs", "images", "removed", "moved", "exclusive ms", "worst", "bare renames ms", "whole prune ms")
    with _scratch() as directory, redis_server(directory) as server:
        for case in CASES:
            runs = [measure(case, server.url) for _ in range(arguments.runs)]
            table.add_row(*map(str, (case.refs, case.images, case.removed, runs[0].moved)), *_figures(runs))
    Console().print(table)


def _figures(runs: Sequence[Measured]) -> list[str]:
    exclusive = [run.exclusive_ms for run in runs]
    figures = [statistics.median(exclusive), max(exclusive)]
    figures += [statistics.median(run.bare_ms for run in runs), statistics.median(run.total_ms for run in runs)]
    return [f"{figure:,.1f}" for figure in figures]


if __name__ == "__main__":
    main()
