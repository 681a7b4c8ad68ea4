# SPDX-License-Identifier: Apache-2.0
"""When a message wants to be delivered: the `eta` that Celery's countdown and retry put into its headers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def due_ms_of(payload: Mapping[str, Any]) -> int | None:
    """Return ms since 1970; None for a message without a time, or with one that cannot be read."""
    eta = (payload.get("headers") or {}).get("eta")
    try:
        moment = datetime.fromisoformat(str(eta))
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
