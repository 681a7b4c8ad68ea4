# SPDX-License-Identifier: Apache-2.0
"""`ARCHITECTURE.md` says what the ancestor did and where it is tested here: every test it names is there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.unit.test_readme import default_of
from worker.settings import Settings

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(?:(?P<file>test_\w+\.py)::)?(?P<test>test_\w+)`")
SETTING = re.compile(r"`PROVISIONER_([A-Z_]+)`(?: \((.+?)\))?")
FEATURES, FAULTS, FLAGS, REPORTS, LEFT = (
    "Features",
    "Its faults",
    "Its flags",
    "What its users met",
    "What it left to do",
)
COLUMNS = {FEATURES: 4, FAULTS: 3, FLAGS: 4, REPORTS: 3, LEFT: 3}
TESTED_BY = {FEATURES: 2, FAULTS: 2, FLAGS: 3, REPORTS: 2, LEFT: 2}

ALL_FAULTS = [*map(str, range(1, 22)), "21b", *map(str, range(22, 43))]
ALL_FLAGS = {
    "image_providers",
    "image_provisioner_backend",
    "image_gc_config",
    "docker_registry",
    "docker_store_dir",
    "appc_store_dir",
    "appc_simple_discovery_uri_prefix",
    "docker_config",
    "docker_ignore_runtime",
    "secret_resolver",
    "hadoop_home",
    "sandbox_directory",
    "fetcher_stall_timeout",
    "executor_registration_timeout",
    "docker_volume_checkpoint_dir",
    "docker_volume_chown",
}
ALL_REPORTS = [
    "tfmesos #61",
    "microservices-demo #304",
    "MESOS-6002",
    "MESOS-6000",
    "MESOS-6001",
    "containers/storage #1159",
    "guest-components #901",
    "MESOS-6360",
    "MESOS-5172",
    "MESOS-7427",
    "MESOS-7431",
    "MESOS-8907",
    "MESOS-6010",
    "MESOS-9221",
    "MESOS-10092",
    "DC/OS",
]
LEAST_LEFT = 15
"""So many of its notes to do are told apart here."""


def parity_tables() -> dict[str, list[list[str]]]:
    """Return the cells of each table's rows, without its head and the headings between them."""
    _, _, section = (REPOSITORY_DIR / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("\n## Mesos parity\n")
    tables = {}
    for part in section.partition("\n## ")[0].split("\n### ")[1:]:
        _, _, *lines = (line for line in part.splitlines() if line.startswith("| "))
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        tables[part.partition("\n")[0]] = [row for row in rows if not row[0].startswith("**")]
    return tables


def parity_rows() -> list[list[str]]:
    """Return the rows of all tables."""
    return [row for rows in parity_tables().values() for row in rows]


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


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    """No feature and no fault stands there by its word alone."""
    tables = parity_tables()

    assert {heading: {len(row) for row in rows} for heading, rows in tables.items()} == {
        heading: {columns} for heading, columns in COLUMNS.items()
    }
    untested = [
        (heading, row) for heading, rows in tables.items() for row in rows if not NAMED.search(row[TESTED_BY[heading]])
    ]
    assert [row[0] for heading, row in untested if heading in {FEATURES, FAULTS}] == []
    assert [row[0] for _, row in untested if not any(cell.startswith("no: ") for cell in row[1:-1])] == []


def test_every_fault_has_its_row() -> None:
    """In order, none left out."""
    assert [row[0].partition(".")[0] for row in parity_tables()[FAULTS]] == ALL_FAULTS


def test_every_flag_has_its_row() -> None:
    """Under its own name; what else had a default has none in code."""
    flags = [row[0].strip("`") for row in parity_tables()[FLAGS]]

    assert set(flags) >= ALL_FLAGS
    assert len(set(flags)) == len(flags)


def test_the_settings_beside_flags_are_there_with_their_defaults() -> None:
    """As the README's table says them."""
    named = [match for row in parity_tables()[FLAGS] for match in SETTING.finditer(row[2])]

    assert {match[1].lower() for match in named} <= set(Settings.model_fields)
    assert [match[0] for match in named if match[2] != default_of(match[1].lower())] == []


def test_every_report_has_its_row() -> None:
    """One row may answer several."""
    answered = [report for row in parity_tables()[REPORTS] for report in row[0].partition(": ")[0].split(", ")]

    assert answered == ALL_REPORTS
    assert len(parity_tables()[LEFT]) >= LEAST_LEFT


def test_every_named_file_is_there() -> None:
    """What was moved is named by its new place."""
    paths = {
        path for row in parity_rows() for cell in row for path in re.findall(r"`((?:worker|tasks|tests)/[^`:]*)`", cell)
    }

    assert [path for path in sorted(paths) if not (REPOSITORY_DIR / path).exists()] == []
