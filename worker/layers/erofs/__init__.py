# SPDX-License-Identifier: Apache-2.0
"""Layers that are never unpacked: the kernel reads files out of the tar itself, by an index we write.

::

    uncompressed tar, kept byte for byte    kept_tar.py    layer.tar: what the DiffID is the digest of
      -> entries applied in order           layer_tree.py  what one layer has, hides and implies
         each as an EROFS inode             inode.py       over xattrs.py, acl.py
         sparse files written out           blob.py        layer.blob, only if there are any
      -> the layer's index                  index.py       layer.idx, written in the same pass (build.py)

    indexes of all layers, base first       merge.py       whiteouts and opaque directories resolved
      -> one EROFS image of metadata        image.py       over format.py; data stay in layer.tar and layer.blob

The kernel mounts the result from plain files (Linux 6.12, EROFS_FS_BACKED_BY_FILE; blocks of 512 bytes since 6.4), the
tars as its extra devices. An image of any number of layers is one mount. Every byte of metadata the kernel parses was
written here; an image's author chooses only what is inside files.

Source: kernel 6.12, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
"""
