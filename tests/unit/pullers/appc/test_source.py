# SPDX-License-Identifier: Apache-2.0
"""Where archives are looked for, and where they are not."""

from pathlib import Path

import pytest

from worker.errors import ImageNotFound, RegistryUnusable
from worker.oci.appc import AppcReference
from worker.pullers.appc.source import AciRequest, DirectorySource, WebSource, archive_path, make_source
from worker.settings import Settings

DEFAULTS = {"os": "linux", "arch": "amd64"}


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("example.com/app", "example.com/app-latest-linux-amd64.aci"),
        ("example.com/app,version=1.0.0", "example.com/app-1.0.0-linux-amd64.aci"),
        ("example.com/app,arch=aarch64,os=freebsd,channel=x", "example.com/app-latest-freebsd-aarch64.aci"),
    ],
)
def test_simple_discovery_names_an_archive_by_its_labels(reference: str, path: str) -> None:
    """Version, os and arch, in this order; other labels are no part of it."""
    assert archive_path(AppcReference.parse(reference), defaults=DEFAULTS, image="i") == path


@pytest.mark.parametrize("value", ["..", "1..2", ".hidden", "a b"])
def test_a_value_that_stays_in_its_place_is_taken(value: str) -> None:
    """It is surrounded by hyphens, so dots lead nowhere."""
    reference = AppcReference.of("a", [("version", value)])

    assert archive_path(reference, defaults=DEFAULTS, image="i") == f"a-{value}-linux-amd64.aci"


@pytest.mark.parametrize("value", ["a/b", "/", "../../x", "a\\b", "a\nb", "\0", ""])
def test_a_value_that_would_lead_elsewhere_is_refused(value: str) -> None:
    """A dependency's labels are its author's word."""
    with pytest.raises(ImageNotFound, match="label"):
        archive_path(AppcReference.of("a", [("version", value)]), defaults=DEFAULTS, image="i")


def test_the_prefix_decides_where() -> None:
    """Directories as a path or a file URL, anything else on the web."""
    for prefix in ("/srv/acis", "file:///srv/acis", "file:///srv/a%63is/"):
        source = make_source(Settings(appc_discovery_prefix=prefix))
        assert isinstance(source, DirectorySource)
        assert source._directory == Path("/srv/acis")
    for prefix in ("https://", "https://acis.example.com", "http://127.0.0.1:8080/acis/"):
        assert isinstance(make_source(Settings(appc_discovery_prefix=prefix)), WebSource)


@pytest.mark.parametrize(
    "dependency",
    ["169.254.169.254/latest", "127.0.0.1/app", "localhost/app", "0.0.0.0/app"],
)
def test_a_dependency_cannot_lead_to_this_machine(dependency: str) -> None:
    """Its name is a stranger's word; nothing is asked."""
    source = WebSource("https://", Settings())
    request = AciRequest(
        path=f"{dependency}-1-linux-amd64.aci", image="i", asked_path="example.com/a-1-linux-amd64.aci"
    )

    with pytest.raises(RegistryUnusable, match="an address of this machine or its link"), source.open(request):
        pass


def test_plain_http_is_for_loopback_and_named_hosts() -> None:
    """Else the address is refused before anything is asked."""
    source = WebSource("http://", Settings())
    path = "example.com/a-1-linux-amd64.aci"

    with (
        pytest.raises(RegistryUnusable, match="plain HTTP"),
        source.open(AciRequest(path=path, image="i", asked_path=path)),
    ):
        pass


def test_a_name_without_a_host_is_not_asked_for() -> None:
    """Where the prefix names none either."""
    path = "app-latest-linux-amd64.aci"

    with (
        pytest.raises(ImageNotFound, match="no host"),
        WebSource("https://", Settings()).open(AciRequest(path=path, image="i", asked_path=path)),
    ):
        pass
