# SPDX-License-Identifier: Apache-2.0
"""What the worker's main process does again and again, from its own loop."""

from typing import Any, ClassVar

from celery import bootsteps

from worker.settings import Settings, process_settings


class Repeated(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """One such thing; a subclass says what and how often."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    is_done_at_once: ClassVar[bool] = False

    def __init__(self, parent: Any, **options: object) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None

    def seconds(self, settings: Settings) -> float:
        """Return the time from one to the next."""
        raise NotImplementedError

    def act(self, settings: Settings) -> None:
        """Do it once; what is raised must not end the loop that calls this."""
        raise NotImplementedError

    def start(self, parent: Any) -> None:
        """Do it again and again, from now on."""
        settings = process_settings()
        if self.is_done_at_once:
            self.act(settings)
        self._timer = parent.timer.call_repeatedly(self.seconds(settings), self.act, (settings,))

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Do it no more."""
        if self._timer is not None:
            self._timer.cancel()
