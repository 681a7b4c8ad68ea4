# SPDX-License-Identifier: Apache-2.0
"""Images and containers of every kind through the queue, on real mounts, and a program in each with crun."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import NODE_SETTINGS
from tests.support.acis import aci_tar, appc_manifest, dependency, write_aci
from tests.support.filesystems import loop_filesystem, shared_bytes
from tests.support.images import Layer, build_image, layer
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below
from tests.support.provisioners import files, keys
from tests.support.redis_server import RedisServer
from tests.support.runnable import shell_entries, shell_layer
from tests.support.runs import left_of_runs, run_on, unique
from tests.support.schedulers import Scheduler
from tests.support.tar import Dir, Entry, File, Whiteout
from tests.support.workers import Node, running_node

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.runtime, pytest.mark.btrfs]

DEEP, POD, APPC = unique("deep"), unique("pod"), unique("appc")
BULKS = tuple(unique(f"bulk-{number}") for number in range(3))
DEEP_LAYERS = 300
BULK_BYTES = 48 << 20


@pytest.fixture
def acis_dir(tmp_path: Path) -> Path:
    """Where App Container images are discovered."""
    return tmp_path / "acis"


@pytest.fixture
def node(tmp_path: Path, own_redis_server: RedisServer, acis_dir: Path) -> Iterator[Node]:
    """A node as it comes."""
    settings = {**NODE_SETTINGS, "PROVISIONER_APPC_DISCOVERY_PREFIX": f"{acis_dir}/"}
    with running_node("n1", tmp_path / "n1", redis_url=own_redis_server.url, **settings) as made:
        yield made


@pytest.fixture
def disk_node(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Node]:
    """A node that copies, its store and containers on Btrfs."""
    settings = {**NODE_SETTINGS, "PROVISIONER_BACKEND": "copy"}
    with (
        loop_filesystem(tmp_path, "mkfs.btrfs", "-q") as disk,
        running_node("n2", disk / "n2", redis_url=own_redis_server.url, **settings) as made,
    ):
        yield made


class Images:
    """Images as OCI layouts, by name; each says its name in /name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, name: str, *layers: Layer, **config: Any) -> str:
        """Write an image on top of a shell and return its reference."""
        image = build_image([shell_layer(), layer(File("name", name.encode())), *layers], config=config)
        write_layout(self._directory / name, {"latest": image})
        return f"oci:{self._directory / name}:latest"


def deep_layers() -> list[Layer]:
    """Return layers that each add a file, change one, and hide the file of the layer before."""
    return [layer(*_deep_entries(number), compression="none") for number in range(DEEP_LAYERS - 2)]


def _deep_entries(number: int) -> list[Entry]:
    hidden = [Whiteout(f"layers/hidden-{number - 1}")] if number else [Dir("layers")]
    files = [File(f"layers/{number}"), File(f"layers/hidden-{number}"), File("top", str(number).encode())]
    return [*hidden, *files]


def ran(node: Node, container: str, *arguments: str) -> str:
    """Return what a program printed that crun ran in the container to a good end."""
    done = run_on(node.env, container, "--runtime", "crun", *arguments)
    assert done.code == 0, done.err
    return done.out


def shell(script: str) -> tuple[str, ...]:
    """Return the words after which a shell runs the script."""
    return "--", "/bin/sh", "-c", script


def run_deep_image(node: Node, scheduler: Scheduler, images: Images) -> None:
    """300 layers are one rootfs, in which every one of them can be seen."""
    image = images.make("deep", *deep_layers(), User="app", Cmd=["/bin/sh", "-c", "id -u; cat /name /top"])
    info = scheduler.call("provision", container_id=DEEP, image=image, node="n1", bundle=True)

    listed = ran(node, DEEP, *shell("set -- /layers/*; echo $#; echo /layers/hidden-*"))

    assert len(info["layers"]) == DEEP_LAYERS
    assert Path(info["bundle"], "config.json").is_file()
    assert listed.split() == [str(DEEP_LAYERS - 1), f"/layers/hidden-{DEEP_LAYERS - 3}"]
    assert ran(node, DEEP) == f"1000\ndeep{DEEP_LAYERS - 3}"


def run_shared_blocks(node: Node, scheduler: Scheduler, images: Images) -> None:
    """A copy on Btrfs shares every block with the layer, and is a copy all the same."""
    bulk = layer(File("bulk", bytes(range(256)) * (BULK_BYTES // 256)))
    image = images.make("bulk", bulk, Cmd=["/bin/cat", "/name"])
    infos = [scheduler.call("provision", container_id=each, image=image, node="n2") for each in BULKS]

    assert [(info["backend"], info["layer_format"]) for info in infos] == [("copy", "directory")] * len(BULKS)
    assert [shared_bytes(Path(info["rootfs"], "bulk")) for info in infos] == [BULK_BYTES] * len(BULKS)
    assert ran(node, BULKS[0], *shell("echo changed >/bulk; cat /bulk")) == "changed\n"
    assert ran(node, BULKS[1]) == "bulk"
    assert Path(infos[1]["rootfs"], "bulk").stat().st_size == BULK_BYTES


def run_family(node: Node, scheduler: Scheduler, images: Images) -> None:
    """Three rootfses of one container and two children share nothing but their store."""
    names = ("rootfs", "data", "tools")
    for name in names:
        image = images.make(f"image-{name}", Cmd=["/bin/cat", "/name"])
        scheduler.call("provision", container_id=POD, image=image, name=name, node="n1", bundle=True)
    for child in ("one", "two"):
        scheduler.call("provision", container_id=f"{POD}.{child}", image=images.make(child), node="n1")

    for name in names:
        assert ran(node, POD, "--name", name) == f"image-{name}"
        ran(node, POD, "--name", name, *shell(f"echo {name} >/written"))
    for child in ("one", "two"):
        assert ran(node, f"{POD}.{child}", *shell("cat /name; hostname; ls /written 2>&1; exit 0")).startswith(
            f"{child}{child}\n"
        )
    for name in names:
        assert ran(node, POD, "--name", name, "--", "/bin/cat", "/written") == f"{name}\n"


def run_appc_image(node: Node, scheduler: Scheduler, acis_dir: Path) -> None:
    """An App Container image runs with what its two dependencies bring."""
    names = [dependency(f"example.com/{name}") for name in ("shell", "certs")]
    app = {
        "exec": ["/bin/sh", "-c", "id -u; pwd; echo $MODE; cat /name /certs"],
        "user": "app",
        "group": "apps",
        "workingDirectory": "/srv",
        "environment": [{"name": "MODE", "value": "appc"}],
    }
    manifest = appc_manifest("example.com/app", dependencies=names, app=app)
    write_aci(acis_dir, "example.com/shell", aci_tar(appc_manifest("example.com/shell"), *shell_entries()))
    write_aci(acis_dir, "example.com/certs", aci_tar(appc_manifest("example.com/certs"), File("certs", b"certs")))
    write_aci(acis_dir, "example.com/app", aci_tar(manifest, File("name", b"app")), compression="xz")

    info = scheduler.call("provision", container_id=APPC, image="appc:example.com/app", node="n1")

    assert info["appc_manifest"] == manifest
    assert len(info["layers"]) == 3
    assert ran(node, APPC) == "1000\n/srv\nappc\nappcerts"


def test_all_of_it_is_provisioned_run_destroyed_and_pruned(
    node: Node, disk_node: Node, scheduler: Scheduler, own_redis_server: RedisServer, tmp_path: Path
) -> None:
    """And nothing of it is left anywhere."""
    images = Images(tmp_path / "images")
    run_deep_image(node, scheduler, images)
    run_shared_blocks(disk_node, scheduler, images)
    run_family(node, scheduler, images)
    run_appc_image(node, scheduler, tmp_path / "acis")

    containers = (DEEP, *BULKS, POD, APPC)
    assert [scheduler.call("destroy", container_id=each) for each in containers] == [True] * len(containers)
    assert [scheduler.call("destroy", container_id=f"{POD}.{child}") for child in ("one", "two")] == [False, False]
    pruned = scheduler.call("prune")["stores"]

    assert sorted(len(store["images"]) for store in pruned) == [1, 7]
    for each in (node, disk_node):
        left = [*files(each.work_dir / "containers"), *files(each.work_dir / "images")]
        left += [path for path in files(each.store_dir / "layers") if "/" in path]
        for name in ("images", "references", "staging", "trash", "partial"):
            left += files(each.store_dir / name)
        assert left == []
        assert left_of_runs(each.work_dir) == []
    assert mounts_below(tmp_path) == [str(tmp_path / "filesystem")]
    with own_redis_server.client() as client:
        assert keys(client) == set()
