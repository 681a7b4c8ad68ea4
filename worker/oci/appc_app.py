# SPDX-License-Identifier: Apache-2.0
"""The member `app` of an App Container image's manifest: how to run it; checked, and said as OCI says it.

Source: appc spec 0.8.11, aci.md, "Image Manifest Schema".
"""

import re
from collections.abc import Mapping
from typing import Any

from worker.oci.appc import IDENTIFIER
from worker.oci.field import Field

_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ABSOLUTE_PATH = re.compile(r"/[^\0]*")
_SOMETHING = re.compile(r"[^\0]+")
_EVENT = re.compile(r"pre-start|post-stop")
_MAX_ID = 2**32 - 2
_MAX_PORT = 65535


def check_app(app: Field) -> None:
    """Check everything the specification says of an `app`; without `exec` there is nothing to run, which is allowed.

    Raises:
        InvalidImage: Names the member that is wrong.
    """
    for name in ("user", "group"):
        app.member(name).text(_SOMETHING, expected="a name, a number or a path")
    _check_exec(app.member("exec"))
    if not (directory := app.member("workingDirectory")).is_absent and directory.value != "":
        directory.text(_ABSOLUTE_PATH, expected="an absolute path")
    for item in app.member("supplementaryGIDs").items():
        item.integer(0, _MAX_ID)
    _check_named(app.member("environment"), _VARIABLE, "letters, digits and underscores")
    for item in app.member("environment").items():
        item.member("value").text()
    _check_named(app.member("eventHandlers"), _EVENT, "pre-start or post-stop")
    for item in app.member("eventHandlers").items():
        _check_exec(item.member("exec"))
    for item in app.member("isolators").items():
        item.member("name").text(IDENTIFIER, expected="an identifier")
    _check_mount_points(app.member("mountPoints"))
    _check_ports(app.member("ports"))


def runtime_config(app: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a checked `app` an OCI image configuration's member `config` can say.

    Source: image-spec v1.1.1, config.md, "Properties".
    """
    config: dict[str, Any] = {"User": f"{app['user']}:{app['group']}"}
    if app.get("exec"):
        config["Entrypoint"] = app["exec"]
    if app.get("environment"):
        config["Env"] = [f"{item['name']}={item['value']}" for item in app["environment"]]
    if app.get("workingDirectory"):
        config["WorkingDir"] = app["workingDirectory"]
    return config


def _check_exec(arguments: Field) -> None:
    for item in arguments.items():
        item.text()


def _check_named(items: Field, form: re.Pattern[str], expected: str) -> None:
    seen: set[str] = set()
    for item in items.items():
        name = item.member("name")
        if name.text(form, expected=expected) in seen:
            name.refuse(f"is {name.value!r}, which is given twice")
        seen.add(name.value)


def _check_mount_points(points: Field) -> None:
    _check_named(points, _NAME, "a name of lower-case letters, digits and single hyphens")
    for item in points.items():
        item.member("path").text(_ABSOLUTE_PATH, expected="an absolute path")
        item.member("readOnly").check_flag()


def _check_ports(ports: Field) -> None:
    _check_named(ports, _NAME, "a name of lower-case letters, digits and single hyphens")
    for item in ports.items():
        item.member("protocol").text(_SOMETHING, expected="a protocol")
        first = item.member("port").integer(1, _MAX_PORT)
        if not (count := item.member("count")).is_absent:
            count.integer(1, _MAX_PORT + 1 - first)
        item.member("socketActivated").check_flag()
