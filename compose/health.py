# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - a script that goes into the image, not part of a package
"""Health of a Compose service: `health.py worker|beat|flower` exits 0 if it does its work, else 1 and says why.

It asks for the work's effect, not whether the process is there, which Docker sees by itself.
"""

import sys
import urllib.request
from collections.abc import Callable

FLOWER_URL = "http://127.0.0.1:5555/healthcheck"
BEAT_NAME = "celerybeat@beat"
"""As in compose.yaml."""
_ANSWER_SECONDS = 5.0


def worker_fault() -> str | None:
    """Say that the cluster does not see this node alive, or None if it does."""
    # Not at the top: Flower needs none of it.
    from worker.runtime import process_nodes  # noqa: PLC0415
    from worker.settings import process_settings  # noqa: PLC0415

    settings = process_settings()
    states = {status.view.name: status for status in process_nodes(settings).all()}
    if settings.node not in states:
        return f"node {settings.node} has not shown itself yet"
    return None if states[settings.node].is_live else f"node {settings.node} misses its heartbeats"


def beat_fault() -> str | None:
    """Say that beat does not answer, which it stops to do when its schedule has not moved on, or None if it does."""
    from worker.celery import app  # noqa: PLC0415

    answers = app.control.ping(destination=[BEAT_NAME], timeout=_ANSWER_SECONDS)
    return None if answers else f"{BEAT_NAME} does not answer"


def flower_fault() -> str | None:
    """Say that Flower does not answer, or None if it does."""
    with urllib.request.urlopen(FLOWER_URL, timeout=_ANSWER_SECONDS) as answer:
        return None if answer.status == 200 else f"{FLOWER_URL} answered {answer.status}"  # noqa: PLR2004 - HTTP's OK


CHECKS: dict[str, Callable[[], str | None]] = {"worker": worker_fault, "beat": beat_fault, "flower": flower_fault}


def main(service: str) -> int:
    """Print the fault, if there is one; return the exit code."""
    try:
        fault = CHECKS[service]()
    except Exception as error:  # noqa: BLE001 - whatever it is, the service cannot be called healthy
        fault = f"{type(error).__name__}: {error}"
    if fault is not None:
        print(fault)  # noqa: T201 - `docker inspect` shows it
    return int(fault is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
