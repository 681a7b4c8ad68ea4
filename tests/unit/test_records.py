# SPDX-License-Identifier: Apache-2.0
"""A container's record survives the disk, and nothing else is taken for one."""

from pathlib import Path

import pytest

from worker.errors import RecordCorrupt
from worker.oci.digest import Digest
from worker.records import ContainerRecord, ProvisionInfo, RootfsRecord, read_record, write_record

_DIGEST = Digest.of(b"manifest")
_INFO = ProvisionInfo(
    container_id="pod.a",
    name="rootfs",
    node="n1",
    image="docker.io/library/alpine:3",
    digest=str(_DIGEST),
    backend="overlay",
    layer_format="directory",
    layers=("sha256:" + "0" * 64,),
    rootfs="/w/rootfs",
    ephemeral_volumes=("/w/upper", "/w/work"),
    docker_manifest={"config": {"Env": ["A=b"]}},
)


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """With all its rootfses and pins."""
    rootfs = RootfsRecord(info=_INFO, is_read_only=True)
    record = ContainerRecord().with_pending("data", _DIGEST, generation="g").with_rootfs(rootfs, generation="g")

    write_record(tmp_path / "record.json", record)

    assert read_record(tmp_path / "record.json") == record
    assert record.without("rootfs").without("data").is_empty


def test_a_rootfs_takes_the_place_of_its_pin() -> None:
    """One name is never both."""
    rootfs = RootfsRecord(info=_INFO, is_read_only=False)
    record = ContainerRecord().with_pending("rootfs", _DIGEST, generation="g").with_rootfs(rootfs, generation="g")

    assert dict(record.pending) == {}
    assert list(record.rootfses) == ["rootfs"]


def test_no_file_is_an_empty_record(tmp_path: Path) -> None:
    """A container that only holds others has none."""
    assert read_record(tmp_path / "record.json").is_empty


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b"{}", b'{"rootfses": [], "pending": {}}', b'{"rootfses": {"a": {}}, "pending": {}}'],
)
def test_anything_else_is_corrupt_and_named(tmp_path: Path, content: bytes) -> None:
    """An empty file too: it is what a crash without fsync leaves."""
    (tmp_path / "record.json").write_bytes(content)

    with pytest.raises(RecordCorrupt, match=r"record\.json"):
        read_record(tmp_path / "record.json")


def test_the_answer_survives_json() -> None:
    """What Redis shows is what was answered."""
    assert ProvisionInfo.from_json(_INFO.to_json()) == _INFO
