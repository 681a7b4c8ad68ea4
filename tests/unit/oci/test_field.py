# SPDX-License-Identifier: Apache-2.0
"""Values that know their place."""

import re
from collections.abc import Callable

import pytest

from worker.errors import InvalidImage
from worker.oci.field import Field

ROOT = Field("i", "", {"a": [{"b": "text", "n": 3, "t": True, "nothing": None}]})
ITEM = ROOT.member("a").items()[0]


def test_values_are_read_by_their_path() -> None:
    """Members, items, text, numbers; what is absent has no items."""
    assert ITEM.member("b").text() == "text"
    assert ITEM.member("n").integer(3, 3) == 3
    assert ITEM.member("nothing").is_absent
    assert ROOT.member("missing").items() == []
    ITEM.member("t").check_flag()
    ITEM.member("missing").check_flag()


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: ITEM.member("b").text(re.compile("x+"), expected="some x"), "a[0].b is 'text', expected some x"),
        (lambda: ITEM.member("c").text(), "a[0].c is missing"),
        (lambda: ITEM.member("n").text(), "a[0].n is 3, expected a string"),
        (lambda: ITEM.member("n").integer(4, 9), "a[0].n is 3, expected 4 to 9"),
        (lambda: ITEM.member("t").integer(0, 9), "a[0].t is True, expected 0 to 9"),
        (lambda: ITEM.member("b").member("c"), "a[0].b is 'text', expected an object"),
        (ITEM.items, "a[0] is an object, expected a list"),
        (lambda: ROOT.member("a").member("b"), "a is a list, expected an object"),
        (lambda: ITEM.member("b").check_flag(), "a[0].b is 'text', expected true or false"),
        (lambda: Field("i", "", []).member("a"), "the document is a list"),
    ],
)
def test_an_error_names_the_place_and_what_is_there(read: Callable[[], object], message: str) -> None:
    """So that an author finds it."""
    with pytest.raises(InvalidImage, match=re.escape(message)):
        read()
