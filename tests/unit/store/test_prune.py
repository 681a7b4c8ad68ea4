# SPDX-License-Identifier: Apache-2.0
"""The prune plan is a pure function: nothing in use or excluded ever goes."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.images import build_image, layer
from tests.support.tar import File
from worker.errors import LeaseLost
from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.store.images import RefOwner
from worker.store.prune import (
    Policy,
    PrunePlan,
    Survey,
    execute,
    forget_references,
    plan_prune,
    recheck,
    spare,
    survey,
)
from worker.store.store import Store

_DIGESTS = [Digest("sha256", f"{number:064x}") for number in range(6)]
_LAYERS = [Digest("sha256", f"{number:064x}") for number in range(100, 108)]
_FORMAT = LayerFormat.DIRECTORY

_images = st.dictionaries(st.sampled_from(_DIGESTS), st.none() | st.frozensets(st.sampled_from(_LAYERS), min_size=1))
_subset = st.frozensets(st.sampled_from(_DIGESTS))
_references = st.dictionaries(
    st.integers(0, 9).map(lambda number: Path(f"/r/{number}")),
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(_DIGESTS)),
)
_layers = st.frozensets(st.sampled_from(_LAYERS)).map(lambda found: tuple((_FORMAT, each) for each in sorted(found)))


@given(images=_images, used=_subset, excluded=_subset, references=_references, layers=_layers)
def test_no_layer_of_an_image_that_stays_goes(
    images: dict[Digest, frozenset[Digest] | None],
    used: frozenset[Digest],
    excluded: frozenset[Digest],
    references: dict[Path, tuple[str, Digest]],
    layers: tuple[tuple[LayerFormat, Digest], ...],
) -> None:
    """For any store, images in use or excluded stay whole, all else goes, and unreadable ones freeze the layers."""
    found = Survey(
        images=images, used=used & set(images), used_at=dict.fromkeys(images, 1.0), references=references, layers=layers
    )

    plan = plan_prune(found, Policy(excluded_references={"a"}, excluded_digests=excluded))

    by_name = {digest for name, digest in references.values() if name == "a"}
    stays = ((used & set(images)) | excluded | by_name) & set(images)
    assert set(plan.images) == set(images) - stays
    needed = {layer for digest in stays for layer in images[digest] or ()}
    assert not needed & {diff_id for _, diff_id in plan.layers}
    if any(images[digest] is None for digest in stays):
        assert plan.layers == ()
    else:
        assert {diff_id for _, diff_id in plan.layers} == {diff_id for _, diff_id in layers} - needed
    assert set(plan.references) == {path for path, (_, digest) in references.items() if digest not in stays}


def test_an_empty_store_needs_no_plan() -> None:
    """Nothing there, nothing to do, no error."""
    plan = plan_prune(Survey(images={}, used=(), used_at={}, references={}, layers=()), Policy())

    assert (plan.images, plan.layers, plan.references) == ((), (), ())


def _three_images() -> Survey:
    """Return images 0, 1, 2, used in the order 1, 2, 0; 0 and 1 share a layer."""
    images = {
        _DIGESTS[0]: frozenset({_LAYERS[0], _LAYERS[1]}),
        _DIGESTS[1]: frozenset({_LAYERS[1], _LAYERS[2]}),
        _DIGESTS[2]: frozenset({_LAYERS[3]}),
    }
    used_at = {_DIGESTS[0]: 30.0, _DIGESTS[1]: 10.0, _DIGESTS[2]: 20.0}
    layers = tuple((_FORMAT, diff_id) for diff_id in _LAYERS[:4])
    return Survey(images=images, used=(), used_at=used_at, references={}, layers=layers)


def test_what_was_used_lately_stays() -> None:
    """Only images that last had a ref before the time go."""
    plan = plan_prune(_three_images(), Policy(unused_since=25.0))

    assert plan.images == (_DIGESTS[1], _DIGESTS[2])
    assert {diff_id for _, diff_id in plan.layers} == {_LAYERS[2], _LAYERS[3]}


def test_the_longest_unused_go_first_and_only_as_many_as_needed() -> None:
    """A layer that another image shares frees nothing yet."""
    sizes = {_LAYERS[0]: 100, _LAYERS[1]: 1000, _LAYERS[2]: 10, _LAYERS[3]: 5}

    assert plan_prune(_three_images(), Policy(bytes_wanted=10), sizes=sizes).images == (_DIGESTS[1],)
    assert plan_prune(_three_images(), Policy(bytes_wanted=11), sizes=sizes).images == (_DIGESTS[1], _DIGESTS[2])
    assert len(plan_prune(_three_images(), Policy(bytes_wanted=16), sizes=sizes).images) == 3
    assert len(plan_prune(_three_images(), Policy(bytes_wanted=10**9), sizes=sizes).images) == 3


def test_layers_of_no_image_count_first() -> None:
    """What nothing can use any more may be enough already."""
    found = _three_images()
    stray = Survey(
        images={_DIGESTS[2]: found.images[_DIGESTS[2]]},
        used=(),
        used_at=found.used_at,
        references={},
        layers=found.layers,
    )

    plan = plan_prune(stray, Policy(bytes_wanted=50), sizes=dict.fromkeys(_LAYERS, 20))

    assert plan.images == ()
    assert {diff_id for _, diff_id in plan.layers} == set(_LAYERS[:3])


@given(
    images=_images, gone=_subset, needed=st.lists(st.none() | st.frozensets(st.sampled_from(_LAYERS))), layers=_layers
)
def test_spared_layers_are_those_somebody_needs_by_now(
    images: dict[Digest, frozenset[Digest] | None],
    gone: frozenset[Digest],
    needed: list[frozenset[Digest] | None],
    layers: tuple[tuple[LayerFormat, Digest], ...],
) -> None:
    """Nothing is added to a plan; one who needs unknown layers keeps them all."""
    plan = PrunePlan(images=tuple(images), layers=layers)

    left = spare(plan, images=gone, needed=needed)

    assert set(left.images) == set(images) - gone
    wanted = {layer for each in needed for layer in each or ()}
    assert set(left.layers) == (set() if None in needed else {each for each in layers if each[1] not in wanted})


def _put(store: Store, text: str) -> Digest:
    """Put an image whose base layer all of them share, with its layers as empty directories."""
    image = build_image([layer(File("base")), layer(File("own", text.encode()))])
    digest = Digest.parse(image.digest)
    store.images.put(digest, manifest=image.manifest.content, config=image.config.content)
    for diff_id in image.diff_ids:
        store.paths.layer_dir(diff_id, layer_format=_FORMAT.value).mkdir(parents=True, exist_ok=True)
    return digest


def _left(store: Store) -> set[Digest]:
    return {diff_id for _, diff_id in store.layers.committed()}


def _pass() -> None:
    """Let every rename happen."""


def test_what_came_into_use_after_the_survey_stays(tmp_path: Path) -> None:
    """An image that got a ref keeps its layers; the other goes."""
    store = Store.open(tmp_path / "store")
    used, unused = _put(store, "used"), _put(store, "unused")
    kept = set(store.images.get(used).layers)  # type: ignore[union-attr]
    found = survey(store)
    plan = plan_prune(found, Policy())

    store.images.keep(used, RefOwner(node="n1", container_id="c1", name="rootfs"))
    left = recheck(store, found, plan)
    execute(store, left, check=_pass)

    assert set(plan.images) == {used, unused}
    assert set(store.images.digests()) == {used}
    assert _left(store) == kept


def test_what_came_into_the_store_after_the_survey_keeps_its_layers(tmp_path: Path) -> None:
    """Its own, which the survey had seen as nobody's, and the one it shares with an image that goes."""
    store = Store.open(tmp_path / "store")
    _put(store, "old")
    new = _put(store, "new")
    kept = set(store.images.get(new).layers)  # type: ignore[union-attr]
    away = store.paths.image_dir(str(new)).rename(tmp_path / "away")
    found = survey(store)
    plan = plan_prune(found, Policy())

    away.rename(store.paths.image_dir(str(new)))
    execute(store, recheck(store, found, plan), check=_pass)

    assert kept <= {diff_id for _, diff_id in plan.layers}
    assert set(store.images.digests()) == {new}
    assert _left(store) == kept


def test_a_ref_that_came_and_went_is_seen(tmp_path: Path) -> None:
    """Somebody pulled it meanwhile: the next prune may take it."""
    store = Store.open(tmp_path / "store")
    digest = _put(store, "pulled")
    os.utime(store.paths.refs_dir(str(digest)), (1, 1))
    found = survey(store)
    owner = RefOwner(node="n1", container_id="", name="pull-1")

    store.images.keep(digest, owner)
    store.images.drop(digest, owner)

    assert recheck(store, found, plan_prune(found, Policy())).images == ()


def test_references_go_after_their_images_and_not_without_them(tmp_path: Path) -> None:
    """One whose image is there again by then stays."""
    store = Store.open(tmp_path / "store")
    gone, back = _put(store, "gone"), _put(store, "back")
    for name, digest in (("gone", gone), ("back", back)):
        store.images.remember(name, platform="linux/amd64", digest=digest, opener=None)
    found = survey(store)
    plan = plan_prune(found, Policy())
    execute(store, plan, check=_pass)

    _put(store, "back")
    forget_references(store, plan)

    assert [reference.reference for _, reference in store.images.references()] == ["back"]


@pytest.mark.parametrize("renames", range(5))
def test_a_prune_that_is_stopped_between_two_renames_leaves_only_surplus(tmp_path: Path, renames: int) -> None:
    """No image that is still there lacks a layer, and the next prune goes on."""
    store = Store.open(tmp_path / "store")
    for name in ("one", "two"):
        store.images.remember(name, platform="linux/amd64", digest=_put(store, name), opener=None)
    checks = itertools.count()

    def check() -> None:
        if next(checks) == renames:
            raise LeaseLost(lock="lock", owner="prune", reason="it was not renewed in time")

    with pytest.raises(LeaseLost):
        execute(store, plan_prune(survey(store), Policy()), check=check)
    moved = len(list(store.paths.trash_dir.iterdir()))
    needed = {each for digest in store.images.digests() for each in store.images.get(digest).layers}  # type: ignore[union-attr]
    are_whole = needed <= _left(store)
    rest = plan_prune(survey(store), Policy())
    execute(store, rest, check=_pass)
    forget_references(store, rest)

    assert (moved, are_whole) == (renames, True)
    assert (list(store.images.digests()), _left(store), list(store.images.references())) == ([], set(), [])
