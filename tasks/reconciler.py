# SPDX-License-Identifier: Apache-2.0
"""Has work that its task left behind taken up again: see `worker.verbs.orphans`. Runs in the worker's main process."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kombu.exceptions import OperationalError
from typing_extensions import override

from tasks.base import ProvisionerTask
from tasks.repeated import Repeated
from tasks.rootfs import destroy, provision
from worker.celery import app
from worker.errors import TransientError
from worker.runtime import process_registry
from worker.settings import Settings
from worker.verbs.orphans import claim_orphans

_log = logging.getLogger(__name__)
_LOOKS = 4
"""Times that the reconciler looks in the time after which it acts."""
_VERBS: Mapping[str, ProvisionerTask] = {"provision": provision, "destroy": destroy}


class TakeUpTask(ProvisionerTask):
    """Shows failed attempts and undoes the last one as the task does that began it."""

    @override
    def note_failure(self, keywords: Mapping[str, Any], error: TransientError, delay: float) -> None:
        _VERBS[keywords["verb"]].note_failure(keywords["keywords"], error, delay)

    @override
    def give_up(self, keywords: Mapping[str, Any]) -> None:
        _VERBS[keywords["verb"]].give_up(keywords["keywords"])


@app.task(bind=True, base=TakeUpTask, name="provisioner.take_up", ignore_result=True)  # type: ignore[untyped-decorator]
def take_up(self: TakeUpTask, **keywords: object) -> None:
    """Finish or undo what nobody works on; internal to this module."""
    self.run_here_or_forward(lambda node: node.take_up(keywords, on_progress=self.reporter()))


class Reconciler(Repeated):
    """Looks every so often for containers whose task is gone."""

    @override
    def seconds(self, settings: Settings) -> float:
        return settings.reconcile_seconds / _LOOKS

    @override
    def act(self, settings: Settings) -> None:
        reconcile(settings)


def reconcile(settings: Settings) -> None:
    """Publish the tasks that finish what nobody works on.

    A failure is logged: the loop that calls this must not end.
    """
    try:
        containers = process_registry(settings).containers
        for orphan in claim_orphans(containers, node=settings.node, quiet_seconds=settings.reconcile_seconds):
            _log.warning("nobody works on it: %s %s is asked for again", orphan.verb, orphan.keywords)
            # Not tried again and again: who cannot be asked now is claimed again.
            take_up.apply_async(kwargs=asdict(orphan), queue=settings.node_queue, retry=False)
    except (TransientError, OSError, OperationalError) as error:
        _log.warning("the reconciler of node %s: %s", settings.node, error)


app.steps["consumer"].add(Reconciler)
