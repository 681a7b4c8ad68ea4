# SPDX-License-Identifier: Apache-2.0
"""Which image of several is meant: by name, by number, or because there is no other."""

from collections.abc import Sequence

import pytest

from worker.errors import ImageNotFound
from worker.oci.reference import ImageSource
from worker.pullers.choice import choose

Item = tuple[str, tuple[str, ...]]
ONE: Item = ("sha256:1", ("demo:1", "demo:latest"))
TWO: Item = ("sha256:2", ("demo:2",))
NAMELESS: Item = ("sha256:3", ())
MALFORMED: Item = ("sha256:4", ("Not A Name",))


def chosen(selector: str, items: Sequence[Item], *, transport: str = "docker-archive") -> list[str]:
    """Return the identities of what is chosen."""
    source = ImageSource.parse(f"{transport}:/a{selector}")
    return [item[0] for item in choose(items, source, names=lambda item: item[1], identity=lambda item: item[0])]


def test_names_are_compared_as_references() -> None:
    """What is left out of a name does not matter, and names that are none are passed over."""
    items = [MALFORMED, NAMELESS, ONE, TWO]

    assert chosen(":demo", items) == chosen(":docker.io/library/demo:1", items) == ["sha256:1"]
    assert chosen(":demo:2", items) == ["sha256:2"]


def test_refs_are_compared_as_written() -> None:
    """A layout's ref is any text: `demo` is not `demo:latest` there."""
    assert chosen(":demo:2", [ONE, TWO], transport="oci") == ["sha256:2"]
    with pytest.raises(ImageNotFound):
        chosen(":demo", [ONE, TWO], transport="oci")


def test_numbers_count_from_0() -> None:
    """The only way to choose an image without a name."""
    assert chosen(":@1", [ONE, NAMELESS]) == ["sha256:3"]
    with pytest.raises(ImageNotFound, match="there are 2, numbered from 0"):
        chosen(":@2", [ONE, NAMELESS])


def test_without_a_selector_one_image_is_enough() -> None:
    """One image under several names is one; variants under one name, or under none, are one."""
    assert chosen("", [ONE]) == ["sha256:1"]
    assert chosen("", [ONE, ("sha256:1", ("other:1",))]) == ["sha256:1", "sha256:1"]
    assert chosen("", [TWO, ("sha256:5", ("demo:2",))]) == ["sha256:2", "sha256:5"]
    assert chosen("", [NAMELESS, ("sha256:5", ())]) == ["sha256:3", "sha256:5"]


def test_several_images_have_to_be_chosen_from() -> None:
    """The error lists them by the name, or else the number, that selects them."""
    with pytest.raises(ImageNotFound, match="choose one of: demo:1, @1, demo:2"):
        chosen("", [ONE, NAMELESS, TWO])


def test_nothing_to_choose_from_is_not_found() -> None:
    """An empty source has no image of any name."""
    for selector in ("", ":demo"):
        with pytest.raises(ImageNotFound, match="there are: none"):
            chosen(selector, [])


def test_a_long_list_is_cut() -> None:
    """An error stays readable whatever the source holds."""
    items = [(f"sha256:{number}", (f"demo:{number}",)) for number in range(1000)]

    with pytest.raises(ImageNotFound, match=r"demo:19, …$"):
        chosen("", items)
