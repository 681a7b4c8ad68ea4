# SPDX-License-Identifier: Apache-2.0
"""`provisioner run` with the real crun and runc, in real rootfses."""

import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import build_image, layer
from tests.support.layouts import write_layout
from tests.support.ports import wait_until
from tests.support.provisioners import provisioner
from tests.support.runnable import shell_layer
from tests.support.runs import left_of_runs, run_command, run_environment, run_here, shell_environment, unique
from tests.support.tar import BlockDevice, Dir, Entry, File
from tests.support.unprivileged import run_as_nobody
from worker.cli import main
from worker.provisioner import Provisioner

pytestmark = [pytest.mark.runtime, pytest.mark.root, pytest.mark.redis]

C1 = unique("c1")
CONFIG = {
    "User": "app",
    "Env": ["A=image", "B=image"],
    "Cmd": ["/bin/sh", "-c", "id; env; pwd"],
    "WorkingDir": "/srv/x",
}
TRAP = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(params=["crun", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    """Everything is done with either."""
    return str(request.param)


@pytest.fixture
def node(tmp_path: Path, redis_url: str) -> Iterator[Provisioner]:
    """A node with a container `c1`; no run leaves anything behind."""
    with provisioner(tmp_path, redis_url) as node:
        _provision(node, tmp_path, CONFIG)
        yield node
        assert left_of_runs(node.node.work.work_dir) == []


def _provision(node: Provisioner, directory: Path, config: dict[str, Any], *more: Entry, **keywords: Any) -> None:
    name = keywords.get("container_id", C1)
    layers = [shell_layer(), layer(*more)] if more else [shell_layer()]
    write_layout(directory / f"layout-{name}", {"latest": build_image(layers, config=config)})
    node.provision({"container_id": C1, "image": f"oci:{directory / f'layout-{name}'}:latest", **keywords})


@contextmanager
def _running(node: Provisioner, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a run in a process group of its own and wait for its first line."""
    command = run_command(*arguments)
    with subprocess.Popen(
        command, env=shell_environment(run_environment(node)), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def test_runs_what_the_image_says(node: Provisioner, runtime: str) -> None:
    """User with groups, environment, directory."""
    done = run_here(node, C1, "--runtime", runtime)

    assert done.code == 0, done.err
    assert "uid=1000(app) gid=1001(apps) groups=1001(apps),1002(extra),1003(tape)" in done.out
    assert "A=image\n" in done.out
    assert "PATH=/usr/local/sbin" in done.out
    assert done.out.endswith("/srv/x\n")


def test_runs_what_it_is_told(node: Provisioner, runtime: str) -> None:
    """Each option goes before what the image says; streams and exit code are those of the program."""
    told = ["--runtime", runtime, "-u", "0:extra", "-e", "A=told", "-e", "FROM_HERE", "-e", "UNSET", "-w", "/bin"]
    script = 'id; echo "$A $B $FROM_HERE ${UNSET-unset}"; pwd; cat; echo problem >&2; exit 41'

    done = run_here(node, C1, *told, "--", "/bin/sh", "-c", script, stdin="from stdin\n", FROM_HERE="mine")

    assert done.code == 41
    assert done.out.splitlines()[0].startswith("uid=0(root) gid=1002(extra)")
    assert done.out.splitlines()[1:] == ["told image mine unset", "/bin", "from stdin"]
    assert done.err == "problem\n"


def test_a_program_ended_by_a_signal_ends_it_as_a_shell_would(node: Provisioner, runtime: str) -> None:
    """128 and the number."""
    assert run_here(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", "sh -c 'kill -9 $$'; exit $?").code == 137


def test_nothing_of_the_host_is_in_reach(tmp_path: Path, node: Provisioner, runtime: str) -> None:
    """Neither its processes, its network and its name, nor its disk through a device that the image brings."""
    number = os.stat("/").st_dev  # noqa: PTH116 - the device, not the path
    device = BlockDevice("disk", os.major(number), os.minor(number), mode=0o666)
    _provision(node, tmp_path, {}, device, container_id=unique("pod.c2"))
    script = (
        "echo $$; echo /proc/[0-9]*; hostname; cat /proc/net/dev; "
        "cat /disk >/dev/null; echo x >/proc/sys/kernel/domainname; exit 0"
    )

    done = run_here(node, unique("pod.c2"), "--runtime", runtime, "--", "/bin/sh", "-c", script)

    lines = done.out.splitlines()
    assert lines[0] == "1"
    assert "/proc/1" in lines[1].split()
    assert f"/proc/{os.getpid()}" not in lines[1].split() or os.getpid() < 9
    assert lines[2] == unique("c2")
    assert {line.split(":")[0].strip() for line in lines[5:]} <= {"lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0"}
    assert "/disk: Operation not permitted" in done.err or "/disk: No such device" in done.err
    assert "domainname: Read-only file system" in done.err


def test_the_hosts_network_is_there_on_request(node: Provisioner, runtime: str) -> None:
    """All its interfaces."""
    done = run_here(node, C1, "--runtime", runtime, "--network", "host", "--", "/bin/cat", "/proc/net/dev")

    assert {*_interfaces(done.out)} == {*_interfaces(Path("/proc/net/dev").read_text())}


def _interfaces(text: str) -> list[str]:
    return [line.split(":")[0].strip() for line in text.splitlines()[2:]]


def test_a_read_only_rootfs_has_writable_volumes(tmp_path: Path, node: Provisioner, runtime: str) -> None:
    """What the image has there is in them, and what is written there goes with the run."""
    config = {"Volumes": {"/data": {}}}
    places = [Dir(each) for each in ("proc", "dev", "sys", "data")]
    _provision(node, tmp_path, config, *places, File("data/seed", b"seed\n"), container_id=unique("c3"), read_only=True)
    script = "cat /data/seed; echo new >/data/seed; cat /data/seed; echo x >/x"

    done = run_here(node, unique("c3"), "--runtime", runtime, "--", "/bin/sh", "-c", script)
    again = run_here(node, unique("c3"), "--runtime", runtime, "--", "/bin/cat", "/data/seed")

    assert done.out == "seed\nnew\n"
    assert "Read-only file system" in done.err
    assert again.out == "seed\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_reaches_the_program_once(node: Provisioner, runtime: str, number: signal.Signals) -> None:
    """Its handler decides what comes of it."""
    name = number.name.removeprefix("SIG")
    script = f"n=0; trap 'n=$((n+1))' {name}; echo ready; while [ $n = 0 ]; do sleep 0.05; done; sleep 0.3; exit $n"

    with _running(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", script) as process:
        process.send_signal(number)
        code = process.wait(timeout=60)

    assert code == 1


def test_a_program_that_ignores_sigterm_is_killed(node: Provisioner, runtime: str) -> None:
    """As every first process of a container does that has no handler for it."""
    arguments = ["--runtime", runtime, "--stop-timeout", "0.2", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000"]

    with _running(node, C1, *arguments) as process:
        process.terminate()
        code = process.wait(timeout=60)

    assert code == 137


@pytest.mark.parametrize("is_group", [False, True])
def test_a_killed_run_leaves_no_container(node: Provisioner, runtime: str, is_group: bool) -> None:
    """The guard cleans up, also if the whole process group is killed."""
    with _running(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", TRAP) as process:
        assert left_of_runs(node.node.work.work_dir)
        if is_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait(timeout=60)

    wait_until(lambda: left_of_runs(node.node.work.work_dir) == [], "the end of the container", seconds=60)


def test_two_runs_in_one_rootfs_do_not_meet(node: Provisioner, runtime: str) -> None:
    """Each has a name of its own; one's end leaves the other alone."""
    with _running(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", TRAP) as process:
        other = run_here(node, C1, "--runtime", runtime, "--", "/bin/sh", "-c", "echo here")
        assert process.poll() is None
        process.terminate()
        code = process.wait(timeout=60)

    assert (other.code, other.out) == (0, "here\n")
    assert code == 9


def test_a_terminal_is_given_to_the_program(node: Provisioner, runtime: str) -> None:
    """By default if there is one, and Ctrl-C in it goes to the program."""
    script = "trap 'echo got; exit 9' INT; [ -t 0 ] && [ -t 1 ] && echo $TERM; while :; do sleep 0.05; done"
    command = run_command(C1, "--runtime", runtime, "-e", "TERM=dumb", "--", "/bin/sh", "-c", script)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, env=shell_environment(run_environment(node)), stdin=theirs, stdout=theirs
    ) as process:
        _read_until(ours, b"dumb\r\n")
        os.write(ours, b"\x03")
        _read_until(ours, b"got\r\n")
        code = process.wait(timeout=60)
    os.close(theirs)
    os.close(ours)

    assert code == 9


def _read_until(terminal: int, end: bytes) -> None:
    output = b""
    while end not in output:
        output += os.read(terminal, 1024)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["c9"], 125, "there is no container c9"),
        ([C1, "--name", "other"], 125, f"container {C1} has no rootfs 'other', but rootfs"),
        (["no/id"], 2, "invalid container_id 'no/id'"),
        ([C1, "-u", "nobody"], 125, "/etc/passwd has no user 'nobody'"),
        ([C1, "-w", "srv"], 2, "-w takes an absolute directory"),
        ([C1, "-e", "=x"], 2, "-e takes NAME or NAME=VALUE"),
        ([C1, "-t"], 125, "-t needs a terminal"),
    ],
    ids=["container", "name", "id", "user", "directory", "variable", "terminal"],
)
def test_what_cannot_be_run_is_said_in_a_sentence(
    node: Provisioner, arguments: list[str], code: int, words: str
) -> None:
    """With a code that no program of the image would end with, or that of a wrong command line."""
    done = run_here(node, *arguments)

    assert done.code == code
    assert words in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_an_image_without_a_program_needs_one(tmp_path: Path, node: Provisioner, runtime: str) -> None:
    """The error says where to put it."""
    _provision(node, tmp_path, {"Env": ["A=1"]}, container_id=unique("c4"))

    done = run_here(node, unique("c4"), "--runtime", runtime)

    assert done.code == 125
    assert "names no program to run: give one after --" in " ".join(done.err.split())


def test_a_program_that_is_not_there_is_the_runtimes_error(node: Provisioner, runtime: str) -> None:
    """Its words are passed on."""
    done = run_here(node, C1, "--runtime", runtime, "--", "/bin/missing")

    assert done.code != 0
    assert "/bin/missing" in done.err


def test_a_container_of_another_node_is_named_with_its_node(node: Provisioner) -> None:
    """The rootfs is where it is; nobody moves it."""
    done = run_here(node, C1, PROVISIONER_NODE="n2", PROVISIONER_WORK_DIR="/nonexistent")

    assert done.code == 125
    assert f"container {C1} is on node n1, this is n2" in " ".join(done.err.split())


def test_a_rootfs_that_is_not_mounted_is_not_run(node: Provisioner) -> None:
    """As after a reboot, before the worker has started."""
    rootfs = node.node.work.rootfs_paths((C1,), name="rootfs").rootfs_dir
    subprocess.run(["umount", rootfs], check=True)

    done = run_here(node, C1)

    assert done.code == 125
    assert "is not mounted" in " ".join(done.err.split())
    assert "provisioner recover" in done.err


def test_without_root_it_says_so() -> None:
    """A rootfs has the owners that the image wants only as root's."""

    def ask() -> None:
        with pytest.raises(SystemExit) as ended:
            main(["run", C1])
        assert ended.value.code == 125

    run_as_nobody(ask)
