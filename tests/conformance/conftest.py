# SPDX-License-Identifier: Apache-2.0
"""A site for each backend and layer format, by what they declare: a check names the capability it needs, no backend."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conformance.erofs_site import ErofsSite, working_with_erofs
from tests.conformance.site import STACKING, WORKING, WRITABLE, Site
from worker.backend import Backend

with TemporaryDirectory() as _directory:
    _WITH_EROFS = working_with_erofs(Path(_directory))


def _sites(kinds: Iterable[type[Backend]], erofs_kinds: Iterable[type[Backend]]) -> list[object]:
    return [
        *(pytest.param((Site, kind), id=kind.name) for kind in kinds),
        *(pytest.param((ErofsSite, kind), id=f"{kind.name}-erofs") for kind in erofs_kinds if kind in _WITH_EROFS),
    ]


@pytest.fixture(params=_sites(WORKING, WORKING))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend."""
    yield from _site(request, tmp_path)


@pytest.fixture(params=_sites(STACKING, WORKING))
def stacking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend that shows several layers; as EROFS images all do."""
    yield from _site(request, tmp_path)


@pytest.fixture(params=_sites(STACKING, STACKING))
def stacking_dirs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend that takes several lower directories, whatever is in them."""
    yield from _site(request, tmp_path)


@pytest.fixture(params=_sites(WRITABLE, WRITABLE))
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend whose rootfs can be written to."""
    yield from _site(request, tmp_path)


def _site(request: pytest.FixtureRequest, directory: Path) -> Iterator[Site]:
    make_site, kind = request.param
    site = make_site(directory, kind())
    yield site
    site.close()
