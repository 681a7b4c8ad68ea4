# SPDX-License-Identifier: Apache-2.0
"""What App Container images are asked for by."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.oci.appc import (
    IDENTIFIER,
    AppcReference,
    image_id_text,
    parse_image_id,
    platform_labels,
    platform_members,
)
from worker.oci.digest import Digest
from worker.oci.platform import Platform

IMAGE_ID = Digest("sha512", "ab" * 64)
IDENTIFIERS = st.from_regex(
    IDENTIFIER, fullmatch=True, alphabet=string.ascii_lowercase + string.digits + "-._~/"
).filter(lambda name: len(name) < 200 and name != "name")
VALUES = st.text(st.characters(exclude_characters=",@", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@given(IDENTIFIERS, st.dictionaries(IDENTIFIERS, VALUES, max_size=4), st.sampled_from([None, IMAGE_ID]))
def test_a_reference_prints_as_it_is_parsed(name: str, labels: dict[str, str], image_id: Digest | None) -> None:
    """Whatever the labels' order; so there is one spelling to remember it by."""
    reference = AppcReference.of(name, labels.items(), image_id=image_id)

    assert AppcReference.parse(str(reference)) == reference
    assert AppcReference.of(name, reversed(labels.items()), image_id=image_id) == reference


def test_an_at_sign_that_is_no_ids_belongs_to_a_value() -> None:
    """Values are arbitrary strings."""
    assert AppcReference.parse("a,mail=x@y").labels == (("mail", "x@y"),)


@pytest.mark.parametrize(
    ("asked", "labels", "expected"),
    [
        ("a", {}, None),
        ("a", {"os": "linux", "arch": "amd64", "version": "1"}, None),
        ("a", {"os": "linux", "arch": "i386"}, "its label arch is i386, wanted is amd64"),
        ("a,arch=i386", {"os": "linux", "arch": "i386"}, None),
        ("a,arch=i386", {"os": "linux"}, "its label arch is missing, wanted is i386"),
        ("a,version=1", {"version": "2"}, "its label version is 2, wanted is 1"),
        (f"a,version=1@{image_id_text(IMAGE_ID)}", {"version": "2"}, None),
        ("b", {}, "it calls itself a"),
    ],
)
def test_labels_match_as_the_specification_says(asked: str, labels: dict[str, str], expected: str | None) -> None:
    """Asked ones must be there, others may be; an id decides alone; the platform must not be another."""
    defaults = {"os": "linux", "arch": "amd64"}

    assert AppcReference.parse(asked).mismatch("a", labels, defaults=defaults) == expected


@pytest.mark.parametrize(
    ("platform", "architecture"),
    [
        ("linux/amd64", "amd64"),
        ("linux/386", "i386"),
        ("linux/arm64", "aarch64"),
        ("linux/arm/v6", "armv6l"),
        ("linux/arm", "armv7l"),
        ("linux/ppc64le", "ppc64le"),
        ("linux/s390x", "s390x"),
    ],
)
def test_processors_are_named_as_appc_names_them(platform: str, architecture: str) -> None:
    """And back again they are the same platform."""
    labels = platform_labels(Platform.parse(platform))

    assert labels == {"os": "linux", "arch": architecture}
    assert Platform.normalised(labels["os"], labels["arch"]) == Platform.parse(platform)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"os": "linux", "arch": "amd64"}, "linux amd64"),
        ({"os": "linux", "arch": "i386"}, "linux 386"),
        ({"os": "linux", "arch": "aarch64"}, "linux arm64"),
        ({"os": "linux", "arch": "aarch64_be"}, "linux arm64be"),
        ({"os": "linux", "arch": "armv6l"}, "linux arm v6"),
        ({"os": "linux", "arch": "armv7l"}, "linux arm v7"),
        ({"os": "linux", "arch": "armv7b"}, "linux armbe v7"),
        ({"os": "linux", "arch": "ppc64le"}, "linux ppc64le"),
        ({"os": "darwin", "arch": "x86_64"}, "darwin amd64"),
        ({"os": "linux"}, "linux"),
        ({"arch": "aarch64"}, ""),
        ({}, ""),
    ],
)
def test_labels_are_said_as_oci_says_them(labels: dict[str, str], expected: str) -> None:
    """Every processor of the specification's list; one without an operating system means nothing."""
    members = platform_members({**labels, "version": "1"})

    assert list(members) == ["os", "architecture", "variant"][: len(members)]
    assert " ".join(members.values()) == expected


def test_image_ids_are_whole() -> None:
    """Not cut short, of no other algorithm, in lower case."""
    text = image_id_text(IMAGE_ID)

    assert parse_image_id(text) == IMAGE_ID
    for other in (text[:-1], text.upper(), text.replace("sha512", "sha256"), text + "a", ""):
        assert parse_image_id(other) is None
