# SPDX-License-Identifier: Apache-2.0
"""OCI runtime bundles: from what an image says of its program to a `config.json` beside a rootfs.

::

    execution     how an image wants to be run: a value, parsed from its configuration or Appc manifest
    users         `User` -> uid and gids, by the rootfs's own /etc/passwd and /etc/group
    annotations   labels and facts of the image as annotations, without those that runtimes obey
    defaults      namespaces, mounts, capabilities, masked paths: what images do not say
    config        all of it put together; pure
    overrides     what somebody at a terminal wants differently; pure
    mount_points  directories that must be there, in the place of those that a read-only rootfs may lack
    volumes       directories in the place of an image's volumes, with what the image has there
    write         the bundle on disk

Source: image-spec v1.1.1, conversion.md; runtime-spec v1.0.2, bundle.md, config.md, config-linux.md.
"""
