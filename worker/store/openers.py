# SPDX-License-Identifier: Apache-2.0
"""`Openers`: marks of who opened a private image at its source.

A mark says "whoever shows the same again is the same" and nothing else: without the store's key, which never leaves it,
nobody can try passwords against it. Losing the key loses no image: everybody is asked to show what they have once more.
"""

import hashlib
import hmac
import json
import secrets

from worker.linux import durable
from worker.paths import StorePaths
from worker.store.staging import staging

_KEY_BYTES = 32


class Openers:
    """Makes marks with the store's key."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths

    def mark(self, *parts: str) -> str:
        """Return the mark of `parts`, which tells nothing of them.

        Cost: reads a small file; makes it, durable, the first time in a store's life.
        """
        return hmac.new(self._key(), json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        path = self._paths.openers_key_path
        if (key := _read(self._paths)) is not None:
            return key
        with staging(self._paths.staging_dir / path.name) as directory:
            if (key := _read(self._paths)) is None:
                key = secrets.token_bytes(_KEY_BYTES)
                durable.write_new(directory / path.name, key)
                durable.sync_files(directory)
                durable.rename(directory / path.name, path)
        return key


def _read(paths: StorePaths) -> bytes | None:
    """Read the key; one that is cut short is as none, and every mark made with it as well."""
    try:
        key = paths.openers_key_path.read_bytes()
    except FileNotFoundError:
        return None
    return key if len(key) == _KEY_BYTES else None
