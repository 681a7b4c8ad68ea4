# SPDX-License-Identifier: Apache-2.0
"""A private image in the store is for those to whom its registry gives it."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.layouts import docker_archive_entries
from tests.support.provisioners import SMALL_TREE, files, provisioner, small_image, tree_text
from tests.support.proxy import Proxy, proxy_to
from tests.support.registry_server import OTHER_USERNAME, PASSWORD, USERNAME, Registry, registry_server
from tests.support.tar import tar_bytes
from tests.unit.registry.odd_server import Answer, Asked, odd_server
from worker.errors import AccessDenied, ProvisionerError, RegistryUnavailable, SecretNotFound
from worker.provisioner import Provisioner

pytestmark = [pytest.mark.root, pytest.mark.redis, pytest.mark.registry]

WRONG = "canary-5f2e"
SECRETS = {"first": (USERNAME, PASSWORD), "same": (USERNAME, PASSWORD), "other": (OTHER_USERNAME, PASSWORD)}


@dataclass
class Site:
    """A node, a private registry of its own that has one image, and the network between them."""

    node: Provisioner
    registry: Registry
    network: Proxy
    docker_dir: Path

    @property
    def host(self) -> str:
        """The registry, as it stands in a reference."""
        return f"127.0.0.1:{self.network.port}"

    @property
    def image(self) -> str:
        """The image's reference."""
        return f"{self.host}/team/image:1"

    def pull(self, secret: str | None, *, cached: bool = True) -> object:
        """Pull the image."""
        return self.node.pull({"image": self.image, "secret": secret, "cached": cached})

    def asked(self) -> int:
        """Return how often the registry was asked so far."""
        return len(self.registry.requests())

    def stored(self) -> dict[str, bytes]:
        """Return all files of the store and of the work directory."""
        settings = self.node.node.settings
        paths = [path for each in (settings.store_dir, settings.work_dir) for path in each.rglob("*")]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture
def site(tmp_path: Path, redis_url: str) -> Iterator[Site]:
    """The site, its secrets written, its image not pulled."""
    for name in ("secrets", "docker", "registry"):
        (tmp_path / name).mkdir()
    for name, (username, password) in {**SECRETS, "wrong": (USERNAME, WRONG)}.items():
        (tmp_path / "secrets" / name).write_text(json.dumps({"username": username, "password": password}))
    directories = {"secrets_dir": tmp_path / "secrets", "docker_config_dir": tmp_path / "docker"}
    with (
        registry_server(tmp_path / "registry", has_password=True) as registry,
        proxy_to(int(registry.host.rpartition(":")[2])) as network,
        provisioner(tmp_path, redis_url, registry_attempts=1, **directories) as node,
    ):
        registry.push("team/image", "1", small_image())
        yield Site(node, registry, network, tmp_path / "docker")


def refusal(site: Site, image: str, secret: str | None) -> str:
    """Return what a caller is told who is refused, without the image's name."""
    with pytest.raises(AccessDenied) as caught:
        site.node.pull({"image": image, "secret": secret})
    return str(caught.value).replace(image, "IMAGE")


def test_who_shows_the_same_credential_is_served_from_the_store(site: Site) -> None:
    """Under whatever name the secret goes; the registry is not asked."""
    site.pull("first")
    asked = site.asked()

    info = site.node.provision({"container_id": "c1", "image": site.image, "secret": "same"})

    assert isinstance(info, dict)
    assert tree_text(info["rootfs"]) == SMALL_TREE
    assert site.asked() == asked


def test_who_shows_another_good_credential_asks_the_registry_once(site: Site) -> None:
    """No layer is fetched again, and the next time nothing is asked."""
    site.pull("first")
    fetched = len(site.registry.blob_requests())

    first = site.pull("other")
    asked, blobs = site.asked(), len(site.registry.blob_requests())
    again = site.pull("other")

    assert first == again
    assert blobs == fetched + 1, "the configuration"
    assert site.asked() == asked


@pytest.mark.parametrize("secret", [None, "wrong"])
def test_who_is_refused_learns_nothing_of_the_store(site: Site, secret: str | None) -> None:
    """The error is that of an image nobody ever pulled, and nothing is left of the attempt."""
    before = refusal(site, site.image, secret)
    site.pull("first")

    after = refusal(site, site.image, secret)
    with pytest.raises(AccessDenied):
        site.node.provision({"container_id": "c1", "image": site.image, "secret": secret})

    assert after == before
    assert small_image().digest not in after
    assert files(site.node.node.work.containers_dir) == []


def test_a_registry_that_is_away_does_not_open_its_images(site: Site) -> None:
    """Except to those it opened them to before; the others may come again."""
    site.pull("first")
    site.network.refuses = True
    site.network.cut()

    assert site.pull("same")
    for secret in (None, "other", "wrong"):
        with pytest.raises(RegistryUnavailable):
            site.pull(secret)
    site.network.refuses = False
    assert site.pull("other")


def test_the_nodes_docker_configuration_opens_images_to_callers_without_a_secret(site: Site) -> None:
    """As long as it is the same."""
    auth = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    config_path = site.docker_dir / "config.json"
    config_path.write_text(json.dumps({"auths": {site.host: {"auth": auth}}}))
    site.pull(None)
    asked = site.asked()

    assert site.pull(None)
    assert site.asked() == asked
    assert site.pull("first"), "who brings a credential shows that one"
    assert site.asked() > asked
    config_path.unlink()
    with pytest.raises(AccessDenied):
        site.pull(None)


def test_a_public_image_needs_nothing(site: Site, registry: Registry) -> None:
    """Whoever pulled it, and also when its registry is never asked again: not even a secret that exists."""
    image = registry.push("team/public", "1", small_image())
    site.node.pull({"image": image, "secret": "first"})
    asked = len(registry.requests())

    for container_id, secret in (("c1", None), ("c2", "other"), ("c3", "wrong"), ("c4", "absent")):
        assert site.node.provision({"container_id": container_id, "image": image, "secret": secret})

    assert len(registry.requests()) == asked
    assert not site.node.node.store.paths.openers_key_path.exists()


def test_a_secret_that_is_not_there_opens_nothing(site: Site) -> None:
    """The name is told, as for any secret."""
    site.pull("first")

    with pytest.raises(SecretNotFound, match="'absent'"):
        site.pull("absent")


def test_a_moved_tag_is_open_to_nobody_but_whom_it_was_given_to(site: Site) -> None:
    """Also not to those who may have had what it was before."""
    site.pull("first")
    site.pull("other")
    site.registry.push("team/image", "1", small_image("moved"))
    site.pull("first", cached=False)
    asked = site.asked()

    site.pull("first")
    assert site.asked() == asked
    site.pull("other")
    assert site.asked() > asked


def test_a_store_without_its_key_or_from_before_it_asks_everybody_once(site: Site) -> None:
    """Nothing is lost, nothing is opened."""
    site.pull("first")
    store = site.node.node.store
    store.paths.openers_key_path.unlink()
    asked = site.asked()
    assert site.pull("first")
    assert site.asked() > asked

    path, _ = next(store.images.references())
    document = json.loads(path.read_bytes())
    del document["openers"]
    path.write_text(json.dumps(document))
    with pytest.raises(AccessDenied):
        site.pull(None)
    assert site.pull("first")


def test_what_came_from_a_url_with_a_secret_is_private_too(tmp_path: Path, redis_url: str) -> None:
    """Whoever shows another or none is sent to the server, which decides."""
    basic = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    content = tar_bytes(docker_archive_entries({("demo:1",): small_image()}))
    secrets_dir = tmp_path / "secrets"
    secrets_dir.mkdir()
    for name, password in {"good": PASSWORD, "bad": WRONG}.items():
        (secrets_dir / name).write_text(json.dumps({"username": USERNAME, "password": password}))

    def archive(asked: Asked) -> Answer:
        return Answer(body=content) if asked.authorization == basic else Answer(status=401)

    more = {"secrets_dir": secrets_dir, "archive_protocols": ("http",)}
    with odd_server() as server, provisioner(tmp_path, redis_url, **more) as node:
        server.on("/demo.tar", archive)
        image = f"docker-archive:http://{server.host}/demo.tar"
        node.pull({"image": image, "secret": "good"})
        asked = len(server.asked)

        assert node.pull({"image": image, "secret": "good"})
        assert len(server.asked) == asked
        for secret in (None, "bad"):
            with pytest.raises(AccessDenied):
                node.pull({"image": image, "secret": secret})


def test_an_image_that_became_private_is_nobody_elses_once_its_source_was_asked(tmp_path: Path, redis_url: str) -> None:
    """Until then what anybody had stays anybody's; and who had it by a login since taken back is asked again, too."""
    content = tar_bytes(docker_archive_entries({("demo:1",): small_image()}))
    logins = {"first": "p1", "second": "p2"}
    secrets_dir = tmp_path / "secrets"
    secrets_dir.mkdir()
    for name, password in logins.items():
        (secrets_dir / name).write_text(json.dumps({"username": name, "password": password}))

    def archive(asked: Asked) -> Answer:
        known = {
            f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}" for name, password in logins.items()
        }
        return Answer(body=content) if is_public or asked.authorization in known else Answer(status=401)

    with (
        odd_server() as server,
        provisioner(tmp_path, redis_url, secrets_dir=secrets_dir, archive_protocols=("http",)) as node,
    ):
        server.on("/demo.tar", archive)

        def pull(secret: str | None, *, cached: bool = True) -> object:
            image = f"docker-archive:http://{server.host}/demo.tar"
            return node.pull({"image": image, "secret": secret, "cached": cached})

        is_public = True
        pull(None)
        is_public = False
        assert pull(None)
        pull("first", cached=False)
        with pytest.raises(AccessDenied):
            pull(None)
        assert pull("second")
        del logins["second"]
        pull("first", cached=False)
        with pytest.raises(AccessDenied):
            pull("second")


def test_nothing_of_a_credential_is_on_disk(site: Site) -> None:
    """Neither of one that opened something nor of one that did not."""
    for secret in ("first", "other"):
        site.pull(secret)
    with pytest.raises(ProvisionerError):
        site.pull("wrong")

    stored = site.stored()

    assert len(stored) > 5
    for text in (PASSWORD, USERNAME, OTHER_USERNAME, WRONG):
        assert [path for path, content in stored.items() if text.encode() in content] == []
