# SPDX-License-Identifier: Apache-2.0
"""`Execution`: how an image wants to be run, parsed once and trusted afterwards.

Source: image-spec v1.1.1, config.md, "Properties"; App Container specification v0.8.11, spec/aci.md, "Image Manifest
Schema".
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import filterfalse
from typing import Any, Self

from worker.bundle.defaults import MOUNT_POINTS
from worker.errors import InvalidImage
from worker.oci.appc import platform_members

Document = Mapping[str, Any]

_FACTS = ("os", "architecture", "variant", "os.version", "os.features", "author", "created")
"""Members of the configuration that conversion.md makes annotations of."""

_MAX_PORTS = 2 * 65_535
"""All of TCP and of UDP. Without bounds on them and on a protocol's name a manifest of 4 MiB could fill the memory."""
_PROTOCOL = re.compile(r"[^\s,\0]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What an image says of the program in it.

    Attributes:
        user: `user[:group]`, by name or number; empty if it does not say.
        group: Of an Appc image, which has it apart from its user: see `users.resolve_user_and_group`.
        additional_gids: Of an Appc image.
        env: `NAME=value`, in order.
        args: The program and its arguments; empty if it does not say.
        cwd: Absolute.
        volumes: Absolute directories for data, without duplicates, parents first.
        omitted_volumes: The image's others, which lie where runtimes mount what no image has.
        read_only_volumes: Those of `volumes` that the program may not write to.
        ports: Such as `80/tcp`.
        labels: The author's own.
        stop_signal: Such as `SIGQUIT`; empty if it does not say.
        facts: About the image, by their name in the configuration.
    """

    user: str = ""
    group: str = ""
    additional_gids: tuple[int, ...] = ()
    env: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    cwd: str = "/"
    volumes: tuple[str, ...] = ()
    omitted_volumes: tuple[str, ...] = ()
    read_only_volumes: frozenset[str] = frozenset()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_docker(cls, document: Document, *, image: str) -> Self:
        """Parse the configuration of an OCI or Docker image.

        Args:
            document: All of it.
            image: Named in errors.

        Raises:
            InvalidImage: A member is not what it must be.
        """
        reader = _Reader(document.get("config") or {}, image)
        volumes, omitted = reader.volumes(list(reader.mapping("Volumes")))
        return cls(
            user=reader.text("User"),
            env=reader.variables(reader.texts("Env")),
            args=(*reader.texts("Entrypoint"), *reader.texts("Cmd")),
            cwd=reader.directory(reader.text("WorkingDir") or "/"),
            volumes=volumes,
            omitted_volumes=omitted,
            ports=tuple(reader.mapping("ExposedPorts")),
            labels=reader.labels("Labels"),
            stop_signal=reader.text("StopSignal"),
            facts=_Reader(document, image).facts(),
        )

    @classmethod
    def of_appc(cls, document: Document, *, image: str) -> Self:
        """Parse the manifest of an Appc image; one without an `app` is run by nobody but its dependents.

        Raises:
            InvalidImage: A member is not what it must be.
        """
        reader = _Reader(document.get("app") or {}, image)
        points = reader.objects("mountPoints")
        volumes, omitted = reader.volumes([str(each.get("path")) for each in points])
        read_only, _ = reader.volumes([str(each.get("path")) for each in points if each.get("readOnly")])
        return cls(
            user=reader.text("user"),
            group=reader.text("group"),
            additional_gids=reader.numbers("supplementaryGIDs"),
            env=reader.variables([f"{name}={value}" for name, value in reader.pairs("environment").items()]),
            args=reader.texts("exec"),
            cwd=reader.directory(reader.text("workingDirectory") or "/"),
            volumes=volumes,
            omitted_volumes=omitted,
            read_only_volumes=frozenset(read_only),
            ports=reader.port_ranges("ports"),
            labels=_Reader(document, image).pairs("annotations"),
            facts=platform_members(_Reader(document, image).pairs("labels")),
        )


def execution_of(*, docker_manifest: Document | None, appc_manifest: Document | None, image: str) -> Execution:
    """Return how the image wants to be run, whichever kind it is of.

    Raises:
        InvalidImage: A member of its manifest is not what it must be.
    """
    if appc_manifest is not None:
        return Execution.of_appc(appc_manifest, image=image)
    return Execution.of_docker(docker_manifest or {}, image=image)


class _Reader:
    """Members of a JSON object, each of the type it must have; null is absent, as Docker writes it."""

    def __init__(self, document: object, image: str) -> None:
        self._image = image
        if not isinstance(document, Mapping):
            raise self._refusal("config", "an object")
        self._document: Document = document

    def text(self, name: str) -> str:
        value = self._document.get(name)
        if value is not None and not _is_plain(value):
            raise self._refusal(name, "a string without NUL")
        return value or ""

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._document.get(name) or ()
        if not isinstance(value, list | tuple) or not all(map(_is_plain, value)):
            raise self._refusal(name, "a list of strings without NUL")
        return tuple(value)

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self._document.get(name) or ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, int) for each in value):
            raise self._refusal(name, "a list of numbers")
        return tuple(value)

    def mapping(self, name: str) -> Document:
        value = self._document.get(name) or {}
        if not isinstance(value, Mapping):
            raise self._refusal(name, "an object")
        return value

    def labels(self, name: str) -> dict[str, str]:
        labels = self.mapping(name)
        if not all(key and _is_plain(key) and _is_plain(value) for key, value in labels.items()):
            raise self._refusal(name, "an object of named strings")
        return dict(labels)

    def objects(self, name: str) -> tuple[Document, ...]:
        value = self._document.get(name) or ()
        if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
            raise self._refusal(name, "a list of objects")
        return tuple(value)

    def pairs(self, name: str) -> dict[str, str]:
        found = {each.get("name"): each.get("value") for each in self.objects(name)}
        if not all(key and _is_plain(key) and _is_plain(value) for key, value in found.items()):
            raise self._refusal(name, "a list of names and values")
        return {str(key): str(value) for key, value in found.items()}

    def facts(self) -> dict[str, str]:
        values = {name: self._document.get(name) for name in _FACTS}
        listed = {
            name: ",".join(map(str, value)) if isinstance(value, list) else value for name, value in values.items()
        }
        return {name: value for name, value in listed.items() if value and isinstance(value, str)}

    def variables(self, env: Sequence[str]) -> tuple[str, ...]:
        for line in env:
            if not line.partition("=")[0] or "=" not in line:
                raise InvalidImage(image=self._image, reason=f"its variable {line!r:.160} is not NAME=value")
        return tuple(env)

    def port_ranges(self, name: str) -> tuple[str, ...]:
        """Name each port of each range, as an image configuration does, which has no ranges."""
        ranges = [
            (each.get("port", 0), each.get("count") or 1, str(each.get("protocol"))) for each in self.objects(name)
        ]
        if not all(_is_port_range(*each) for each in ranges):
            raise self._refusal(name, "a list of ports, counts and protocols")
        if sum(count for _, count, _ in ranges) > _MAX_PORTS:
            raise self._refusal(name, f"a list of at most {_MAX_PORTS} ports")
        return tuple(f"{port}/{protocol}" for first, count, protocol in ranges for port in range(first, first + count))

    def directory(self, path: str) -> str:
        """Make the path absolute, as Docker does."""
        return posixpath.join("/", path)

    def volumes(self, paths: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the places for data, and apart those that are the runtime's."""
        found = sorted({"/" + posixpath.normpath(posixpath.join("/", path)).lstrip("/") for path in paths})
        if "/" in found:
            raise InvalidImage(image=self._image, reason="its volume '/' is no place for data")
        return tuple(filterfalse(_is_runtimes, found)), tuple(filter(_is_runtimes, found))

    def _refusal(self, name: str, wanted: str) -> InvalidImage:
        return InvalidImage(image=self._image, reason=f"{name} of its configuration is not {wanted}")


def _is_plain(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_port_range(first: object, count: object, protocol: str) -> bool:
    is_counted = isinstance(first, int) and isinstance(count, int) and first > 0 and count > 0
    return is_counted and _PROTOCOL.fullmatch(protocol) is not None


def _is_runtimes(path: str) -> bool:
    """Tell whether the path is where runtimes mount what no image has."""
    return any(path == point or path.startswith(f"{point}/") for point in MOUNT_POINTS)
