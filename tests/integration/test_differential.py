# SPDX-License-Identifier: Apache-2.0
"""The same generated images through our backends and through `umoci unpack` give the same tree.

Generated layers list every directory they use, and avoid what ARCHITECTURE.md names as a choice that specifications
leave: entries below a lower layer's symlink, and hard links to files of lower layers.
"""

import random
import subprocess
from pathlib import Path

import pytest

from tests.support.images import Image, build_image, layer
from tests.support.layouts import write_layout
from tests.support.provisioners import provisioner
from tests.support.tar import CharDevice, Dir, Entry, Fifo, File, Hardlink, Opaque, Symlink, Whiteout
from tests.support.trees import tree_snapshot
from worker.provisioner import Elsewhere

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.peer]

_DIRS = ("", "a", "a/b", "c")
_NAMES = ("f", "g", "h", "i")
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def _attributes(chooser: random.Random) -> dict[str, object]:
    return {
        "mode": chooser.choice((0o644, 0o600, 0o755, 0o4755, 0o1777)),
        "uid": chooser.choice((0, 7, 70_000)),
        "gid": chooser.choice((0, 8)),
        "mtime_ns": chooser.randrange(1, 2**31 * 10**9),
    }


def _content(chooser: random.Random, path: str, files: list[str]) -> Entry:
    kind = chooser.randrange(6)
    attributes = _attributes(chooser)
    if kind == 0:
        return Symlink(path, chooser.choice(("f", "/etc/passwd", "../c", "missing")), mtime_ns=attributes["mtime_ns"])
    if kind == 1 and files:
        return Hardlink(path, chooser.choice(files))
    if kind == 2:
        return chooser.choice((Fifo(path, **attributes), CharDevice(path, 1, 3, **attributes)))
    files.append(path)
    xattrs = {"user.note": b"x"} if chooser.random() < 0.3 else {}
    if chooser.random() < 0.2:
        xattrs["security.capability"] = _CAPABILITY
    return File(path, chooser.randbytes(chooser.randrange(3000)), xattrs=xattrs, **attributes)


def _stand_in(chooser: random.Random, path: str) -> Entry:
    """Return what takes a directory's place; a later layer may put a directory there again."""
    if chooser.random() < 0.5:
        return Symlink(path, chooser.choice(("c", "/a", "nowhere")))
    return File(path, b"instead of a directory", **_attributes(chooser))


def _layer(chooser: random.Random, *, is_base: bool) -> list[Entry]:
    """Return entries parents first; each name at most once, as a whiteout, a file or a directory."""
    entries: list[Entry] = [Dir("./", mode=0o755)]
    files: list[str] = []
    replaced: set[str] = set()
    for directory in _DIRS[1:]:
        if any(directory.startswith(f"{each}/") for each in replaced):
            continue
        choice = chooser.random()
        if not is_base and choice < 0.15:
            entries.append(Whiteout(directory))
            replaced.add(directory)
        elif not is_base and choice < 0.25:
            entries.append(_stand_in(chooser, directory))
            replaced.add(directory)
        else:
            entries.append(Dir(directory, **{**_attributes(chooser), "mode": chooser.choice((0o755, 0o700, 0o2775))}))
            if not is_base and choice < 0.4:
                entries.append(Opaque(directory))
    for directory in (each for each in _DIRS if each not in replaced):
        if any(directory == each or directory.startswith(f"{each}/") for each in replaced):
            continue
        for name in chooser.sample(_NAMES, chooser.randrange(1, len(_NAMES))):
            path = f"{directory}/{name}" if directory else name
            if not is_base and chooser.random() < 0.25:
                entries.append(Whiteout(path))
            else:
                entries.append(_content(chooser, path, files))
    return entries


def _image(seed: int, *, layers: int) -> Image:
    chooser = random.Random(seed)
    return build_image([layer(*_layer(chooser, is_base=number == 0)) for number in range(layers)])


def _unpacked_by_umoci(layout_dir: Path, target_dir: Path) -> Path:
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout_dir}:latest", str(target_dir)], check=True, capture_output=True
    )
    return target_dir / "rootfs"


@pytest.mark.parametrize("layer_format", ["directory", "erofs"])
@pytest.mark.parametrize("seed", range(12))
def test_backends_and_umoci_give_the_same_tree(tmp_path: Path, redis_url: str, seed: int, layer_format: str) -> None:
    """Types, contents, modes, owners, times, xattrs, capabilities and links, of one to five layers."""
    layers = 1 + seed % 5
    write_layout(tmp_path / "layout", {"latest": _image(seed, layers=layers)})
    expected = tree_snapshot(_unpacked_by_umoci(tmp_path / "layout", tmp_path / "umoci"))
    backends = ["overlay", "copy", *(["bind"] if layers == 1 or layer_format == "erofs" else [])]

    with provisioner(tmp_path, redis_url, layer_format=layer_format) as node:
        for backend in backends:
            keywords = {"container_id": backend, "image": f"oci:{tmp_path / 'layout'}:latest", "backend": backend}
            info = node.provision(keywords)
            assert not isinstance(info, Elsewhere)

            assert tree_snapshot(Path(info["rootfs"])) == expected, backend
