# SPDX-License-Identifier: Apache-2.0
"""What the scheduler and its workers call things; a scheduler does not import tasks."""

LEDGER_VARIABLE = "CHAOS_LEDGER"
WORK = "chaos.work"
POISON = "chaos.poison"
QUEUE = "provision"
ID_PREFIX = "chaos-"


def task_id(number: int) -> str:
    """Return the id under which a numbered task is published."""
    return f"{ID_PREFIX}{number}"
