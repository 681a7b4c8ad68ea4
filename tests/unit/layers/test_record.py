# SPDX-License-Identifier: Apache-2.0
"""`layer.json`, written and read back."""

import json
from dataclasses import replace
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
    sparse_bytes=4096,
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
LATER = {"sparse_bytes": "1"}
"""Fields that records had later than others."""


@pytest.mark.parametrize(("field", "value"), [*WRONG.items(), *LATER.items()])
def test_a_field_of_another_type_is_corrupt(field: str, value: object, tmp_path: Path) -> None:
    """Every field is checked, so that nothing goes wrong later."""
    path = tmp_path / "layer.json"
    write_record(path, RECORD)
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {field: value}), encoding="ascii")

    with pytest.raises(RecordCorrupt):
        read_record(path)


@pytest.mark.parametrize("field", WRONG)
def test_a_field_that_is_missing_is_corrupt(field: str, tmp_path: Path) -> None:
    """Unless there were none of it once."""
    path = write_without(tmp_path / "layer.json", field)

    with pytest.raises(RecordCorrupt):
        read_record(path)


@pytest.mark.parametrize("field", LATER)
def test_an_older_record_says_no_more_than_it_did(field: str, tmp_path: Path) -> None:
    """Its layer is not fetched again for that."""
    path = write_without(tmp_path / "layer.json", field)

    assert read_record(path) == replace(RECORD, **{field: None})


def write_without(path: Path, field: str) -> Path:
    """Write a record that lacks a field."""
    write_record(path, RECORD)
    document = json.loads(path.read_bytes())
    del document[field]
    path.write_text(json.dumps(document), encoding="ascii")
    return path
