# SPDX-License-Identifier: Apache-2.0
"""What nodes answer is joined; what some of them fail with does not hide what the others did."""

from typing import Any

import pytest

from tasks.fanout import gather
from tasks.images import prune
from worker.errors import InvalidArgument, NodesFailed


def _failure(node: str, error: str) -> dict[str, Any]:
    return {"failure": {"node": node, "error": error, "reason": "it says why"}}


def test_answers_are_joined() -> None:
    """In the order of the nodes."""
    assert gather([{"stores": [1]}, {"stores": [2, 3]}], key="stores") == {"stores": [1, 2, 3]}


def test_every_node_that_failed_is_named() -> None:
    """By its error's class and sentence."""
    answers = [{"stores": [1]}, _failure("n3", "StorageExhausted"), _failure("n2", "LockTimeout")]

    with pytest.raises(NodesFailed) as caught:
        gather(answers, key="stores")

    assert str(caught.value) == ("2 of 3 nodes failed: n2: LockTimeout: it says why; n3: StorageExhausted: it says why")


def test_an_image_that_only_some_stores_have_is_no_failure() -> None:
    """One that no store has is, and it does not excuse other failures."""
    absent = _failure("n2", "ImageNotFound")

    assert gather([{"stores": [1]}, absent], key="stores") == {"stores": [1]}
    for answers in ([absent, absent], [{"stores": [1]}, absent, _failure("n3", "LockTimeout")]):
        with pytest.raises(NodesFailed):
            gather(answers, key="stores")


@pytest.mark.parametrize("chord", [None, {"task": "provisioner.gather"}])
def test_only_a_part_answers_with_its_error(chord: dict[str, str] | None) -> None:
    """By itself the task fails as any other."""
    prune.push_request(args=(), kwargs={}, chord=chord)
    try:
        if chord is None:
            with pytest.raises(InvalidArgument, match="imagee"):
                prune(imagee="x")
        else:
            assert prune(imagee="x")["failure"]["error"] == "InvalidArgument"
    finally:
        prune.pop_request()
