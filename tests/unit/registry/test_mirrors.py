# SPDX-License-Identifier: Apache-2.0
"""The spelling of mirrors; what is done with them see the registry's puller."""

import pytest

from worker.errors import InvalidArgument
from worker.oci.reference import Reference
from worker.registry.mirrors import at_mirror, parse_mirrors


def test_mirrors_are_kept_by_registry_in_order() -> None:
    """Each with its prefix."""
    words = ["docker.io=mirror.local:5000", "quay.io=cache.example/quay", "docker.io=cache.example/hub"]

    assert parse_mirrors(words) == {
        "docker.io": ("mirror.local:5000", "cache.example/hub"),
        "quay.io": ("cache.example/quay",),
    }


@pytest.mark.parametrize(
    "word",
    [
        "",
        "docker.io",
        "docker.io=",
        "=mirror.local",
        "docker.io=mirror",
        "hub=mirror.local",
        "a.b/c=mirror.local",
        "docker.io=https://mirror.local",
        "docker.io=mirror.local/",
        "docker.io=mirror.local/Hub",
        "docker.io=u@m.local",
    ],
)
def test_what_is_no_mirror_is_refused_at_start(word: str) -> None:
    """The variable is named."""
    with pytest.raises(InvalidArgument, match="PROVISIONER_REGISTRY_MIRRORS"):
        parse_mirrors([word])


def test_a_mirror_has_an_image_under_its_repository_or_below_a_prefix() -> None:
    """Tag and digest are those of the image."""
    reference = Reference.parse(f"alpine:3@sha256:{'0' * 64}")

    assert str(at_mirror(reference, "m.local:5000")) == f"m.local:5000/library/alpine:3@sha256:{'0' * 64}"
    assert at_mirror(reference, "m.local/hub/x").name == "m.local/hub/x/library/alpine"
