# SPDX-License-Identifier: Apache-2.0
"""One node's `Provisioner` in the test's own process, over a real Redis and real mounts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.support.images import Image, build_image, layer
from tests.support.layouts import write_layout
from tests.support.tar import Dir, File, Whiteout
from worker.provisioner import Provisioner
from worker.runtime import make_provisioner
from worker.settings import Settings


def make_settings(directory: Path, redis_url: str, **more: Any) -> Settings:
    """Return the settings of a node whose directories lie below `directory`."""
    directories = {"work_dir": directory / "work", "store_dir": directory / "store"}
    defaults = {"node": "n1", "lease_seconds": 2.0, "lock_timeout_seconds": 20.0}
    return Settings(redis_url=redis_url, **directories | defaults | more)


@contextmanager
def provisioner(directory: Path, redis_url: str, **more: Any) -> Iterator[Provisioner]:
    """Put a node together; at the end destroy whatever containers it still has."""
    node = make_provisioner(make_settings(directory, redis_url, **more))
    try:
        yield node
    finally:
        node.recover({"known_container_ids": []}, is_start=True)


def settle(node: Provisioner) -> None:
    """Wait until Redis is believed again."""
    while not node.node.epoch.join().is_settled:
        time.sleep(0.01)


def small_image(text: str = "hello") -> Image:
    """Return two small layers: the upper one replaces a file, adds one and hides one."""
    base = layer(Dir("etc"), File("etc/motd", b"base"), File("etc/gone", b"x"), File("etc/kept", text.encode()))
    top = layer(File("etc/motd", text.encode()), Whiteout("etc/gone"), File("new", text.encode()))
    return build_image([base, top])


def small_layout(directory: Path, text: str = "hello") -> str:
    """Write `small_image` as an OCI layout and return its reference."""
    write_layout(directory, {"latest": small_image(text)})
    return f"oci:{directory}:latest"


def keys(client: redis.Redis, *, prefix: str = "{provisioner:default}") -> set[str]:
    """Return the keys of the cluster that are about containers."""
    return {key.decode() for key in client.scan_iter(match=f"{prefix}:container*")}


def files(directory: Path) -> list[str]:
    """Return what lies below the directory, relative, without following mounts' contents beyond it."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def tree_text(rootfs: str) -> dict[str, str]:
    """Return the regular files of a small rootfs with their text."""
    root = Path(rootfs)
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


SMALL_TREE = {"etc/kept": "hello", "etc/motd": "hello", "new": "hello"}
