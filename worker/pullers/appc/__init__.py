# SPDX-License-Identifier: Apache-2.0
"""App Container images: `appc:NAME[,label=value…][@sha512-…]`.

::

    source        where archives are: on the web or in a directory
    inflate       gzip, bzip2, xz, zstd or none
    adapt         an archive's tar -> the tar of a layer: `rootfs/` becomes the root
    archive       all of these in one pass into an unnamed file
    layer         a layer's tar, in such a file or still at its source
    known         what archives told that were read before
    fetch         the archives of one image
    dependencies  which archives, base first
    whitelist     a layer without what a manifest does not list
    image         the layers as one image
    puller        `AppcPuller`

An image of Appc becomes one like others: a layer for each archive, named by the DiffID of the tar it was adapted to, a
configuration that holds the Appc manifest, and a manifest. All of that follows from the archives alone, so the same
archives always make the same image, and the store, `verify`, `repair` and `prune` need to know nothing of Appc.
"""
