# SPDX-License-Identifier: Apache-2.0
"""What an entry's name says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.layers.names import Place, Role, normalised, place_of
from worker.layers.refusal import Refusal

PLACES = {
    b"a": Place(b"", b"a", Role.CONTENT),
    b"a/b/c": Place(b"a/b", b"c", Role.CONTENT),
    b"/a//./b/": Place(b"a", b"b", Role.CONTENT),
    b"./": Place(b"", b"", Role.CONTENT),
    b"///": Place(b"", b"", Role.CONTENT),
    b"...": Place(b"", b"...", Role.CONTENT),
    b"..a/b..": Place(b"..a", b"b..", Role.CONTENT),
    b"a/.wh.b": Place(b"a", b"b", Role.WHITEOUT),
    b"a/.wh..b": Place(b"a", b".b", Role.WHITEOUT),
    b"./.wh.b/": Place(b"", b"b", Role.WHITEOUT),
    b"a/.wh....": Place(b"a", b"...", Role.WHITEOUT),
    b"a/.wh..wh..opq": Place(b"a", b"", Role.OPAQUE),
    b".wh..wh..opq": Place(b"", b"", Role.OPAQUE),
    b".wh..wh.aufs": Place(b"", b".wh..wh.aufs", Role.IGNORED),
    b".wh..wh.plnk/12.3": Place(b".wh..wh.plnk", b"12.3", Role.IGNORED),
    b"a/.wh..wh..opq/b": Place(b"a/.wh..wh..opq", b"b", Role.IGNORED),
    b"a.wh.b": Place(b"", b"a.wh.b", Role.CONTENT),
}


@pytest.mark.parametrize(("name", "place"), PLACES.items())
def test_a_name_says_where_an_entry_goes_and_what_for(name: bytes, place: Place) -> None:
    """Relative to the layer's root, whiteouts by what they hide."""
    assert place_of(name) == place


@pytest.mark.parametrize("name", [b"a" * 255, b"/".join([b"a" * 255] * 16), b"/" * 5000 + b"a"])
def test_names_up_to_what_the_kernel_takes_are_taken(name: bytes) -> None:
    """255 bytes a component, 4,095 a path."""
    assert normalised(name).endswith(b"a")


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b"b", b".wh.a", b".wh..wh..opq"]), max_size=8))
def test_no_name_leads_out_of_the_layer(parts: list[bytes]) -> None:
    """Whatever is written: a place inside, or a refusal."""
    try:
        place = place_of(b"/".join(parts))
    except Refusal:
        return

    components = place.path.split(b"/")
    assert b".." not in components
    assert b"." not in components
    assert not place.path.startswith(b"/")
