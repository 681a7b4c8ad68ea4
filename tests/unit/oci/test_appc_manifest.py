# SPDX-License-Identifier: Apache-2.0
"""Manifests of App Container images: what the specification allows, and every way to break it by name."""

import json
from typing import Any

import pytest

from worker.errors import InvalidImage
from worker.oci.appc_app import runtime_config
from worker.oci.appc_manifest import AppcManifest
from worker.oci.digest import Digest

MINIMAL = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/app"}
APP = {"user": "0", "group": "0"}
FULL = {
    **MINIMAL,
    "labels": [
        {"name": "version", "value": "1.0.0"},
        {"name": "arch", "value": "amd64"},
        {"name": "os", "value": "linux"},
        {"name": "any.thing/else", "value": ""},
    ],
    "app": {
        "exec": ["/usr/bin/app", "--quiet"],
        "user": "100",
        "group": "300",
        "supplementaryGIDs": [400, 500],
        "eventHandlers": [{"name": "pre-start", "exec": ["/a"]}, {"name": "post-stop", "exec": ["/b", "-v"]}],
        "workingDirectory": "/opt/work",
        "environment": [{"name": "DEBUG", "value": "true"}],
        "isolators": [
            {"name": "resource/cpu", "value": {"request": "250", "limit": "500"}},
            {"name": "resource/memory", "value": {"limit": "2G"}},
        ],
        "mountPoints": [{"name": "work", "path": "/var/lib/work", "readOnly": False}],
        "ports": [
            {"name": "health", "port": 4000, "protocol": "tcp", "socketActivated": True},
            {"name": "ftp-data", "port": 20000, "count": 1000, "protocol": "tcp"},
        ],
        "userAnnotations": {"a": "b"},
    },
    "dependencies": [
        {
            "imageName": "example.com/base",
            "imageID": "sha512-" + "ab" * 64,
            "labels": [{"name": "os", "value": "linux"}, {"name": "env", "value": "canary"}],
            "size": 22017258,
        },
        {"imageName": "example.com/other"},
    ],
    "pathWhitelist": ["/etc/ca/example.com/crt", "/usr//bin/./app", "/etc/systemd/system/"],
    "annotations": [
        {"name": "authors", "value": "Carly Container"},
        {"name": "created", "value": "2014-10-27T19:32:27.67021798Z"},
        {"name": "documentation", "value": "https://example.com/docs"},
        {"name": "homepage", "value": "https://example.com"},
    ],
    "whatever": {"comes": "later"},
}


def parsed(document: object) -> AppcManifest:
    """Parse a document."""
    return AppcManifest.parse(json.dumps(document).encode(), image="appc:i")


def test_validate_image_manifest() -> None:
    """A manifest with everything is taken with everything that matters; unknown members are passed over."""
    manifest = parsed(FULL)

    assert manifest.name == "example.com/app"
    assert manifest.labels == {"version": "1.0.0", "arch": "amd64", "os": "linux", "any.thing/else": ""}
    base, other = manifest.dependencies
    assert base.reference.image_id == Digest("sha512", "ab" * 64)
    assert base.reference.labels == (("env", "canary"), ("os", "linux"))
    assert (base.size_bytes, other.size_bytes) == (22017258, None)
    assert str(other.reference) == "example.com/other"
    assert manifest.path_whitelist == {"etc/ca/example.com/crt", "usr/bin/app", "etc/systemd/system"}
    assert manifest.document == FULL


def test_a_manifest_may_be_next_to_nothing() -> None:
    """Three members are all it needs."""
    manifest = parsed(MINIMAL)

    assert (manifest.labels, manifest.dependencies, manifest.path_whitelist) == ({}, (), frozenset())


@pytest.mark.parametrize("app", [APP, {**APP, "exec": None}, {**APP, "exec": []}, {**APP, "workingDirectory": ""}])
def test_validate_image_manifest_with_null_exec(app: dict[str, Any]) -> None:
    """There need not be anything to run."""
    manifest = parsed({**MINIMAL, "app": app})

    assert runtime_config(manifest.document["app"]) == {"User": "0:0"}


BREAKAGES: list[tuple[str, dict[str, Any]]] = [
    ("acKind is missing", {"acKind": None}),
    ("acKind is 'PodManifest', expected ImageManifest", {"acKind": "PodManifest"}),
    ("acKind is 3, expected a string", {"acKind": 3}),
    ("acVersion is missing", {"acVersion": None}),
    ("acVersion is '1.2'", {"acVersion": "1.2"}),
    ("name is missing", {"name": None}),
    ("name is 'Example.com'", {"name": "Example.com"}),
    ("name is 'a//b'", {"name": "a//b"}),
    ("name has more than 255 characters", {"name": "a" * 256}),
    ("labels is an object, expected a list", {"labels": {}}),
    ("labels[0] is 'os', expected an object", {"labels": ["os"]}),
    ("labels[0].name is 'name'", {"labels": [{"name": "name", "value": "a"}]}),
    ("labels[1].name is 'a'", {"labels": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}),
    ("labels[0].value is missing", {"labels": [{"name": "a"}]}),
    ("labels have os 'plan9'", {"labels": [{"name": "os", "value": "plan9"}]}),
    (
        "labels have arch 'x86_64', expected for linux one of aarch64,",
        {"labels": [{"name": "os", "value": "linux"}, {"name": "arch", "value": "x86_64"}]},
    ),
    ("dependencies[0].imageName is missing", {"dependencies": [{}]}),
    ("dependencies[0].imageID is 'sha512-ab'", {"dependencies": [{"imageName": "a", "imageID": "sha512-ab"}]}),
    ("dependencies[0].size is -1", {"dependencies": [{"imageName": "a", "size": -1}]}),
    ("dependencies[0].labels[0].name is", {"dependencies": [{"imageName": "a", "labels": [{"name": "A"}]}]}),
    ("pathWhitelist[0] is 'etc', expected an absolute path", {"pathWhitelist": ["etc"]}),
    ("pathWhitelist[0] climbs", {"pathWhitelist": ["/etc/../x"]}),
    ("annotations[0].value is 'yesterday'", {"annotations": [{"name": "created", "value": "yesterday"}]}),
    ("annotations[0].value is 'ftp://a'", {"annotations": [{"name": "homepage", "value": "ftp://a"}]}),
    ("annotations[1].name is 'a'", {"annotations": [{"name": "a", "value": ""}, {"name": "a", "value": ""}]}),
    ("app is 'run', expected an object", {"app": "run"}),
    ("app.user is missing", {"app": {"group": "0"}}),
    ("app.group is ''", {"app": {"user": "0", "group": ""}}),
    ("app.exec is '/bin/sh', expected a list", {"app": {**APP, "exec": "/bin/sh"}}),
    ("app.exec[1] is 1, expected a string", {"app": {**APP, "exec": ["/a", 1]}}),
    ("app.workingDirectory is 'srv'", {"app": {**APP, "workingDirectory": "srv"}}),
    ("app.supplementaryGIDs[0] is -1", {"app": {**APP, "supplementaryGIDs": [-1]}}),
    ("app.environment[0].name is 'A-B'", {"app": {**APP, "environment": [{"name": "A-B", "value": ""}]}}),
    ("app.environment[0].value is missing", {"app": {**APP, "environment": [{"name": "A"}]}}),
    ("app.eventHandlers[0].name is 'start'", {"app": {**APP, "eventHandlers": [{"name": "start", "exec": []}]}}),
    ("app.eventHandlers[1].name is 'pre-start'", {"app": {**APP, "eventHandlers": [{"name": "pre-start"}] * 2}}),
    ("app.isolators[0].name is 'CPU'", {"app": {**APP, "isolators": [{"name": "CPU", "value": 1}]}}),
    ("app.mountPoints[0].path is 'x'", {"app": {**APP, "mountPoints": [{"name": "a", "path": "x"}]}}),
    (
        "app.mountPoints[0].readOnly is 'no'",
        {"app": {**APP, "mountPoints": [{"name": "a", "path": "/x", "readOnly": "no"}]}},
    ),
    ("app.ports[0].name is 'a.b'", {"app": {**APP, "ports": [{"name": "a.b"}]}}),
    ("app.ports[0].protocol is missing", {"app": {**APP, "ports": [{"name": "a", "port": 1}]}}),
    ("app.ports[0].port is 0", {"app": {**APP, "ports": [{"name": "a", "port": 0, "protocol": "tcp"}]}}),
    (
        "app.ports[0].count is 2, expected 1 to 1",
        {"app": {**APP, "ports": [{"name": "a", "port": 65535, "count": 2, "protocol": "tcp"}]}},
    ),
]


@pytest.mark.parametrize(("message", "change"), BREAKAGES, ids=[message for message, _ in BREAKAGES])
def test_every_breakage_is_named(message: str, change: dict[str, Any]) -> None:
    """By the member's path, what is there and what was expected."""
    with pytest.raises(InvalidImage) as caught:
        parsed(MINIMAL | change)

    assert message in str(caught.value)
    assert str(caught.value).startswith("image appc:i is invalid: in its manifest ")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"name": "a", "name": "b"}', b"\xff", b"[" * 100_000])
def test_what_is_no_strict_object_is_refused(content: bytes) -> None:
    """Two readers must never see two manifests."""
    with pytest.raises(InvalidImage, match="its manifest is not"):
        AppcManifest.parse(content, image="appc:i")
