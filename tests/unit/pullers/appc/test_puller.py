# SPDX-License-Identifier: Apache-2.0
"""App Container images from discovery to layers."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.acis import (
    COMPRESSIONS,
    aci_server,
    aci_tar,
    appc_manifest,
    dependency,
    image_id,
    write_aci,
)
from tests.support.killing import count_lines, run_killed
from tests.support.tar import Dir, File, Hardlink, Symlink, tar_bytes
from worker.errors import (
    AccessDenied,
    DigestMismatch,
    ImageNotFound,
    InvalidImage,
    PlatformNotFound,
    ProvisionerError,
    RegistryUnavailable,
    RegistryUnusable,
    SizeMismatch,
)
from worker.oci.digest import Digest
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import Credential, RemoteImage
from worker.pullers.appc.puller import AppcPuller
from worker.settings import Settings

AMD64 = Platform("linux", "amd64")
BASE = aci_tar(appc_manifest("example.com/base"), Dir("etc"), File("etc/os", b"base"))
LEFT = aci_tar(appc_manifest("example.com/left", dependencies=[dependency("example.com/base")]), File("left", b"l"))
RIGHT = aci_tar(appc_manifest("example.com/right", dependencies=[dependency("example.com/base")]), File("right", b"r"))
APP = aci_tar(
    appc_manifest(
        "example.com/app",
        dependencies=[dependency("example.com/left"), dependency("example.com/right")],
        app={
            "exec": ["/bin/app", "-v"],
            "user": "100",
            "group": "200",
            "environment": [{"name": "A", "value": "b"}],
            "workingDirectory": "/srv",
        },
    ),
    File("bin/app", b"app"),
)
DIAMOND = {
    "example.com/base": BASE,
    "example.com/left": LEFT,
    "example.com/right": RIGHT,
    "example.com/app": APP,
}


@pytest.fixture
def acis(tmp_path: Path) -> Path:
    """A directory with the four archives of the diamond."""
    for number, (name, tar) in enumerate(DIAMOND.items()):
        write_aci(tmp_path / "acis", name, tar, compression=list(COMPRESSIONS)[number])
    return tmp_path / "acis"


@contextmanager
def opened(
    source: str, prefix: Path | str, *, platform: Platform = AMD64, credential: Credential | None = None, **more: Any
) -> Iterator[RemoteImage]:
    """Open an image; whatever happens, nothing stays in the spool directory."""
    directory = Path(str(prefix)) if isinstance(prefix, Path) else Path("/")
    spool_dir = more.pop("spool_dir", directory / ".spool")
    settings = Settings(
        appc_discovery_prefix=str(prefix),
        registry_timeout_seconds=20,
        registry_attempts=more.pop("attempts", 1),
        **more,
    )
    puller = AppcPuller(settings, spool_dir=spool_dir, known_dir=spool_dir.parent / ".known")
    try:
        with puller.open(ImageSource.parse(source), platform=platform, credential=credential) as image:
            yield image
    finally:
        assert not spool_dir.exists() or list(spool_dir.iterdir()) == []


def contents(image: RemoteImage) -> list[bytes]:
    """Return all layers' blobs, each of which is what its descriptor says."""
    found = []
    for descriptor, diff_id in zip(image.layers, image.image_config.diff_ids, strict=True):
        with image.blob(descriptor) as chunks:
            found.append(b"".join(chunks))
        assert len(found[-1]) == descriptor.size_bytes
        assert Digest.of(found[-1]) == descriptor.digest == diff_id
    return found


def refused(source: str, prefix: Path | str, **more: Any) -> ProvisionerError:
    """Return the error with which an image is refused."""
    with pytest.raises(ProvisionerError) as caught, opened(source, prefix, **more):
        pass
    return caught.value


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("manifest_last", [False, True])
def test_simple_file_fetch(tmp_path: Path, compression: str, *, manifest_last: bool) -> None:
    """An archive of any compression, its parts in either order, becomes the same layer, its rootfs the root."""
    entries = [Dir("etc", mode=0o750), File("etc/a", b"x" * 100_000), Hardlink("b", "etc/a"), Symlink("l", "/etc/a")]
    tar = aci_tar(appc_manifest("example.com/app"), *entries, manifest_last=manifest_last)
    write_aci(tmp_path, "example.com/app", tar, compression=compression)

    for prefix in (tmp_path, f"file://{tmp_path}", f"file://{tmp_path}/"):
        with opened("appc:example.com/app", prefix, spool_dir=tmp_path / ".spool") as image:
            [content] = contents(image)
            document = image.image_config.document

        assert b"rootfs" not in content
        assert b"acKind" not in content
        assert document["appc"]["imageIDs"] == [image_id(tar)]
        assert document["appc"]["manifest"]["name"] == "example.com/app"


def test_simple_http_fetch(acis: Path) -> None:
    """The name of the server is the name's first part; what is not asked for is not fetched."""
    with aci_server(acis) as server:
        with opened("appc:example.com/base", f"http://{server.host}", spool_dir=acis / ".spool") as image:
            assert len(contents(image)) == 1

        assert server.asked == [("/example.com/base-latest-linux-amd64.aci", None)]


def test_dependencies_lie_below_in_order_and_once(acis: Path) -> None:
    """The base that two need is fetched once; the manifest is that of the image asked for."""
    with aci_server(acis) as server:
        with opened("appc:example.com/app", f"http://{server.host}/", spool_dir=acis / ".spool") as image:
            layers = contents(image)
            document = image.image_config.document

    assert [path.rpartition("/")[2].partition("-")[0] for path, _ in server.asked] == ["app", "left", "base", "right"]
    order = [b"base", b"left", b"right", b"bin/app"]
    assert [marker in layer for marker, layer in zip(order, layers, strict=True)] == [True] * 4
    assert document["appc"]["imageIDs"] == [image_id(tar) for tar in (BASE, LEFT, RIGHT, APP)]
    assert document["appc"]["manifest"]["name"] == "example.com/app"
    assert document["config"] == {
        "User": "100:200",
        "Entrypoint": ["/bin/app", "-v"],
        "Env": ["A=b"],
        "WorkingDir": "/srv",
    }
    assert (document["os"], document["architecture"]) == ("linux", "amd64")


def test_the_same_archives_always_make_the_same_image(acis: Path) -> None:
    """Also compressed otherwise and found elsewhere: the digest follows from what is in them."""
    with opened("appc:example.com/app", acis) as image:
        first = image.digest, image.manifest, image.config
    for name, tar in DIAMOND.items():
        write_aci(acis / "elsewhere", name, tar, compression="xz")

    with opened("appc:example.com/app", acis / "elsewhere") as image:
        assert (image.digest, image.manifest, image.config) == first


def test_an_image_may_be_asked_for_by_its_id(acis: Path) -> None:
    """Another archive under the same name is refused, with both ids."""
    with opened(f"appc:example.com/base@{image_id(BASE)}", acis) as image:
        assert len(contents(image)) == 1

    error = refused(f"appc:example.com/base@{image_id(APP)}", acis)
    assert isinstance(error, DigestMismatch)
    assert image_id(APP) in str(error)
    assert image_id(BASE) in str(error)


def test_a_dependency_is_held_to_its_id_and_size(tmp_path: Path) -> None:
    """What an image's author pinned is what it gets, or nothing; the size may be that of either form."""
    base = write_aci(tmp_path, "example.com/base", BASE)
    pinned = dependency("example.com/base", imageID=image_id(BASE), labels={"version": "latest"})

    def write(**more: Any) -> str:
        manifest = appc_manifest("example.com/app", dependencies=[{**pinned, **more}])
        write_aci(tmp_path, "example.com/app", aci_tar(manifest))
        return "appc:example.com/app"

    for size in (len(BASE), base.stat().st_size):
        with opened(write(size=size), tmp_path) as image:
            assert len(image.layers) == 2
    assert isinstance(refused(write(size=1), tmp_path), SizeMismatch)
    error = refused(write(imageID=image_id(APP)), tmp_path)
    assert isinstance(error, DigestMismatch)
    assert "example.com/base" in str(error)
    assert "a dependency of appc:example.com/app" in str(error)


@pytest.mark.parametrize(
    ("name", "labels", "source", "reason"),
    [
        ("example.com/other", {}, "appc:example.com/app", "calls itself example.com/other"),
        ("example.com/app", {"os": "linux", "arch": "aarch64"}, "appc:example.com/app", "arch is aarch64"),
        ("example.com/app", {"os": "freebsd"}, "appc:example.com/app", "os is freebsd"),
        ("example.com/app", {"version": "2"}, "appc:example.com/app,version=latest", "version is 2"),
        ("example.com/app", {}, "appc:example.com/app,channel=beta", "channel is missing"),
        ("example.com/app", {}, "appc:example.com/app,os=linux", "os is missing"),
    ],
)
def test_an_archive_that_is_not_what_was_asked_for_is_refused(
    tmp_path: Path, name: str, labels: dict[str, str], source: str, reason: str
) -> None:
    """By name, by a label that was asked for, by the platform that stands for os and arch."""
    write_aci(tmp_path, "example.com/app", aci_tar(appc_manifest(name, labels)))

    error = refused(source, tmp_path)

    assert isinstance(error, ImageNotFound)
    assert reason in str(error)


@pytest.mark.parametrize("labels", [{}, {"os": "linux"}, {"version": "9", "channel": "beta"}])
def test_labels_nobody_asked_for_do_not_matter(tmp_path: Path, labels: dict[str, str]) -> None:
    """An image without os and arch is for all of them."""
    write_aci(tmp_path, "example.com/app", aci_tar(appc_manifest("example.com/app", labels)))

    with opened("appc:example.com/app", tmp_path) as image:
        assert len(image.layers) == 1


def test_labels_say_where_to_look(tmp_path: Path) -> None:
    """Version, os and arch are part of the archive's name, by default the node's own."""
    labels = {"version": "1.2.3", "os": "linux", "arch": "aarch64"}
    path = tmp_path / "example.com" / "app-1.2.3-linux-aarch64.aci"
    path.parent.mkdir()
    path.write_bytes(aci_tar(appc_manifest("example.com/app", labels)))

    with opened("appc:example.com/app,version=1.2.3", tmp_path, platform=Platform("linux", "arm64")) as image:
        assert image.image_config.platform == Platform("linux", "arm64")
    assert isinstance(refused("appc:example.com/app,version=1.2.3,arch=aarch64", tmp_path), PlatformNotFound)
    assert isinstance(refused("appc:example.com/app,version=1.2.4", tmp_path), ImageNotFound)


@pytest.mark.parametrize("value", ["../../secret", "a/b", "..\\x"])
def test_a_label_cannot_lead_out_of_the_directory(tmp_path: Path, value: str) -> None:
    """Its value is a stranger's word."""
    (tmp_path / "acis").mkdir()
    error = refused(f"appc:example.com/app,version={value}", tmp_path / "acis")

    assert isinstance(error, ImageNotFound)
    assert "cannot be part of a file's name" in str(error)


def test_a_circle_is_named(tmp_path: Path) -> None:
    """Also when it goes through an image that is named in two ways."""
    latest = dependency("example.com/a", labels={"version": "latest"})
    labels = {"version": "latest"}
    write_aci(
        tmp_path,
        "example.com/a",
        aci_tar(appc_manifest("example.com/a", labels, dependencies=[dependency("example.com/b")])),
    )
    write_aci(tmp_path, "example.com/b", aci_tar(appc_manifest("example.com/b", dependencies=[latest])))

    error = refused("appc:example.com/a", tmp_path)

    assert isinstance(error, InvalidImage)
    assert "example.com/a -> example.com/b -> example.com/a,version=latest" in str(error)


def test_a_missing_dependency_is_named_with_who_needs_it(acis: Path) -> None:
    """The image that was asked for is there."""
    (acis / "example.com" / "base-latest-linux-amd64.aci").unlink()

    error = refused("appc:example.com/app", acis)

    assert isinstance(error, ImageNotFound)
    assert "appc:example.com/base (a dependency of appc:example.com/app)" in str(error)


@pytest.mark.parametrize(
    ("tar", "reason"),
    [
        (b"", "it has no"),
        (b"no tar at all" * 100, "no octal number"),
        (BASE[:700], "cut off"),
        (tar_bytes([File("manifest", b"{}")]), "no rootfs"),
        (tar_bytes([Dir("rootfs")]), "no manifest"),
        (aci_tar(b"{"), "not strict JSON"),
        (aci_tar(b'{"acKind": "PodManifest"}'), "acKind is 'PodManifest', expected ImageManifest"),
        (aci_tar(appc_manifest("Example")), "name is 'Example'"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("extra")]), "extra"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("rootfsx/a")]), "rootfsx/a"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("rootfs/../../etc/passwd")]), "climbs"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("/rootfs/etc/passwd")]), "absolute"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), Hardlink("rootfs/m", "manifest")]), "rootfs/m"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), Hardlink("rootfs/m", "/etc/passwd")]), "absolute"),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("rootfs/a/.wh.b")]), ".wh."),
        (tar_bytes([File("manifest", b"{}"), Dir("rootfs"), File("manifest", b"{}")]), "two manifests"),
        (tar_bytes([Symlink("manifest", "rootfs/m"), Dir("rootfs")]), "not a regular file"),
        (tar_bytes([File("manifest", b"{}"), Symlink("rootfs", "/")]), "symbolic link stands in the place"),
        (tar_bytes([File("manifest", b"x" * 5000), Dir("rootfs")]), "bytes of a manifest of 4096"),
        (aci_tar(appc_manifest("example.com/base"), File("big", b"x" * 70_000)), "bytes of 65536"),
    ],
)
def test_a_hostile_or_damaged_archive_is_refused_by_name(tmp_path: Path, tar: bytes, reason: str) -> None:
    """With its reason; nothing stays behind in the spool directory."""
    write_aci(tmp_path, "example.com/base", tar, compression="none")

    error = refused("appc:example.com/base", tmp_path, max_manifest_bytes=4096, max_layer_bytes=65536)

    assert isinstance(error, InvalidImage)
    assert reason in str(error)
    assert "appc:example.com/base" in str(error)


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz"])
def test_a_compressed_archive_that_is_cut_off_is_refused(tmp_path: Path, compression: str) -> None:
    """Or that is damaged in the middle."""
    path = write_aci(tmp_path, "example.com/base", BASE, compression=compression)
    content = path.read_bytes()

    for damaged in (content[:-20], content[:30] + b"\xff" * 30 + content[60:]):
        path.write_bytes(damaged)
        assert isinstance(refused("appc:example.com/base", tmp_path), InvalidImage)


def test_a_bomb_is_cut_short(tmp_path: Path) -> None:
    """What it inflates to is counted, not held."""
    tar = aci_tar(appc_manifest("example.com/base"), File("zeros", bytes(20_000_000)))
    for compression in ("gzip", "bzip2", "xz"):
        path = write_aci(tmp_path, "example.com/base", tar, compression=compression)

        assert path.stat().st_size < 100_000
        assert "exceeds" in str(refused("appc:example.com/base", tmp_path, max_layer_bytes=1_000_000))


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A directory in the archive's place."""
    (tmp_path / "example.com" / "base-latest-linux-amd64.aci").mkdir(parents=True)

    assert "not a regular file" in str(refused("appc:example.com/base", tmp_path))


def test_a_whitelist_leaves_what_it_lists(tmp_path: Path) -> None:
    """Of all layers: listed files, the directories that lead to them, and a listed directory without its content."""
    base = [Dir("etc"), File("etc/keep", b"k"), File("etc/drop", b"d"), Dir("var"), Dir("var/lib"), File("var/lib/x")]
    write_aci(tmp_path, "example.com/base", aci_tar(appc_manifest("example.com/base"), *base))
    manifest = appc_manifest(
        "example.com/app",
        dependencies=[dependency("example.com/base")],
        pathWhitelist=["/etc/keep", "/var/lib/", "/bin/app"],
    )
    write_aci(tmp_path, "example.com/app", aci_tar(manifest, File("bin/app", b"app"), File("bin/other", b"other")))

    with opened("appc:example.com/app", tmp_path) as image:
        lower, upper = contents(image)

    assert [name in lower for name in (b"etc/keep", b"etc/drop", b"var/lib", b"var/lib/x")] == [
        True,
        False,
        True,
        False,
    ]
    assert [name in upper for name in (b"bin/app", b"bin/other")] == [True, False]


def test_a_whitelist_of_a_dependency_is_its_own(tmp_path: Path) -> None:
    """One that would reach into images below it is refused; nothing in common leaves nothing."""
    whitelisted = appc_manifest("example.com/base", pathWhitelist=["/a"])
    write_aci(tmp_path, "example.com/base", aci_tar(whitelisted, File("a", b"A"), File("b", b"B")))
    for paths in ([], ["/b"]):
        manifest = appc_manifest("example.com/app", dependencies=[dependency("example.com/base")], pathWhitelist=paths)
        write_aci(tmp_path, "example.com/app", aci_tar(manifest))
        with opened("appc:example.com/app", tmp_path) as image:
            assert [b"a\0" in contents(image)[0], b"b\0" in contents(image)[0]] == [not paths, False]

    deep = appc_manifest("example.com/mid", pathWhitelist=["/a"], dependencies=[dependency("example.com/base")])
    write_aci(tmp_path, "example.com/mid", aci_tar(deep))
    manifest = appc_manifest("example.com/app", dependencies=[dependency("example.com/mid")])
    write_aci(tmp_path, "example.com/app", aci_tar(manifest))
    assert "example.com/mid has a pathWhitelist and dependencies" in str(refused("appc:example.com/app", tmp_path))


def test_a_listed_hard_link_to_an_unlisted_file_is_refused(tmp_path: Path) -> None:
    """Its content would be gone."""
    manifest = appc_manifest("example.com/app", pathWhitelist=["/b"])
    write_aci(tmp_path, "example.com/app", aci_tar(manifest, File("a"), Hardlink("b", "a")))

    assert "hard link to a file that is not" in str(refused("appc:example.com/app", tmp_path))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, ImageNotFound),
        (410, ImageNotFound),
        (401, AccessDenied),
        (403, AccessDenied),
        (500, RegistryUnavailable),
        (429, RegistryUnavailable),
        (418, RegistryUnusable),
    ],
)
def test_a_servers_refusals_have_their_errors(acis: Path, status: int, expected: type[ProvisionerError]) -> None:
    """What a retry can help against is transient and carries the server's Retry-After."""
    with aci_server(acis) as server:
        server.answers["/example.com/base-latest-linux-amd64.aci"] = [(status, {"Retry-After": "7"})]
        error = refused("appc:example.com/base", f"http://{server.host}/", spool_dir=acis / ".spool")

    assert type(error) is expected
    assert getattr(error, "retry_after_seconds", None) == (7 if expected is RegistryUnavailable else None)


def test_a_broken_transfer_is_tried_again(acis: Path) -> None:
    """From the beginning; the half that came leaves nothing."""
    with aci_server(acis) as server:
        path = "/example.com/base-latest-linux-amd64.aci"
        server.answers[path] = [(503, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
        with opened("appc:example.com/base", f"http://{server.host}/", spool_dir=acis / ".spool", attempts=3) as image:
            assert len(contents(image)) == 1
        server.answers[path] = [(0, {})]
        error = refused("appc:example.com/base", f"http://{server.host}/", spool_dir=acis / ".spool")

    assert isinstance(error, RegistryUnavailable)


def test_plain_http_is_for_loopback_and_named_hosts(acis: Path) -> None:
    """Else the address is refused before anything is asked."""
    error = refused("appc:example.com/base", "http://", spool_dir=acis / ".spool")
    assert isinstance(error, RegistryUnusable)
    assert "plain HTTP" in str(error)

    assert "no host" in str(refused("appc:base", "https://", spool_dir=acis / ".spool"))


def test_a_server_may_send_us_elsewhere_with_what_anybody_may_have(acis: Path) -> None:
    """Redirects are followed; a credential is sent nowhere, since the store gives the image to anybody."""
    with aci_server(acis) as server, aci_server(acis) as other:
        path = "/example.com/base-latest-linux-amd64.aci"
        server.answers[path] = [(302, {"Location": f"http://{other.host}{path}"})]
        credential = Credential("user", "secret")
        with opened(
            "appc:example.com/base", f"http://{server.host}/", spool_dir=acis / ".spool", credential=credential
        ) as image:
            assert len(image.layers) == 1

    assert server.asked == other.asked == [(path, None)]


def test_a_worker_killed_anywhere_leaves_nothing_in_the_way(acis: Path, tmp_path: Path) -> None:
    """Nothing in the spool directory; whoever comes next gets the same image."""
    directories = {name: tmp_path / name for name in ("spool", "known")}

    def pull() -> Digest:
        settings = Settings(appc_discovery_prefix=str(acis))
        puller = AppcPuller(settings, spool_dir=directories["spool"], known_dir=directories["known"])
        with puller.open(ImageSource.parse("appc:example.com/app"), platform=AMD64, credential=None) as image:
            contents(image)
            return image.digest

    time.sleep(0.15)  # Archives younger than a tick are not remembered.
    lines, digest = count_lines(pull), pull()
    for number in range(30):
        shutil.rmtree(directories["known"], ignore_errors=True)
        assert run_killed(pull, at_line=1 + lines * number // 31)
        assert list(directories["spool"].iterdir() if directories["spool"].exists() else ()) == []
        if number % 5 == 0:
            assert pull() == digest


def test_the_configuration_is_json_like_any_other(acis: Path) -> None:
    """Whoever reads the store with other tools sees an image configuration."""
    with opened("appc:example.com/app", acis) as image:
        assert json.loads(image.config)["rootfs"]["type"] == "layers"
        assert json.loads(image.manifest)["config"]["mediaType"].startswith("application/vnd.rootfs-provisioner.appc.")
