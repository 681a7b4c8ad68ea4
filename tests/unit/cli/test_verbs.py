# SPDX-License-Identifier: Apache-2.0
"""The six tasks as commands: what is refused here, and what is sent."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.cli.conftest import Run, Shell, show_node, take_task
from worker.cli.cluster import Cluster

# Celery 5.7 stores results with a command that redis-py 8.1 would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

INFO = {
    "container_id": "web-1",
    "name": "rootfs",
    "node": "n1",
    "image": "docker.io/library/alpine:3",
    "digest": "sha256:" + "a" * 64,
    "backend": "overlay",
    "layer_format": "directory",
    "layers": ["sha256:" + "b" * 64],
    "rootfs": "/work/rootfs",
    "ephemeral_volumes": [],
    "docker_manifest": {"config": {}},
    "appc_manifest": None,
    "bundle": None,
}


@pytest.fixture
def served(cluster: Cluster, run: Run) -> Callable[..., tuple[Shell, dict[str, Any]]]:
    """Run a command while one task is answered; return what it printed and the task's keywords."""

    def served(answer: object, *arguments: str) -> tuple[Shell, dict[str, Any]]:
        show_node(cluster.nodes, "n1")
        taken: dict[str, Any] = {}

        def work() -> None:
            task = take_task(cluster.client)
            taken.update(task.keywords)
            cluster.app.backend.store_result(task.task_id, answer, "SUCCESS")

        thread = threading.Thread(target=work)
        thread.start()
        shell = run(*arguments)
        thread.join(timeout=30)
        return shell, taken

    return served


Served = Callable[..., tuple[Shell, dict[str, Any]]]


@pytest.mark.redis
def test_provision_sends_what_was_given_and_prints_the_answer(served: Served) -> None:
    """Options left out are left to the worker."""
    arguments = ("provision", "web-1", "alpine:3", "--node", "n1", "--no-cache", "--read-only", "--bundle", "--json")

    shell, keywords = served(INFO, *arguments)

    assert (shell.code, shell.document) == (0, INFO)
    assert keywords == {
        "container_id": "web-1",
        "image": "alpine:3",
        "name": "rootfs",
        "node": "n1",
        "cached": False,
        "read_only": True,
        "bundle": True,
    }


@pytest.mark.redis
def test_people_see_the_rootfs_and_no_configuration(served: Served) -> None:
    """What they need is where it is."""
    shell, _ = served(INFO, "provision", "web-1", "alpine:3")

    assert shell.code == 0
    assert "/work/rootfs" in shell.out
    assert "docker_manifest" not in shell.out


@pytest.mark.redis
@pytest.mark.parametrize(("answer", "text"), [(True, "web-1 is destroyed"), (False, "there is no container web-1")])
def test_destroy_says_whether_there_was_anything(served: Served, *, answer: bool, text: str) -> None:
    """Both are success: afterwards it is not there."""
    shell, keywords = served(answer, "destroy", "web-1")

    assert (shell.code, keywords) == (0, {"container_id": "web-1"})
    assert text in shell.out


@pytest.mark.redis
def test_prune_names_what_to_keep(served: Served) -> None:
    """Several images may be excluded."""
    store = {"store": "1" * 32, "node": "n1", "images": ["i"], "layers": ["l", "m"], "bytes_freed": 1500}
    arguments = ("prune", "--exclude", "alpine:3", "--exclude", "sha256:" + "c" * 64, "--dry-run")

    shell, keywords = served({"stores": [{**store, "exclusive_ms": 0.5}]}, *arguments)

    assert keywords == {"excluded_images": ["alpine:3", "sha256:" + "c" * 64], "dry_run": True}
    assert "would be freed" in shell.out
    assert "1.5 kB" in shell.out


@pytest.mark.redis
def test_recover_destroys_nothing_unless_somebody_says_what_is_known(served: Served) -> None:
    """Left out is not the same as an empty list."""
    answer = {"nodes": [{"node": "n1", "kept": ["web-1"], "remounted": [], "destroyed": ["old"], "cleaned": 2}]}

    shell, keywords = served(answer, "recover")
    assert keywords == {}
    assert "web-1" in shell.out

    _, keywords = served(answer, "recover", "--known", "web-1", "--known", "web-2")
    assert keywords == {"known_container_ids": ["web-1", "web-2"]}


@pytest.mark.redis
def test_pull_prints_what_was_fetched(served: Served) -> None:
    """Zero bytes mean that all was there."""
    answer = {"image": "docker.io/library/alpine:3", "digest": "sha256:" + "a" * 64, "layers": ["x"]}

    shell, keywords = served({**answer, "bytes_fetched": 2_000_000}, "pull", "alpine:3", "--platform", "linux/arm64")

    assert keywords == {"image": "alpine:3", "platform": "linux/arm64", "cached": True}
    assert "2.0 MB" in shell.out


@pytest.mark.redis
def test_verify_ends_with_1_while_something_is_wrong(served: Served) -> None:
    """A cron job notices; what was repaired is no longer wrong."""
    problem = {"kind": "layer-digest-wrong", "subject": "erofs/sha256:" + "a" * 64, "detail": "it has another digest"}
    counts = {"store": "1" * 32, "node": "n1", "checked_layers": 3, "checked_bytes": 1500}

    shell, keywords = served({"stores": [{**counts, "problems": [problem], "repaired": []}]}, "verify", "alpine:3")
    assert (shell.code, keywords) == (1, {"image": "alpine:3", "repair": False})
    for text in ("layer-digest-wrong", "it has another digest", "3 layers, 1.5 kB read; 1 problem, 0 repaired"):
        assert text in shell.out

    answer = {"stores": [{**counts, "problems": [], "repaired": [problem]}]}
    shell, keywords = served(answer, "verify", "--repair", "--node", "n1", "--json")
    assert (shell.code, shell.document, keywords) == (0, answer, {"node": "n1", "repair": True})


@pytest.mark.redis
def test_a_command_without_an_answer_ends_in_time(run: Run, cluster: Cluster) -> None:
    """The node seems alive and does not answer: 3, and a hint."""
    show_node(cluster.nodes, "n1")

    shell = run("destroy", "web-1", "--timeout", "0.1")

    assert (shell.code, shell.out) == (3, "")
    assert "gave no answer within 0.1 s" in shell.err
    assert "hint: --timeout waits longer" in shell.err


@pytest.mark.redis
def test_without_a_node_nothing_is_sent_and_the_hint_says_how_to_start_one(run: Run, cluster: Cluster) -> None:
    """The queue stays empty: the task would run when nobody expects it."""
    shell = run("provision", "web-1", "alpine:3")

    assert shell.code == 3
    assert "has no live worker" in shell.err
    assert "provisioner up" in shell.err
    assert cluster.client.llen("provision") == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("provision", "a b", "alpine"), "invalid container_id 'a b'"),
        (("provision", "web-1", "Alpine"), "invalid image 'Alpine'"),
        (("provision", "web-1", "alpine", "--platform", "x"), "platform"),
        (("provision", "web-1", "alpine", "--name", "a/b"), "invalid name"),
        (("destroy", ".."), "invalid container_id '..'"),
        (("prune", "--exclude", "Alpine"), "invalid image 'Alpine'"),
        (("prune", "--exclude", "sha256:12"), "sha256:12"),
        (("recover", "--known", "a b"), "invalid container_id 'a b'"),
        (("pull", ""), "image"),
        (("verify", "Alpine"), "invalid image 'Alpine'"),
        (("verify", "sha256:12"), "sha256:12"),
        (("provision", "web-1"), "Missing argument 'IMAGE'"),
        (("provision", "web-1", "alpine", "--colour"), "No such option"),
    ],
)
def test_a_malformed_word_is_refused_before_anything_is_sent(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], reason: str
) -> None:
    """No Redis is needed to see that it is wrong."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", "redis://127.0.0.1:1/0")

    shell = run(*arguments)

    assert (shell.code, shell.out) == (2, "")
    assert reason in shell.err
    assert "Traceback" not in shell.err


def test_a_setting_that_is_wrong_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line was right: the variable was not."""
    monkeypatch.setenv("PROVISIONER_LEASE_SECONDS", "soon")

    shell = run("destroy", "web-1")

    assert shell.code == 2
    assert "PROVISIONER_LEASE_SECONDS" in shell.err


def test_a_redis_that_is_not_there_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it was looked for is in the sentence, what to do in the hint."""
    monkeypatch.setenv("PROVISIONER_REDIS_URL", "redis://:secret@127.0.0.1:1/0")

    shell = run("destroy", "web-1", "--json")

    assert (shell.code, shell.out) == (3, "")
    assert "127.0.0.1:1" in shell.err
    assert "hint: PROVISIONER_REDIS_URL" in shell.err
    assert "secret" not in shell.err
    assert json.dumps(shell.err).count("\\n") == 2
