# SPDX-License-Identifier: Apache-2.0
"""The two ways to hold a lock."""

from enum import StrEnum


class LockMode(StrEnum):
    """How a lock is held: beside other shared holders, or alone."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"
