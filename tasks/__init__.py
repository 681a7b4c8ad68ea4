# SPDX-License-Identifier: Apache-2.0
"""The wire contract: six tasks, keyword arguments only, JSON only.

Schedulers need nothing of this code base::

    app.send_task("provisioner.provision", kwargs={"container_id": "web-1", "image": "alpine:3"}, queue="provision")

==========================  =======================================================================================
task                        keywords -> answer
==========================  =======================================================================================
``provisioner.provision``   container_id, image, name="rootfs", node=None, backend=None, platform=None, cached=True,
                            read_only=False, secret=None, bundle=False -> ProvisionInfo
``provisioner.destroy``     container_id -> true; false if there is no such container
``provisioner.prune``       excluded_images=[], node=None, dry_run=False, unused_seconds=0, free_bytes=None,
                            free_percent=None
                            -> {"stores": [{store, node, images, layers, bytes_freed, exclusive_ms}]}
``provisioner.pull``        image, node=None, platform=None, cached=True, secret=None
                            -> {image, digest, layers, bytes_fetched}
``provisioner.recover``     known_container_ids=None, node=None
                            -> {"nodes": [{node, kept, remounted, destroyed, cleaned}]}
``provisioner.verify``      image=None, node=None, repair=False
                            -> {"stores": [{store, node, checked_layers, checked_bytes, problems, repaired}]},
                            the last two lists of {kind, subject, detail}
==========================  =======================================================================================

All may be published to the queue ``provision``, which every node serves. What belongs to one node is forwarded to its
queue ``node.<NODE>`` under the same task id, so the caller's AsyncResult resolves. While a pull runs the state is
``PROGRESS`` with ``{bytes_fetched, bytes_total, layers_done, layers_total}``. A failure's exception has the name of a
class in `worker.errors` and one sentence as its message; transient ones were retried before. A provision that is
revoked before it was answered is undone: see `tasks.revocation`.

A task only parses, delegates to the node's `Provisioner`, forwards and retries.
"""
