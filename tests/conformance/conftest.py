# SPDX-License-Identifier: Apache-2.0
"""A site for each backend, by what it declares: a check names the capability it needs and never a backend."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.site import STACKING, WORKING, WRITABLE, Site


@pytest.fixture(params=WORKING, ids=lambda kind: kind.name)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend."""
    yield from _site(request, tmp_path)


@pytest.fixture(params=STACKING, ids=lambda kind: kind.name)
def stacking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend that shows several layers."""
    yield from _site(request, tmp_path)


@pytest.fixture(params=WRITABLE, ids=lambda kind: kind.name)
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site for each backend whose rootfs can be written to."""
    yield from _site(request, tmp_path)


def _site(request: pytest.FixtureRequest, directory: Path) -> Iterator[Site]:
    site = Site(directory, request.param())
    yield site
    site.close()
