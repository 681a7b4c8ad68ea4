# SPDX-License-Identifier: Apache-2.0
"""Media types."""

from itertools import combinations

from worker.oci import media_types


def test_every_type_means_one_thing() -> None:
    """No media type is in two of the sets that decide how content is read."""
    sets = (media_types.MANIFESTS, media_types.INDEXES, media_types.LAYERS, media_types.SCHEMA1)

    assert all(first.isdisjoint(second) for first, second in combinations(sets, 2))


def test_every_layer_has_one_compression() -> None:
    """The three compressions divide the layers, foreign ones included."""
    kinds = (media_types.TAR_LAYERS, media_types.GZIP_LAYERS, media_types.ZSTD_LAYERS)

    assert sum(map(len, kinds)) == len(media_types.LAYERS)
    assert frozenset().union(*kinds) == media_types.LAYERS
    assert media_types.FOREIGN_LAYERS <= media_types.LAYERS
