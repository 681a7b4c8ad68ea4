# SPDX-License-Identifier: Apache-2.0
"""The pullers: one per kind of source, see `worker.puller` for what all of them keep.

    registry    docker://name     distribution-spec over HTTP
    layout      oci:PATH          an OCI layout on this node
    archive     docker-archive:   what `docker save` and `podman save` write
    daemon      docker-daemon:    a Docker Engine of this node

`content` and `resolve` are what the local ones share.
"""
