# SPDX-License-Identifier: Apache-2.0
"""`ARCHITECTURE.md` says what the ancestor did and where it is tested here: every test it names is there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(?:(?P<file>test_\w+\.py)::)?(?P<test>test_\w+)`")
FAULTS = [*map(str, range(1, 22)), "21b", *map(str, range(22, 43))]


def parity_rows() -> list[list[str]]:
    """Return the cells of all rows of the two tables, without their heads and the headings between them."""
    _, _, section = (REPOSITORY_DIR / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("\n## Mesos parity\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in rows if row[0] not in {"feature", "fault", "---"} and not row[0].startswith("**")]


def files_of_tests() -> dict[str, set[str]]:
    """Return the files in which each test stands, by its name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (REPOSITORY_DIR / "tests").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name].add(path.name)
    return found


def test_every_named_test_is_there_and_is_one() -> None:
    """A name that stands in several files says which is meant."""
    files = files_of_tests()
    named = [match for row in parity_rows() for cell in row for match in NAMED.finditer(cell)]

    assert [match[0] for match in named if match["file"] and match["file"] not in files[match["test"]]] == []
    assert [match[0] for match in named if not match["file"] and len(files[match["test"]]) != 1] == []


def test_every_row_names_a_test() -> None:
    """Features have four columns, faults three; nothing stands there by its word alone."""
    rows = parity_rows()

    assert {len(row) for row in rows} == {3, 4}
    assert [row[0] for row in rows if not NAMED.search(row[2])] == []


def test_every_fault_has_its_row() -> None:
    """In order, none left out."""
    assert [row[0].partition(".")[0] for row in parity_rows() if len(row) == 3] == FAULTS


def test_every_named_file_is_there() -> None:
    """What was moved is named by its new place."""
    paths = {
        path for row in parity_rows() for cell in row for path in re.findall(r"`((?:worker|tasks|tests)/[^`:]*)`", cell)
    }

    assert [path for path in sorted(paths) if not (REPOSITORY_DIR / path).exists()] == []
