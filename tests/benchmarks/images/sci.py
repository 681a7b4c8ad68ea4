# SPDX-License-Identifier: Apache-2.0
"""`sci`: a Debian, a toolchain and Python packages with native code; what a batch cluster runs.

Debian comes by debootstrap, which needs a mirror, the packages by pip. The split into base and toolchain follows dpkg's
lists, as if the toolchain had been installed in a second step.
"""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.benchmarks.images.synthetic import with_plain_time

SUITE = "bookworm"
TOOLCHAIN = ("build-essential", "gfortran", "git", "cmake", "clang", "curl", "python3", "python3-dev", "python3-venv")
PYTHON_VERSION = "3.11"
"""Of `SUITE`."""
WHEELS = ("numpy", "scipy", "pandas", "django")
MIRROR_VARIABLE = "BENCHMARK_DEBIAN_MIRROR"
_MIRROR = "http://deb.debian.org/debian"
_SKIPPED = ("var/cache/apt/archives/", "var/lib/apt/lists/", "dev/", "proc/", "sys/", "run/")


def write_sci(tar_dir: Path) -> list[Path]:
    """Write the three layers. Cost: some minutes and 3 GB below the directory."""
    tree = tar_dir / "tree"
    _debootstrap(tree)
    toolchain = _owned_by_toolchain(tree)
    base = _pack(tar_dir / "base.tar", tree, lambda name: name not in toolchain)
    tools = _pack(tar_dir / "toolchain.tar", tree, toolchain.__contains__)
    packages = tar_dir / "packages"
    _install_wheels(packages / f"usr/local/lib/python{PYTHON_VERSION}/dist-packages")
    return [base, tools, _pack(tar_dir / "packages.tar", packages, lambda _: True)]


def _debootstrap(tree: Path) -> None:
    mirror = os.environ.get(MIRROR_VARIABLE, _MIRROR)
    include = f"--include={','.join(TOOLCHAIN)}"
    _run("debootstrap", "--variant=minbase", include, SUITE, tree, mirror)


def _owned_by_toolchain(tree: Path) -> set[str]:
    """Return the names that belong to packages beyond the minimal system, and to none of the minimal system."""
    minimal = _minimal_packages(tree)
    owned: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (tree / "var/lib/dpkg/info").glob("*.list"):
        names = owned[path.stem.partition(":")[0] in minimal]
        names.update(_in_merged_usr(line) for line in path.read_text(encoding="utf-8").splitlines())
        names.update(str(each.relative_to(tree)) for each in path.parent.glob(f"{path.stem}.*"))
    return owned[False] - owned[True]


def _in_merged_usr(line: str) -> str:
    """Return the name under which a listed path lies in the tree, where /bin is a link to /usr/bin."""
    name = line.lstrip("/")
    return f"usr/{name}" if name.startswith(("bin/", "lib/", "lib64/", "sbin/")) else name


def _minimal_packages(tree: Path) -> set[str]:
    """Return what `--variant=minbase` alone installs: required packages, apt, and what these depend on."""
    status = _run("dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show", "--showformat=${Package} ${Priority}\n")
    required = [line.split()[0] for line in status.splitlines() if line.endswith(" required")]
    others = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    options = ["--recurse", "--installed", *(f"--no-{relation}" for relation in others)]
    found = _run("chroot", tree, "apt-cache", "depends", *options, "apt", *required)
    return {line for line in found.splitlines() if line[:1] not in {" ", "|", "<"}}


def _install_wheels(target: Path) -> None:
    options = ("--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--python-version", PYTHON_VERSION)
    _run(sys.executable, "-m", "pip", "install", *options, "--target", target, *WHEELS)
    _run(sys.executable, "-m", "compileall", "-q", target)


def _pack(tar_path: Path, root: Path, is_wanted: Callable[[str], bool]) -> Path:
    with tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in _names(root):
            if is_wanted(name) and not name.startswith(_SKIPPED):
                archive.add(root / name, arcname=name, recursive=False, filter=with_plain_time)
    return tar_path


def _names(root: Path) -> Iterable[str]:
    for parent, directories, files in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *files]):
            yield os.path.relpath(Path(parent) / name, root)


def _run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
