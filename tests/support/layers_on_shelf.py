# SPDX-License-Identifier: Apache-2.0
"""Layers in a store of which only the record matters."""

from worker.image import LayerFormat, LayerRecord
from worker.layers.record import write_record
from worker.oci.digest import Digest
from worker.store.store import Store


def put_layer(store: Store, diff_id: Digest, *, disk_bytes: int) -> None:
    """Commit a layer without content, in the format DIRECTORY."""
    record = LayerRecord(
        diff_id=diff_id,
        layer_format=LayerFormat.DIRECTORY,
        blob_digest=diff_id,
        blob_bytes=1,
        tar_bytes=1,
        disk_bytes=disk_bytes,
        entries=1,
        has_whiteouts=False,
        is_squashed=False,
    )
    with store.layers.stage(diff_id, layer_format=LayerFormat.DIRECTORY) as staging_dir:
        assert staging_dir is not None
        write_record(staging_dir / "layer.json", record)
        store.layers.commit(staging_dir, diff_id, layer_format=LayerFormat.DIRECTORY)
