# SPDX-License-Identifier: Apache-2.0
"""Answers as documents or for people."""

import json

import pytest
from rich.table import Table

from worker.cli.output import age_text, emit, short_digest, size_text, stdout, without_nulls


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (153_575_424, "153.6 MB"), (2.5e12, "2.5 TB")],
)
def test_sizes_are_said_in_powers_of_ten(size_bytes: float, text: str) -> None:
    """As registries and disks count."""
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ages_are_said_in_the_largest_whole_unit(seconds: int, text: str) -> None:
    """A clock that is behind the server's shows no negative age."""
    assert age_text(1_000_000, now_ms=1_000_000 + seconds * 1000) == text


def test_a_short_digest_leaves_out_the_algorithm() -> None:
    """Twelve digits name it well enough."""
    assert short_digest("sha256:0123456789abcdef") == "0123456789ab"


def test_a_document_is_all_there_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs parse it."""
    emit({"a": [1]}, as_json=True, render=lambda: "for people")

    assert json.loads(capsys.readouterr().out) == {"a": [1]}


def test_people_get_what_is_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    """The document is not shown to them."""
    emit({"a": [1]}, as_json=False, render=lambda: "for people")

    assert capsys.readouterr().out == "for people\n"


def test_a_long_path_in_a_table_stays_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """What is cut to 80 columns cannot be used by the next program."""
    path = "/".join(["directory"] * 15)
    table = Table(box=None)
    table.add_column("path")
    table.add_row(path)

    stdout.print(table)

    assert path in capsys.readouterr().out


def test_keywords_that_were_not_given_are_not_sent() -> None:
    """Their default is the worker's business; false is something that was given."""
    assert without_nulls({"node": None, "cached": False, "name": "rootfs"}) == {"cached": False, "name": "rootfs"}
