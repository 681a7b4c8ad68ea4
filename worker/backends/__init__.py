# SPDX-License-Identifier: Apache-2.0
"""The backends, and which of them a node uses.

Each backend says itself whether it works on a node's directories, and if not why. The choice is the ancestor's: the
configured backend or an error; without one, the first that works of overlay, aufs and copy. Bind is only used when
asked for, since it shows few images and none writable.
"""

from pathlib import Path

from worker.backend import Backend
from worker.backends.aufs import AufsBackend
from worker.backends.bind import BindBackend
from worker.backends.copy import CopyBackend
from worker.backends.overlay import OverlayBackend
from worker.errors import BackendUnsupported

BACKENDS: tuple[type[Backend], ...] = (OverlayBackend, AufsBackend, CopyBackend, BindBackend)
"""All there are, the preferred one first."""

_AUTOMATIC: tuple[type[Backend], ...] = (OverlayBackend, AufsBackend, CopyBackend)

AUTOMATIC_NAMES = tuple(kind.name for kind in _AUTOMATIC)
"""Those that are chosen among when none is configured, the preferred one first."""


def unsupported_reasons(*, work_dir: Path, store_dir: Path) -> dict[str, str | None]:
    """Say of each backend why it does not work on these directories, or None if it does; for people.

    Cost: trial mounts.
    """
    return {kind.name: kind().unsupported_reason(work_dir=work_dir, store_dir=store_dir) for kind in BACKENDS}


def supported_backends(*, work_dir: Path, store_dir: Path) -> dict[str, Backend]:
    """Return all backends that work on these directories, by name, the preferred one first.

    Cost: trial mounts.
    """
    reasons = unsupported_reasons(work_dir=work_dir, store_dir=store_dir)
    return {kind.name: kind() for kind in BACKENDS if reasons[kind.name] is None}


def choose_backend(configured: str | None, *, work_dir: Path, store_dir: Path) -> Backend:
    """Return the backend for requests that name none.

    Cost: trial mounts of the backends that are looked at.

    Args:
        configured: A backend's name, for which nothing else is taken; or None.
        work_dir: Where the rootfses will be; exists.
        store_dir: Where the layers are; exists.

    Raises:
        BackendUnsupported: The configured backend is unknown or does not work here; or none does.
    """
    candidates = _AUTOMATIC if configured is None else tuple(kind for kind in BACKENDS if kind.name == configured)
    reasons = []
    for kind in candidates:
        reason = kind().unsupported_reason(work_dir=work_dir, store_dir=store_dir)
        if reason is None:
            return kind()
        reasons.append(reason)
    known = f"there are only {', '.join(kind.name for kind in BACKENDS)}"
    raise BackendUnsupported(backend=configured or "of any kind", reason="; ".join(reasons) or known)
