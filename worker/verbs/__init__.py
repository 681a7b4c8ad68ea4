# SPDX-License-Identifier: Apache-2.0
"""The verbs, a module each: provision, pull, destroy, prune, recover, verify. `node.Node` is what they all work with.

A verb is a function of a node and a checked request. It may be killed at any line and run again, late, or beside
itself. What must run on another node comes back as `Elsewhere`, which the task layer forwards.
"""
