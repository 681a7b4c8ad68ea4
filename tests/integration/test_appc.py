# SPDX-License-Identifier: Apache-2.0
"""App Container images on real mounts: provisioned, looked at, recovered, verified, destroyed, pruned."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.acis import aci_server, aci_tar, appc_manifest, dependency, image_id, write_aci
from tests.support.mounts import mounts_below
from tests.support.provisioners import files, keys, provisioner, tree_text
from tests.support.runnable import shell_entries
from tests.support.runs import left_of_runs, run_here, unique
from tests.support.tar import CharDevice, Dir, Entry, File, Hardlink, Symlink, tar_bytes
from worker.errors import (
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    InvalidLayer,
    PlatformNotFound,
    ProvisionerError,
)
from worker.oci.digest import Digest
from worker.provisioner import Elsewhere, Provisioner
from worker.verbs.heal import opened_origin, origins_of

pytestmark = [pytest.mark.root, pytest.mark.redis]

IMAGE = "appc:example.com/app"
BASE = [Dir("etc"), File("etc/motd", b"base"), File("etc/os", b"base"), File("etc/only", b"base"), Dir("data")]
CERTS = [Dir("etc"), File("etc/motd", b"certs"), File("etc/certs", b"certs", mode=0o600, uid=7, gid=8)]
TOOLS = [
    File("tool", b"tool", mode=0o4755),
    Hardlink("same", "tool"),
    Symlink("link", "tool"),
    File("etc/os", b"tools"),
]
APP = [File("etc/motd", b"app", xattrs={"user.origin": b"appc"})]
TREE = {
    "etc/certs": "certs",
    "etc/motd": "app",
    "etc/only": "base",
    "etc/os": "tools",
    "link": "tool",
    "same": "tool",
    "tool": "tool",
}
START = Callable[..., Provisioner]


@pytest.fixture
def acis(tmp_path: Path) -> Path:
    """An image with two dependencies, both of which stand on a third."""
    directory = tmp_path / "acis"
    needs_base = [dependency("example.com/base", labels={"os": "linux"})]
    write_images(
        directory,
        {
            "base": (BASE, [], "xz"),
            "certs": (CERTS, needs_base, "bzip2"),
            "tools": (TOOLS, needs_base, "none"),
            "app": (APP, [dependency("example.com/certs"), dependency("example.com/tools")], "gzip"),
        },
    )
    return directory


def write_images(directory: Path, images: dict[str, tuple[Sequence[Entry], list[dict[str, Any]], str]]) -> None:
    """Write archives by the last part of their names."""
    for name, (entries, dependencies, compression) in images.items():
        app = {"exec": ["/tool"], "user": "0", "group": "0"}
        manifest = appc_manifest(f"example.com/{name}", dependencies=dependencies, app=app)
        write_aci(directory, f"example.com/{name}", aci_tar(manifest, *entries), compression=compression)


@pytest.fixture(params=["erofs", "directory"])
def layer_format(request: pytest.FixtureRequest) -> str:
    """Layers of either kind."""
    return str(request.param)


@pytest.fixture
def start(tmp_path: Path, redis_url: str, layer_format: str, acis: Path) -> Iterator[START]:
    """Start the node, as often as a test wants."""
    with ExitStack() as running:

        def starting(**more: Any) -> Provisioner:
            settings = {"layer_format": layer_format, "platform": "linux/amd64", "appc_discovery_prefix": str(acis)}
            return running.enter_context(provisioner(tmp_path, redis_url, **settings | more))

        yield starting


@pytest.fixture
def node(start: START) -> Provisioner:
    """The node, once."""
    return start()


def provisioned(node: Provisioner, container_id: str = "c1", image: str = IMAGE, **more: object) -> dict[str, Any]:
    """Provision and return the answer."""
    answer = node.provision({"container_id": container_id, "image": image, **more})
    assert not isinstance(answer, Elsewhere)
    return answer


def store_is_empty(node: Provisioner) -> bool:
    """Tell whether nothing is left of any image."""
    paths = node.node.store.paths
    left = [files(each) for each in (paths.images_dir, paths.references_dir, paths.staging_dir, paths.trash_dir)]
    return left == [[], [], [], []] and not list(node.node.store.layers.committed())


def test_an_image_with_two_dependencies_lives_and_dies_like_any_other(node: Provisioner, acis: Path) -> None:
    """The shared base once, the upper ones above it in order; attributes as in the archives; gone after a prune."""
    info = provisioned(node)

    rootfs = Path(info["rootfs"])
    assert tree_text(info["rootfs"]) == TREE
    assert len(info["layers"]) == len(set(info["layers"])) == 4
    assert info["docker_manifest"] is None
    assert info["appc_manifest"]["name"] == "example.com/app"
    assert info["image"] == IMAGE
    status = (rootfs / "etc/certs").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 7, 8)
    assert (rootfs / "tool").stat().st_mode & 0o7777 == 0o4755
    assert (rootfs / "tool").stat().st_nlink == 2
    assert (rootfs / "link").readlink() == Path("tool")
    assert os.getxattr(rootfs / "etc/motd", "user.origin") == b"appc"
    assert sorted(path.name for path in rootfs.iterdir()) == ["data", "etc", "link", "same", "tool"]

    shutil.rmtree(acis)
    assert provisioned(node) == info
    assert tree_text(provisioned(node, "c2")["rootfs"]) == TREE
    assert node.prune({})["images"] == []  # type: ignore[index]
    assert node.destroy({"container_id": "c1"}) is True
    assert node.destroy({"container_id": "c2"}) is True
    assert node.prune({})["images"] == [info["digest"]]  # type: ignore[index]
    assert store_is_empty(node)
    assert files(node.node.work.containers_dir) == []


def test_images_share_the_layers_of_their_dependencies(node: Provisioner, acis: Path) -> None:
    """And prune takes only what is the other's alone."""
    first = provisioned(node)
    write_images(acis, {"other": ([File("o", b"o")], [dependency("example.com/base")], "gzip")})
    second = provisioned(node, "c2", "appc:example.com/other")

    assert second["layers"][0] == first["layers"][0]
    node.destroy({"container_id": "c2"})
    pruned = node.prune({})
    assert not isinstance(pruned, Elsewhere)
    assert (pruned["images"], pruned["layers"]) == ([second["digest"]], [second["layers"][1]])
    assert tree_text(first["rootfs"]) == TREE


def test_verify_rehashes_and_repairs(node: Provisioner, acis: Path, layer_format: str) -> None:
    """A layer of an archive is a layer like others, and its source is asked again."""
    info = provisioned(node)
    assert node.verify({})["problems"] == []  # type: ignore[index]
    store = node.node.store
    layer_dirs = [store.layers.directory(digest, layer_format=each) for each, digest in store.layers.committed()]
    (layer_dirs[0] / "layer.json").write_bytes(b"{}")
    assert node.destroy({"container_id": "c1"}) is True

    verified = node.verify({"repair": True})

    assert not isinstance(verified, Elsewhere)
    assert [each["kind"] for each in verified["repaired"]] == ["layer-record-corrupt"]
    assert verified["problems"] == []
    assert tree_text(provisioned(node)["rootfs"]) == TREE == tree_text(info["rootfs"])


def test_cached_false_asks_the_source_again(node: Provisioner, acis: Path) -> None:
    """A newer archive under the same name is seen then and not before; only what changed is made anew."""
    first = provisioned(node)
    write_images(acis, {"tools": ([File("tool", b"new")], [dependency("example.com/base")], "gzip")})

    assert provisioned(node, "c2")["digest"] == first["digest"]
    fresh = provisioned(node, "c3", cached=False)

    assert fresh["layers"][:2] == first["layers"][:2]
    assert fresh["layers"][2] != first["layers"][2]
    assert (Path(fresh["rootfs"]) / "tool").read_text() == "new"


def test_pull_answers_for_an_image_by_its_id(node: Provisioner, acis: Path) -> None:
    """Pinned by the caller; once there, nothing is fetched."""
    tar = aci_tar(appc_manifest("example.com/pinned"), File("p", b"p"))
    write_aci(acis, "example.com/pinned", tar)
    reference = f"appc:example.com/pinned@{image_id(tar)}"

    pulled = node.pull({"image": reference})
    again = node.pull({"image": reference})

    assert not isinstance(pulled, Elsewhere)
    assert not isinstance(again, Elsewhere)
    assert (pulled["image"], len(pulled["layers"])) == (reference, 1)
    assert (pulled["bytes_fetched"] > 0, again["bytes_fetched"]) == (True, 0)


def test_an_image_for_any_platform_is_found_again(node: Provisioner, acis: Path) -> None:
    """It says nothing of os and arch, so its origin is looked for as this node would."""
    write_aci(acis, "example.com/any", aci_tar(appc_manifest("example.com/any", {}), File("a", b"a")))
    info = provisioned(node, image="appc:example.com/any")
    shutil.rmtree(node.node.store.paths.references_dir)
    node.node.store.paths.references_dir.mkdir()

    [origin] = origins_of(node.node, Digest.parse(info["digest"]))

    with opened_origin(node.node, origin) as image:
        assert str(image.digest) == info["digest"]


def test_what_the_store_has_is_not_fetched_for_another_image(start: START, acis: Path) -> None:
    """A second image on the same base: its own archive only; asked anew and pruned, as little as can be."""
    write_images(acis, {"other": ([File("o", b"o")], [dependency("example.com/base")], "gzip")})
    app, base, other = (f"/example.com/{name}-latest-linux-amd64.aci" for name in ("app", "base", "other"))
    with aci_server(acis) as server:
        node = start(appc_discovery_prefix=f"http://{server.host}/")
        first = provisioned(node)
        provisioned(node, "c2", "appc:example.com/other")
        assert [server.sent.count(path) for path in (app, base, other)] == [1, 1, 1]

        assert provisioned(node, "c3", cached=False)["digest"] == first["digest"]
        assert len(server.sent) == 5

        for container_id in ("c1", "c3"):
            node.destroy({"container_id": container_id})
        node.prune({})
        assert tree_text(provisioned(node, "c4")["rootfs"]) == TREE
        assert [server.sent.count(path) for path in (app, base, other)] == [2, 1, 1]


# The ancestor's cases, by its names.


def test_appc_store_recover(start: START, redis_client: redis.Redis, acis: Path) -> None:
    """An image that is on disk is served by a store that is opened anew, without its source."""
    pulled = start().pull({"image": IMAGE})
    shutil.rmtree(acis)
    redis_client.flushall()

    node = start()
    node.recover({})
    info = provisioned(node)

    assert not isinstance(pulled, Elsewhere)
    assert (info["digest"], info["layers"]) == (pulled["digest"], pulled["layers"])
    assert tree_text(info["rootfs"]) == TREE


@pytest.mark.parametrize("container_id", ["c1", "parent.child"])
def test_provision_by_bind(node: Provisioner, container_id: str, acis: Path) -> None:
    """One layer, mounted read-only; destroyed with true, its directory gone; also nested."""
    write_images(acis, {"single": ([File("f", b"f")], [], "gzip")})

    info = provisioned(node, container_id, "appc:example.com/single", backend="bind")

    assert info["backend"] == "bind"
    assert tree_text(info["rootfs"]) == {"f": "f"}
    with pytest.raises(OSError, match="Read-only"):
        (Path(info["rootfs"]) / "f").write_text("x")
    assert node.destroy({"container_id": container_id}) is True
    assert not Path(info["rootfs"]).exists()
    assert node.destroy({"container_id": container_id}) is False


def test_recover_by_copy(start: START, redis_client: redis.Redis) -> None:
    """A container of a former worker gets a second rootfs and is destroyed with both."""
    first = provisioned(start(), backend="copy")
    redis_client.flushall()
    node = start()
    node.recover({"known_container_ids": ["c1"]})

    second = provisioned(node, backend="copy", name="second")

    assert first["rootfs"] != second["rootfs"]
    assert tree_text(first["rootfs"]) == tree_text(second["rootfs"]) == TREE
    assert node.destroy({"container_id": "c1"}) is True
    assert not Path(first["rootfs"]).exists()
    assert not Path(second["rootfs"]).exists()


@pytest.mark.parametrize("has_parent_image", [True, False])
def test_recover_nested_container(start: START, redis_client: redis.Redis, *, has_parent_image: bool) -> None:
    """Child first, then parent; or the child with its parent, which never had an image."""
    node = start()
    if has_parent_image:
        provisioned(node, "parent")
    provisioned(node, "parent.child")
    redis_client.flushall()

    node = start()
    node.recover({"known_container_ids": ["parent", "parent.child"]})
    child = provisioned(node, "parent.child", name="again")

    assert tree_text(child["rootfs"]) == TREE
    if has_parent_image:
        assert node.destroy({"container_id": "parent.child"}) is True
    assert node.destroy({"container_id": "parent"}) is True
    assert files(node.node.work.containers_dir) == []


def test_simple_linux_image_test(node: Provisioner, acis: Path) -> None:
    """A program of the image runs in it and sees it."""
    write_images(acis, {"linux": (shell_entries(), [], "xz")})

    info = provisioned(node, image="appc:example.com/linux")

    command = ["chroot", info["rootfs"], "/bin/ls", "-al", "/"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    assert re.search(r"^d.* bin$", shown, re.MULTILINE)


@pytest.mark.runtime
def test_an_image_with_dependencies_runs_as_its_manifest_says(node: Provisioner, acis: Path) -> None:
    """With crun: program, user, environment and directory of the image that was asked for, files of all."""
    write_images(acis, {"base": ([*shell_entries(), File("etc/os", b"base")], [], "xz")})
    app = {
        "exec": ["/bin/sh", "-c", "id -un; echo $GREETING; pwd; cat /etc/os /etc/motd"],
        "user": "app",
        "group": "apps",
        "environment": [{"name": "GREETING", "value": "hello"}],
        "workingDirectory": "/data",
    }
    needed = [dependency("example.com/base"), dependency("example.com/tools")]
    manifest = appc_manifest("example.com/app", dependencies=needed, app=app)
    write_aci(acis, "example.com/app", aci_tar(manifest, Dir("data"), *APP))
    provisioned(node, unique("appc"))

    done = run_here(node, unique("appc"), "--runtime", "crun")

    assert done.code == 0, done.err
    assert done.out == "app\nhello\n/data\ntoolsapp"
    assert left_of_runs(node.node.work.work_dir) == []


def test_simple_http_fetch(start: START, acis: Path) -> None:
    """By simple discovery from a server; every archive is asked for once, whatever the containers."""
    with aci_server(acis) as server:
        node = start(appc_discovery_prefix=f"http://{server.host}/")
        infos = [provisioned(node, f"c{number}") for number in range(3)]

    assert {tuple(info["layers"]) for info in infos} == {tuple(infos[0]["layers"])}
    assert tree_text(infos[2]["rootfs"]) == TREE
    assert len(server.asked) == 4


# Damage.


def damaged_id(_: Path) -> str:
    """Ask for an id that the archive does not have."""
    return f"{IMAGE}@sha512-{'0' * 128}"


def no_dependency(acis: Path) -> str:
    """Take the lowest archive away."""
    (acis / "example.com/base-latest-linux-amd64.aci").unlink()
    return IMAGE


def half_a_dependency(acis: Path) -> str:
    """Cut the lowest archive off."""
    path = acis / "example.com/base-latest-linux-amd64.aci"
    path.write_bytes(path.read_bytes()[:-30])
    return IMAGE


def circle(acis: Path) -> str:
    """Let the base depend on the app."""
    write_images(acis, {"base": (BASE, [dependency("example.com/app")], "gzip")})
    return IMAGE


def bad_manifest(acis: Path) -> str:
    """Break a manifest."""
    write_aci(acis, "example.com/tools", aci_tar(b'{"acKind": "ImageManifest"}'))
    return IMAGE


def climbing(acis: Path) -> str:
    """Write beside the rootfs."""
    manifest = appc_manifest("example.com/app")
    inside = tar_bytes([Dir("rootfs"), File("rootfs/../../../evil", b"evil")])
    write_aci(acis, "example.com/app", aci_tar(manifest)[:-1024] + inside)
    return IMAGE


def through_a_link(acis: Path) -> str:
    """Join a file by a link that does not lead to one of the layer."""
    entries = [Symlink("out", "/etc"), Hardlink("passwd", "out/passwd")]
    write_aci(acis, "example.com/app", aci_tar(appc_manifest("example.com/app"), *entries))
    return IMAGE


def whiteout_device(acis: Path) -> str:
    """Bring what overlayfs takes for a whiteout."""
    entries = [CharDevice("etc", 0, 0)]
    write_aci(acis, "example.com/app", aci_tar(appc_manifest("example.com/app"), *entries))
    return IMAGE


def whiteout_file(acis: Path) -> str:
    """Bring what OCI takes for a whiteout."""
    entries = [File("etc/.wh.motd")]
    write_aci(acis, "example.com/app", aci_tar(appc_manifest("example.com/app"), *entries))
    return IMAGE


def other_platform(_: Path) -> str:
    """Ask for what does not run here."""
    return f"{IMAGE},arch=aarch64"


def far_platform(acis: Path) -> str:
    """The same, and it is there."""
    source = acis / "example.com/app-latest-linux-aarch64.aci"
    source.write_bytes(aci_tar(appc_manifest("example.com/app", {"os": "linux", "arch": "aarch64"})))
    return f"{IMAGE},arch=aarch64"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damaged_id, DigestMismatch),
        (no_dependency, ImageNotFound),
        (half_a_dependency, InvalidImage),
        (circle, InvalidImage),
        (bad_manifest, InvalidImage),
        (climbing, InvalidImage),
        (through_a_link, InvalidLayer),
        (whiteout_device, InvalidLayer),
        (whiteout_file, InvalidImage),
        (other_platform, ImageNotFound),
        (far_platform, PlatformNotFound),
    ],
)
def test_damage_leaves_nothing_behind(
    node: Provisioner,
    redis_client: redis.Redis,
    acis: Path,
    damage: Callable[[Path], str],
    expected: type[ProvisionerError],
) -> None:
    """Not in the store after a prune, not in the work directory, not in Redis, no mount; nor outside of them."""
    image = damage(acis)
    outside = files(acis.parent)

    with pytest.raises(expected) as caught:
        provisioned(node, image=image)

    assert type(caught.value) is expected
    assert files(node.node.work.containers_dir) == []
    assert mounts_below(acis.parent) == []
    assert keys(redis_client) == set()
    assert {path for path in set(files(acis.parent)) - set(outside) if not path.startswith(("store", "work"))} == set()
    assert files(node.node.store.paths.staging_dir) == []
    node.prune({})
    assert store_is_empty(node)
