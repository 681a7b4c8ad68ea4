# SPDX-License-Identifier: Apache-2.0
"""Which entry shows is decided without looking at a disk."""

from worker.backends.merge import Kind, Shown, merge

D, W, F = Kind.DIRECTORY, Kind.WHITEOUT, Kind.OTHER


def test_topmost_entry_hides_those_below() -> None:
    """A file on a file, and each name for itself."""
    shown = merge([(0, {"a": F}), (1, {"a": F, "b": F})])

    assert shown == {
        "a": Shown(is_directory=False, layers=(0,)),
        "b": Shown(is_directory=False, layers=(1,)),
    }


def test_directories_upon_each_other_are_one() -> None:
    """All of them contribute, the topmost one first."""
    assert merge([(3, {"d": D}), (5, {}), (8, {"d": D})]) == {"d": Shown(is_directory=True, layers=(3, 8))}


def test_directory_ends_at_what_is_none() -> None:
    """A file or a whiteout between two directories keeps the lower one out."""
    for between in (F, W):
        shown = merge([(0, {"d": D}), (1, {"d": between}), (2, {"d": D})])

        assert shown == {"d": Shown(is_directory=True, layers=(0,))}


def test_whiteout_hides_and_is_hidden() -> None:
    """Neither it nor what is below is shown; what is above is."""
    assert merge([(0, {"x": W}), (1, {"x": D})]) == {}
    assert merge([(0, {"x": F}), (1, {"x": W}), (2, {"x": F})]) == {"x": Shown(is_directory=False, layers=(0,))}


def test_nothing_merges_to_nothing() -> None:
    """No listing, or empty ones."""
    assert merge([]) == {}
    assert merge([(0, {}), (1, {})]) == {}
