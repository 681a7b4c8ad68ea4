# SPDX-License-Identifier: Apache-2.0
"""What a scheduler asks for, what it was answered, and what must therefore be so.

Orders are delivered like Celery's tasks with late acknowledgement: again when a worker died, again beside one that does
not answer, again after a transient failure.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

_MOST_ALIVE_PER_NODE = 5
_RETRY_SECONDS = 0.3


@dataclass(eq=False, kw_only=True)
class Order:
    """One task.

    Attributes:
        number: Its id.
        verb: A method of `Provisioner`.
        node: Where it must run.
        keywords: Of the task.
        container_id: The container it is about, or "".
        deliveries: How many workers have it now.
        due_at: When it is to be delivered (again), or None while one delivery is enough.
        is_done: Whether it was answered for good.
        attempts: Deliveries so far.
    """

    number: int
    verb: str
    node: str
    keywords: Document
    container_id: str = ""
    deliveries: int = 0
    due_at: float | None = 0.0
    is_done: bool = False
    attempts: int = 0


@dataclass(kw_only=True)
class Ledger:
    """What happened.

    Attributes:
        answers: How often which verb ended how.
        faults: How often what was done to whom.
        checked: Trees hashed and found complete during the run.
        deliveries: Orders handed to workers.
        violations: What must never be and was, in words.
    """

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    deliveries: int = 0
    violations: list[str] = field(default_factory=list)


class Scheduler:
    """Makes orders and keeps book of containers.

    Attributes:
        alive: ProvisionInfo of each container that was answered and whose destroy was not ordered.
        open: Orders not done, or still with some worker, by number.
    """

    def __init__(self, nodes: list[str], images: list[str], chance: random.Random, ledger: Ledger) -> None:
        self._nodes = nodes
        self._images = images
        self._chance = chance
        self._ledger = ledger
        self._count = 0
        self.alive: dict[str, Document] = {}
        self.open: dict[int, Order] = {}

    def due(self, node: str, now: float) -> Order | None:
        """Return an order of this node that waits for a worker."""
        waiting = [each for each in self.open.values() if each.node == node and not each.is_done]
        return next((each for each in waiting if each.due_at is not None and each.due_at <= now), None)

    def invent(self, node: str) -> Order:
        """Think of something new for this node."""
        makers = {self._provision: 10, self._destroy: 7, self._pull: 5, self._prune: 4, self._recover: 0.5}
        (maker,) = self._chance.choices(list(makers), list(makers.values()))
        return maker(node) or self._provision(node)

    def recover_all(self) -> None:
        """Order what heartbeats order when Redis does not know their nodes any more."""
        for node in self._nodes:
            self._recover(node)

    def settle(self, order: Order, answer: Document, *, now: float) -> None:
        """Take a worker's answer."""
        order.deliveries -= 1
        if "error" in answer:
            self._settle_error(order, answer, now=now)
        else:
            self._ledger.answers[order.verb, "done"] += 1
            if order.verb == "provision":
                self._settle_provision(order, answer["answer"])
            order.is_done = True
        self._close(order)

    def lose(self, order: Order, *, now: float) -> None:
        """The worker that had the order died."""
        order.deliveries -= 1
        if order.deliveries == 0 and not order.is_done:
            order.due_at = now
        self._close(order)

    def _close(self, order: Order) -> None:
        if order.is_done and order.deliveries == 0:
            self.open.pop(order.number, None)

    def _settle_provision(self, order: Order, info: Document) -> None:
        known = self.alive.get(order.container_id)
        if known is None and not order.is_done:
            self.alive[order.container_id] = info
        elif known is not None and known != info:
            self._ledger.violations.append(f"{order.container_id} was answered {known} and then {info}")

    def _settle_error(self, order: Order, answer: Document, *, now: float) -> None:
        self._ledger.answers[order.verb, answer["error"]] += 1
        if order.verb in {"prune", "recover", "pull"} and answer["is_transient"]:
            order.is_done = True
        elif answer["is_transient"]:
            if not order.is_done and order.deliveries == 0:
                order.due_at = now + _RETRY_SECONDS
        elif answer["error"] == "ContainerDestroying" and order.verb == "provision":
            # Redis lost the hash, or a duplicate came first: what is left of it is destroyed as any scheduler would.
            if not order.is_done and order.deliveries == 0:
                order.is_done = True
                self._order("destroy", order.node, {"container_id": order.container_id}, order.container_id)
        else:
            self._ledger.violations.append(f"{order.verb} {order.keywords}: {answer['error']}: {answer['message']}")
            order.is_done = True

    def _order(self, verb: str, node: str, keywords: Document, container_id: str = "") -> Order:
        self._count += 1
        order = Order(number=self._count, verb=verb, node=node, keywords=keywords, container_id=container_id)
        self.open[order.number] = order
        return order

    def _provision(self, node: str) -> Order | None:
        mine = list(self._alive_on(node))
        if len(mine) >= _MOST_ALIVE_PER_NODE:
            return self._destroy(node) or self._prune(node)
        self._count += 1
        container_id = f"c{self._count}"
        if mine and self._chance.random() < 0.3:
            container_id = f"{self._chance.choice(mine)}.{container_id}"
        keywords = {
            "container_id": container_id,
            "image": self._chance.choice(self._images),
            "read_only": self._chance.random() < 0.2,
            "cached": self._chance.random() < 0.8,
        }
        return self._order("provision", node, keywords, container_id)

    def _destroy(self, node: str) -> Order | None:
        """Order one that has no late duplicate anywhere, with all that are nested in it."""
        busy = {each.container_id for each in self.open.values() if each.verb == "provision"}
        free = [
            each for each in self._alive_on(node) if not any(other == each or _is_in(other, each) for other in busy)
        ]
        if not free:
            return None
        container_id = self._chance.choice(free)
        for each in [other for other in self.alive if other == container_id or _is_in(other, container_id)]:
            del self.alive[each]
        return self._order("destroy", node, {"container_id": container_id}, container_id)

    def _pull(self, node: str) -> Order:
        return self._order("pull", node, {"image": self._chance.choice(self._images)})

    def _prune(self, node: str) -> Order:
        return self._order("prune", node, {})

    def _recover(self, node: str) -> Order:
        return self._order("recover", node, {})

    def _alive_on(self, node: str) -> Iterator[str]:
        return (container_id for container_id, info in self.alive.items() if info["node"] == node)


def _is_in(container_id: str, ancestor: str) -> bool:
    return container_id.startswith(f"{ancestor}.")


def counted(answers: Mapping[tuple[str, str], int], verb: str) -> dict[str, int]:
    """Return how the orders of one verb ended."""
    return {how: count for (which, how), count in sorted(answers.items()) if which == verb}
