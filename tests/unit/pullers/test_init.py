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


def test_making_the_table_touches_nothing(tmp_path: Path) -> None:
    """Neither a directory is made nor a connection opened before an image is asked for."""
    make_pullers(Settings(store_dir=tmp_path / "store"))

    assert not (tmp_path / "store").exists()
