# SPDX-License-Identifier: Apache-2.0
"""From a layer's blob to a committed form on disk, in one pass.

::

    chunks of the blob                                   build.py       the one entry point, the table of formats
      -> size and digest of the blob                     verified.py
      -> gzip, zstd or nothing, told by magic bytes      inflate.py
      -> size and DiffID of the tar                      verified.py
      -> forward-only reads, skips, drain                stream.py
      -> entries                                         tar_reader.py  over tar_{entry,header,numbers,pax,sparse}.py
      -> a tree                                          directory.py   by names.py, content.py, tree.py, whiteouts.py
      -> layer.json                                      record.py

Everything a blob says is hostile until the last byte has passed its checks: `build_layer` fills a staging directory
that nobody sees, and only its return says that the layer is what its digests promise.

A further format is one more `LayerBuilder` (builder.py) in the table of build.py. One that keeps the tar as it is
writes the chunks down as they pass and takes from the reader only where in them each file's data lie.
"""
