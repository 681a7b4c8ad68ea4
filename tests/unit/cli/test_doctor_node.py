# SPDX-License-Identifier: Apache-2.0
"""Verdicts on backends, formats, directories and secrets."""

import subprocess
from pathlib import Path

import pytest

from worker.cli.doctor_node import (
    check_backends,
    check_directory,
    check_erofs,
    check_propagation,
    check_secrets,
    check_sources,
)
from worker.linux.mount import BindMount, mount_bind, unmount_tree
from worker.settings import Settings

REASONS = {"overlay": "no kernel", "aufs": "no kernel", "copy": None, "bind": None}


@pytest.mark.parametrize(("configured", "is_wrong"), [(None, False), ("copy", False), ("overlay", True), ("x", True)])
def test_only_what_a_worker_would_use_must_work(configured: str | None, *, is_wrong: bool) -> None:
    """The reasons of the others are notes."""
    findings = list(check_backends(REASONS, configured=configured))

    assert {finding.subject: finding.verdict for finding in findings[:4]} == {
        "backend overlay": "note",
        "backend aufs": "note",
        "backend copy": "good",
        "backend bind": "good",
    }
    assert [finding.subject for finding in findings[4:]] == (["backends"] if is_wrong else [])


def test_erofs_is_wrong_only_if_it_was_asked_for() -> None:
    """Else layers are unpacked, which is slower and well."""
    assert check_erofs(None, configured="erofs").verdict == "good"
    assert check_erofs("kernel 5.4", configured=None).verdict == "note"
    assert check_erofs("kernel 5.4", configured="erofs").verdict == "wrong"


@pytest.mark.root
def test_a_work_directory_that_other_namespaces_do_not_see_is_noted(tmp_path: Path) -> None:
    """A worker in a container whose volume does not propagate: rootfses would be seen by nobody else."""
    below = tmp_path / "work"
    below.mkdir()
    mount_bind(BindMount(source=tmp_path, target=tmp_path))
    subprocess.run(["mount", "--make-private", tmp_path], check=True)
    private = check_propagation(below)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    shared = check_propagation(below)
    unmount_tree(tmp_path)

    assert (private.verdict, shared.verdict) == ("note", "good")
    assert f"mount --make-rshared {tmp_path}" in private.detail


def test_a_directory_that_others_may_enter_is_wrong(tmp_path: Path) -> None:
    """Images hold setuid files."""
    tmp_path.chmod(0o711)
    open_findings = {finding.subject: finding.verdict for finding in check_directory("store", tmp_path)}
    tmp_path.chmod(0o700)
    closed = {finding.subject for finding in check_directory("store", tmp_path)}

    assert open_findings["store, mode"] == "wrong"
    assert "store, mode" not in closed
    assert {"store", "store, space"} <= closed


def test_what_would_keep_a_worker_from_starting_is_wrong(tmp_path: Path) -> None:
    """Each by its variable."""
    good = {"store_dir": tmp_path, "work_dir": tmp_path}

    assert check_sources(Settings(**good)).verdict == "good"
    assert "/a alone" in check_sources(Settings(**good, archives="/a")).detail
    for variable, value in {
        "secrets_resolvers": ("vault",),
        "secrets_redis_url": None,
        "archives": "relative",
        "registry_mirrors": ("docker.io",),
        "https_proxy": "nowhere",
    }.items():
        more = {"secrets_resolvers": ("redis",)} if variable == "secrets_redis_url" else {}
        finding = check_sources(Settings(**good | more | {variable: value}))
        assert finding.verdict == "wrong"
        assert f"PROVISIONER_{variable.upper()}" in finding.detail


def test_secrets_are_counted_not_read(tmp_path: Path) -> None:
    """Unless anybody could."""
    (tmp_path / "hub").write_text("hunter2")
    tmp_path.chmod(0o700)
    finding = check_secrets(tmp_path)
    tmp_path.chmod(0o755)

    assert (finding.verdict, finding.detail) == ("good", f"1 in {tmp_path}")
    assert check_secrets(tmp_path).verdict == "wrong"
    assert check_secrets(tmp_path / "gone").verdict == "wrong"
    assert check_secrets(None).verdict == "good"
