# SPDX-License-Identifier: Apache-2.0
"""The prune plan is a pure function: nothing in use or excluded ever goes."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from worker.image import LayerFormat
from worker.oci.digest import Digest
from worker.store.prune import Survey, plan_prune

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
    found = Survey(images=images, used=used & set(images), references=references, layers=layers)

    plan = plan_prune(found, excluded_references={"a"}, excluded_digests=excluded)

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
    plan = plan_prune(Survey(images={}, used=(), references={}, layers=()), excluded_references=(), excluded_digests=())

    assert (plan.images, plan.layers, plan.references) == ((), (), ())
