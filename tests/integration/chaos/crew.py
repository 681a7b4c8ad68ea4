# SPDX-License-Identifier: Apache-2.0
"""Processes that each work for one node, one order after the other, until they are killed.

A worker is forked, so that it starts in milliseconds; it shares nothing with its maker but two pipes. Now and then it
stops itself at a step of its work: what happens within milliseconds would hardly ever be hit from outside.
"""

import contextlib
import json
import os
import random
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.chaos.pausing import STEPS
from worker.errors import ProvisionerError, TransientError
from worker.provisioner import Elsewhere, Provisioner
from worker.runtime import make_provisioner
from worker.settings import Settings

Document = dict[str, Any]

_STUMBLES = 1 / 600


@dataclass(eq=False)
class Worker:
    """One process.

    Attributes:
        node: Whose it is.
        pid: Its process id.
        orders: The pipe to it.
        answers: The pipe from it; nothing blocks on it.
        order: What it is busy with, by the orderer's own number, or None.
        is_paused: Whether it was stopped and not continued.
    """

    node: str
    pid: int
    orders: int
    answers: int
    order: int | None = None
    is_paused: bool = False
    _received: bytes = field(default=b"", repr=False)

    def give(self, number: int, verb: str, keywords: Mapping[str, Any]) -> None:
        """Order something."""
        self.order = number
        os.write(self.orders, json.dumps([verb, keywords]).encode() + b"\n")

    def take(self) -> Document | None:
        """Return its answer to the order, if it has come; it is free again then."""
        with contextlib.suppress(BlockingIOError):
            self._received += os.read(self.answers, 1 << 20)
        if not self._received.endswith(b"\n"):
            return None
        answer: Document = json.loads(self._received)
        self._received = b""
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Stop it or let it go on."""
        self.is_paused = number is signal.SIGSTOP
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, paused or not, and forget its answer."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.orders)
        os.close(self.answers)

    @property
    def has_stopped(self) -> bool:
        """Whether it stands still, by itself or because it was told to."""
        return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def has_ended(self) -> bool:
        """Whether it ended by itself, which it never should."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def start(settings: Settings, log_path: Path, *, others: Iterable[Worker]) -> Worker:
    """Fork a worker of the node that the settings describe; `others` are those whose pipes it must not keep."""
    orders, answers = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        # It builds whatever it uses itself and leaves by _exit: no thread of this process matters to it.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _be_worker(settings, log_path, mine=(orders[0], answers[1]), theirs=[orders[1], answers[0], *_pipes(others)])
    os.close(orders[0])
    os.close(answers[1])
    os.set_blocking(answers[0], False)
    return Worker(settings.node, pid, orders[1], answers[0])


def _pipes(others: Iterable[Worker]) -> list[int]:
    return [pipe for other in others for pipe in (other.orders, other.answers)]


def _be_worker(settings: Settings, log_path: Path, *, mine: tuple[int, int], theirs: Iterable[int]) -> None:
    status = 1
    try:
        for pipe in theirs:
            os.close(pipe)
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.addaudithook(_stumbling(random.Random()))
        _work(settings, *mine)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may return into the maker's frames
        traceback.print_exc()
    os._exit(status)


def _stumbling(chance: random.Random) -> Callable[[str, object], None]:
    """Return an audit hook that stops the process at a step now and then."""

    def stumble(event: str, _: object) -> None:
        if event in STEPS and chance.random() < _STUMBLES:
            os.kill(os.getpid(), signal.SIGSTOP)

    return stumble


def _work(settings: Settings, orders: int, answers: int) -> None:
    provisioner: Provisioner | None = None
    with os.fdopen(orders, "rb") as stream:
        for line in stream:
            verb, keywords = json.loads(line)
            try:
                provisioner = provisioner or make_provisioner(settings)
                answer = _act(provisioner, verb, keywords)
            except ProvisionerError as error:
                answer = {
                    "error": type(error).__name__,
                    "message": str(error),
                    "is_transient": isinstance(error, TransientError),
                }
            except Exception as error:  # noqa: BLE001 - an answer too, and a finding
                answer = {"error": type(error).__name__, "message": traceback.format_exc(), "is_transient": False}
            os.write(answers, json.dumps(answer).encode() + b"\n")


def _act(provisioner: Provisioner, verb: str, keywords: Document) -> Document:
    answer = getattr(provisioner, verb)(keywords)
    if isinstance(answer, Elsewhere):
        return {"error": "Elsewhere", "message": answer.node, "is_transient": False}
    return {"answer": answer}
