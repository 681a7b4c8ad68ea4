# SPDX-License-Identifier: Apache-2.0
"""What a whitelist leaves of a layer, against a model."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tests.support.tar import Dir, Entry, File, tar_bytes
from worker.layers.limits import LayerLimits
from worker.layers.stream import ByteStream
from worker.layers.tar_reader import TarReader
from worker.pullers.appc.whitelist import keep_listed

LIMITS = LayerLimits(max_layer_bytes=1 << 30, max_entries=1000, max_header_bytes=1 << 20)
PATHS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.builds(lambda path, is_dir: Dir(path) if is_dir else File(path), PATHS, st.booleans()), max_size=12
)


@given(ENTRIES, st.sets(PATHS, min_size=1, max_size=4))
def test_listed_paths_stay_and_the_directories_that_lead_to_them(entries: list[Entry], paths: set[str]) -> None:
    """A directory stays without its content, a file in the place of a leading directory goes."""
    tar = b"".join(keep_listed(iter([tar_bytes([Dir("."), *entries])]), paths, limits=LIMITS))

    kept = [entry.name.decode().strip("/") for entry in TarReader(ByteStream(iter([tar])), LIMITS)]

    def stays(entry: Entry) -> bool:
        path = entry.path.rstrip("/")
        is_leading = entry.typeflag == b"5" and any(listed.startswith(f"{path}/") for listed in paths)
        return path in paths or is_leading

    assert kept == [".", *(entry.path.rstrip("/") for entry in entries if stays(entry))]


def test_deep_paths_cost_what_they_are_long() -> None:
    """A manifest of four megabytes can list a thousand of them, with two million directories above."""
    paths = [f"{number}/" + "a/" * 2000 + "end" for number in range(1000)]
    tracemalloc.start()

    tar = b"".join(keep_listed(iter([tar_bytes([Dir("7"), File("7/b")])]), paths, limits=LIMITS))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [entry.name for entry in TarReader(ByteStream(iter([tar])), LIMITS)] == [b"7/"]
    assert peak < 20_000_000
