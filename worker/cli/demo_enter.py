# SPDX-License-Identifier: Apache-2.0
"""Run something inside a rootfs and see what it prints: chroot for root, a user namespace for everybody else.

A demonstration, not a container runtime: the program shares the host's kernel names and, as root, its rights. Unknown
programs therefore get namespaces of their own, no network, and ten seconds.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.cli.exits import Failure

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS = 30.0
_UNKNOWN_SECONDS = 10.0
_SHOWN_ENTRIES = 40

PYTHON_PROGRAM = """\
import os, platform, sys
from decimal import Decimal, getcontext

def arctan(inverse):
    term = total = Decimal(1) / inverse
    for n in range(3, 90, 2):
        term /= -inverse * inverse
        total += term / n
    return total

getcontext().prec = 50
print("Python  ", sys.version.split()[0], "at", sys.executable)
print("platform", platform.platform())
print("user    ", os.getuid(), "and", len(os.listdir("/")), "entries in /")
print("motd    ", open("/etc/motd").read().strip(), "(replaced by a layer above)")
print("whiteout", "VISIBLE" if os.path.exists("/etc/build-only") else "hides /etc/build-only of a layer below")
print("pi      ", 4 * (4 * arctan(5) - arctan(239)))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a command inside the rootfs printed.

    Attributes:
        command: As it is shown.
        text: Of stdout and stderr.
    """

    command: str
    text: str


def run_python(info: Mapping[str, Any]) -> Output:
    """Run the Python of the packed image.

    Raises:
        Failure: It did not run to a good end.
    """
    if not _may_chroot():
        return list_root(info)
    python = _config(info)["Cmd"][0]
    done = _run(info, [python, "-I", "-c", PYTHON_PROGRAM], seconds=_SECONDS)
    if done is None or done.returncode != 0:
        raise Failure(f"{python} inside the rootfs failed: {done.stdout if done else 'it took too long'}")
    return Output(command=f"{_shown_chroot()} {info['rootfs']} {python} -c …", text=done.stdout)


def run_anything(info: Mapping[str, Any]) -> Output:
    """Run what an unknown image offers: its shell, else its own program, else just look at it."""
    attempts = [(["/bin/sh", "-c", "cat /etc/os-release; ls /"], "/bin/sh -c 'cat /etc/os-release; ls /'")]
    if program := image_command(info):
        attempts.append((program, " ".join(program)))
    for arguments, shown in attempts if _may_chroot() else ():
        done = _run(info, arguments, seconds=_UNKNOWN_SECONDS, is_isolated=True)
        if done is not None and done.stdout and done.returncode == 0:
            return Output(command=f"{_shown_chroot()} {info['rootfs']} {shown}", text=done.stdout)
    return list_root(info)


def image_command(info: Mapping[str, Any]) -> list[str]:
    """Return what the image runs by itself: its Entrypoint with its Cmd."""
    config = _config(info)
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def list_root(info: Mapping[str, Any]) -> Output:
    """Show the top of the rootfs, without running anything of it."""
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in Path(info["rootfs"]).iterdir())
    more = [f"… and {len(names) - _SHOWN_ENTRIES} more"] if len(names) > _SHOWN_ENTRIES else []
    return Output(command=f"ls {info['rootfs']}", text="  ".join([*names[:_SHOWN_ENTRIES], *more]))


def _config(info: Mapping[str, Any]) -> Mapping[str, Any]:
    return (info.get("docker_manifest") or {}).get("config") or {}


def _may_chroot() -> bool:
    """Tell whether this user may chroot: as root, or as the root of a user namespace."""
    return os.geteuid() == 0 or _ends_well([*_namespaces(is_isolated=False), "true"])


def _shown_chroot() -> str:
    return "chroot" if os.geteuid() == 0 else "unshare --map-root-user chroot"


def _namespaces(*, is_isolated: bool) -> list[str]:
    """Return the words that go before chroot."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    apart = ["--net", "--pid", "--ipc", "--fork", "--kill-child"] if is_isolated else []
    return [_tool("unshare"), *as_root, *apart] if as_root or apart else []


def _run(
    info: Mapping[str, Any], arguments: Sequence[str], *, seconds: float, is_isolated: bool = False
) -> subprocess.CompletedProcess[str] | None:
    """Run a command inside; None if it takes too long."""
    before = _namespaces(is_isolated=is_isolated)
    if is_isolated and not _ends_well([*before, "true"]):
        before = _namespaces(is_isolated=False)
    command = [*before, _tool("chroot"), info["rootfs"], *arguments]
    variables = dict(line.partition("=")[::2] for line in _config(info).get("Env") or ())
    environment = {"PATH": _DEFAULT_PATH, **variables}
    try:
        return subprocess.run(  # noqa: S603 - running what is inside is the point
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def _ends_well(command: Sequence[str]) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0  # noqa: S603


def _tool(name: str) -> str:
    """Find a tool that ordinary users need not have on their PATH."""
    return shutil.which(name, path=f"{os.defpath}:{_DEFAULT_PATH}") or name
