# SPDX-License-Identifier: Apache-2.0
"""An image is mounted once for all that stand on it, and not a moment longer."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.erofs import make_image
from tests.support.killing import count_lines, run_killed
from tests.support.mounts import mounts_below
from tests.support.tar import File
from worker.errors import MountFailed
from worker.linux.mount import Mount, mount_filesystem, receive_and_share, unmount_tree
from worker.linux.mountinfo import mounts_at_or_below
from worker.oci.digest import Digest
from worker.paths import WorkPaths
from worker.store.image_mounts import ImageMounts
from worker.store.merged import MergedImage

pytestmark = pytest.mark.root

DIGEST = Digest.of(b"manifest")
OTHER = Digest.of(b"another")


@pytest.fixture
def image(tmp_path: Path) -> MergedImage:
    """An image of one file."""
    return make_image([[File("f", b"content")]], tmp_path / "store")


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[WorkPaths]:
    """A work directory, unmounted afterwards."""
    yield WorkPaths(tmp_path / "work")
    unmount_tree(tmp_path / "work")


def leftovers(paths: WorkPaths) -> list[Path]:
    """List what the mounts of images left."""
    return list(paths.images_dir.iterdir())


def test_users_share_one_mount_and_the_last_one_ends_it(image: MergedImage, paths: WorkPaths) -> None:
    """Acquired and released as often as one likes."""
    mounts = ImageMounts(paths)

    first, again, second = (mounts.acquire(DIGEST, image, user=user) for user in ("one", "one", "two"))
    assert first == again == second
    assert (first / "f").read_bytes() == b"content"
    assert mounts_below(paths.work_dir) == [str(first)]
    assert mounts.users(DIGEST) == {"one", "two"}

    assert [mounts.release(DIGEST, user=user) for user in ("one", "one", "nobody")] == [False] * 3
    assert (first / "f").read_bytes() == b"content"
    assert [mounts.release(DIGEST, user="two"), mounts.release(DIGEST, user="two")] == [True, True]
    assert (mounts_below(paths.work_dir), leftovers(paths)) == ([], [])


def test_a_mount_that_is_gone_comes_back(image: MergedImage, paths: WorkPaths) -> None:
    """As after a reboot: the users are written down, the mount is not."""
    mounts = ImageMounts(paths)
    mounts.acquire(DIGEST, image, user="one")
    unmount_tree(paths.work_dir)

    assert (mounts.acquire(DIGEST, image, user="two") / "f").read_bytes() == b"content"

    assert mounts.users(DIGEST) == {"one", "two"}


def test_an_image_in_use_goes_out_of_sight_and_lives_on(image: MergedImage, paths: WorkPaths) -> None:
    """Whoever has a file of it open keeps it until it is closed."""
    mounts = ImageMounts(paths)
    with (mounts.acquire(DIGEST, image, user="one") / "f").open("rb") as file:
        assert mounts.release(DIGEST, user="one")

        assert mounts_below(paths.work_dir) == []
        assert file.read() == b"content"


def test_a_failed_mount_leaves_no_user(image: MergedImage, paths: WorkPaths) -> None:
    """The next one to ask finds nothing in the way."""
    mounts = ImageMounts(paths)
    lost = MergedImage(image_path=image.image_path, device_paths=(paths.work_dir / "absent",))

    with pytest.raises(MountFailed, match="No such file"):
        mounts.acquire(DIGEST, lost, user="one")

    assert (mounts.users(DIGEST), leftovers(paths)) == (frozenset(), [])


def test_a_failed_mount_leaves_the_other_users(image: MergedImage, paths: WorkPaths) -> None:
    """Even if it was their mount that had gone."""
    mounts = ImageMounts(paths)
    mounts.acquire(DIGEST, image, user="one")
    unmount_tree(paths.work_dir)
    lost = MergedImage(image_path=image.image_path, device_paths=(paths.work_dir / "absent",))

    with pytest.raises(MountFailed):
        mounts.acquire(DIGEST, lost, user="two")

    assert mounts.users(DIGEST) == {"one"}


def test_users_that_are_none_any_more_are_let_go(image: MergedImage, paths: WorkPaths, tmp_path: Path) -> None:
    """What dead workers left is found without their help."""
    mounts = ImageMounts(paths)
    other = make_image([[File("g")]], tmp_path / "other")
    for user in ("dead", "alive"):
        mounts.acquire(DIGEST, image, user=user)
    mounts.acquire(OTHER, other, user="dead")

    unmounted = mounts.release_unneeded(lambda digest, user: (digest, user) == (DIGEST, "alive"))

    assert unmounted == 1
    assert mounts.users(DIGEST) == {"alive"}
    assert mounts_below(paths.work_dir) == [str(paths.image_mount_dir(str(DIGEST)))]
    assert {path.name for path in leftovers(paths)} == {str(DIGEST), f"{DIGEST}.lock"}


def test_nothing_to_let_go_of_is_nothing(paths: WorkPaths) -> None:
    """A node that has shown no image has no directory for them."""
    mounts = ImageMounts(paths)

    assert mounts.release_unneeded(lambda _digest, _user: False) == 0
    assert mounts.release(DIGEST, user="one")
    assert mounts.users(DIGEST) == frozenset()


def test_what_a_container_mounts_on_an_image_does_not_spread(image: MergedImage, paths: WorkPaths) -> None:
    """The mount is private, also where the work directory is shared with others."""
    paths.work_dir.mkdir()
    mount_filesystem(Mount(fs_type="tmpfs", source="tmpfs", target=paths.work_dir))
    receive_and_share(paths.work_dir)
    mounts = ImageMounts(paths)

    mount_dir = mounts.acquire(DIGEST, image, user="one")

    (mount,) = mounts_at_or_below(mount_dir)
    assert mount.propagation == ()
    assert mounts.release(DIGEST, user="one")


def test_an_acquire_killed_at_any_line_can_be_done_again(image: MergedImage, paths: WorkPaths) -> None:
    """And what it was for can be released."""
    mounts = ImageMounts(paths)
    lines = count_lines(lambda: mounts.acquire(DIGEST, image, user="one"))
    mounts.release(DIGEST, user="one")

    for line in range(1, lines + 1):
        assert run_killed(lambda: mounts.acquire(DIGEST, image, user="one"), at_line=line)

        if line % 2:
            assert (mounts.acquire(DIGEST, image, user="one") / "f").read_bytes() == b"content"
            assert len(mounts_below(paths.work_dir)) == 1
        mounts.release(DIGEST, user="one")
        assert (mounts_below(paths.work_dir), mounts.users(DIGEST)) == ([], frozenset())


def test_a_release_killed_at_any_line_can_be_done_again(image: MergedImage, paths: WorkPaths) -> None:
    """By whoever asked, or by whoever lets go of what is not needed."""
    mounts = ImageMounts(paths)
    mounts.acquire(DIGEST, image, user="one")
    lines = count_lines(lambda: mounts.release(DIGEST, user="one"))

    for line in range(1, lines + 1):
        mounts.acquire(DIGEST, image, user="one")
        run_killed(lambda: mounts.release(DIGEST, user="one"), at_line=line)

        if line % 2:
            mounts.release(DIGEST, user="one")
        else:
            mounts.release_unneeded(lambda _digest, _user: False)
        assert (mounts_below(paths.work_dir), mounts.users(DIGEST)) == ([], frozenset())
    mounts.release_unneeded(lambda _digest, _user: False)
    assert leftovers(paths) == []


def test_many_at_once_agree(image: MergedImage, paths: WorkPaths) -> None:
    """Threads of two objects acquire and release: each finds the image mounted while it has it."""
    failures: list[object] = []

    def use(number: int) -> None:
        mounts = ImageMounts(paths)
        for _ in range(10):
            mount_dir = mounts.acquire(DIGEST, image, user=str(number))
            if (mount_dir / "f").read_bytes() != b"content":
                failures.append(number)
            mounts.release(DIGEST, user=str(number))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (failures, mounts_below(paths.work_dir), leftovers(paths)) == ([], [], [])
