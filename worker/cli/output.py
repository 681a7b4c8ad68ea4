# SPDX-License-Identifier: Apache-2.0
"""Where output goes: the answer to stdout, as a table or as JSON; everything else to stderr."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType

Command = TypeVar("Command", bound=Callable[..., Any])

_PIPE_COLUMNS = 200
_DIGEST_CHARS = 12


class _WideWhenPiped(Console):
    """A console that does not cut tables to 80 columns for a file or another program."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr)
        if not self.is_terminal:
            self._width = _PIPE_COLUMNS


stdout = _WideWhenPiped(stderr=False)
"""For answers."""

stderr = _WideWhenPiped(stderr=True)
"""For progress, errors and hints."""

json_option: Callable[[Command], Command] = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else on stdout."
)


def emit(document: object, *, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print the answer: the document itself, or what `render` makes of it for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        stdout.print(render())


def size_text(size_bytes: float) -> str:
    """Return bytes for people: `1.5 MB`; powers of ten, as registries count."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:  # noqa: PLR2004 - the step between units
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def age_text(at_ms: int, *, now_ms: float | None = None) -> str:
    """Return how long ago a moment was: `12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(0.0, ((time.time() * 1000 if now_ms is None else now_ms) - at_ms) / 1000)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def short_digest(digest: str) -> str:
    """Return the first characters of a digest, without its algorithm; enough to name it to `inspect`."""
    return digest.partition(":")[2][:_DIGEST_CHARS]


def without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that were given: what is left out has its default where the task runs."""
    return {key: value for key, value in document.items() if value is not None}
