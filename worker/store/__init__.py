# SPDX-License-Identifier: Apache-2.0
"""Content-addressed images and layers on disk: stage, commit, reference, plan a prune.

`Store` opens a directory; `images` and `layers` are its two shelves, `fence` the lock under the cluster lock,
`prune` decides and moves out, `sweep` deletes what nobody can see any more. A store never mounts a container's rootfs
and knows nothing of backends, Redis or Celery.
"""
