# SPDX-License-Identifier: Apache-2.0
"""Images of a Docker Engine: `docker-daemon:name[:tag]`, `docker-daemon:sha256:<image id>`.

Differences and limits: an Engine gives an image only whole, as `docker save` does, so it is spooled into an unnamed
file of the spool directory, at the cost of its uncompressed size, and read from there as an archive. Where the Engine
is, the settings say, else Docker's own rule (DOCKER_HOST, else the local socket). Credentials do not matter.
"""

import math
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import docker
import requests
import urllib3
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env
from typing_extensions import override

from worker.errors import ImageNotFound, RegistryUnavailable
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, Puller, RemoteImage
from worker.pullers.archive import open_archive
from worker.pullers.content import CHUNK_BYTES
from worker.pullers.resolve import Wanted
from worker.pullers.spool import spooled
from worker.settings import Settings

_UNREACHABLE = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
# What the SDK raises for documents that are not as an Engine writes them.
_MALFORMED = (KeyError, TypeError, ValueError, RecursionError)


class DaemonPuller(Puller):
    """Reads images from a Docker Engine.

    Args:
        settings: Limits, and the Engine's address.
        spool_dir: Where images are spooled.
    """

    transports: ClassVar[frozenset[Transport]] = frozenset({Transport.DOCKER_DAEMON})

    def __init__(self, settings: Settings, *, spool_dir: Path) -> None:
        self._settings = settings
        self._spool_dir = spool_dir

    @override
    @contextmanager
    def open(self, source: ImageSource, *, platform: Platform, credential: Credential | None) -> Iterator[RemoteImage]:
        wanted = Wanted(image=str(source), platform=platform, max_layers=self._settings.max_layers)
        max_bytes = self._settings.max_layer_bytes
        with (
            closing(self._saved(source)) as chunks,
            spooled(chunks, spool_dir=self._spool_dir, max_bytes=max_bytes, image=wanted.image) as descriptor,
        ):
            yield open_archive(descriptor, ImageSource(Transport.DOCKER_ARCHIVE), wanted, self._settings)

    def _saved(self, source: ImageSource) -> Generator[bytes, None, None]:
        """Yield what `docker save` writes."""
        image = str(source)
        name = str(source.reference or source.ref)
        with _reporting(image, self._engine), self._client() as client:
            # Asking first gives "not found" its own error: a stream, once begun, can only break off.
            client.inspect_image(name)  # type: ignore[no-untyped-call]
            yield from client.get_image(name, chunk_size=CHUNK_BYTES)

    @property
    def _engine(self) -> str:
        return self._settings.docker_host or "the Docker Engine"

    @contextmanager
    def _client(self) -> Iterator[docker.APIClient]:
        host = self._settings.docker_host
        address: Mapping[str, Any] = {"base_url": host} if host else kwargs_from_env()
        options = {**address, "timeout": math.ceil(self._settings.registry_timeout_seconds)}
        # Left to itself the client asks for the version in its constructor, and leaks the connection when that fails.
        with closing(docker.APIClient(**options, version=MINIMUM_DOCKER_API_VERSION)) as client:
            version = client.version(api_version=False)["ApiVersion"]
        with closing(docker.APIClient(**options, version=version)) as client:
            yield client


@contextmanager
def _reporting(image: str, engine: str) -> Iterator[None]:
    """Translate what the SDK and all it is made of raise."""
    try:
        yield
    except APIError as error:
        if error.is_client_error():
            raise ImageNotFound(image=image, reason=f"{engine} answers: {error.explanation}") from error
        raise RegistryUnavailable(registry=engine, reason=str(error.explanation or error)) from error
    except _UNREACHABLE as error:
        raise RegistryUnavailable(registry=engine, reason=str(error)) from error
    except _MALFORMED as error:
        raise RegistryUnavailable(registry=engine, reason="it does not answer as an Engine does") from error
