# SPDX-License-Identifier: Apache-2.0
"""Tests of the values of the per-container state."""

import json

from worker.container_id import ContainerId
from worker.container_view import ContainerState, read_view

POD = ContainerId.parse("pod")
ROW = {"state": "provisioning", "node": "n", "generation": "g", "created_ms": "1", "changed_ms": "2"}


def test_a_hash_is_read_by_its_fields() -> None:
    """Names are what follows the field's prefix; numbers are numbers."""
    names = {"image:a": "one", "pending:b": "two", "request:b": "three"}
    failure = {"attempts": "2", "last_error": "boom", "retry_at_ms": "5", "waits_for": "lock", "failure": "token"}

    view = read_view(POD, ROW | names | failure, {"a": "{}"})

    assert (view.state, view.node, view.generation) == (ContainerState.PROVISIONING, "n", "g")
    assert (view.created_ms, view.changed_ms, view.attempts, view.retry_at_ms) == (1, 2, 2, 5)
    assert (view.images, view.pending, view.requests) == ({"a": "one"}, {"b": "two"}, {"b": "three"})
    assert (view.last_error, view.waits_for, view.infos) == ("boom", "lock", {"a": "{}"})


def test_a_view_is_a_json_document() -> None:
    """What is absent is empty, zero or null, so that every document has the same keys."""
    document = read_view(POD, ROW, {}).to_document()

    assert json.loads(json.dumps(document)) == {
        "container_id": "pod",
        "state": "provisioning",
        "node": "n",
        "generation": "g",
        "created_ms": 1,
        "changed_ms": 2,
        "images": {},
        "pending": {},
        "attempts": 0,
        "last_error": "",
        "retry_at_ms": None,
        "waits_for": "",
    }
