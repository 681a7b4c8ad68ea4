# SPDX-License-Identifier: Apache-2.0
"""Images from Debian's registry, and from one that lies."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import Blob, Image, Style, build_image, build_index, dump, layer
from tests.support.ports import free_port
from tests.support.registry_server import PASSWORD, USERNAME, Registry
from tests.support.tar import File
from tests.unit.registry.odd_server import Answer, Asked, OddServer, odd_server
from worker.errors import (
    AccessDenied,
    DigestMismatch,
    ImageNotFound,
    InvalidArgument,
    InvalidImage,
    PlatformNotFound,
    ProvisionerError,
    SizeMismatch,
)
from worker.oci.digest import Digest
from worker.oci.media_types import OCI_INDEX, OCI_MANIFEST
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource, Transport
from worker.puller import Credential, RemoteImage
from worker.pullers.registry import RegistryPuller
from worker.settings import Settings

AMD64 = Platform.parse("linux/amd64")
CREDENTIAL = Credential(USERNAME, PASSWORD)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty Docker configuration."""
    docker_dir = tmp_path / "docker"
    docker_dir.mkdir()
    return Settings(work_dir=tmp_path, store_dir=tmp_path, docker_config_dir=docker_dir, registry_attempts=1)


@pytest.fixture
def puller(settings: Settings) -> Iterator[RegistryPuller]:
    """A puller."""
    running = RegistryPuller(settings)
    yield running
    running.close()


@pytest.fixture
def server() -> Iterator[OddServer]:
    """A registry that answers as told."""
    with odd_server() as running:
        yield running


def image_for(platform: str, *, style: Style = "oci", **more: Any) -> Image:
    """Return an image of two layers for `os/architecture[/variant]`, unlike those for others."""
    names = ("os", "architecture", "variant")
    layers = [layer(File("base", b"base")), layer(File("platform", platform.encode()), compression="zstd")]
    return build_image(layers, style=style, platform=dict(zip(names, platform.split("/"), strict=False)), **more)


def resolve(
    puller: RegistryPuller, name: str, *, platform: Platform = AMD64, credential: Credential | None = None
) -> RemoteImage:
    """Open an image; the registry's needs no closing."""
    with puller.open(ImageSource.parse(name), platform=platform, credential=credential) as image:
        return image


@pytest.mark.registry
@pytest.mark.parametrize("style", ["oci", "docker"])
def test_an_image_is_pulled_by_tag_and_by_digest(puller: RegistryPuller, registry: Registry, style: Style) -> None:
    """All of it arrives byte for byte, whichever of the two families of media types it has."""
    pushed = image_for("linux/amd64", style=style)
    name = registry.push(f"plain/{style}", "v1", pushed)
    repository = name.removesuffix(":v1")

    for spelling in (name, f"docker://{name}", f"{repository}@{pushed.digest}", f"{repository}:no@{pushed.digest}"):
        image = resolve(puller, spelling)

        assert str(image.digest) == pushed.digest
        assert image.manifest == pushed.manifest.content
        assert image.config == pushed.config.content
        assert [str(diff_id) for diff_id in image.image_config.diff_ids] == pushed.diff_ids
        for descriptor, blob in zip(image.layers, pushed.layer_blobs, strict=True):
            with image.blob(descriptor) as chunks:
                assert b"".join(chunks) == blob.content


@pytest.mark.registry
def test_layers_are_streamed_by_several_threads_at_once(puller: RegistryPuller, registry: Registry) -> None:
    """One image, one client, many connections."""
    layers = [layer(File("content", bytes([number]) * 3_000_000), compression="none") for number in range(6)]
    image = resolve(puller, registry.push("plain/parallel", "v1", build_image(layers)))

    def digest_of(number: int) -> str:
        hasher = hashlib.sha256()
        with image.blob(image.layers[number]) as chunks:
            for chunk in chunks:
                hasher.update(chunk)
        return f"sha256:{hasher.hexdigest()}"

    with ThreadPoolExecutor(6) as threads:
        digests = list(threads.map(digest_of, range(6)))

    assert digests == [str(descriptor.digest) for descriptor in image.layers]


@pytest.mark.registry
def test_an_index_gives_the_image_that_suits_the_platform(puller: RegistryPuller, registry: Registry) -> None:
    """Also from an index in an index; attestations stay out of it; the digest is the manifest's."""
    images = {name: image_for(name) for name in ("linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/amd64")}
    nested = build_index([images["linux/arm64"], images["linux/amd64"]])
    attestation = image_for("unknown/unknown").descriptor()
    index = build_index([images["linux/arm/v6"], images["linux/arm/v7"], nested], extra=[attestation])
    registry.push("plain/index", "attestation", image_for("unknown/unknown"))
    name = registry.push("plain/index", "v1", index)

    chosen = {host: str(resolve(puller, name, platform=Platform.parse(host)).digest) for host in images}

    assert chosen == {host: image.digest for host, image in images.items() if host != "linux/arm64"} | {
        # An arm64 host runs what is for arm, and an entry that says so goes before one that says nothing.
        "linux/arm64": images["linux/arm/v7"].digest
    }


@pytest.mark.registry
def test_a_platform_that_is_missing_is_told_with_those_there_are(puller: RegistryPuller, registry: Registry) -> None:
    """The user sees at once what to ask for."""
    name = registry.push("plain/missing", "v1", build_index([image_for("linux/arm64"), image_for("linux/arm/v7")]))

    with pytest.raises(PlatformNotFound, match=r"no manifest for linux/amd64; it has linux/arm64, linux/arm/v7$"):
        resolve(puller, name)


@pytest.mark.registry
def test_an_image_without_an_index_is_for_its_own_platform_only(puller: RegistryPuller, registry: Registry) -> None:
    """Its configuration tells; programs of another machine would not start."""
    name = registry.push("plain/single", "v1", image_for("linux/arm64"))

    with pytest.raises(PlatformNotFound, match="it has linux/arm64"):
        resolve(puller, name)
    assert resolve(puller, name, platform=Platform.parse("linux/arm64")).layers


@pytest.mark.registry
def test_what_is_not_there_is_not_found(puller: RegistryPuller, registry: Registry) -> None:
    """A tag, a repository, a digest."""
    registry.push("plain/there", "v1", image_for("linux/amd64"))

    for name in ("plain/there:v2", "plain/absent:v1", f"plain/there@sha256:{'0' * 64}"):
        with pytest.raises(ImageNotFound, match=r"MANIFEST_UNKNOWN|NAME_UNKNOWN"):
            resolve(puller, f"{registry.host}/{name}")


@pytest.mark.registry
def test_a_damaged_configuration_is_noticed(puller: RegistryPuller, registry: Registry) -> None:
    """Damaged where the registry keeps it, the size still right."""
    pushed = image_for("linux/amd64", config={"Cmd": ["damaged"]})
    name = registry.push("plain/damaged", "v1", pushed)
    registry.blob_path(pushed.config.digest).write_bytes(pushed.config.content.replace(b"damaged", b"DAMAGED"))

    with pytest.raises(DigestMismatch, match=pushed.config.digest):
        resolve(puller, name)


@pytest.mark.registry
def test_a_private_registry_takes_the_calls_credential(puller: RegistryPuller, private_registry: Registry) -> None:
    """Basic authentication, for manifests and blobs alike; a wrong one, or none, is refused."""
    pushed = image_for("linux/amd64")
    name = private_registry.push("private/image", "v1", pushed)

    image = resolve(puller, name, credential=CREDENTIAL)
    with image.blob(image.layers[0]) as chunks:
        assert b"".join(chunks) == pushed.layer_blobs[0].content

    for credential in (None, Credential(USERNAME, "wrong")):
        with pytest.raises(AccessDenied) as caught:
            resolve(puller, name, credential=credential)
        assert "wrong" not in str(caught.value)


@pytest.mark.registry
def test_an_image_is_private_if_the_registry_asked_for_a_login(
    puller: RegistryPuller, registry: Registry, private_registry: Registry
) -> None:
    """Bringing a credential to a registry that asks for none makes nothing private; another host's is not shown."""
    pushed = image_for("linux/amd64")
    public, private = (each.push("asked/image", "v1", pushed) for each in (registry, private_registry))

    image = resolve(puller, private, credential=CREDENTIAL)
    assert (image.is_private, image.credential) == (True, CREDENTIAL)
    assert not resolve(puller, public, credential=CREDENTIAL).is_private
    with pytest.raises(AccessDenied):
        resolve(puller, private, credential=Credential(USERNAME, PASSWORD, registry="example.com"))


@pytest.mark.registry
def test_the_nodes_docker_configuration_serves_who_brings_no_credential(
    puller: RegistryPuller, private_registry: Registry, settings: Settings
) -> None:
    """And a credential that is brought goes before it."""
    name = private_registry.push("private/config", "v1", image_for("linux/amd64"))
    auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    assert settings.docker_config_dir is not None
    config_path = settings.docker_config_dir / "config.json"
    config_path.write_text(json.dumps({"auths": {private_registry.host: {"auth": auth}}}))

    assert resolve(puller, name).layers
    with pytest.raises(AccessDenied):
        resolve(puller, name, credential=Credential(USERNAME, "wrong"))


@pytest.mark.registry
def test_a_mirror_is_asked_first_and_its_registry_where_it_fails(
    settings: Settings, registry: Registry, private_registry: Registry, server: OddServer
) -> None:
    """A mirror that is away or lacks the image costs nothing but time; a caller's credential goes to the registry."""
    pushed, other = image_for("linux/amd64"), image_for("linux/amd64", config={"Cmd": ["mirrored"]})
    name = private_registry.push("mirrored/image", "v1", pushed)
    registry.push("cache/mirrored/image", "v1", other)
    away = f"127.0.0.1:{free_port()}"
    mirrors = [f"{private_registry.host}={mirror}" for mirror in (away, server.host, f"{registry.host}/cache")]
    puller = RegistryPuller(settings.model_copy(update={"registry_mirrors": tuple(mirrors)}))

    try:
        assert str(resolve(puller, name).digest) == other.digest
        image = resolve(puller, name, credential=CREDENTIAL)
        assert str(image.digest) == pushed.digest
        assert [asked.authorization for asked in server.asked] == [None]
        with pytest.raises(AccessDenied, match=private_registry.host):
            resolve(puller, f"{private_registry.host}/mirrored/absent:1")
    finally:
        puller.close()


@pytest.mark.registry
@pytest.mark.peer
def test_skopeo_resolves_to_the_same_manifest(puller: RegistryPuller, registry: Registry) -> None:
    """For each platform of an index."""
    name = registry.push("plain/peer", "v1", build_index([image_for("linux/arm64"), image_for("linux/amd64")]))

    for architecture in ("arm64", "amd64"):
        command = ["skopeo", f"--override-arch={architecture}", "inspect", "--tls-verify=false", f"docker://{name}"]
        inspected = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        image = resolve(puller, name, platform=Platform.parse(f"linux/{architecture}"))
        assert [str(descriptor.digest) for descriptor in image.layers] == inspected["Layers"]


def serve(server: OddServer, item: Blob, *, tag: str | None = None, content_type: str | None = None) -> None:
    """Serve a manifest under its digest or a tag, under the right Content-Type or another one."""
    headers = {"Content-Type": content_type or item.media_type}
    server.on(f"/v2/a/manifests/{tag or item.digest}", Answer(body=item.content, headers=headers))


def serve_image(server: OddServer, image: Image, *, tag: str) -> None:
    """Serve an image whole."""
    serve(server, image.manifest, tag=tag)
    for blob in image.blobs:
        server.on(f"/v2/a/blobs/{blob.digest}", Answer(body=blob.content))


def test_an_identity_token_may_stand_for_the_password(puller: RegistryPuller, server: OddServer) -> None:
    """Marked by the user name, as Docker's credential helpers mark it."""
    pushed = image_for("linux/amd64")
    serve_image(server, pushed, tag="served")
    content = Answer(body=pushed.manifest.content, headers={"Content-Type": OCI_MANIFEST})

    def script(asked: Asked) -> Answer:
        challenge = {"WWW-Authenticate": f'Bearer realm="{server.url}/token",service="s"'}
        return content if asked.authorization == "Bearer t1" else Answer(status=401, headers=challenge)

    server.on("/v2/a/manifests/1", script)
    server.on("/token", Answer(body=b'{"access_token": "t1"}'))

    image = resolve(puller, f"{server.host}/a:1", credential=Credential("<token>", "refresh"))

    assert str(image.digest) == pushed.digest
    assert b"refresh_token=refresh" in server.asked_for("/token")[0].body


def confused(document: dict[str, Any], **more: Any) -> Blob:
    """Return a manifest with members that do not belong there."""
    return Blob(dump({**document, **more}), OCI_MANIFEST)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"schemaVersion": 2, "schemaVersion": 2}', OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b"<html>", "text/html"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/json"),
        (image_for("linux/amd64").manifest.content, OCI_INDEX),
        (build_index([]).manifest.content, OCI_MANIFEST),
        (confused(json.loads(image_for("linux/amd64").manifest.content), manifests=[]).content, OCI_MANIFEST),
    ],
)
def test_a_manifest_that_is_not_one_thing_is_refused(
    puller: RegistryPuller, server: OddServer, content: bytes, content_type: str
) -> None:
    """Media type confusion, schema 1, repeated members, a login page."""
    server.on("/v2/a/manifests/1", Answer(body=content, headers={"Content-Type": content_type}))

    with pytest.raises(InvalidImage):
        resolve(puller, f"{server.host}/a:1")


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ({"size": 5}, SizeMismatch),
        ({"digest": f"sha256:{'1' * 64}"}, DigestMismatch),
        ({"mediaType": OCI_INDEX}, InvalidImage),
    ],
)
def test_an_index_that_lies_about_a_manifest_is_noticed(
    puller: RegistryPuller, server: OddServer, lie: dict[str, Any], error: type[ProvisionerError]
) -> None:
    """Its size, its digest, its media type."""
    pushed = image_for("linux/amd64")
    entry = {**pushed.descriptor(), **lie}
    serve_image(server, pushed, tag=entry["digest"])
    serve(server, build_index([], extra=[entry]).manifest, tag="1")

    with pytest.raises(error):
        resolve(puller, f"{server.host}/a:1")


def test_a_registry_that_calls_an_indexs_manifest_otherwise_is_noticed(
    puller: RegistryPuller, server: OddServer
) -> None:
    """Index, registry and document must agree; a type that says nothing agrees with all."""
    pushed = image_for("linux/amd64", manifest={"mediaType": None})
    serve_image(server, pushed, tag=pushed.digest)
    serve(server, build_index([pushed]).manifest, tag="1")

    serve(server, pushed.manifest, content_type="application/octet-stream")
    assert resolve(puller, f"{server.host}/a:1").layers
    serve(server, pushed.manifest, content_type="application/vnd.docker.distribution.manifest.v2+json")
    with pytest.raises(InvalidImage, match=r"its registry application/vnd\.docker"):
        resolve(puller, f"{server.host}/a:1")


def test_indexes_inside_indexes_have_a_bound(puller: RegistryPuller, server: OddServer) -> None:
    """A registry cannot lead us on for ever."""
    item: Any = image_for("linux/amd64")
    serve_image(server, item, tag=item.digest)
    for _ in range(8):
        item = build_index([item])
        serve(server, item.manifest)
    serve(server, item.manifest, tag="1")

    with pytest.raises(InvalidImage, match="indexes inside each other"):
        resolve(puller, f"{server.host}/a:1")


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_without_a_diff_id_are_refused(puller: RegistryPuller, server: OddServer, layers: int) -> None:
    """They could not be verified; and too few could not make the image."""
    good = image_for("linux/amd64")
    descriptors = [good.layer_blobs[0].descriptor()] * layers
    serve_image(server, image_for("linux/amd64", manifest={"layers": descriptors}), tag="1")

    with pytest.raises(InvalidImage, match=f"lists {layers} layers but its configuration 2"):
        resolve(puller, f"{server.host}/a:1")


def test_only_registries_are_pulled_from(puller: RegistryPuller, tmp_path: Path) -> None:
    """Others have pullers of their own."""
    assert RegistryPuller.transports == {Transport.DOCKER}
    with pytest.raises(InvalidArgument, match="no image of a registry"):
        resolve(puller, f"oci:{tmp_path}")


def test_the_digest_is_the_manifests(puller: RegistryPuller, server: OddServer) -> None:
    """Computed here, whatever the registry says or keeps to itself."""
    pushed = image_for("linux/amd64")
    serve_image(server, pushed, tag="1")

    assert resolve(puller, f"{server.host}/a:1").digest == Digest.of(pushed.manifest.content)
