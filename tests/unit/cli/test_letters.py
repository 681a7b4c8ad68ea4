# SPDX-License-Identifier: Apache-2.0
"""Messages that were laid aside, as people see them."""

import json

import pytest
import redis

from tests.unit.cli.conftest import Run
from worker.cli.cluster import Cluster
from worker.transport.scripts import QueueScripts

pytestmark = pytest.mark.redis

READABLE = json.dumps({"headers": {"task": "provisioner.pull", "id": "t1", "kwargsrepr": "{'image': 'a'}"}}).encode()
UNREADABLE = b"\xff\x00 nothing"


@pytest.fixture
def letters(cluster: Cluster, redis_client: redis.Redis) -> None:
    """Two letters, one of which nobody can read."""
    scripts = QueueScripts(redis_client, cluster.settings.queue_key)
    scripts.beat("w", lease_ms=60_000, limit=3, sources=["provision"])
    redis_client.lpush("provision", READABLE, UNREADABLE)
    for delivery in scripts.take("w", count=2, sources=["provision"]) or ():
        scripts.bury(delivery, reason="for a test")


def ids(run: Run, *options: str) -> list[str]:
    """What is listed after doing what the options say."""
    return [letter["letter_id"] for letter in run("dead-letters", *options, "--json").document["dead_letters"]]


def test_letters_are_listed_with_what_can_be_read_of_them(run: Run, letters: None) -> None:
    """Whatever their bytes are."""
    listed = run("dead-letters", "--json").document["dead_letters"]

    assert {(each["queue"], each["reason"]) for each in listed} == {("provision", "for a test")}
    by_task = {each["task"]: each for each in listed}
    assert (by_task["provisioner.pull"]["task_id"], by_task["provisioner.pull"]["arguments"]) == (
        "t1",
        "{'image': 'a'}",
    )
    assert "nothing" in by_task[""]["arguments"]
    table = run("dead-letters").out
    assert "2 dead letters" in table
    assert "provisioner.pull" in table


def test_a_letter_gets_another_chance(run: Run, letters: None, redis_client: redis.Redis) -> None:
    """As it was published, at the end of its queue."""
    redis_client.lpush("provision", b"other")
    first, second = ids(run)

    assert ids(run, "--requeue", first[:12]) == [second]

    assert redis_client.rpop("provision") == b"other"
    assert redis_client.rpop("provision") in (READABLE, UNREADABLE)
    assert redis_client.rpop("provision") is None


def test_a_letter_is_dropped_for_good(run: Run, letters: None, redis_client: redis.Redis) -> None:
    """One, or all."""
    first, second = ids(run)
    assert ids(run, "--drop", first) == [second]
    assert ids(run, "--drop", "all") == []
    assert ids(run, "--drop", "all") == []
    assert redis_client.exists("provision") == 0


def test_a_name_that_is_none_or_several_changes_nothing(run: Run, letters: None) -> None:
    """Not even for those beside it."""
    before = ids(run)

    for name in ("zz", ""):
        assert run("dead-letters", "--requeue", before[0], "--drop", name).code == 1

    assert ids(run) == before
