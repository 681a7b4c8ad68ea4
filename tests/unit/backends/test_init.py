# SPDX-License-Identifier: Apache-2.0
"""The ancestor's choice: the configured backend or an error; else the first that works; never bind by itself."""

from pathlib import Path

import pytest

from tests.support.unprivileged import nobodys_directory, run_as_nobody
from worker.backends import BACKENDS, choose_backend, supported_backends, unsupported_reasons
from worker.errors import BackendUnsupported
from worker.linux.mount import BindMount, MountFlag, mount_bind, unmount_tree


@pytest.fixture
def dirs(tmp_path: Path) -> dict[str, Path]:
    """A work and a store directory."""
    found = {"work_dir": tmp_path / "work", "store_dir": tmp_path / "store"}
    for directory in found.values():
        directory.mkdir()
    return found


def test_table_is_the_order_of_preference() -> None:
    """Names are unique, since records and requests use them."""
    assert [kind.name for kind in BACKENDS] == ["overlay", "aufs", "copy", "bind"]


def test_every_backend_says_what_it_takes() -> None:
    """A store asks for the layer format before there is anything to show."""
    assert all(kind.layer_formats for kind in BACKENDS)
    assert [kind.is_writable for kind in BACKENDS] == [True, True, True, False]


@pytest.mark.root
def test_overlay_comes_first_where_it_works(dirs: dict[str, Path]) -> None:
    """An ordinary node."""
    assert choose_backend(None, **dirs).name == "overlay"


@pytest.mark.root
def test_copy_takes_over_where_overlay_does_not_work() -> None:
    """Without root; bind would not, and is not tried either way."""
    with nobodys_directory() as directory:

        def choose() -> None:
            assert choose_backend(None, work_dir=directory, store_dir=directory).name == "copy"
            assert list(supported_backends(work_dir=directory, store_dir=directory)) == ["copy"]

        run_as_nobody(choose)


@pytest.mark.root
@pytest.mark.parametrize("name", ["overlay", "copy", "bind"])
def test_configured_backend_is_taken(dirs: dict[str, Path], name: str) -> None:
    """Whatever the order of preference."""
    assert choose_backend(name, **dirs).name == name


@pytest.mark.root
def test_configured_backend_that_does_not_work_is_an_error(tmp_path: Path, dirs: dict[str, Path]) -> None:
    """No other is taken in its place, and the reason is given."""
    (tmp_path / "view").mkdir()
    mount_bind(BindMount(source=dirs["work_dir"], target=tmp_path / "view", flags=MountFlag.READ_ONLY))

    with pytest.raises(BackendUnsupported, match=r"backend overlay is not supported: .*Read-only"):
        choose_backend("overlay", work_dir=tmp_path / "view", store_dir=dirs["store_dir"])

    unmount_tree(tmp_path)


def test_unknown_backend_is_an_error_that_names_the_known_ones(dirs: dict[str, Path]) -> None:
    """A misspelt setting."""
    with pytest.raises(BackendUnsupported) as refusal:
        choose_backend("overlayfs", **dirs)

    assert str(refusal.value) == "backend overlayfs is not supported: there are only overlay, aufs, copy, bind"


@pytest.mark.root
def test_supported_backends_are_those_without_a_reason(dirs: dict[str, Path]) -> None:
    """All of them are kept, so that rootfses of a formerly configured one can be destroyed."""
    reasons = unsupported_reasons(**dirs)
    supported = supported_backends(**dirs)

    assert set(reasons) == {kind.name for kind in BACKENDS}
    assert list(supported) == [name for name, reason in reasons.items() if reason is None]
    assert all(backend.name == name for name, backend in supported.items())
    assert all(list(directory.iterdir()) == [] for directory in dirs.values())
