# SPDX-License-Identifier: Apache-2.0
"""Secrets in the worker's environment: `team-a` in `PROVISIONER_SECRET_TEAM_A`.

Differences and limits: names that differ in case, or in `-` and `_`, only are one variable. What a worker has in its
environment every process of the same user can read, and every program it starts gets.
"""

from typing_extensions import override

from worker.secret import Secret, SecretResolver
from worker.settings import Settings, environment_secret


class EnvironmentResolver(SecretResolver):
    """Reads variables; needs no setting."""

    place = "the environment"

    def __init__(self, _settings: Settings) -> None:
        """Every resolver is made of the settings."""

    @override
    def find(self, name: str) -> Secret | None:
        content = environment_secret(name)
        return None if content is None else Secret.parse(content)
