# SPDX-License-Identifier: Apache-2.0
"""The Redis scripts: one file per state transition, each opening with a catalogue of what it touches.

A script's first comment lists `KEYS`, `ARGV`, the answer and every key with its Redis type. Scripts keep to the command
set of Redis 7.0, take the time from the server, and have the same effect when the client sends them twice.
"""

from functools import cache
from importlib import resources

import redis
from redis.commands.core import Script


@cache
def load(name: str) -> str:
    """Return the source text of `worker/lua/<name>.lua`."""
    return resources.files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")


def script(client: redis.Redis, *names: str) -> Script:
    """Return `worker/lua/<name>.lua`, or several of them joined in this order, as one callable script on `client`.

    Cost: one round trip a call; two more after the server forgot its scripts.
    """
    return client.register_script("\n".join(load(name) for name in names))
