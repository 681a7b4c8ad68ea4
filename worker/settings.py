# SPDX-License-Identifier: Apache-2.0
"""One frozen `Settings` from the environment; nothing else reads the environment.

Every field is the variable `PROVISIONER_<FIELD>` in upper case. An invalid value fails at start and names it.
"""

import os
import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, IPvAnyAddress, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.errors import InvalidArgument
from worker.sentinel import SentinelUrl, celery_options, is_sentinel

MIB = 1024 * 1024
GIB = 1024 * MIB
BEATS_PER_TIMEOUT = 5
"""How often within the time after which it counts as dead a worker gives its sign of life."""
PROVISION_QUEUE = "provision"
"""What schedulers publish to and every node serves."""
IMAGE_SOURCES = ("docker", "oci", "docker-archive", "docker-daemon", "appc")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_WITH_CREDENTIALS = {"PROVISIONER_REDIS_URL", "PROVISIONER_SECRETS_REDIS_URL", "PROVISIONER_HTTPS_PROXY"}
_REGISTRY = re.compile(r"(?:localhost|(?=[^/]*[.:])(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]))(?::[0-9]{1,5})?")
"""What a reference begins with is a registry if it looks like this, and a part of the repository otherwise."""
_APPC_PREFIX = re.compile(r"(?:https?://[^\s?#@]*|file:///[^\0]*|/[^\0]*)")


def queue_of_node(node: str) -> str:
    """Return the name of the queue that only this node serves."""
    return f"node.{node}"


class Settings(BaseSettings):
    """What one node is told from outside. Units end the names."""

    model_config = SettingsConfigDict(env_prefix="PROVISIONER_", frozen=True, extra="ignore", hide_input_in_errors=True)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Broker, results, lock and state: one Redis, redis://, rediss://, or sentinel://…;sentinel://….",
    )
    sentinel_master: str = Field(
        "mymaster", min_length=1, description="The master's name, where the URL names sentinels."
    )
    cluster: str = Field("default", description="Prefix of all keys: clusters of different names never meet.")
    node: str = Field(default_factory=socket.gethostname, description="This node's name; its queue is `node.<NODE>`.")
    work_dir: Path = Field(Path("/var/lib/provisioner/work"), description="Containers and their rootfses; per node.")
    store_dir: Path = Field(Path("/var/lib/provisioner/store"), description="Images and layers; nodes may share it.")
    backend: str | None = Field(None, description="overlay, aufs, bind or copy; unset: the best that works here.")
    layer_format: str | None = Field(None, description="erofs or directory; unset: the best that works here.")
    platform: str | None = Field(None, description="os/architecture[/variant] to pull; unset: this machine's.")

    image_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        IMAGE_SOURCES,
        description="Kinds of images that may be asked for here, comma-separated; `docker` are those without a prefix.",
    )
    secrets_resolvers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("directory", "environment"),
        description="Where `secret` is looked up, comma-separated, in order: directory, environment, redis, keyring.",
    )
    secrets_dir: Path | None = Field(None, description="Files named by `secret`: JSON with username and password.")
    secrets_redis_url: SecretStr | None = Field(
        default=None, description="Redis of the hash `provisioner-secrets:<CLUSTER>`, for the resolver redis."
    )
    credential_helper_timeout_seconds: float = Field(
        20.0, gt=0, description="Longest a Docker credential helper, or the keyring, may take."
    )
    docker_config_dir: Path | None = Field(None, description="Directory of Docker's config.json; unset: Docker's rule.")
    docker_host: str | None = Field(
        default=None, description="Engine of `docker-daemon:` images, as unix:///… or tcp://…; unset: Docker's rule."
    )
    appc_discovery_prefix: str = Field(
        "https://",
        description="Before `{name}-{version}-{os}-{arch}.aci`: https://…, http://…, file:///… or a directory.",
    )
    archives: str | None = Field(
        default=None,
        description="Directory, as absolute path or URL, of `<name>.tar` archives that stand for all registries.",
    )
    archive_protocols: Annotated[tuple[str, ...], NoDecode] = Field(
        ("https",),
        description="Protocols of archives at URLs, comma-separated: https, http, s3, hdfs, … as fsspec has.",
    )
    default_registry: str = Field(
        "docker.io",
        description="host[:port] of images named without one; the same on all nodes of a cluster.",
    )
    insecure_registries: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="host[:port] spoken to over plain HTTP, comma-separated; loopback always may."
    )
    registry_certs_dir: Path | None = Field(
        None, description="Directory of `<host[:port]>/ca.crt`, `client.cert` and `client.key`, as Docker's certs.d."
    )
    registry_mirrors: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="registry=host[:port][/prefix], comma-separated: who is asked first by callers without a secret.",
    )
    https_proxy: SecretStr | None = Field(
        default=None, description="Proxy for registries over HTTPS, http://[user:password@]host:port."
    )
    no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts and domains reached without the proxy, comma-separated; `*` for all; loopback always is."
    )
    registry_timeout_seconds: float = Field(30.0, gt=0, description="Longest silence on a registry connection.")
    registry_attempts: int = Field(4, ge=1, description="Tries of one registry request inside one task.")

    visibility_timeout_seconds: float = Field(
        5.0,
        ge=1,
        description="A worker that gave no sign of life for so long is dead, and its tasks are back in their queue; "
        "a living one's never are, however long they run.",
    )
    max_deliveries: int = Field(
        10, ge=1, description="A task over which so many workers or processes died is laid aside: see `dead-letters`."
    )
    shutdown_seconds: float = Field(
        60.0, gt=0, description="How long SIGTERM waits for running tasks; then they go back to their queue."
    )
    lease_seconds: float = Field(30.0, ge=1, description="Lease of the cluster lock; renewed at one third.")
    lock_timeout_seconds: float = Field(60.0, gt=0, description="Longest wait for the cluster lock in one attempt.")
    redis_timeout_seconds: float = Field(5.0, gt=0, description="Longest wait for one Redis command.")
    heartbeat_seconds: float = Field(5.0, gt=0, description="How often a node shows that it is alive.")
    reconcile_seconds: float = Field(
        300.0,
        gt=0,
        description="A provision or destroy that nobody gave a sign of work on for so long is taken up again.",
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Where the worker serves metrics for Prometheus; unset: nowhere."
    )
    metrics_address: IPvAnyAddress = Field(
        IPv4Address("127.0.0.1"), description="Address that port is on; whoever reaches it may read the metrics."
    )
    prune_interval_seconds: float | None = Field(None, gt=0, description="How often beat prunes; unset: never.")
    prune_free_percent: float | None = Field(
        None, ge=0, le=100, description="Beat's prunes stop when so much of the store's disk is free; unset: prune all."
    )
    prune_unused_seconds: float = Field(0.0, ge=0, description="Beat's prunes keep what was used within this time.")
    prune_excluded_images: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="References or digests that beat's prunes keep, comma-separated."
    )
    max_retries: int = Field(8, ge=0, description="Retries of a task after transient failures.")
    retry_base_seconds: float = Field(1.0, gt=0, description="First retry's delay; doubled each time, with jitter.")
    retry_max_seconds: float = Field(60.0, gt=0, description="Longest delay between retries.")

    parallel_layers: int = Field(3, ge=1, le=64, description="Layers of one image pulled at a time.")
    resume_min_bytes: int = Field(
        32 * MIB,
        ge=0,
        description="Blobs of so many bytes are kept while they arrive; a killed pull goes on from there.",
    )
    resume_keep_seconds: float = Field(
        86400.0, ge=0, description="What nobody came for in this time of a blob that did not arrive whole is deleted."
    )
    parallel_ranges: int = Field(
        3, ge=1, le=16, description="Connections for one large layer, when one is too slow; 1: never more."
    )
    ranges_min_bytes: int = Field(64 * MIB, ge=MIB, description="Missing bytes of a layer that count as large.")
    max_layers: int = Field(500, ge=1, description="Layers an image may have.")
    max_layer_bytes: int = Field(64 * GIB, ge=1, description="Uncompressed bytes a layer may have.")
    max_layer_entries: int = Field(10_000_000, ge=1, description="Entries a layer may have.")
    max_header_bytes: int = Field(MIB, ge=512, description="Bytes of one extended (PAX or GNU) tar header.")
    max_index_bytes: int = Field(
        GIB,
        ge=MIB,
        description="Memory for an image's EROFS metadata, about 500 bytes an entry; layers pulled at once share it.",
    )
    max_manifest_bytes: int = Field(4 * MIB, ge=1024, description="Bytes of a manifest, an index or a configuration.")

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str) -> str:
        if is_sentinel(url):
            SentinelUrl.parse(url)
        elif not url.startswith(("redis://", "rediss://")) or ";" in url:
            raise ValueError("must begin with redis://, rediss:// or sentinel://, and only sentinels may be several")
        return url

    @field_validator("cluster", "node")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"must match {_NAME.pattern}")
        return name

    @field_validator("work_dir", "store_dir")
    @classmethod
    def _check_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path

    @field_validator("image_sources")
    @classmethod
    def _check_image_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if not sources or not set(sources) <= set(IMAGE_SOURCES):
            raise ValueError(f"must be some of {', '.join(IMAGE_SOURCES)}")
        return sources

    @field_validator("default_registry")
    @classmethod
    def _check_registry(cls, registry: str) -> str:
        if not _REGISTRY.fullmatch(registry):
            raise ValueError("must be host[:port], with a dot, a port, or localhost")
        return registry

    @field_validator("appc_discovery_prefix")
    @classmethod
    def _check_prefix(cls, prefix: str) -> str:
        if not _APPC_PREFIX.fullmatch(prefix):
            raise ValueError("must begin with https://, http://, file:/// or /")
        return prefix

    @field_validator(
        "archive_protocols",
        "image_sources",
        "insecure_registries",
        "no_proxy",
        "prune_excluded_images",
        "registry_mirrors",
        "secrets_resolvers",
        mode="before",
    )
    @classmethod
    def _split_list(cls, words: object) -> object:
        if isinstance(words, str):
            return tuple(word.strip() for word in words.split(",") if word.strip())
        return words

    @property
    def key_prefix(self) -> str:
        """What every Redis key of the cluster starts with; the braces keep them in one hash slot."""
        return f"{{provisioner:{self.cluster}}}"

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """What Celery's broker and results are told beside the URL, so that they find the master."""
        return celery_options(self.redis_url, self.sentinel_master, timeout_seconds=self.redis_timeout_seconds)

    @property
    def queue_key(self) -> str:
        """What the keys of the queue's records start with; the queues themselves are named by schedulers."""
        return f"{self.key_prefix}:queue"

    @property
    def beat_seconds(self) -> float:
        """From one of the worker's signs of life to the next: whatever keeps its loop waiting must not take longer."""
        return self.visibility_timeout_seconds / BEATS_PER_TIMEOUT

    @property
    def node_queue(self) -> str:
        """The queue only this node serves."""
        return queue_of_node(self.node)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        InvalidArgument: For the first variable with an unusable value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = "PROVISIONER_" + "_".join(str(part) for part in first["loc"]).upper()
        shown = "…" if variable in _WITH_CREDENTIALS else str(first["input"])
        raise InvalidArgument(argument=variable, value=shown, reason=first["msg"]) from error


def environment_secret(name: str) -> str | None:
    """Return the variable `PROVISIONER_SECRET_<NAME>`, in upper case and with `_` for `-`, or None if it is not set."""
    return os.environ.get(f"PROVISIONER_SECRET_{name.upper().replace('-', '_')}")


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    """Return this process's settings, read once."""
    return load_settings()
