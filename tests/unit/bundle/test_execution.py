# SPDX-License-Identifier: Apache-2.0
"""How images say they want to be run."""

import posixpath
from typing import Any

import pytest

from worker.bundle.execution import Execution, execution_of
from worker.errors import InvalidImage

DOCKER = {
    "architecture": "arm64",
    "os": "linux",
    "variant": "v8",
    "os.version": "1.2",
    "os.features": ["a", "b"],
    "author": "Ann",
    "created": "2024-01-01T00:00:00Z",
    "config": {
        "User": "app:apps",
        "Env": ["A=1", "B=x=y", "C="],
        "Entrypoint": ["/entry", "-v"],
        "Cmd": ["serve"],
        "WorkingDir": "srv/app",
        "Volumes": {"/data": {}, "/data/../data/": {}, "/cache": None},
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"maintainer": "ann"},
        "StopSignal": "SIGQUIT",
    },
}

APPC = {
    "acKind": "ImageManifest",
    "name": "example.com/app",
    "labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}],
    "annotations": [{"name": "authors", "value": "Ann"}],
    "app": {
        "exec": ["/bin/app", "--x"],
        "user": "100",
        "group": "apps",
        "supplementaryGIDs": [400, 500],
        "workingDirectory": "/srv",
        "environment": [{"name": "A", "value": "1"}],
        "mountPoints": [{"name": "data", "path": "/data"}],
        "ports": [{"name": "http", "port": 80, "protocol": "tcp"}],
    },
}


def test_a_docker_configuration_is_read() -> None:
    """Every member that conversion.md knows."""
    found = Execution.of_docker(DOCKER, image="i")

    assert found == Execution(
        user="app:apps",
        env=("A=1", "B=x=y", "C="),
        args=("/entry", "-v", "serve"),
        cwd="/srv/app",
        volumes=("/cache", "/data"),
        ports=("80/tcp", "53/udp"),
        labels={"maintainer": "ann"},
        stop_signal="SIGQUIT",
        facts={
            "os": "linux",
            "architecture": "arm64",
            "variant": "v8",
            "os.version": "1.2",
            "os.features": "a,b",
            "author": "Ann",
            "created": "2024-01-01T00:00:00Z",
        },
    )


def test_an_appc_manifest_is_read() -> None:
    """Its app is what a container runs."""
    assert execution_of(docker_manifest=None, appc_manifest=APPC, image="i") == Execution(
        user="100",
        group="apps",
        additional_gids=(400, 500),
        env=("A=1",),
        args=("/bin/app", "--x"),
        cwd="/srv",
        volumes=("/data",),
        ports=("80/tcp",),
        labels={"authors": "Ann"},
        facts={"os": "linux", "architecture": "amd64"},
    )


def test_an_appc_mount_point_may_be_read_only() -> None:
    """However often the manifest names it, and whatever the spelling."""
    paths = {"/data": False, "/etc/app/": True, "/both": False, "/both/.": True}
    points = [{"name": "x", "path": path, "readOnly": flag} for path, flag in paths.items()]

    found = Execution.of_appc({"app": {"mountPoints": points}}, image="i")

    assert found.volumes == ("/both", "/data", "/etc/app")
    assert found.read_only_volumes == {"/both", "/etc/app"}


def test_each_port_of_an_appc_range_is_exposed() -> None:
    """Its first alone would leave the others out of what a scheduler opens."""
    ports = [{"port": 20000, "count": 3, "protocol": "tcp"}, {"port": 53, "protocol": "udp"}]

    found = Execution.of_appc({"app": {"ports": ports}}, image="i")

    assert found.ports == ("20000/tcp", "20001/tcp", "20002/tcp", "53/udp")


def test_appc_ports_beyond_all_there_are_are_refused() -> None:
    """A small manifest cannot have billions listed."""
    ports = [{"port": 1, "count": 65535, "protocol": "tcp"}] * 3

    with pytest.raises(InvalidImage, match="at most 131070 ports"):
        Execution.of_appc({"app": {"ports": ports}}, image="i")


def test_an_appc_processor_is_called_as_oci_calls_it() -> None:
    """Who reads the annotations knows GOARCH's names."""
    labels = [{"name": "os", "value": "linux"}, {"name": "arch", "value": "armv7l"}]

    found = Execution.of_appc({**APPC, "labels": labels}, image="i")

    assert found.facts == {"os": "linux", "architecture": "arm", "variant": "v7"}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": None},
        {"config": {}},
        {"config": dict.fromkeys(["User", "Env", "Cmd", "Volumes", "ExposedPorts", "Labels", "WorkingDir"])},
    ],
)
def test_what_is_not_said_is_empty(document: dict[str, Any]) -> None:
    """Docker writes null for it."""
    assert Execution.of_docker(document, image="i") == Execution()
    assert execution_of(docker_manifest=document, appc_manifest=None, image="i") == Execution()


@pytest.mark.parametrize(
    ("config", "culprit"),
    [
        ([], "config"),
        ({"User": 0}, "User"),
        ({"User": "a\0b"}, "User"),
        ({"Env": {"A": "1"}}, "Env"),
        ({"Env": ["A"]}, "'A' is not NAME=value"),
        ({"Env": ["=1"]}, "'=1' is not NAME=value"),
        ({"Env": ["A=\0"]}, "Env"),
        ({"Cmd": "sh"}, "Cmd"),
        ({"Entrypoint": [1]}, "Entrypoint"),
        ({"Volumes": ["/data"]}, "Volumes"),
        ({"Volumes": {"/": {}}}, "'/'"),
        ({"Volumes": {"/a/../..": {}}}, "'/'"),
        ({"Labels": {"a": 1}}, "Labels"),
        ({"Labels": {"": "x"}}, "Labels"),
        ({"ExposedPorts": ["80"]}, "ExposedPorts"),
        ({"StopSignal": 15}, "StopSignal"),
    ],
)
def test_a_malformed_member_is_refused_by_name(config: object, culprit: str) -> None:
    """And the image is named too."""
    with pytest.raises(InvalidImage) as raised:
        Execution.of_docker({"config": config or [1]}, image="example:1")

    assert culprit in str(raised.value)
    assert "example:1" in str(raised.value)


@pytest.mark.parametrize("path", ["/sys/fs/cgroup", "//proc/sys", "/dev", "/dev/pts/", "run/../sys"])
def test_a_volume_where_runtimes_mount_is_apart(path: str) -> None:
    """Images that run systemd declare /sys/fs/cgroup; what is there is the runtime's."""
    found = Execution.of_docker({"config": {"Volumes": {path: {}, "/data": {}}}}, image="i")

    assert found.volumes == ("/data",)
    assert found.omitted_volumes == ("/" + posixpath.normpath("/" + path).lstrip("/"),)


def test_a_volume_that_only_begins_like_a_mount_point_is_one() -> None:
    """`/devices` is not below `/dev`."""
    assert Execution.of_docker({"config": {"Volumes": {"/devices": {}}}}, image="i").volumes == ("/devices",)


@pytest.mark.parametrize(
    "app",
    [
        {"environment": ["A=1"]},
        {"environment": [{"name": "A"}]},
        {"mountPoints": "x"},
        {"supplementaryGIDs": ["400"]},
        {"ports": [{}]},
        {"ports": [{"port": 1, "count": -1, "protocol": "tcp"}]},
        {"ports": [{"port": 1, "count": 65535, "protocol": "x" * 33}]},
        {"ports": [{"port": 1, "protocol": "tcp,2/tcp"}]},
    ],
)
def test_a_malformed_app_is_refused(app: dict[str, Any]) -> None:
    """As a configuration is."""
    with pytest.raises(InvalidImage):
        Execution.of_appc({"app": app}, image="i")
