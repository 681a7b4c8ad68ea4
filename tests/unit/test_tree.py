# SPDX-License-Identifier: Apache-2.0
"""The tests mirror the source, so that whoever changes a module knows where its tests are."""

import ast
from pathlib import Path

REPOSITORY_DIR = Path(__file__).resolve().parents[2]
UNIT_DIR = REPOSITORY_DIR / "tests" / "unit"

TESTED_THROUGH = {
    # Modules and packages whose tests stand elsewhere than at their mirror, and where.
    "tasks": "tests/integration",
    "worker/backends": "tests/conformance",
    "worker/celery.py": "tests/unit/tasks",
    "worker/child_process.py": "tests/integration",
    "worker/cli": "tests/unit/cli",
    "worker/container_index.py": "tests/unit/test_containers.py",
    "worker/container_view.py": "tests/unit/test_containers.py",
    "worker/epoch.py": "tests/integration/test_redis_losses.py",
    "worker/layers": "tests/unit/layers",
    "worker/lock": "tests/unit/lock",
    "worker/metrics": "tests/unit/metrics",
    "worker/nodes.py": "tests/integration",
    "worker/pullers/appc": "tests/unit/pullers/appc",
    "worker/records.py": "tests/unit/verbs",
    "worker/redis_errors.py": "tests/unit/test_containers.py",
    "worker/store": "tests/unit/store",
    "worker/transport": "tests/unit/transport",
    "worker/verbs": "tests/unit/verbs",
}
SCENARIOS = {
    # Test modules of a package as a whole.
    "test_parity.py": "what ARCHITECTURE.md says of the ancestor",
    "test_readme.py": "what the README promises",
    "test_tree.py": "this one",
    "verbs/test_backend_change.py": "a node whose backend setting changes",
    "verbs/test_crash.py": "a worker killed in any verb",
    "verbs/test_power_loss.py": "what is on the disk when a verb answers",
    "verbs/test_image_volumes.py": "several images in one container, and containers in containers",
    "verbs/test_damage.py": "a store that lost or changed bytes",
}


def source_modules() -> list[str]:
    """Return every source module with code of its own, relative to the repository."""
    paths = [path for package in ("worker", "tasks") for path in (REPOSITORY_DIR / package).rglob("*.py")]
    return sorted(str(path.relative_to(REPOSITORY_DIR)) for path in paths if has_functions(path))


def has_functions(path: Path) -> bool:
    """Tell whether a module is more than names: packages often are not, nor are lists of constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))


def mirror_of(module: str) -> Path:
    """Return where a module's tests belong: `worker` is left out, `tasks` is not; a package's are `test_init.py`."""
    path = Path(module).relative_to("worker") if module.startswith("worker/") else Path(module)
    if path.name == "__init__.py":
        return UNIT_DIR / path.parent / "test_init.py"
    return UNIT_DIR / path.parent / f"test_{path.name}"


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names a module imports, and those of what it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_source_module_has_tests() -> None:
    """Each is mirrored by a test module or imported by one, or the table says through what it is tested."""
    imported = set().union(*(imported_modules(path) for path in (REPOSITORY_DIR / "tests").rglob("*.py")))

    bare = [module for module in source_modules() if not (is_mirrored(module) or dotted(module) in imported)]

    assert [module for module in bare if not is_tested_through(module)] == []


def is_mirrored(module: str) -> bool:
    """Tell whether the module has a test module of its own."""
    return mirror_of(module).is_file()


def dotted(module: str) -> str:
    """Return the name by which a module is imported."""
    return module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_tested_through(module: str) -> bool:
    """Tell whether the table names tests for the module, or for a package it is in, and they are there."""
    paths = [str(path) for path in (Path(module), *Path(module).parents)]
    return any(has_tests(REPOSITORY_DIR / TESTED_THROUGH[path]) for path in paths if path in TESTED_THROUGH)


def has_tests(path: Path) -> bool:
    """Tell whether a test module, or a directory of some, is there."""
    return path.is_file() or any(path.glob("test_*.py"))


def test_the_table_lists_only_what_is_there() -> None:
    """An entry whose module or tests were renamed or removed goes too."""
    assert [path for path in (*TESTED_THROUGH, *TESTED_THROUGH.values()) if not (REPOSITORY_DIR / path).exists()] == []


def test_every_unit_test_module_has_a_source_module() -> None:
    """`test_<module>.py`, or `test_<module>_<aspect>.py`, so that a renamed module takes its tests along."""
    paths = [path for package in ("worker", "tasks") for path in (REPOSITORY_DIR / package).rglob("*.py")]
    mirrors = {mirror_of(str(path.relative_to(REPOSITORY_DIR))) for path in paths}
    stems = {str(mirror.with_suffix("").relative_to(UNIT_DIR)) for mirror in mirrors}
    tests = [str(path.with_suffix("").relative_to(UNIT_DIR)) for path in sorted(UNIT_DIR.rglob("test_*.py"))]

    homeless = [test for test in tests if test not in stems and not any(test.startswith(f"{stem}_") for stem in stems)]

    assert [test for test in homeless if f"{test}.py" not in SCENARIOS] == []


def test_every_test_directory_is_a_package() -> None:
    """Without `__init__.py` two test modules of one name in two directories shadow each other."""
    directories = {path.parent for path in (REPOSITORY_DIR / "tests").rglob("*.py")}

    assert [str(directory) for directory in sorted(directories) if not (directory / "__init__.py").is_file()] == []


def test_every_module_names_its_licence_first() -> None:
    """One SPDX line opens every file with code."""
    paths = [path for name in ("worker", "tasks", "tests") for path in (REPOSITORY_DIR / name).rglob("*.py")]
    unmarked = [path for path in paths if path.stat().st_size and not path.read_text().startswith("# SPDX-License-")]

    assert [str(path.relative_to(REPOSITORY_DIR)) for path in unmarked] == []
