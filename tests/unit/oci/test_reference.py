# SPDX-License-Identifier: Apache-2.0
"""References and image sources."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import InvalidArgument
from worker.oci.digest import Digest
from worker.oci.reference import ImageSource, Reference, Transport

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine:3", "docker.io/library/alpine:3"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        (f"alpine@sha256:{HEX}", f"docker.io/library/alpine@sha256:{HEX}"),
        (f"alpine:3@sha256:{HEX}", f"docker.io/library/alpine:3@sha256:{HEX}"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        ("quay.io/a/b/c/d", "quay.io/a/b/c/d:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("Registry/a", "Registry/a:latest"),
        ("a__b/c--d/e.f:X_1.2-3", "docker.io/a__b/c--d/e.f:X_1.2-3"),
    ],
)
def test_a_name_is_completed_as_docker_completes_it(text: str, normalised: str) -> None:
    """One image has one spelling, so that it is cached, locked and pruned under one name."""
    reference = Reference.parse(text)

    assert str(reference) == normalised
    assert Reference.parse(normalised) == reference


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("alpine", "r.example:5000/alpine:latest"),
        ("docker://alpine:3", "r.example:5000/alpine:3"),
        ("team/redis", "r.example:5000/team/redis:latest"),
        (f"alpine@sha256:{HEX}", f"r.example:5000/alpine@sha256:{HEX}"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/team/a", "docker.io/team/a:latest"),
        ("quay.io/a", "quay.io/a:latest"),
        ("docker-archive:/a.tar:alpine", "docker-archive:/a.tar:docker.io/library/alpine:latest"),
        ("docker-daemon:alpine", "docker-daemon:docker.io/library/alpine:latest"),
        ("oci:/layout:alpine", "oci:/layout:alpine"),
        ("appc:alpine", "appc:alpine"),
    ],
)
def test_a_name_without_a_registry_is_of_the_default_one(text: str, normalised: str) -> None:
    """Docker Hub alone has `library/`, and alone is meant by names in archives and Engines."""
    source = ImageSource.parse(text, default_registry="r.example:5000")

    assert source.normalised == normalised
    assert ImageSource.parse(normalised) == source


@pytest.mark.parametrize("default_registry", ["docker.io", "index.docker.io"])
def test_docker_hub_is_one_registry_by_any_name(default_registry: str) -> None:
    """Also where it is the default."""
    assert Reference.parse("a", default_registry=default_registry) == Reference.parse("docker.io/library/a")


def test_an_id_is_no_name_in_any_registry() -> None:
    """It could be a repository's, and nobody means one."""
    with pytest.raises(InvalidArgument, match="an image's id"):
        ImageSource.parse(HEX, default_registry="r.example")


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        # The ancestor's DockerSpecTest.ParseImageReference, with what it leaves out filled in.
        ("library/busybox", "docker.io", "library/busybox", "latest", None),
        ("busybox", "docker.io", "library/busybox", "latest", None),
        ("library/busybox:tag", "docker.io", "library/busybox", "tag", None),
        (f"library/busybox@sha256:{HEX}", "docker.io", "library/busybox", None, HEX),
        ("registry.io/library/busybox", "registry.io", "library/busybox", "latest", None),
        ("registry.io/library/busybox:tag", "registry.io", "library/busybox", "tag", None),
        ("registry.io:80/library/busybox:tag", "registry.io:80", "library/busybox", "tag", None),
        (f"registry.io:80/library/busybox@sha256:{HEX}", "registry.io:80", "library/busybox", None, HEX),
        ("localhost:80/busybox", "localhost:80", "busybox", "latest", None),
        ("gcr.io/google-containers/busybox:1.24", "gcr.io", "google-containers/busybox", "1.24", None),
        ("index.docker.io/library/busybox:1", "docker.io", "library/busybox", "1", None),
        ("team/library/busybox", "docker.io", "team/library/busybox", "latest", None),
    ],
)
def test_the_ancestors_references_are_read_alike(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    """Registry, repository, tag and digest, each where the ancestor finds it."""
    expected = Reference(registry, repository, tag, None if digest is None else Digest("sha256", digest))

    assert Reference.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Alpine",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:b:c",
        "a:-x",
        "a:" + "x" * 129,
        "a@",
        "a@sha256:abc",
        f"a@sha256:{HEX}@sha256:{HEX}",
        f"a@sha256:{HEX.upper()}",
        "a b",
        "a\n",
        "a..b",
        "a___b",
        "-a",
        "a_",
        "exa_mple.com/a",
        "example.com:port/a",
        "example.com:123456/a",
        "example.com/a?x",
        "example.com/../a",
        "user@example.com/a",
        "example.com/" + "a" * 255,
        HEX,
        None,
        7,
    ],
)
def test_a_malformed_name_is_refused(text: object) -> None:
    """The error is the caller's and names the argument."""
    with pytest.raises(InvalidArgument, match="invalid image"):
        Reference.parse(text)


labels = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
registries = st.builds(
    lambda host, port: f"{host}{port}",
    st.one_of(
        st.just("localhost"), st.just("docker.io"), st.just("[2001:db8::1]"), st.builds("{}.{}".format, labels, labels)
    ),
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
)
components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digests = st.binary(min_size=32, max_size=32).map(lambda content: Digest("sha256", content.hex()))


@given(registries, repositories, st.one_of(st.none(), tags), st.one_of(st.none(), digests))
def test_printing_and_parsing_a_reference_round_trips(
    registry: str, repository: str, tag: str | None, digest: Digest | None
) -> None:
    """`parse(str(x)) == x` for every reference that can be written."""
    text = f"{registry}/{repository}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}"
    reference = Reference.parse(text)

    assert Reference.parse(str(reference)) == reference
    assert reference.digest == digest
    assert reference.tag == (tag or (None if digest else "latest"))
    assert reference.registry == registry


@given(st.text(alphabet=string.printable, max_size=40))
def test_any_text_is_either_refused_or_round_trips(text: str) -> None:
    """Nothing but `InvalidArgument` ever comes out of the parser."""
    try:
        source = ImageSource.parse(text)
    except InvalidArgument:
        return

    assert ImageSource.parse(source.normalised) == source


@pytest.mark.parametrize(
    ("text", "source", "normalised"),
    [
        (
            "docker://alpine:3",
            ImageSource(Transport.DOCKER, reference=Reference.parse("alpine:3")),
            "docker.io/library/alpine:3",
        ),
        ("oci:/srv/layout", ImageSource(Transport.OCI, path=Path("/srv/layout")), "oci:/srv/layout"),
        (
            "oci:/srv//layout/./x/:v1:a",
            ImageSource(Transport.OCI, path=Path("/srv/layout/x"), ref="v1:a"),
            "oci:/srv/layout/x:v1:a",
        ),
        ("oci:/srv:@2", ImageSource(Transport.OCI, path=Path("/srv"), ref="@2"), "oci:/srv:@2"),
        (
            "docker-archive:/a.tar:alpine",
            ImageSource(Transport.DOCKER_ARCHIVE, path=Path("/a.tar"), reference=Reference.parse("alpine")),
            "docker-archive:/a.tar:docker.io/library/alpine:latest",
        ),
        (
            "docker-archive:/a.tar:@0",
            ImageSource(Transport.DOCKER_ARCHIVE, path=Path("/a.tar"), ref="@0"),
            "docker-archive:/a.tar:@0",
        ),
        (
            "docker-archive:https://host:8443/a/b.tar",
            ImageSource(Transport.DOCKER_ARCHIVE, url="https://host:8443/a/b.tar"),
            "docker-archive:https://host:8443/a/b.tar",
        ),
        (
            "docker-archive:https://[::1]/a.tar:localhost:5000/x",
            ImageSource(
                Transport.DOCKER_ARCHIVE, url="https://[::1]/a.tar", reference=Reference.parse("localhost:5000/x")
            ),
            "docker-archive:https://[::1]/a.tar:localhost:5000/x:latest",
        ),
        (
            "docker-archive:hdfs:///a b.tar:@3",
            ImageSource(Transport.DOCKER_ARCHIVE, url="hdfs:///a b.tar", ref="@3"),
            "docker-archive:hdfs:///a b.tar:@3",
        ),
        (
            "docker-daemon:localhost:5000/a",
            ImageSource(Transport.DOCKER_DAEMON, reference=Reference.parse("localhost:5000/a")),
            "docker-daemon:localhost:5000/a:latest",
        ),
        (
            f"docker-daemon:sha256:{HEX}",
            ImageSource(Transport.DOCKER_DAEMON, ref=f"sha256:{HEX}"),
            f"docker-daemon:sha256:{HEX}",
        ),
        (
            "appc:example.com/app,version=1.0,os=linux",
            ImageSource(Transport.APPC, ref="example.com/app,os=linux,version=1.0"),
            "appc:example.com/app,os=linux,version=1.0",
        ),
        (
            f"appc:app@sha512-{HEX}{HEX}",
            ImageSource(Transport.APPC, ref=f"app@sha512-{HEX}{HEX}"),
            f"appc:app@sha512-{HEX}{HEX}",
        ),
    ],
)
def test_sources_are_spelled_as_skopeo_spells_them(text: str, source: ImageSource, normalised: str) -> None:
    """Each transport keeps what selects its image, and prints in one way."""
    parsed = ImageSource.parse(text)

    assert parsed == source
    assert parsed.normalised == str(parsed) == normalised
    assert ImageSource.parse(normalised) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "oci:layout",
        "oci:./layout",
        "oci:/srv/../etc",
        "oci:/srv:",
        "oci:/srv:@x",
        "oci:/srv:a b",
        "oci:/srv\0/x",
        "oci:/srv\n",
        "oci:/srv:" + "-" * 60 + "!",
        "docker-archive:/a.tar:Not A Name",
        "docker-archive:a.tar",
        "docker-archive:https://host",
        "docker-archive:https://host/",
        "docker-archive:https://host:port/a.tar",
        "docker-archive:https://user:s3cret@host/a.tar",
        "docker-archive:https://host/a.tar?signature=s3cret",
        "docker-archive:https://host/a.tar#s3cret",
        "docker-archive:https://host/../a.tar",
        "docker-archive:https://host/a.tar:",
        "docker-archive:https://host/a.tar:@x",
        "docker-archive:https://host/a.tar:Not A Name",
        "docker-archive:simplecache::https://host/a.tar",
        "docker-archive:HTTPS://host/a.tar",
        "oci:https://host/a",
        "docker-daemon:",
        "docker-daemon:sha256:abc",
        "appc:",
        "appc:name,label",
        "appc:Name",
        "appc:name,name=x",
        "appc:name,os=linux,os=linux",
        "appc:name,os=",
        f"appc:name@sha512-{HEX}",
        "appc:" + "n" * 256,
        "docker:/alpine",
        "http://example.com/a",
        "a" * 5000,
        None,
        ["alpine"],
    ],
)
def test_a_malformed_source_is_refused(text: object) -> None:
    """The caller's error names the argument, quotes no more than a line, and costs no time."""
    with pytest.raises(InvalidArgument, match="invalid image") as caught:
        ImageSource.parse(text)

    assert len(str(caught.value)) < 600
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("alpine", "docker.io"),
        ("host:5000/a", "host:5000"),
        ("docker-archive:https://host:8443/a.tar", "host:8443"),
        ("docker-archive:memory:///a.tar", None),
        ("docker-archive:/a.tar:host/a", None),
        ("oci:/a", None),
        ("docker-daemon:host/a", None),
    ],
)
def test_a_source_says_whom_a_credential_would_be_shown_to(text: str, host: str | None) -> None:
    """Nobody, for what lies on the node."""
    assert ImageSource.parse(text).host == host


def test_a_source_is_pinned_where_a_digest_can_name_it() -> None:
    """The tag stays, for those who find by it."""
    digest = Digest("sha256", HEX)

    assert str(ImageSource.parse("host:1/a:1").exactly(digest)) == f"host:1/a:1@{digest}"
    assert str(ImageSource.parse("oci:/a:x").exactly(digest)) == "oci:/a:x"
