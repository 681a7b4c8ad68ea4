# SPDX-License-Identifier: Apache-2.0
"""`hold`: peers take turns on one image."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.images import Published, Shelf
from tests.benchmarks.measuring.ground import Ground
from tests.benchmarks.measuring.memory import warm_memory
from tests.benchmarks.measuring.processes import Usage
from tests.benchmarks.peers.ready import Peer, Ready
from worker.linux.durable import sync_filesystem

_COPIES = 2
"""How much memory a turn finds ready, in sizes of the image: compressed and uncompressed, with room to spare."""


@dataclass(kw_only=True)
class Result:
    """One peer's turns, a sample each.

    Attributes:
        peer: Who.
        wall_seconds: From the request to the rootfs.
        sync_seconds: What syncfs(2) takes right afterwards: what the peer left for others to write.
        usage: CPU and bytes written.
        peak_rss_bytes: The largest of its long-lived processes; 0 if it has none.
    """

    peer: Peer
    wall_seconds: list[float] = field(default_factory=list)
    sync_seconds: list[float] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    peak_rss_bytes: list[int] = field(default_factory=list)


def hold(
    image: Published, shelf: Shelf, peers: Sequence[Peer], *, ground: Ground, rounds: int, say: Callable[[str], None]
) -> Sequence[Result]:
    """Give each peer `rounds` turns; another one begins each round. In the first, what they made is looked at.

    Raises:
        AssertionError: Two peers made different numbers of files, or what they made does not run.
    """
    results = [Result(peer=peer) for peer in peers]
    counts: dict[str, int] = {}
    for number in range(rounds):
        start = number % len(results)
        for result in (*results[start:], *results[:start]):
            say(f"{image.recipe.name}, round {number + 1} of {rounds}: {result.peer.name}")
            with ground() as directory:
                count = _turn(image, shelf, result, directory / "peer", is_inspected=number == 0)
            if count is not None:
                counts[result.peer.name] = count
    assert len(set(counts.values())) <= 1, f"not the same files: {counts}"
    return results


def _turn(image: Published, shelf: Shelf, result: Result, directory: Path, *, is_inspected: bool) -> int | None:
    """Measure once; return the number of files in the rootfs if it is looked at."""
    directory.mkdir()
    with result.peer.start(directory) as ready:
        rootfs = _measure(image, shelf, result, ready, directory)
        return _inspect(image, rootfs) if is_inspected and result.peer.makes_rootfs else None


def _measure(image: Published, shelf: Shelf, result: Result, ready: Ready, directory: Path) -> Path:
    shelf.warm(image)
    os.sync()
    warm_memory(_COPIES * (image.tar_bytes + image.blob_bytes))
    before = ready.usage()
    started = time.perf_counter()
    rootfs = ready.provision(image)
    ended = time.perf_counter()
    sync_filesystem(directory)
    result.wall_seconds.append(ended - started)
    result.sync_seconds.append(time.perf_counter() - ended)
    result.usage.append(ready.usage() - before)
    result.peak_rss_bytes.append(ready.peak_rss_bytes() or 0)
    return rootfs


def _inspect(image: Published, rootfs: Path) -> int:
    for proof in image.recipe.proofs:
        subprocess.run(["chroot", rootfs, *proof], check=True, capture_output=True)
    return sum(len(names) for _, _, names in os.walk(rootfs))
