# SPDX-License-Identifier: Apache-2.0
"""Settings come from the environment, whole or not at all."""

import traceback

import pytest

from worker.errors import InvalidArgument
from worker.oci.reference import Reference, Transport
from worker.settings import IMAGE_SOURCES, Settings, load_settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PROVISIONER_PARALLEL_LAYERS", "0"),
        ("PROVISIONER_PARALLEL_LAYERS", "many"),
        ("PROVISIONER_WORK_DIR", "relative"),
        ("PROVISIONER_NODE", "a/b"),
        ("PROVISIONER_CLUSTER", ""),
        ("PROVISIONER_LEASE_SECONDS", "-1"),
        ("PROVISIONER_REDIS_URL", "http://127.0.0.1:6379/0"),
        ("PROVISIONER_REDIS_URL", "redis://a/0;redis://b/0"),
        ("PROVISIONER_REDIS_URL", "sentinel://a:1/0;sentinel://b:1/1"),
        ("PROVISIONER_SENTINEL_MASTER", ""),
        ("PROVISIONER_DEFAULT_REGISTRY", ""),
        ("PROVISIONER_DEFAULT_REGISTRY", "hub"),
        ("PROVISIONER_DEFAULT_REGISTRY", "https://registry.example"),
        ("PROVISIONER_DEFAULT_REGISTRY", "registry.example/team"),
        ("PROVISIONER_IMAGE_SOURCES", "docker,dockr-daemon"),
        ("PROVISIONER_IMAGE_SOURCES", ","),
    ],
)
def test_an_unusable_value_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """At start, not in the middle of a task."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(InvalidArgument, match=variable):
        load_settings()


def test_a_url_that_is_refused_does_not_show_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the sentence nor in what a traceback says beside it."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", "sentinel://:hunter2@a:1/0;sentinel://b:1/0")

    with pytest.raises(InvalidArgument, match="same user, password") as caught:
        load_settings()

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_hosts_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks and empty parts do not matter."""
    monkeypatch.setenv("PROVISIONER_INSECURE_REGISTRIES", "a:5000, b ,")

    assert load_settings().insecure_registries == ("a:5000", "b")


@pytest.mark.parametrize("registry", ["docker.io", "r.example", "hub:5000", "localhost", "localhost:1", "[::1]:5000"])
def test_a_default_registry_is_one_to_whoever_reads_the_name(registry: str) -> None:
    """A completed name is stored, and parsed again without this setting."""
    default = Settings(default_registry=registry).default_registry

    completed = str(Reference.parse("team/a", default_registry=default))

    assert completed == f"{registry}/team/a:latest"
    assert str(Reference.parse(completed)) == completed


def test_the_sources_that_can_be_named_are_those_that_references_have() -> None:
    """In their order; without a word all are taken."""
    assert tuple(Transport) == IMAGE_SOURCES
    assert Settings().image_sources == IMAGE_SOURCES


def test_keys_share_a_hash_slot() -> None:
    """The braces are Redis Cluster's."""
    assert Settings(cluster="blue").key_prefix == "{provisioner:blue}"
    assert Settings(node="n1").node_queue == "node.n1"


def test_every_field_says_what_it_is() -> None:
    """The README's table is made of the descriptions."""
    assert all(field.description for field in Settings.model_fields.values())
