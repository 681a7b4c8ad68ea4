# SPDX-License-Identifier: Apache-2.0
"""The root-filesystem provisioner: image reference in, mounted and verified rootfs out.

From the outside in::

    celery        the Celery app: broker, queues, acknowledgements; names `tasks` by string
    cli           `provisioner`, for people at a terminal
    runtime       composition root: Settings -> one Provisioner per process
    provisioner   the six verbs of one node, in the wire contract's terms
    verbs/        provision, pull, destroy, prune, recover, verify
    backends/     overlay, aufs, bind, copy: ordered lower directories -> one rootfs      (contract: backend)
    pullers/      registry, OCI layout, docker archive, Docker Engine                     (contract: puller)
    store/        content-addressed images and layers on disk
    layers/       one pass from a compressed blob to a committed layer
    lock/         the cluster read-write lock       containers, nodes  state in Redis
    registry/     distribution-spec client          oci/   value types, no I/O
    linux/        the only system calls             paths  the only module that joins paths
    settings      the only module that reads the environment
    errors        the error tree; permanence is part of the type

Each line of the import contract in `pyproject.toml` imports only lines below it.
"""

__version__ = "0.1.0"
