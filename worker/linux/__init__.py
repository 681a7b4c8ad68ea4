# SPDX-License-Identifier: Apache-2.0
"""What the kernel offers beyond `os`: durable files, locks, mounts; the only package with raw system calls.

Nothing here knows containers, images or stores. `libc` is the one door to C; the modules beside it turn its integers
into values and errors.
"""
