# SPDX-License-Identifier: Apache-2.0
"""Another mount namespace of the node: where a container runtime lives that was started before anything was mounted."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Elsewhere:
    """A process in a mount namespace of its own, which receives what its parent's mounts propagate.

    Attributes:
        pid: By which others enter the namespace.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program there; its exit code is the caller's to look at."""
        enter = ["nsenter", "--mount", "--target", str(self.pid)]
        return subprocess.run([*enter, *command], check=False, capture_output=True)


@contextmanager
def mount_namespace(*, propagation: str) -> Iterator[Elsewhere]:
    """Make a namespace with copies of all mounts; `propagation` as unshare(1) has it: slave, shared or private."""
    script = "echo ready; exec sleep infinity"
    command = ["unshare", "--mount", f"--propagation={propagation}", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield Elsewhere(process.pid)
        finally:
            process.kill()
