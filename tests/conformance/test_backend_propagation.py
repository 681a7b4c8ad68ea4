# SPDX-License-Identifier: Apache-2.0
"""A runtime lives elsewhere on the node, in a mount namespace made before: it sees each rootfs come and go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.site import Site
from tests.support.namespaces import Elsewhere, mount_namespace
from tests.support.trees import File
from worker.linux import libc
from worker.linux.mount import BindMount, mount_bind, unmount_tree
from worker.linux.mountinfo import mounts_at_or_below

pytestmark = pytest.mark.root

_MS_SHARED = 1 << 20


@pytest.fixture
def shared_dir(tmp_path: Path) -> Iterator[Path]:
    """A directory on a shared mount of its own, as systemd makes all of a machine's."""
    mount_bind(BindMount(source=tmp_path, target=tmp_path))
    libc.call("mount", None, bytes(tmp_path), None, _MS_SHARED, None)
    yield tmp_path
    unmount_tree(tmp_path)


@pytest.fixture(params=["slave", "shared"])
def elsewhere(request: pytest.FixtureRequest, shared_dir: Path) -> Iterator[Elsewhere]:
    """A namespace made before anything is provisioned: a runtime's, which only receives, or one that shares."""
    with mount_namespace(propagation=request.param) as made:
        yield made


@pytest.fixture
def runtime(shared_dir: Path) -> Iterator[Elsewhere]:
    """A namespace that only receives, as runtimes make theirs."""
    with mount_namespace(propagation="slave") as made:
        yield made


@pytest.mark.parametrize("is_read_only", [False, True], ids=["writable", "read-only"])
def test_a_namespace_made_before_sees_the_rootfs_come_and_go(
    elsewhere: Elsewhere, site: Site, *, is_read_only: bool
) -> None:
    """Mounted here, readable there; taken down here, gone there, although it was in use there."""
    paths = site.home()
    site.backend.provision([site.layer({"d/f": File(b"seen")})], paths, is_read_only=is_read_only)

    assert elsewhere.run("cat", str(paths.rootfs_dir / "d/f")).stdout == b"seen"
    assert site.backend.destroy(paths)

    assert elsewhere.run("cat", str(paths.rootfs_dir / "d/f")).returncode != 0
    assert b"home" not in elsewhere.run("cat", "/proc/self/mountinfo").stdout


def test_what_a_runtime_mounts_in_a_rootfs_stays_there(runtime: Elsewhere, writable: Site) -> None:
    """Its /proc and /dev are its container's; here the rootfs stays as its layers made it."""
    paths = writable.home()
    writable.backend.provision([writable.layer({"proc/.keep": File()})], paths, is_read_only=False)

    mounted = runtime.run("mount", "-t", "tmpfs", "tmpfs", str(paths.rootfs_dir / "proc"))
    is_empty = runtime.run("ls", "-A", str(paths.rootfs_dir / "proc")).stdout == b""

    assert (mounted.returncode, is_empty) == (0, True)
    assert [path.name for path in (paths.rootfs_dir / "proc").iterdir()] == [".keep"]
    assert writable.backend.destroy(paths)


def test_a_mounted_rootfs_is_slave_and_shared(shared_dir: Path, site: Site) -> None:
    """It receives the unmounts of namespaces that share with this one, and its copies receive its own mounts."""
    paths = site.home()
    with mount_namespace(propagation="shared"):
        site.backend.provision([site.layer({"f": File()})], paths, is_read_only=True)

        (mount,) = mounts_at_or_below(paths.rootfs_dir)

    assert (mount.is_shared, mount.is_slave) == (True, True)
    assert "ro" in mount.options
