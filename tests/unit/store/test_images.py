# SPDX-License-Identifier: Apache-2.0
"""Images, references and refs on disk."""

from pathlib import Path

import pytest

from tests.support.provisioners import small_image
from worker.errors import RecordCorrupt
from worker.oci.digest import Digest
from worker.store.images import RefOwner
from worker.store.resolved import ResolvedReference
from worker.store.store import Store

_OWNER = RefOwner(node="n1", container_id="c1", name="rootfs")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def digest(store: Store) -> Digest:
    """An image in it."""
    image = small_image()
    digest = Digest.parse(image.digest)
    store.images.put(digest, manifest=image.manifest.content, config=image.config.content)
    return digest


def test_an_image_reads_back_as_it_was_put(store: Store, digest: Digest) -> None:
    """Putting it again changes nothing."""
    image = small_image()
    store.images.put(digest, manifest=image.manifest.content, config=image.config.content)

    stored = store.images.get(digest)

    assert stored is not None
    assert [str(each) for each in stored.layers] == image.diff_ids
    assert list(store.images.digests()) == [digest]
    assert store.images.get(Digest.of(b"other")) is None


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_corrupt_image_is_an_error_that_names_its_directory(store: Store, digest: Digest, name: str) -> None:
    """Neither absent nor usable."""
    (store.paths.image_dir(str(digest)) / name).write_bytes(b"[]")

    with pytest.raises(RecordCorrupt, match=str(digest)):
        store.images.get(digest)


def test_the_last_resolution_wins_and_corrupt_ones_are_as_none(store: Store, digest: Digest) -> None:
    """By reference and platform."""
    store.images.remember("docker.io/library/a:1", platform="linux/amd64", digest=Digest.of(b"old"), opener=None)
    store.images.remember("docker.io/library/a:1", platform="linux/amd64", digest=digest, opener=None)

    resolved = store.images.resolved("docker.io/library/a:1", platform="linux/amd64")
    assert resolved is not None
    assert resolved.digest == digest
    assert store.images.resolved("docker.io/library/a:1", platform="linux/arm64") is None
    path, found = next(store.images.references())
    assert (found.reference, found.digest) == ("docker.io/library/a:1", digest)
    path.write_bytes(b"")
    assert store.images.resolved("docker.io/library/a:1", platform="linux/amd64") is None
    assert list(store.images.references()) == []


def test_who_opened_an_image_is_remembered_until_its_source_is_asked_again(store: Store, digest: Digest) -> None:
    """Admissions add up for one image, and what anybody may have stays so; whoever asks the source begins anew."""
    name, platform = "docker.io/team/a:1", "linux/amd64"

    def found() -> ResolvedReference:
        resolved = store.images.resolved(name, platform=platform)
        assert resolved is not None
        return resolved

    store.images.remember(name, platform=platform, digest=digest, opener="one")
    old = found()
    for opener in ("two", "one", "three"):
        store.images.admit(old, opener=opener)
    assert found().openers == ("one", "two", "three")
    store.images.remember(name, platform=platform, digest=digest, opener="four")
    assert found().openers == ("four",)
    store.images.admit(old, opener=None)
    store.images.admit(old, opener="five")
    assert found().openers is None
    store.images.remember(name, platform=platform, digest=digest, opener="six")
    assert found().openers == ("six",), "it is private by now"

    store.images.remember(name, platform=platform, digest=Digest.of(b"other"), opener="one")
    store.images.admit(old, opener="three")

    assert (found().digest, found().openers) == (Digest.of(b"other"), ("one",)), "a late admission changes nothing"


def test_a_held_ref_is_dropped_only_by_force(store: Store, digest: Digest) -> None:
    """Whoever holds its flock still works on what it stands for."""
    with store.images.pin(digest, _OWNER):
        assert not store.images.drop_unheld(digest, _OWNER)
        assert [owner for _, owner in store.images.refs(digest)] == [_OWNER]
        with store.images.pin(digest, _OWNER):
            pass

    assert [owner for _, owner in store.images.refs(digest)] == [_OWNER], "a ref outlives its pin"
    assert store.images.drop_unheld(digest, _OWNER)
    assert list(store.images.refs(digest)) == []

    with store.images.pin(digest, _OWNER):
        store.images.drop(digest, _OWNER)
        assert list(store.images.refs(digest)) == []


def test_a_ref_cut_short_still_counts(store: Store, digest: Digest) -> None:
    """It keeps the image until recover has looked at it; the next pin completes it."""
    store.images.ref_path(digest, _OWNER).touch()

    assert [owner for _, owner in store.images.refs(digest)] == [None]
    store.images.keep(digest, _OWNER)
    assert [owner for _, owner in store.images.refs(digest)] == [_OWNER]


def test_a_store_keeps_its_identity(store: Store, tmp_path: Path) -> None:
    """Opened again or elsewhere it is the same; a corrupt identity is an error that names the file."""
    assert Store.open(tmp_path / "store").identity == store.identity
    assert Store.open(tmp_path / "second").identity != store.identity
    store.paths.identity_path.write_bytes(b"{}")

    with pytest.raises(RecordCorrupt, match=r"store\.json"):
        Store.open(tmp_path / "store")


def test_a_store_is_its_owners_alone(store: Store) -> None:
    """Images hold setuid files."""
    assert store.paths.store_dir.stat().st_mode & 0o077 == 0


def test_a_ref_cut_short_by_a_crash_is_written_again(store: Store, digest: Digest) -> None:
    """It would keep the image, and `recover` would take it for nobody's."""
    path = store.images.ref_path(digest, _OWNER)
    path.write_bytes(b'{"node": "n1", "conta' + bytes(200))

    store.images.keep(digest, _OWNER)

    assert list(store.images.refs(digest)) == [(path, _OWNER)]


def test_a_stale_ref_is_judged_again_once_it_is_locked(store: Store, digest: Digest) -> None:
    """Its owner as it is by then is what the judge gets, and the judge's word counts."""
    path = store.images.ref_path(digest, _OWNER)
    store.images.keep(digest, _OWNER)
    asked: list[RefOwner | None] = []

    assert not store.images.drop_stale(path, is_stale=lambda owner: bool(asked.append(owner)))
    assert path.exists()
    assert store.images.drop_stale(path, is_stale=lambda owner: owner == _OWNER)
    assert not path.exists()
    assert asked == [_OWNER]
