# SPDX-License-Identifier: Apache-2.0
"""`ContainerId` parses the wire contract's grammar and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.container_id import ContainerId
from worker.errors import InvalidArgument

_PARTS = st.lists(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True), min_size=1, max_size=8)


@given(_PARTS)
def test_a_well_formed_id_survives_the_round_trip(parts: list[str]) -> None:
    """What is printed parses to the same."""
    text = ".".join(parts)

    container_id = ContainerId.parse(text)

    assert str(container_id) == text
    assert ContainerId.parse(str(container_id)) == container_id
    assert container_id.root.parts == (parts[0],)
    assert [ancestor.parts for ancestor in container_id.ancestors] == [
        tuple(parts[:depth]) for depth in range(1, len(parts))
    ]
    assert container_id.parent == (container_id.ancestors[-1] if len(parts) > 1 else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "_a",
        "a/b",
        "../a",
        "a b",
        "a\n",
        "ä",
        "a" * 129,
        "a." * 512 + "a",
        None,
        7,
        b"a",
    ],
)
def test_a_malformed_id_is_refused_by_name(text: object) -> None:
    """The error says which argument is wrong."""
    with pytest.raises(InvalidArgument, match="container_id"):
        ContainerId.parse(text)


def test_a_thousand_and_24_characters_are_allowed() -> None:
    """The contract's longest id parses."""
    text = ".".join(["a" * 127] * 8)

    assert len(text) == 1023
    assert str(ContainerId.parse(text + "a")) == text + "a"


def test_a_child_is_named_by_one_part() -> None:
    """What lies on disk is parsed name by name; one with a dot would be two."""
    parent = ContainerId.parse("pod.a")

    assert parent.child("b").parts == ("pod", "a", "b")
    assert ContainerId.outermost("pod").parts == ("pod",)
    for name in ("b.c", "", "not a name", "a" * 129):
        with pytest.raises(InvalidArgument, match="container_id"):
            parent.child(name)
        with pytest.raises(InvalidArgument, match="container_id"):
            ContainerId.outermost(name)
