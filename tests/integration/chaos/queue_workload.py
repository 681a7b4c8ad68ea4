# SPDX-License-Identifier: Apache-2.0
"""What a scheduler sends while the storm rages."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from tests.integration.chaos.queue_fleet import LONG_SECONDS, Publisher
from tests.integration.chaos.queue_ledger import Ledger
from tests.integration.chaos.queue_names import task_id

_LONG_EVERY_SECONDS = 8.0
PROVISION = "provisioner.provision"
DESTROY = "provisioner.destroy"


class Mixture:
    """Tasks of which most do nothing, some take a while or a retry, and one now and then is long."""

    waiting = 300

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._last_long_at = time.monotonic()

    def send(self, publisher: Publisher) -> None:
        """Publish one of them."""
        publisher.send(**self._choose())

    def is_answered(self, number: int) -> bool:  # noqa: ARG002 - the contract's signature
        """No: a note is all these leave."""
        return False

    def _choose(self) -> dict[str, Any]:
        if time.monotonic() - self._last_long_at > _LONG_EVERY_SECONDS:
            self._last_long_at = time.monotonic()
            return {"seconds": LONG_SECONDS}
        die = self._chance.random()
        if die < 0.005:
            return {"seconds": self._chance.uniform(0.2, 1.0)}
        return {"retries": 1} if die < 0.015 else {}


@dataclass(kw_only=True)
class Containers:
    """Containers provisioned, and half of them destroyed once they are there.

    Attributes:
        images: References to choose from.
        results: An app that can read answers.
        provisions: The number of each container's provision.
        destroys: The number of its destroy, if one was sent.
    """

    images: list[str]
    results: Celery
    ledger: Ledger
    chance: random.Random
    waiting: int = 12
    provisions: dict[str, int] = field(default_factory=dict)
    destroys: dict[str, int] = field(default_factory=dict)

    def send(self, publisher: Publisher) -> None:
        """Order either."""
        if (there := self._there()) and self.chance.random() < 0.5:
            container_id = self.chance.choice(there)
            self.destroys[container_id] = publisher.order(DESTROY, container_id=container_id)
        else:
            container_id, image = f"c{len(self.provisions)}", self.chance.choice(self.images)
            self.provisions[container_id] = publisher.order(PROVISION, container_id=container_id, image=image)

    def is_answered(self, number: int) -> bool:
        """Ask for its result: a process killed between storing it and noting the end is done, and Celery knows it."""
        return bool(self.results.AsyncResult(task_id(number)).state == "SUCCESS")

    def answer(self, number: int) -> Mapping[str, Any]:
        """Return a task's result."""
        answer: Mapping[str, Any] = self.results.AsyncResult(task_id(number)).get(timeout=10)
        return answer

    def _there(self) -> list[str]:
        done = [container_id for container_id, number in self.provisions.items() if number in self.ledger.done]
        return [container_id for container_id in done if container_id not in self.destroys]

    @property
    def alive(self) -> dict[str, int]:
        """The provisions of the containers that must be there in the end, each once; no other may be."""
        return {name: number for name, number in self.provisions.items() if name not in self.destroys}
