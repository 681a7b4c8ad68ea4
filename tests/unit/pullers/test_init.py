# SPDX-License-Identifier: Apache-2.0
"""The table of pullers."""

from pathlib import Path

from worker.oci.reference import Transport
from worker.puller import Puller
from worker.pullers import make_pullers
from worker.settings import Settings


def test_every_kind_of_source_has_a_puller(tmp_path: Path) -> None:
    """Every transport can be opened, each by a puller that says so itself."""
    pullers = make_pullers(Settings(store_dir=tmp_path))

    assert set(pullers) == set(Transport)
    assert all(isinstance(puller, Puller) and transport in puller.transports for transport, puller in pullers.items())


def test_a_source_that_is_not_taken_has_no_puller(tmp_path: Path) -> None:
    """So nothing here can open it."""
    settings = Settings(store_dir=tmp_path, image_sources=("appc", "docker"))

    assert set(make_pullers(settings)) == {Transport.DOCKER, Transport.APPC}


def test_making_the_table_touches_nothing(tmp_path: Path) -> None:
    """Neither a directory is made nor a connection opened before an image is asked for."""
    make_pullers(Settings(store_dir=tmp_path / "store"))

    assert not (tmp_path / "store").exists()
