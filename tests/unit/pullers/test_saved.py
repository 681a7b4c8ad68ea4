# SPDX-License-Identifier: Apache-2.0
"""The entries of an archive's manifest.json; how images are read by them stands in test_archive.py."""

from typing import Any

import pytest

from worker.errors import InvalidImage
from worker.pullers.saved import SavedImage


def test_an_entry_is_its_configuration_names_and_layers() -> None:
    """Base first, as written."""
    document = {"Config": "c.json", "RepoTags": ["a:1", "b:2"], "Layers": ["1/layer.tar", "2/layer.tar"]}

    saved = SavedImage.parse(document, image="i")

    assert saved == SavedImage(config="c.json", tags=("a:1", "b:2"), layers=("1/layer.tar", "2/layer.tar"))


@pytest.mark.parametrize("tags", [{}, {"RepoTags": None}, {"RepoTags": []}])
def test_an_image_may_have_no_names(tags: dict[str, Any]) -> None:
    """Docker writes null for an image saved by id."""
    assert SavedImage.parse({"Config": "c", **tags}, image="i").tags == ()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "c",
        {},
        {"Config": None},
        {"Config": ["c"]},
        {"Config": "c", "Layers": "l"},
        {"Config": "c", "RepoTags": [None]},
    ],
)
def test_a_malformed_entry_is_refused(document: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidImage, match=r"manifest\.json"):
        SavedImage.parse(document, image="i")
