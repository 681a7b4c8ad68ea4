# SPDX-License-Identifier: Apache-2.0
"""What the entries of an image take in memory is counted, and limited."""

from pathlib import Path

import pytest

from tests.support.memory import peaks_of
from worker.layers.erofs.budget import IndexBudget, linked_bytes
from worker.layers.erofs.tree import Directory, Linked
from worker.layers.refusal import Excess

BUDGET = 16 << 20


@pytest.mark.parametrize(
    ("layers", "entries", "refusal"),
    [(1, 25_000, ""), (1, 200_000, "bytes of metadata of"), (4, 25_000, "and those of the layers below it, of")],
    ids=["a layer that fits", "entries without end", "layers without end"],
)
def test_a_process_keeps_to_its_budget(layers: int, entries: int, refusal: str, tmp_path: Path) -> None:
    """Whatever comes; what is counted is an estimate, and Python has its own overhead."""
    peaks = peaks_of(tmp_path, layers=layers, entries=entries, max_index_bytes=BUDGET)

    assert refusal in peaks.refusal
    assert bool(refusal) == bool(peaks.refusal)
    assert peaks.merged - peaks.before < 1.3 * BUDGET + (8 << 20)


def test_what_is_replaced_is_given_back() -> None:
    """All that is below it, too; the file of several names stays counted."""
    linked = Linked(bytes(64))
    tree = Directory()
    tree.children = {b"file": bytes(88), b"deeper": Directory(), b"one": linked, b"other": linked}
    budget = IndexBudget(1 << 20)
    for name, node in [(b"tree", tree), *tree.children.items()]:
        budget.take_node(name, node)

    budget.give_back(b"tree", tree)

    budget.take(1 << 20)
    with pytest.raises(Excess, match="bytes of metadata of 1048576"):
        budget.take(linked_bytes(linked.inode))
