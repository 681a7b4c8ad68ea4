# SPDX-License-Identifier: Apache-2.0
"""A bar chart as SVG, written by hand: one group for each image, one bar for each peer; no dependency is needed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH = 760, 190, 70
_BAR_HEIGHT, _BAR_GAP, _GROUP_GAP, _TOP = 18, 4, 34, 54
_OURS, _OTHERS, _LIMIT = "#1f6feb", "#8c959f", "#d0a215"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar.

    Attributes:
        label: To its left.
        value: Its length; its unit is the title's.
        kind: Which colour: `ours`, `peer` or `limit`.
    """

    label: str
    value: float
    kind: str


_COLOURS = {"ours": _OURS, "peer": _OTHERS, "limit": _LIMIT}


def write_bars(path: Path, title: str, groups: Mapping[str, Sequence[Bar]], *, footnote: str) -> None:
    """Write the chart. Each group has a scale of its own: what is compared stands in one group."""
    body, height = "", _TOP
    for name, bars in groups.items():
        body += _text(16, height, name, weight="600")
        height += 10
        for bar in bars:
            body += "".join(_bar(bar, height, longest=max(each.value for each in bars)))
            height += _BAR_HEIGHT + _BAR_GAP
        height += _GROUP_GAP
    heading = _text(16, 26, title, weight="700", size=16)
    note = _text(16, height, footnote, size=11)
    path.write_text(_document(heading + body + note, height + 14), encoding="utf-8")


def _document(body: str, height: int) -> str:
    style = "text{font-family:system-ui,sans-serif;fill:#1f2328}"
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    background = f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{background}{body}</svg>\n'


def _bar(bar: Bar, top: int, *, longest: float) -> Iterator[str]:
    room = _WIDTH - _LABEL_WIDTH - _VALUE_WIDTH
    width = max(1.0, room * bar.value / longest)
    middle = top + _BAR_HEIGHT - 5
    yield _text(_LABEL_WIDTH - 8, middle, bar.label, anchor="end")
    place = f'x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}"'
    yield f'<rect {place} rx="2" fill="{_COLOURS[bar.kind]}"/>'
    yield _text(_LABEL_WIDTH + width + 6, middle, f"{bar.value:,.2f} s")


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", size: int = 13) -> str:
    place = f'x="{x:.1f}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
