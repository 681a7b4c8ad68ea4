# SPDX-License-Identifier: Apache-2.0
"""Large blobs over several connections, where that helps and the registry can."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.images import Blob
from tests.support.ports import wait_until
from tests.support.proxy import proxy_to
from tests.support.registry_server import Registry
from tests.unit.registry.odd_server import Answer, Asked, OddServer
from worker.errors import SizeMismatch
from worker.oci.descriptor import Descriptor
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_LAYER
from worker.oci.reference import Reference
from worker.registry.client import RegistryClient, RepositoryClient
from worker.registry.ranges import SEGMENT_BYTES, ExtraConnections
from worker.settings import MIB, Settings

BLOB = random.Random(3).randbytes(24 * MIB + 4321)
DIGEST = Digest.of(BLOB)
PATH = f"/v2/a/blobs/{DIGEST}"
DESCRIPTOR = Descriptor(media_type=OCI_LAYER, digest=DIGEST, size_bytes=len(BLOB))
SLOW = Answer(body=BLOB, bytes_per_second=8 * MIB)


@pytest.fixture
def ranging_client(tmp_path: Path) -> Iterator[RegistryClient]:
    """A client for which a mebibyte is large."""
    settings = Settings(work_dir=tmp_path, store_dir=tmp_path, registry_attempts=2, ranges_min_bytes=MIB)
    running = RegistryClient(settings, sleep=lambda _: None)
    yield running
    running.close()


@pytest.fixture
def repository(ranging_client: RegistryClient, server: OddServer) -> RepositoryClient:
    """The repository `a` of the odd registry."""
    return ranging_client.repository(Reference.parse(f"{server.host}/a"), login=None)


def read(repository: RepositoryClient, descriptor: Descriptor = DESCRIPTOR, *, offset: int = 0) -> bytes:
    """Read the blob to its end."""
    with repository.blob(descriptor, offset=offset) as chunks:
        return b"".join(chunks)


def span(asked: Asked) -> tuple[int, int]:
    """Return the range that is asked for, its end excluded."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", "bytes=0-"))
    assert match is not None
    return int(match[1]), int(match[2]) + 1 if match[2] else len(BLOB)


def is_segment(asked: Asked) -> bool:
    """Tell whether a range with an end is asked for."""
    return not asked.headers.get("range", "-").endswith("-")


def ranged(asked: Asked, **more: object) -> Answer:
    """Answer as a registry that supports ranges."""
    start, end = span(asked)
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(BLOB)}"}
    return Answer(status=206, headers=headers, body=BLOB[start:end], **more)  # type: ignore[arg-type]


def segments(server: OddServer) -> list[tuple[int, int]]:
    """Return the ranges with an end that were asked for, in order."""
    return sorted(span(asked) for asked in server.asked if is_segment(asked))


def test_a_starving_reader_gets_several_connections(repository: RepositoryClient, server: OddServer) -> None:
    """Segments follow each other without a gap from where the single stream was left; two are on their way at once."""
    together = threading.Barrier(2)

    def script(asked: Asked) -> Answer:
        if len(segments(server)) <= 2:
            together.wait(20)
        return ranged(asked)

    server.on(PATH, SLOW, script)

    assert read(repository) == BLOB
    spans = segments(server)
    assert [end for _, end in spans] == [*(start for start, _ in spans[1:]), len(BLOB)]
    assert spans[0][1] - spans[0][0] == SEGMENT_BYTES
    assert not together.broken


def test_a_busy_reader_stays_with_one_connection(repository: RepositoryClient, server: OddServer) -> None:
    """The line is not what it waits for."""
    server.on(PATH, Answer(body=BLOB))

    with repository.blob(DESCRIPTOR) as chunks:
        content = b""
        for chunk in chunks:
            content += chunk
            time.sleep(0.06)

    assert content == BLOB
    assert len(server.asked) == 1


@pytest.mark.registry
def test_the_registry_gives_ranges(ranging_client: RegistryClient, registry: Registry) -> None:
    """The real one, over a line that gives each connection little."""
    registry.push_blob("ranges", Blob(BLOB, OCI_LAYER))
    with proxy_to(int(registry.host.partition(":")[2])) as proxy:
        proxy.bytes_per_second = 8 * MIB
        repository = ranging_client.repository(Reference.parse(f"127.0.0.1:{proxy.port}/ranges"), login=None)

        assert read(repository) == BLOB

    log = registry.log_path.read_text(errors="replace")
    assert f'"GET /v2/ranges/blobs/{DIGEST} HTTP/1.1" 206 {SEGMENT_BYTES} ' in log


def whole(_: Asked) -> Answer:
    """Ignore the range."""
    return Answer(body=BLOB)


def shifted(asked: Asked) -> Answer:
    """Give another range than was asked for."""
    start, end = span(asked)
    return Answer(status=206, headers={"Content-Range": f"bytes 0-{end - start - 1}/{len(BLOB)}"}, body=BLOB[start:end])


def nameless(asked: Asked) -> Answer:
    """Do not say which range it is."""
    start, end = span(asked)
    return Answer(status=206, body=BLOB[start:end])


def unsized(asked: Asked) -> Answer:
    """Do not say how large the whole is."""
    start, end = span(asked)
    return Answer(status=206, headers={"Content-Range": f"bytes {start}-{end - 1}/*"}, body=BLOB[start:end])


def longer(asked: Asked) -> Answer:
    """Send more than was asked for."""
    start, end = span(asked)
    headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(BLOB)}"}
    return Answer(status=206, headers=headers, body=BLOB[start:end] + b"x")


def cut_at_once(asked: Asked) -> Answer:
    """Break off before the first byte."""
    return ranged(asked, cut_after=0)


def status(code: int) -> Callable[[Asked], Answer]:
    """Refuse."""
    return lambda _: Answer(status=code)


@pytest.mark.parametrize(
    "odd",
    [
        whole,
        shifted,
        nameless,
        unsized,
        longer,
        cut_at_once,
        status(400),
        status(403),
        status(416),
        status(429),
        status(503),
    ],
)
def test_whatever_is_odd_about_a_segment_one_stream_goes_on(
    repository: RepositoryClient, server: OddServer, odd: Callable[[Asked], Answer]
) -> None:
    """From the byte that was reached, to the same blob."""
    server.on(PATH, SLOW, lambda asked: odd(asked) if is_segment(asked) else ranged(asked))

    assert read(repository) == BLOB
    assert segments(server)
    # A segment given up on may still be asked for after the stream.
    assert len([asked for asked in server.asked if not is_segment(asked)]) > 1


def test_oddity_in_the_middle_loses_nothing(repository: RepositoryClient, server: OddServer) -> None:
    """Segments that had come are used, later ones are asked for again."""
    server.on(
        PATH,
        SLOW,
        lambda asked: status(503)(asked) if is_segment(asked) and len(segments(server)) == 3 else ranged(asked),
    )

    assert read(repository) == BLOB


def test_a_segment_that_breaks_off_goes_on(repository: RepositoryClient, server: OddServer) -> None:
    """As long as each connection brings something."""
    server.on(
        PATH, SLOW, lambda asked: ranged(asked, cut_after=MIB + 99 if span(asked)[1] - span(asked)[0] > MIB else None)
    )

    assert read(repository) == BLOB
    spans = segments(server)
    assert any(later == (start + MIB + 99, end) for start, end in spans for later in spans)


def test_another_size_is_told(repository: RepositoryClient, server: OddServer) -> None:
    """No segment is believed that belongs to a blob of another size, nor is the stream after it."""

    def script(asked: Asked) -> Answer:
        start, end = span(asked)
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(BLOB) + 1}"}
        return Answer(status=206, headers=headers, body=BLOB[start:end])

    server.on(PATH, SLOW, script)

    with pytest.raises(SizeMismatch):
        read(repository)


def test_a_blob_resumed_late_is_read_to_its_end(repository: RepositoryClient, server: OddServer) -> None:
    """From any offset, its size included, for which nothing is asked."""
    server.on(PATH, ranged)

    assert read(repository, offset=len(BLOB) - 5) == BLOB[-5:]
    assert len(server.asked) == 1
    assert read(repository, offset=len(BLOB)) == b""
    assert len(server.asked) == 1


def range_threads() -> list[str]:
    """Return the threads that fetch segments."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("range")]


def test_a_reader_may_stop_in_the_middle(repository: RepositoryClient, server: OddServer) -> None:
    """Its threads end by themselves and give their connections back."""
    server.on(PATH, SLOW, ranged)

    with repository.blob(DESCRIPTOR) as chunks:
        for _ in chunks:
            if segments(server):
                break

    wait_until(lambda: not range_threads(), "end of the range threads")
    assert [repository._extras.try_take() for _ in range(3)] == [True, True, False]


def test_without_a_free_connection_a_layer_stays_with_its_own(repository: RepositoryClient, server: OddServer) -> None:
    """Others of the image have borrowed all of them."""
    assert [repository._extras.try_take() for _ in range(2)] == [True, True]
    server.on(PATH, SLOW)

    assert read(repository) == BLOB
    assert len(server.asked) == 1


def test_extra_connections_are_as_many_as_there_are() -> None:
    """None is lent twice."""
    extras = ExtraConnections(1)

    assert extras.are_free
    assert extras.try_take()
    assert not extras.are_free
    assert not extras.try_take()
    extras.give_back()
    assert extras.try_take()
