# SPDX-License-Identifier: Apache-2.0
"""Rootfses with a runtime bundle, asked for at once or later, killed, refused, destroyed."""

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.images import build_image, layer
from tests.support.killing import count_lines, run_killed
from tests.support.layouts import write_layout
from tests.support.mounts import mounts_below, unmount
from tests.support.provisioners import files, keys, make_settings, provisioner
from tests.support.runnable import accounts, shell_layer
from tests.support.runs import run_here
from tests.support.tar import Dir, File, Symlink, Whiteout
from worker.container_id import ContainerId
from worker.errors import DirectoryMissing, InvalidArgument, InvalidImage, PermanentError, UserNotFound
from worker.provisioner import Elsewhere, Provisioner
from worker.records import read_record
from worker.runtime import make_provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis]

CONFIG = {"User": "app", "Cmd": ["/x"], "Volumes": {"/data": {}}, "Env": ["A=1"]}


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., str]:
    """Make an image with accounts and data, and this configuration."""

    def image(**config: Any) -> str:
        name = f"layout-{len(list(tmp_path.glob('layout-*')))}"
        mounted_on = map(Dir, ("dev", "proc", "sys"))
        content = layer(*accounts(), *mounted_on, Dir("data", uid=70), File("data/seed", b"seed"))
        write_layout(tmp_path / name, {"latest": build_image([content], config={**CONFIG, **config})})
        return f"oci:{tmp_path / name}:latest"

    return image


def _provision(node: Provisioner, image: str, **keywords: Any) -> dict[str, Any]:
    answer = node.provision({"container_id": "pod.c1", "image": image, **keywords})
    assert not isinstance(answer, Elsewhere)
    return answer


def _config(info: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(Path(info["bundle"], "config.json").read_bytes())
    return config


def _check_bundle(info: dict[str, Any]) -> None:
    config = _config(info)
    assert Path(info["bundle"], config["root"]["path"]) == Path(info["rootfs"])
    assert config["process"]["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [1002, 1003]}
    assert config["hostname"] == "c1"
    (volume,) = [each for each in config["mounts"] if each["destination"] == "/data"]
    assert Path(volume["source"], "seed").read_text() == "seed"
    assert Path(volume["source"]).stat().st_uid == 70


def _record_of(node: Provisioner) -> dict[str, Any]:
    return read_record(node.node.work.record_path(("pod", "c1"))).rootfses["rootfs"].info.to_document()


def test_a_rootfs_is_provisioned_with_its_bundle(node: Provisioner, image: Callable[..., str]) -> None:
    """Beside the rootfs, recorded, its volumes counted, and answered again as it is."""
    source = image()

    info = _provision(node, source, bundle=True)

    _check_bundle(info)
    assert info["ephemeral_volumes"][-1] == str(Path(info["bundle"], "volumes"))
    assert _record_of(node) == info
    assert _provision(node, source, bundle=True) == info
    assert _provision(node, source) == info


def test_a_rootfs_gets_its_bundle_later(
    node: Provisioner, image: Callable[..., str], redis_client: redis.Redis
) -> None:
    """Nothing else of it changes; Redis, the record and the answer agree."""
    source = image()
    plain = _provision(node, source)
    Path(plain["rootfs"], "written").touch()

    info = _provision(node, source, bundle=True)

    _check_bundle(info)
    assert info == plain | {"bundle": info["bundle"], "ephemeral_volumes": info["ephemeral_volumes"]}
    assert info["ephemeral_volumes"][:-1] == plain["ephemeral_volumes"]
    assert Path(plain["rootfs"], "written").exists()
    assert _record_of(node) == info
    redis_client.flushall()
    node.recover({})
    assert _provision(node, source) == info


def test_an_image_without_volumes_has_none_to_count(node: Provisioner, image: Callable[..., str]) -> None:
    """The directory is not even there."""
    info = _provision(node, image(Volumes=None), bundle=True)

    assert len(info["ephemeral_volumes"]) == 2
    assert not Path(info["bundle"], "volumes").exists()


@pytest.mark.parametrize("backend", ["overlay", "copy", "bind"])
def test_every_backend_has_bundles(node: Provisioner, image: Callable[..., str], backend: str) -> None:
    """Read-only as it was asked for."""
    info = _provision(node, image(), bundle=True, backend=backend, read_only=True)

    _check_bundle(info)
    assert _config(info)["root"]["readonly"] is True


def test_what_a_container_wrote_into_its_volumes_survives_a_reboot(
    node: Provisioner, image: Callable[..., str]
) -> None:
    """As its upper directory does."""
    source = image()
    info = _provision(node, source, bundle=True)
    Path(info["bundle"], "volumes", "0", "mine").touch()
    for mount in reversed(mounts_below(node.node.work.work_dir)):
        subprocess.run(["umount", mount], check=True)

    node.recover({}, is_start=True)

    assert Path(info["bundle"], "volumes", "0", "mine").exists()
    assert _provision(node, source, bundle=True) == info
    _check_bundle(info)


def test_recover_completes_a_bundle_that_is_recorded_only(node: Provisioner, image: Callable[..., str]) -> None:
    """The worker was killed between the mount and the file."""
    info = _provision(node, image(), bundle=True)
    Path(info["bundle"], "config.json").unlink()
    shutil.rmtree(Path(info["bundle"], "volumes", "0"))

    node.recover({})

    _check_bundle(info)


@pytest.mark.parametrize(
    ("config", "error", "named"),
    [
        ({"User": "nobody:here"}, UserNotFound, "'nobody'"),
        ({"User": "app:nobody"}, UserNotFound, "'nobody'"),
        ({"Volumes": {"/etc/passwd": {}}}, InvalidImage, "'/etc/passwd'"),
        ({"Volumes": {"/": {}}}, InvalidImage, "'/'"),
        ({"Env": [1]}, InvalidImage, "Env"),
    ],
)
def test_what_cannot_be_a_bundle_leaves_nothing(
    node: Provisioner, image: Callable[..., str], config: dict[str, Any], error: type[PermanentError], named: str
) -> None:
    """No rootfs, no ref, no state; without a bundle the image can be had."""
    source = image(**config)

    with pytest.raises(error, match=named):
        _provision(node, source, bundle=True)

    assert mounts_below(node.node.work.work_dir) == []
    assert files(node.node.work.containers_dir) == []
    assert [node.node.containers.get(ContainerId.parse(each)) for each in ("pod", "pod.c1")] == [None, None]
    assert _provision(node, source)["bundle"] is None


def test_a_refusal_later_leaves_the_rootfs_as_it_is(node: Provisioner, image: Callable[..., str]) -> None:
    """It is somebody's by then."""
    source = image(User="nobody")
    info = _provision(node, source)

    with pytest.raises(UserNotFound, match="'nobody'"):
        _provision(node, source, bundle=True)

    assert _provision(node, source) == info
    assert not Path(info["rootfs"]).with_name("config.json").exists()
    assert not Path(info["rootfs"]).with_name("volumes").exists()


def test_a_node_without_root_makes_no_bundle(node: Provisioner, image: Callable[..., str]) -> None:
    """It says so before it pulls anything."""
    squashed = Provisioner(replace(node.node, is_squashed=True))

    with pytest.raises(InvalidArgument, match=r"bundle.*does not run as root"):
        _provision(squashed, image(), bundle=True)

    assert files(node.node.work.containers_dir) == []


def test_a_refusal_takes_no_rootfs_that_redis_had_lost(
    node: Provisioner, image: Callable[..., str], redis_client: redis.Redis
) -> None:
    """What the disk has may have been answered."""
    source = image(User="nobody")
    info = _provision(node, source)
    redis_client.flushall()

    with pytest.raises(UserNotFound, match="'nobody'"):
        _provision(node, source, bundle=True)

    assert _provision(node, source) == info
    assert mounts_below(Path(info["rootfs"])) == [info["rootfs"]]


def test_destroy_takes_the_bundle_along(
    node: Provisioner, image: Callable[..., str], redis_client: redis.Redis
) -> None:
    """With what was written into its volumes."""
    _provision(node, image(), bundle=True)

    assert node.destroy({"container_id": "pod"}) is True

    assert files(node.node.work.containers_dir) == []
    assert files(node.node.work.trash_dir) == []
    assert keys(redis_client) == set()


@pytest.mark.parametrize("is_later", [False, True])
def test_killed_at_any_line_it_ends_as_if_it_had_not_been(
    tmp_path: Path, redis_url: str, image: Callable[..., str], is_later: bool
) -> None:
    """The next request of the same kind, or the next recover, finds or completes the bundle."""
    source = image()
    with provisioner(tmp_path, redis_url, lease_seconds=1.0) as node:

        def act() -> None:
            _provision(make_provisioner(make_settings(tmp_path, redis_url, lease_seconds=1.0)), source, bundle=True)

        def begin() -> None:
            node.destroy({"container_id": "pod"})
            if is_later:
                _provision(node, source)

        begin()
        lines = count_lines(act)
        kills = 0
        for at_line in range(lines // 2, lines, max(1, lines // 40)):
            begin()
            kills += run_killed(act, at_line=at_line)
            if at_line % 2:
                node.recover({}, is_start=True)
            _check_bundle(_provision(node, source, bundle=True))

    assert kills
    assert files(tmp_path / "work" / "containers") == []


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """An image of programs alone: it has none of the directories that its container needs."""
    config = {
        "Volumes": {"/var/data": {}},
        "WorkingDir": "/srv/app",
        "Cmd": ["/bin/sh", "-c", "pwd; echo 1 >/var/data/x"],
    }
    write_layout(tmp_path / "bare", {"latest": build_image([shell_layer(), layer(File("top"))], config=config)})
    return f"oci:{tmp_path / 'bare'}:latest"


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("backend", ["overlay", "copy"])
def test_a_read_only_rootfs_of_a_bare_image_runs(node: Provisioner, bare: str, backend: str, runtime: str) -> None:
    """What a runtime mounts on is there with the bundle, also after a reboot; the rootfs refuses writes as ever."""
    info = _provision(node, bare, bundle=True, read_only=True, backend=backend)
    unmount(mounts_below(node.node.work.work_dir))
    node.recover({}, is_start=True)

    done = run_here(node, "pod.c1", "--runtime", runtime)
    refused = run_here(node, "pod.c1", "--runtime", runtime, "--", "/bin/sh", "-c", "echo 1 >/new")

    assert (done.code, done.out, done.err) == (0, "/srv/app\n", "")
    assert refused.code != 0
    assert "Read-only file system" in refused.err
    assert node.destroy({"container_id": "pod"}) is True
    assert files(node.node.work.containers_dir) == []
    assert info["backend"] == backend


def test_mount_points_hide_nothing_of_the_image(node: Provisioner, tmp_path: Path) -> None:
    """They lie lowest: its directories keep their mode and owner, and what it deleted in them stays deleted."""
    lower = layer(
        Dir("proc", mode=0o555), Dir("var", uid=7), Dir("var/data", mode=0o700, uid=70), File("var/data/gone")
    )
    upper = layer(Whiteout("var/data/gone"), Dir("sys", mode=0o500), Symlink("srv", "var"))
    config = {"Volumes": {"/var/data": {}, "/srv/data": {}}}
    write_layout(tmp_path / "layout", {"latest": build_image([lower, upper], config=config)})

    info = _provision(node, f"oci:{tmp_path / 'layout'}:latest", bundle=True, read_only=True)

    rootfs = Path(info["rootfs"])
    found = {path: (rootfs / path).lstat() for path in ("proc", "sys", "dev", "var", "var/data")}
    assert {path: (stat.S_IMODE(each.st_mode), each.st_uid) for path, each in found.items()} == {
        "proc": (0o555, 0),
        "sys": (0o500, 0),
        "dev": (0o755, 0),
        "var": (0o755, 7),
        "var/data": (0o700, 70),
    }
    assert (rootfs / "srv").is_symlink()
    assert list((rootfs / "var" / "data").iterdir()) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_what_a_backend_cannot_add_is_named(node: Provisioner, tmp_path: Path, read_only: bool) -> None:
    """The rootfs of `bind` is one layer as it is, and never writable. Nothing is left."""
    write_layout(tmp_path / "bare", {"latest": build_image([shell_layer()])})
    source = f"oci:{tmp_path / 'bare'}:latest"

    with pytest.raises(DirectoryMissing, match="'/dev'"):
        _provision(node, source, bundle=True, read_only=read_only, backend="bind")

    assert mounts_below(node.node.work.work_dir) == []
    assert files(node.node.work.containers_dir) == []
    assert _provision(node, source, read_only=read_only, backend="bind")["bundle"] is None


def test_a_read_only_rootfs_gets_no_mount_points_later(node: Provisioner, bare: str) -> None:
    """It is somebody's as it is: neither a bundle nor a run changes it, and both say what it lacks."""
    info = _provision(node, bare, read_only=True)

    with pytest.raises(DirectoryMissing, match="'/dev'"):
        _provision(node, bare, read_only=True, bundle=True)
    done = run_here(node, "pod.c1")

    assert done.code == 125
    assert "has no directory '/dev'" in done.err
    assert _provision(node, bare, read_only=True) == info


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_runs_share_the_bundles_volumes(node: Provisioner, tmp_path: Path, runtime: str) -> None:
    """What one run writes into a volume the next one reads, and the rootfs does not have it."""
    write_layout(tmp_path / "shell", {"latest": build_image([shell_layer()], config={"Volumes": {"/data": {}}})})
    info = _provision(node, f"oci:{tmp_path / 'shell'}:latest", bundle=True)

    done = run_here(node, "pod.c1", "--runtime", runtime, "--", "/bin/sh", "-c", "echo kept >/data/file")
    again = run_here(node, "pod.c1", "--runtime", runtime, "--", "/bin/cat", "/data/file")

    assert (done.code, done.err) == (0, "")
    assert again.out == "kept\n"
    assert Path(info["bundle"], "volumes", "0", "file").read_text() == "kept\n"
    assert not Path(info["rootfs"], "data", "file").exists()


@pytest.mark.runtime
def test_a_runtime_takes_the_bundle_as_it_is(node: Provisioner, tmp_path: Path) -> None:
    """A scheduler needs nothing of this project to run it."""
    config = {"User": "app", "Cmd": ["/bin/sh", "-c", "id -u; pwd"], "WorkingDir": "/srv"}
    write_layout(tmp_path / "shell", {"latest": build_image([shell_layer()], config=config)})
    info = _provision(node, f"oci:{tmp_path / 'shell'}:latest", bundle=True)

    command = ["runc", "run", "--bundle", info["bundle"], f"bundle-{os.getpid()}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1000\n/srv\n", "")
