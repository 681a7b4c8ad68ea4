# SPDX-License-Identifier: Apache-2.0
"""Everything together, in one process: a provisioner that is watched, a page that tells."""

import dataclasses
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.provisioners import make_settings, small_layout
from tests.support.scraping import scrape
from worker.errors import InvalidArgument, TeardownFailed
from worker.metrics.monitor import Monitor
from worker.provisioner import Provisioner
from worker.runtime import make_monitor, make_provisioner
from worker.settings import Settings

FS_IOC_SETFLAGS = 0x40086602
FS_IMMUTABLE_FL = 0x10

pytestmark = pytest.mark.redis


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    """Of a node that serves metrics."""
    return make_settings(tmp_path, redis_url, metrics_port=free_port())


@pytest.fixture
def monitor(settings: Settings) -> Iterator[Monitor]:
    """What watches it."""
    made = make_monitor(settings)
    yield made
    made.close()


@pytest.fixture
def watched(settings: Settings, monitor: Monitor) -> Iterator[Provisioner]:
    """The node, in this process."""
    made = make_provisioner(settings, observe=monitor.observe)
    yield made
    made.recover({"known_container_ids": []}, is_start=True)


def test_before_there_is_a_store_the_page_is_there(monitor: Monitor) -> None:
    """The worker serves it before it recovers, and made nothing to do so."""
    page = scrape(monitor.port)

    assert page.value("redis_up") == 1
    assert "provisioner_store_images" not in page.names
    assert page.value("verbs_total", verb="recover", outcome="done") == 0


def test_a_taken_port_is_named_by_its_variable(settings: Settings, monitor: Monitor) -> None:
    """An operator sees what to change."""
    with pytest.raises(InvalidArgument, match=r"PROVISIONER_METRICS_PORT.*in use"):
        make_monitor(settings)


@pytest.mark.root
def test_a_rootfs_that_cannot_be_taken_down_is_counted_by_backend(
    watched: Provisioner, monitor: Monitor, tmp_path: Path
) -> None:
    """The ancestor's `bind/remove_rootfs_errors`."""
    image = small_layout(tmp_path / "layout")
    watched.provision({"container_id": "c1", "image": image, "backend": "bind"})
    rootfs_home = watched.node.work.rootfs_paths(("c1",), name="rootfs").rootfs_home

    with immutable(rootfs_home), pytest.raises(OSError, match="not permitted"):
        watched.destroy({"container_id": "c1"})
    page = scrape(monitor.port)

    assert watched.destroy({"container_id": "c1"}) is True
    assert page.value("remove_rootfs_errors_total", backend="bind") == 1
    assert page.value("remove_rootfs_errors_total", backend="copy") == 0
    assert page.verbs("destroy") == {"unforeseen": 1}
    assert page.value("errors_total", outcome="unforeseen", error="Unforeseen") == 1


@pytest.mark.root
def test_a_container_that_is_not_fully_destroyed_is_counted(
    settings: Settings, watched: Provisioner, monitor: Monitor, tmp_path: Path
) -> None:
    """The ancestor's `remove_container_errors`."""
    image = small_layout(tmp_path / "layout")
    watched.provision({"container_id": "c1", "image": image, "backend": "copy"})
    hasty = settings.model_copy(update={"lock_timeout_seconds": 0.1})
    impatient = Provisioner(dataclasses.replace(watched.node, settings=hasty))

    with watched.node.exclusive(), pytest.raises(TeardownFailed, match="not granted"):
        impatient.destroy({"container_id": "c1"})
    page = scrape(monitor.port)

    assert watched.destroy({"container_id": "c1"}) is True
    assert page.value("remove_container_errors_total") == 1
    assert page.verbs("destroy") == {"transient": 1}
    assert page.value("errors_total", outcome="transient", error="TeardownFailed") == 1
    assert page.value("lock_wait_seconds_count", mode="shared", result="failed") == 1


@pytest.mark.root
def test_a_provision_from_elsewhere_is_told_from_one_that_is_done(watched: Provisioner, monitor: Monitor) -> None:
    """Neither looked an image up."""
    watched.provision({"container_id": "c1", "image": "alpine:3", "node": "n2"})
    with pytest.raises(InvalidArgument):
        watched.provision({"container_id": "../c1", "image": "alpine:3"})

    page = scrape(monitor.port)

    assert page.verbs("provision") == {"forwarded": 1, "permanent": 1}
    assert (page.value("image_lookups_total", result="hit"), page.value("image_lookups_total", result="miss")) == (0, 0)
    assert page.value("verb_seconds_count", verb="provision") == 0


@pytest.mark.root
def test_a_dry_run_prunes_nothing_on_the_page(watched: Provisioner, monitor: Monitor, tmp_path: Path) -> None:
    """It kept nobody waiting and freed nothing."""
    watched.pull({"image": small_layout(tmp_path / "layout")})
    watched.prune({"dry_run": True})
    dry = scrape(monitor.port)
    watched.prune({})
    wet = scrape(monitor.port)

    counts = [(page.value("pruned_layers_total"), page.value("prune_exclusive_seconds_count")) for page in (dry, wet)]
    assert counts == [(0, 0), (2, 1)]
    assert (dry.value("pruned_bytes_total"), wet.value("pruned_bytes_total") > 0) == (0, True)


@contextmanager
def immutable(directory: Path) -> Iterator[None]:
    """Let nobody add, remove or rename what is in the directory, root included."""
    _set_flags(directory, FS_IMMUTABLE_FL)
    try:
        yield
    finally:
        _set_flags(directory, 0)


def _set_flags(directory: Path, flags: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("l", flags))
    except OSError:
        pytest.skip("the filesystem has no immutable files")
    finally:
        os.close(descriptor)
