# SPDX-License-Identifier: Apache-2.0
"""Annotations say what an image is and order nothing."""

import pytest

from worker.bundle.annotations import annotations_of, omitted_labels
from worker.bundle.execution import Execution


def test_facts_and_labels_become_annotations() -> None:
    """Under the names of conversion.md."""
    execution = Execution(
        facts={"os": "linux", "architecture": "amd64", "author": "Ann", "created": "2024"},
        ports=("80/tcp", "53/udp"),
        stop_signal="SIGQUIT",
        labels={"maintainer": "ann"},
    )

    assert annotations_of(execution) == {
        "maintainer": "ann",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.author": "Ann",
        "org.opencontainers.image.created": "2024",
        "org.opencontainers.image.exposedPorts": "80/tcp,53/udp",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.stopSignal": "SIGQUIT",
    }


def test_a_label_goes_before_a_fact() -> None:
    """The author said so explicitly."""
    execution = Execution(facts={"os": "linux"}, labels={"org.opencontainers.image.os": "mine"})

    assert annotations_of(execution) == {"org.opencontainers.image.os": "mine"}


@pytest.mark.parametrize(
    "name", ["run.oci.hooks.stdout", "org.systemd.property.ExecStopPost", "module.wasm.image/variant", "krun.cpus"]
)
def test_an_order_to_a_runtime_is_left_out_and_named(name: str) -> None:
    """For the first one crun would open a file of the host."""
    execution = Execution(labels={name: "/etc/cron.d/x", "kept": "1"})

    assert annotations_of(execution) == {"kept": "1"}
    assert omitted_labels(execution) == (name,)
