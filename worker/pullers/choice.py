# SPDX-License-Identifier: Apache-2.0
"""Which image of a source that holds several a caller means."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import TypeVar

from worker.errors import ImageNotFound, InvalidArgument
from worker.oci.reference import ImageSource, Reference

_T = TypeVar("_T")
_MAX_LISTED = 20


def choose(
    items: Sequence[_T],
    source: ImageSource,
    *,
    names: Callable[[_T], tuple[str, ...]],
    identity: Callable[[_T], Hashable],
) -> Sequence[_T]:
    """Return the items of the one image that `source` selects: by number, by name, or because there is no other.

    Args:
        items: All of the source, in its order.
        source: Selects by `@<number>`, by a name as written, by a reference, or not at all.
        names: An item's names, the one to show first.
        identity: Equal for items that are the same image under several names.

    Returns:
        At least one item; several when they have a name in common, which a layout's variants per platform have.

    Raises:
        ImageNotFound: There is none, or there are several and none is selected.
    """
    if source.ref is not None and source.ref.startswith("@"):
        return _numbered(items, int(source.ref[1:]), source)
    is_meant = _test_of(source)
    chosen = [item for item in items if is_meant(names(item))]
    if not chosen:
        raise ImageNotFound(image=str(source), reason=f"there are: {_listed(items, names)}")
    are_several = len({names(item)[:1] for item in chosen}) > 1 and len({identity(item) for item in chosen}) > 1
    if are_several and source.ref is None and source.reference is None:
        raise ImageNotFound(image=str(source), reason=f"there are several, choose one of: {_listed(items, names)}")
    return chosen


def _numbered(items: Sequence[_T], number: int, source: ImageSource) -> Sequence[_T]:
    if number >= len(items):
        raise ImageNotFound(image=str(source), reason=f"there are {len(items)}, numbered from 0")
    return items[number : number + 1]


def _test_of(source: ImageSource) -> Callable[[tuple[str, ...]], bool]:
    """Return the test for the names of an image that is meant."""
    ref, reference = source.ref, source.reference
    if reference is not None:
        return lambda names: reference in map(_parsed, names)
    return lambda names: ref is None or ref in names


def _parsed(name: str) -> Reference | None:
    """Return the reference, or None for what is none: a name somebody else wrote is no error of the caller's."""
    with suppress(InvalidArgument):
        return Reference.parse(name)
    return None


def _listed(items: Sequence[_T], names: Callable[[_T], tuple[str, ...]]) -> str:
    """List the images for an error message; those without a name by their number."""
    shown = [(names(item) or (f"@{number}",))[0] for number, item in enumerate(items)]
    return ", ".join(shown[:_MAX_LISTED]) + (", …" if len(shown) > _MAX_LISTED else "") or "none"
