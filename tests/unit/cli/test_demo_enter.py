# SPDX-License-Identifier: Apache-2.0
"""Running something inside a rootfs."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from worker.cli.demo_enter import image_command, list_root, run_anything, run_python
from worker.cli.exits import Failure

SHELL = shutil.which("sh") or "/bin/sh"


def info(rootfs: Path, **config: object) -> dict[str, Any]:
    """Return as much of a ProvisionInfo as matters."""
    return {"rootfs": str(rootfs), "docker_manifest": {"config": config}}


def put_program(rootfs: Path, path: str, program: str) -> None:
    """Copy a program of this machine into the rootfs, with the libraries it is linked with."""
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = [word for word in answer.split() if word.startswith("/")]
    for source, target in [(program, path), *((library, library) for library in libraries)]:
        copy = rootfs / target.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)


def test_the_images_own_command_is_its_entrypoint_with_its_arguments(tmp_path: Path) -> None:
    """As image-spec puts them together."""
    assert image_command(info(tmp_path, Entrypoint=["/app"], Cmd=["serve"])) == ["/app", "serve"]
    assert image_command(info(tmp_path, Entrypoint=None, Cmd=None)) == []
    assert image_command({"rootfs": "/", "docker_manifest": None}) == []


def test_a_listing_tells_directories_from_files_and_stays_short(tmp_path: Path) -> None:
    """The top of a strange image may be long."""
    (tmp_path / "etc").mkdir()
    for number in range(50):
        (tmp_path / f"f{number:02}").touch()

    output = list_root(info(tmp_path))

    assert output.command == f"ls {tmp_path}"
    assert output.text.startswith("etc/  f00  f01")
    assert output.text.endswith("… and 11 more")


@pytest.mark.root
def test_a_shell_is_used_where_there_is_one(tmp_path: Path) -> None:
    """It sees the rootfs as its root."""
    put_program(tmp_path, "/bin/sh", SHELL)
    put_program(tmp_path, "/bin/cat", str(shutil.which("cat")))
    put_program(tmp_path, "/bin/ls", str(shutil.which("ls")))
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text("NAME=Nowhere\n")

    output = run_anything(info(tmp_path, Env=["PATH=/bin"]))

    assert output.text.startswith("NAME=Nowhere\nbin\netc\n")
    assert str(tmp_path) in output.command


@pytest.mark.root
def test_without_a_shell_the_images_own_command_runs(tmp_path: Path) -> None:
    """As for images of a single program."""
    put_program(tmp_path, "/hello", str(shutil.which("echo")))

    assert run_anything(info(tmp_path, Entrypoint=["/hello"], Cmd=["from", "inside"])).text == "from inside\n"


@pytest.mark.root
def test_where_nothing_runs_the_rootfs_is_listed(tmp_path: Path) -> None:
    """Also when its command is not there, or for another machine."""
    (tmp_path / "app").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "app").chmod(0o755)

    assert run_anything(info(tmp_path, Entrypoint=["/app"])).text == "app"


@pytest.mark.root
def test_a_packed_python_that_does_not_run_is_a_failure(tmp_path: Path) -> None:
    """The demonstration must not pass over it."""
    with pytest.raises(Failure, match="/usr/bin/python3 inside the rootfs failed"):
        run_python(info(tmp_path, Cmd=["/usr/bin/python3"]))
