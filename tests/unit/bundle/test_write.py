# SPDX-License-Identifier: Apache-2.0
"""Bundles on disk, from rootfses that nobody vouches for."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from worker.bundle.write import BundlePlan, look_up_user, read_bundle, write_bundle
from worker.errors import UserNotFound

ACCOUNTS = "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A rootfs's home."""
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "rootfs" / "etc" / "passwd").write_text(ACCOUNTS)
    return tmp_path


def _plan(home: Path, **more: Any) -> BundlePlan:
    given: dict[str, Any] = {
        "bundle_dir": home,
        "rootfs_dir": home / "rootfs",
        "image": "example:1",
        "hostname": "c1",
        "is_read_only": False,
        "docker_manifest": {"config": {"User": "app", "Cmd": ["/x"], "Volumes": {"/etc": {}}}},
        "appc_manifest": None,
    }
    return BundlePlan(**given | more)


def test_a_bundle_stands_beside_its_rootfs(home: Path) -> None:
    """config.json names the rootfs by its name, users by their number in it."""
    write_bundle(_plan(home))

    config = read_bundle(home)
    assert config["root"] == {"path": "rootfs", "readonly": False}
    assert config["process"]["user"] == {"uid": 1000, "gid": 1001}
    assert config["mounts"][-1]["source"] == str(home / "volumes" / "0")
    assert (home / "volumes" / "0" / "passwd").read_text() == ACCOUNTS


def test_a_bundle_elsewhere_names_its_rootfs_by_path(home: Path, tmp_path: Path) -> None:
    """As that of a run does."""
    (tmp_path / "run").mkdir()

    write_bundle(_plan(home, bundle_dir=tmp_path / "run"))

    assert read_bundle(tmp_path / "run")["root"]["path"] == str(home / "rootfs")


def test_a_second_call_changes_nothing(home: Path) -> None:
    """What the container wrote into its volume and its /etc/passwd is its own by now."""
    write_bundle(_plan(home))
    (home / "volumes" / "0" / "new").touch()
    (home / "rootfs" / "etc" / "passwd").unlink()

    write_bundle(_plan(home))

    assert (home / "volumes" / "0" / "new").exists()
    assert read_bundle(home)["process"]["user"]["uid"] == 1000


def test_a_refused_bundle_is_not_there(home: Path) -> None:
    """And the next call tries again."""
    (home / "rootfs" / "etc" / "passwd").unlink()

    for _ in range(2):
        with pytest.raises(UserNotFound, match="'app'"):
            write_bundle(_plan(home))

    assert not (home / "config.json").exists()


def test_labels_that_order_are_reported(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever wonders where they are finds it in the worker's log."""
    manifest = {"config": {"Labels": {"run.oci.handler": "x", "a": "b"}}}

    write_bundle(_plan(home, docker_manifest=manifest))

    assert "run.oci.handler" in caplog.text
    assert "example:1" in caplog.text
    assert json.loads((home / "config.json").read_bytes())["annotations"] == {"a": "b"}


def test_volumes_where_runtimes_mount_are_reported(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the image's others are volumes as ever."""
    manifest = {"config": {"Volumes": {"/sys/fs/cgroup": {}, "/data": {}}}}

    write_bundle(_plan(home, docker_manifest=manifest))

    assert "/sys/fs/cgroup" in caplog.text
    assert "example:1" in caplog.text
    sources = {each["destination"]: each["source"] for each in read_bundle(home)["mounts"]}
    assert sources["/data"] == str(home / "volumes" / "0")
    assert sources["/sys/fs/cgroup"] == "cgroup"


def test_the_hosts_accounts_are_not_read(home: Path, tmp_path: Path) -> None:
    """A link that leads out of the rootfs leads to the same path in it."""
    outside = tmp_path / "outside"
    outside.write_text("app:x:0:0::/:\n")
    passwd = home / "rootfs" / "etc" / "passwd"
    for target in (str(outside), "../../outside", f"/proc/self/root{outside}", "/proc/self/environ"):
        passwd.unlink(missing_ok=True)
        passwd.symlink_to(target)

        with pytest.raises(UserNotFound, match="'app'"):
            look_up_user("app", home / "rootfs")


def test_a_link_within_the_rootfs_is_followed(home: Path) -> None:
    """Some images keep their accounts in /usr/lib."""
    etc = home / "rootfs" / "etc"
    (etc / "passwd").rename(home / "rootfs" / "accounts")
    (etc / "passwd").symlink_to("/accounts")

    assert look_up_user("app", home / "rootfs").uid == 1000


@pytest.mark.root
def test_an_owner_is_looked_up_in_the_rootfs(home: Path, tmp_path: Path) -> None:
    """An Appc image's user may be a path; a link is followed to where it leads from the rootfs's own root."""
    (home / "rootfs" / "data").mkdir()
    os.chown(home / "rootfs" / "data", 70, 71)
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", 80, 81)
    (home / "rootfs" / "link").symlink_to("../../data")
    app = {"user": "/link", "group": "/data", "supplementaryGIDs": [500]}

    write_bundle(_plan(home, docker_manifest=None, appc_manifest={"app": app}))

    assert read_bundle(home)["process"]["user"] == {"uid": 70, "gid": 71, "additionalGids": [500]}


@pytest.mark.parametrize(("path", "reason"), [("/none", "there is no '/none'"), ("/circle", "Too many levels")])
def test_an_owner_of_nothing_is_refused(home: Path, path: str, reason: str) -> None:
    """And there is no bundle."""
    (home / "rootfs" / "circle").symlink_to("circle")

    with pytest.raises(UserNotFound, match=reason):
        write_bundle(_plan(home, docker_manifest=None, appc_manifest={"app": {"user": path, "group": "0"}}))

    assert not (home / "config.json").exists()


@pytest.mark.parametrize("kind", ["fifo", "directory", "large", "circle"])
def test_accounts_that_are_no_file_are_refused(home: Path, kind: str) -> None:
    """Nobody waits for the other end of a fifo, or reads for ever."""
    passwd = home / "rootfs" / "etc" / "passwd"
    passwd.unlink()
    match kind:
        case "fifo":
            os.mkfifo(passwd)
        case "directory":
            passwd.mkdir()
        case "large":
            with passwd.open("wb") as file:
                file.truncate(64 << 20)
        case "circle":
            passwd.symlink_to("passwd")

    with pytest.raises(UserNotFound, match=r"'app'.*/etc/passwd"):
        look_up_user("app", home / "rootfs")


@pytest.mark.root
def test_a_device_in_the_place_of_accounts_is_not_opened(home: Path) -> None:
    """Opening some devices does something."""
    passwd = home / "rootfs" / "etc" / "passwd"
    passwd.unlink()
    os.mknod(passwd, 0o20666, os.makedev(1, 5))

    with pytest.raises(UserNotFound, match="not a regular file"):
        look_up_user("app", home / "rootfs")
