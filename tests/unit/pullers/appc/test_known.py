# SPDX-License-Identifier: Apache-2.0
"""What is remembered of archives, and how little depends on it."""

import os
from pathlib import Path

import pytest

from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_LAYER
from worker.pullers.appc.known import KnownAci, KnownAcis

KNOWN = KnownAci(
    tag='"abc"',
    image_id=Digest("sha512", "ab" * 64),
    manifest=b'{"acKind": "ImageManifest", "bytes": "\xc3\xa9"}',
    layer=Descriptor(media_type=OCI_LAYER, digest=Digest.of(b"layer"), size_bytes=5),
    sizes_bytes=frozenset({3, 5}),
)


def test_what_is_put_is_got_by_its_place_only(tmp_path: Path) -> None:
    """The last word counts; what is forgotten is gone, also the second time."""
    acis = KnownAcis(tmp_path / "acis")
    assert acis.get("https://a/b.aci") is None

    acis.put("https://a/b.aci", KNOWN)

    assert KnownAcis(tmp_path / "acis").get("https://a/b.aci") == KNOWN
    assert acis.get("https://a/c.aci") is None
    acis.forget("https://a/b.aci")
    acis.forget("https://a/b.aci")
    assert acis.get("https://a/b.aci") is None


@pytest.mark.parametrize("position", [0, 64, 70, 200, -1])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, position: int) -> None:
    """One flipped bit anywhere; an empty file; a directory."""
    acis = KnownAcis(tmp_path)
    acis.put("p", KNOWN)
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[position] ^= 1

    for damaged in (bytes(content), b"", b"\n", b"{}"):
        path.write_bytes(damaged)
        assert acis.get("p") is None
    path.unlink()
    path.mkdir()
    assert acis.get("p") is None


def test_what_nobody_asked_for_in_a_month_is_forgotten(tmp_path: Path) -> None:
    """And what a killed writer left; what was asked for meanwhile stays."""
    acis = KnownAcis(tmp_path)
    for place in ("old", "used"):
        acis.put(place, KNOWN)
    (tmp_path / ".tmp-dead").write_bytes(b"")
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert acis.get("used") == KNOWN

    acis.put("new", KNOWN)

    assert [acis.get(place) is not None for place in ("old", "used", "new")] == [False, True, True]
    assert len(list(tmp_path.iterdir())) == 2
