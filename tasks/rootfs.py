# SPDX-License-Identifier: Apache-2.0
"""`provisioner.provision` and `provisioner.destroy`."""

import contextlib
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from tasks.base import ProvisionerTask
from worker.celery import app
from worker.errors import ProvisionerError, TransientError


class ProvisionTask(ProvisionerTask):
    """Shows failed attempts in the container's state and undoes the last one."""

    @override
    def note_failure(self, keywords: Mapping[str, Any], error: TransientError, delay: float) -> None:
        with contextlib.suppress(ProvisionerError):
            self.provisioner.note_provision_failure(keywords, error=str(error), retry_in_seconds=delay)

    @override
    def give_up(self, keywords: Mapping[str, Any]) -> None:
        # What cannot be undone now, with Redis gone say, is undone by the node's next recover.
        with contextlib.suppress(ProvisionerError):
            self.provisioner.give_up(keywords)


class DestroyTask(ProvisionerTask):
    """Shows failed attempts in the container's state."""

    @override
    def note_failure(self, keywords: Mapping[str, Any], error: TransientError, delay: float) -> None:
        with contextlib.suppress(ProvisionerError):
            self.provisioner.note_destroy_failure(keywords, error=str(error), retry_in_seconds=delay)


@app.task(bind=True, base=ProvisionTask, name="provisioner.provision")  # type: ignore[untyped-decorator]
def provision(self: ProvisionTask, *arguments: object, **keywords: object) -> dict[str, Any]:
    """Answer with a mounted, verified rootfs; see `tasks` for keywords and answer."""
    self.keywords_only(arguments)
    return self.run_here_or_forward(lambda node: node.provision(keywords, on_progress=self.reporter()))


@app.task(bind=True, base=DestroyTask, name="provisioner.destroy")  # type: ignore[untyped-decorator]
def destroy(self: DestroyTask, *arguments: object, **keywords: object) -> bool:
    """Take a container down with everything nested in it; false if there is none."""
    self.keywords_only(arguments)
    return self.run_here_or_forward(lambda node: node.destroy(keywords))
