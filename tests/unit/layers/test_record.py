# SPDX-License-Identifier: Apache-2.0
"""`layer.json`, written and read back."""

import json
from pathlib import Path

import pytest

from worker.errors import RecordCorrupt
from worker.image import LayerFormat, LayerRecord
from worker.layers.record import read_record, write_record
from worker.oci.digest import Digest

RECORD = LayerRecord(
    diff_id=Digest.of(b"tar"),
    layer_format=LayerFormat.DIRECTORY_AUFS,
    blob_digest=Digest.of(b"blob", algorithm="sha512"),
    blob_bytes=4,
    tar_bytes=3,
    disk_bytes=4096,
    entries=1,
    has_whiteouts=True,
    is_opaque=False,
    is_squashed=True,
    implied_dirs=(".", "caf\udce9", "ü"),
)


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Names that are no UTF-8 included."""
    write_record(tmp_path / "layer.json", RECORD)

    assert read_record(tmp_path / "layer.json") == RECORD


def test_a_missing_record_is_corrupt(tmp_path: Path) -> None:
    """Whoever reads one has found its layer."""
    with pytest.raises(RecordCorrupt, match="FileNotFoundError"):
        read_record(tmp_path / "layer.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"version": 2}', bytes(4096)])
def test_something_else_is_corrupt(content: bytes, tmp_path: Path) -> None:
    """Power loss leaves empty files, and files of zeros."""
    (tmp_path / "layer.json").write_bytes(content)

    with pytest.raises(RecordCorrupt, match=r"layer\.json is corrupt"):
        read_record(tmp_path / "layer.json")


WRONG = {
    "diff_id": "sha256:short",
    "blob_digest": None,
    "layer_format": "zip",
    "entries": "1",
    "tar_bytes": True,
    "blob_bytes": 1.5,
    "has_whiteouts": 1,
    "implied_dirs": [1],
}


@pytest.mark.parametrize(("field", "value"), WRONG.items())
def test_a_field_of_another_type_is_corrupt(field: str, value: object, tmp_path: Path) -> None:
    """Every field is checked, so that nothing goes wrong later."""
    path = tmp_path / "layer.json"
    write_record(path, RECORD)
    document = json.loads(path.read_bytes())

    path.write_text(json.dumps(document | {field: value}), encoding="ascii")
    with pytest.raises(RecordCorrupt):
        read_record(path)

    path.write_text(json.dumps({key: other for key, other in document.items() if key != field}), encoding="ascii")
    with pytest.raises(RecordCorrupt):
        read_record(path)
