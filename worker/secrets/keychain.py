# SPDX-License-Identifier: Apache-2.0
"""Secrets in the key store of the user who runs the worker: `keyring set rootfs-provisioner NAME`.

Differences and limits: needs the extra `keyring`. The entry's password is the secret's JSON. Which key store it is, and
whether it answers without a person, is keyring's own configuration; one that waits for a person is given up on after
`PROVISIONER_CREDENTIAL_HELPER_TIMEOUT_SECONDS`, with a thread left waiting for it.
"""

import importlib
import queue
import threading
from typing import Any, Final

from typing_extensions import override

from worker.errors import InvalidArgument
from worker.secret import PlaceSilent, Secret, SecretResolver
from worker.settings import Settings

SERVICE: Final = "rootfs-provisioner"


class KeyringResolver(SecretResolver):
    """Asks keyring.

    Raises:
        InvalidArgument: The extra is not installed.
    """

    place = f"the keyring, service {SERVICE}"

    def __init__(self, settings: Settings) -> None:
        try:
            self._keyring: Any = importlib.import_module("keyring")
        except ImportError:
            reason = "it needs the extra: pip install rootfs-provisioner[keyring]"
            raise InvalidArgument(argument="PROVISIONER_SECRETS_RESOLVERS", value="keyring", reason=reason) from None
        self._timeout_seconds = settings.credential_helper_timeout_seconds

    @override
    def find(self, name: str) -> Secret | None:
        answers: queue.SimpleQueue[tuple[str | None, str]] = queue.SimpleQueue()
        threading.Thread(target=self._ask, args=(name, answers), name="keyring", daemon=True).start()
        try:
            content, failure = answers.get(timeout=self._timeout_seconds)
        except queue.Empty:
            raise PlaceSilent(f"it gives no answer within {self._timeout_seconds:g} s") from None
        if failure:
            raise PlaceSilent(f"it cannot be read ({failure})")
        return None if content is None else Secret.parse(content)

    def _ask(self, name: str, answers: "queue.SimpleQueue[tuple[str | None, str]]") -> None:
        """Answer with what is there, or with the kind of what went wrong: backends raise what they like."""
        try:
            answers.put((self._keyring.get_password(SERVICE, name), ""))
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, its text may hold the secret
            answers.put((None, type(error).__name__))
