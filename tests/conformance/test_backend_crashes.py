# SPDX-License-Identifier: Apache-2.0
"""A backend may die at any line and be called again."""

import pytest

from tests.conformance.site import Site
from tests.support.killing import count_lines, run_killed
from tests.support.mounts import mounts_below
from tests.support.trees import File, HardLink, Tree, stack, tree_snapshot
from worker.linux.remove import remove_tree

pytestmark = pytest.mark.root


KILL_POINTS = 24
"""How many lines of a call are tried as the last one; spread evenly over all of them."""


CRASH_LAYERS: list[Tree] = [{"d/f": File(b"1"), "g": File(), "h": HardLink("g")}, {"d/f": File(b"2"), "i/j/k": File()}]


def _crash_stack(site: Site) -> list[Tree]:
    """The crash layers, or the first of them for a backend that shows one."""
    return CRASH_LAYERS[: site.backend.max_lower_dirs]


@pytest.mark.parametrize("is_read_only", [False, True], ids=["writable", "read-only"])
def test_killed_while_provisioning_provisions_again(site: Site, *, is_read_only: bool) -> None:
    """Whatever line was the last, nothing half made is taken for the rootfs and the next call completes it."""
    trees = _crash_stack(site)
    layers = site.layers(trees)
    rehearsal = site.home("rehearsal")
    lines = count_lines(lambda: site.backend.provision(layers, rehearsal, is_read_only=is_read_only))

    for number in range(KILL_POINTS):
        paths = site.home(f"home{number}")
        was_killed = run_killed(
            lambda paths=paths: site.backend.provision(layers, paths, is_read_only=is_read_only),  # type: ignore[misc]
            at_line=1 + number * lines // KILL_POINTS,
        )
        if site.backend.is_provisioned(paths):
            assert tree_snapshot(paths.rootfs_dir) == stack(trees)
        site.backend.provision(layers, paths, is_read_only=is_read_only)

        assert was_killed
        assert tree_snapshot(paths.rootfs_dir) == stack(trees)
        assert len(mounts_below(paths.rootfs_home)) <= 1


def test_killed_while_provisioning_destroys(site: Site) -> None:
    """Whatever line was the last, destroying leaves no mount and no rootfs."""
    layers = site.layers(_crash_stack(site))
    rehearsal = site.home("rehearsal")
    lines = count_lines(lambda: site.backend.provision(layers, rehearsal, is_read_only=True))

    for number in range(KILL_POINTS):
        paths = site.home(f"home{number}")
        run_killed(
            lambda paths=paths: site.backend.provision(layers, paths, is_read_only=True),  # type: ignore[misc]
            at_line=1 + number * lines // KILL_POINTS,
        )
        site.backend.destroy(paths)

        assert site.is_clean(paths)
        remove_tree(paths.rootfs_home)


def test_killed_while_destroying_destroys_again(site: Site) -> None:
    """A destroy that died can be run again."""
    layers = site.layers(_crash_stack(site))
    rehearsal = site.home("rehearsal")
    site.backend.provision(layers, rehearsal, is_read_only=True)
    lines = count_lines(lambda: site.backend.destroy(rehearsal))

    for number in range(KILL_POINTS):
        paths = site.home(f"home{number}")
        site.backend.provision(layers, paths, is_read_only=True)
        run_killed(lambda paths=paths: site.backend.destroy(paths), at_line=1 + number * lines // KILL_POINTS)  # type: ignore[misc]
        site.backend.destroy(paths)

        assert site.is_clean(paths)
