# SPDX-License-Identifier: Apache-2.0
"""The project's own tasks through the storm: whatever ran twice, its effect is there once.

Real nodes, each with a store of its own, are sent provisions and destroys. When the storm is over, each container that
was provisioned and not destroyed is on one node, whole; and there is nothing else, on any.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from celery import Celery

from tests.integration.chaos.checks import broken, surplus, surplus_on
from tests.integration.chaos.model import Model, make_model
from tests.integration.chaos.queue_fleet import LEASE_SECONDS, OURS, Member, Site, site
from tests.integration.chaos.queue_storm import Outcome, storm
from tests.integration.chaos.queue_workload import Containers
from tests.integration.chaos.verbs import again
from tests.support.mounts import mounts_below, unmount
from worker.provisioner import Provisioner
from worker.runtime import make_provisioner
from worker.settings import Settings

Infos = dict[str, Mapping[str, Any]]


def run_effects(
    directory: Path, *, seconds: float, seed: int, report: Callable[[str], None]
) -> tuple[Outcome, Containers, list[str]]:
    """Return the ledger, the orders, and what is there too often, not at all, or not whole."""
    chance = random.Random(seed)
    directory.mkdir(parents=True)
    model = make_model(directory / "layout", chance)
    try:
        with site(OURS, directory / "site") as place, closing(Celery(backend=place.server.url)) as results:
            orders = Containers(images=list(model.images), results=results, ledger=place.ledger, chance=chance)
            with storm(place, orders, chance=chance) as made:
                outcome = made.run(seconds, report=report)
            for member in place.members:
                member.kill()
            infos = _infos(place, orders)
            surpluses = list(_surpluses(place, infos))
            outcome.doubled = len(surpluses)
            return outcome, orders, [*_broken(place, model, infos), *surpluses]
    finally:
        unmount(mounts_below(directory))


def _infos(place: Site, orders: Containers) -> Infos:
    """Return what was answered for the containers that must be there."""
    return {name: orders.answer(number) for name, number in orders.alive.items() if number in place.ledger.done}


def _surpluses(place: Site, infos: Infos) -> Iterator[str]:
    """Say what is there that was not answered, or not only once; before that each node recovers and prunes."""
    for member in place.members:
        node = _observer(place, member)
        mine = _mine(member, infos)
        again(node.recover, {}, is_start=True)
        again(node.prune, {})
        yield from (f"{member.name}: {finding}" for finding in surplus_on(node, mine))
        yield from (f"{member.name}: {finding}" for finding in surplus(node.node.store, mine.values()))


def _broken(place: Site, model: Model, infos: Infos) -> Iterator[str]:
    """Say what was answered and is not there, or not whole."""
    for member in place.members:
        store = _observer(place, member).node.store
        for info in _mine(member, infos).values():
            yield from broken(info, store, model)


def _mine(member: Member, infos: Infos) -> Infos:
    return {name: info for name, info in infos.items() if info["node"] == member.name}


def _observer(place: Site, member: Member) -> Provisioner:
    return make_provisioner(
        Settings(
            redis_url=place.server.url,
            node=member.name,
            work_dir=member.work_dir,
            store_dir=member.store_dir,
            lease_seconds=LEASE_SECONDS,
        )
    )
