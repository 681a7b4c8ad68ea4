# SPDX-License-Identifier: Apache-2.0
"""Commands that only look."""

from pathlib import Path

import pytest

from tests.support.provisioners import small_image
from tests.unit.cli.conftest import Run, show_node
from worker.cli.cluster import Cluster
from worker.container_id import ContainerId
from worker.container_view import BeginKind
from worker.oci.digest import Digest
from worker.store.store import Store

WEB = ContainerId.parse("web-1")
INFO = '{"rootfs": "/work/rootfs", "layers": ["a"], "docker_manifest": {"config": {}}}'


def provision(cluster: Cluster) -> None:
    """Let a container be shown as provisioned."""
    begun = cluster.containers.begin_provision(WEB, name="rootfs", image="img", node="n1", request="{}")
    assert begun.kind is BeginKind.BEGUN
    assert cluster.containers.finish_provision(WEB, name="rootfs", image="img", generation=begun.generation, info=INFO)


@pytest.mark.redis
def test_ps_lists_what_was_asked_for(run: Run, cluster: Cluster) -> None:
    """All, or those in a state, or those on a node."""
    provision(cluster)

    for options in ((), ("--state", "provisioned"), ("--node", "n1")):
        (container,) = run("ps", *options, "--json").document["containers"]
        assert (container["container_id"], container["images"]) == ("web-1", {"rootfs": "img"})
    for options in (("--state", "destroying"), ("--node", "n2")):
        assert run("ps", *options, "--json").document == {"containers": []}
    assert "web-1" in run("ps").out


@pytest.mark.redis
def test_nodes_lists_those_that_ever_came(run: Run, cluster: Cluster) -> None:
    """With what they said of themselves."""
    show_node(cluster.nodes, "n1")

    (node,) = run("nodes", "--json").document["nodes"]

    assert (node["name"], node["is_live"], node["is_recovered"]) == ("n1", True, False)
    assert node["backends"] == ["overlay", "copy"]


@pytest.mark.redis
def test_lock_shows_each_store_once(run: Run, cluster: Cluster) -> None:
    """Nodes that share a store share its lock."""
    for node, store_id in (("n1", "aaaa"), ("n2", "aaaa"), ("n3", "bbbb")):
        show_node(cluster.nodes, node, store_id=store_id)

    with cluster.lock("bbbb").shared(timeout_seconds=5):
        first, second = run("lock", "--json").document["locks"]

    assert (first["store"], first["holders"]) == ("aaaa", [])
    assert (second["store"], [party["mode"] for party in second["holders"]]) == ("bbbb", ["shared"])


@pytest.mark.redis
def test_a_stuck_holders_lease_can_be_shortened(run: Run, cluster: Cluster) -> None:
    """It is renewed no more, and somebody who holds nothing is an error that names it."""
    show_node(cluster.nodes, "n1", store_id="aaaa")
    with cluster.lock("aaaa").shared(timeout_seconds=5) as lease:
        (shown,) = run("lock", "--json", "--shorten", lease.owner, "--seconds", "1").document["locks"]

        assert [party["owner"] for party in shown["holders"]] == [lease.owner]
        assert 0 < shown["holders"][0]["remaining_seconds"] <= 30
    refused = run("lock", "--shorten", "nobody")
    assert (refused.code, "nobody" in refused.err) == (1, True)


@pytest.mark.redis
def test_lock_without_nodes_says_so(run: Run, cluster: Cluster) -> None:
    """There is no store to speak of."""
    assert run("lock").out == "no node was ever seen\n"


@pytest.mark.redis
def test_inspect_shows_a_container_with_its_answers(run: Run, cluster: Cluster) -> None:
    """The ProvisionInfo as the task gave it."""
    provision(cluster)

    document = run("inspect", "web-1", "--json").document

    assert (document["kind"], document["state"]) == ("container", "provisioned")
    assert document["infos"]["rootfs"]["rootfs"] == "/work/rootfs"
    assert "/work/rootfs" in run("inspect", "web-1").out


@pytest.mark.redis
def test_inspect_of_nothing_names_both_places(
    run: Run,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no container, and no image."""
    monkeypatch.setenv("PROVISIONER_STORE_DIR", str(tmp_path))
    Store.open(tmp_path)

    shell = run("inspect", "nothing")

    assert shell.code == 1
    assert shell.err == f"error: there is no container nothing, and no such image in {tmp_path}\n"


@pytest.mark.redis
def test_inspect_knows_an_image_by_the_name_its_node_completed(
    run: Run, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal on the node has the node's settings."""
    monkeypatch.setenv("PROVISIONER_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("PROVISIONER_DEFAULT_REGISTRY", "r.example:5000")
    image, images = small_image(), Store.open(tmp_path).images
    digest = Digest.parse(image.manifest.digest)
    images.put(digest, manifest=image.manifest.content, config=image.config.content)
    images.remember("r.example:5000/app:1", platform="linux/amd64", digest=digest, opener=None)

    document = run("inspect", "app:1", "--json").document

    assert (document["kind"], document["digest"]) == ("image", image.manifest.digest)


def test_images_reads_the_store_without_redis(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is this machine's disk that is asked."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PROVISIONER_STORE_DIR", str(tmp_path))
    identity = Store.open(tmp_path).identity

    shell = run("images", "--json")

    assert shell.document == {
        "store_id": identity,
        "store_dir": str(tmp_path),
        "images": [],
        "layers": 0,
        "disk_bytes": 0,
    }


def test_images_without_a_store_is_a_wrong_setting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv("PROVISIONER_STORE_DIR", str(tmp_path / "nothing"))

    shell = run("images")

    assert (shell.code, shell.out) == (2, "")
    assert "PROVISIONER_STORE_DIR" in shell.err
