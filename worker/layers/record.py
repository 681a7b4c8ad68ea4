# SPDX-License-Identifier: Apache-2.0
"""`layer.json`: a `LayerRecord` as it lies beside its layer."""

import json
from pathlib import Path
from typing import Any

from worker.errors import InvalidArgument, RecordCorrupt
from worker.image import LayerFormat, LayerRecord
from worker.oci.digest import Digest

_VERSION = 1
_COUNTS = ("blob_bytes", "tar_bytes", "disk_bytes", "entries")
_FLAGS = ("has_whiteouts", "is_opaque", "is_squashed")


def write_record(path: Path, record: LayerRecord) -> None:
    """Write the record.

    Effect: not durable: it is part of a directory that nobody sees yet and that is synced as a whole.
    """
    document = {
        "version": _VERSION,
        "diff_id": str(record.diff_id),
        "layer_format": record.layer_format.value,
        "blob_digest": str(record.blob_digest),
        **{name: getattr(record, name) for name in (*_COUNTS, *_FLAGS)},
        "implied_dirs": record.implied_dirs,
        "sparse_bytes": record.sparse_bytes,
    }
    path.write_text(json.dumps(document, indent=1), encoding="ascii")


def read_record(path: Path) -> LayerRecord:
    """Read what `write_record` wrote.

    Raises:
        RecordCorrupt: It is not there or is something else; the layer beside it cannot be trusted.
    """
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != _VERSION:
            raise RecordCorrupt(path=str(path), reason=f"version {document['version']!r:.20} is unknown")
        return _parse(document)
    except (OSError, ValueError, TypeError, KeyError, InvalidArgument) as error:
        raise RecordCorrupt(path=str(path), reason=f"{type(error).__name__}: {error}") from error


def _parse(document: dict[str, Any]) -> LayerRecord:
    implied_dirs, sparse_bytes = document["implied_dirs"], document.get("sparse_bytes")
    if not all(isinstance(path, str) for path in implied_dirs):
        raise TypeError("implied_dirs holds something else than paths")
    return LayerRecord(
        diff_id=Digest.parse(document["diff_id"]),
        layer_format=LayerFormat(document["layer_format"]),
        blob_digest=Digest.parse(document["blob_digest"]),
        **{name: _typed(document[name], int, name) for name in _COUNTS},
        **{name: _typed(document[name], bool, name) for name in _FLAGS},
        implied_dirs=tuple(implied_dirs),
        sparse_bytes=None if sparse_bytes is None else _typed(sparse_bytes, int, "sparse_bytes"),
    )


def _typed(value: object, expected: type, name: str) -> Any:
    if type(value) is not expected:
        raise TypeError(f"{name} is {value!r:.40}")
    return value
