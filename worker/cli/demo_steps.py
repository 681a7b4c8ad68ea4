# SPDX-License-Identifier: Apache-2.0
"""The steps of the demonstration, in order: what a scheduler does, and what is to be seen of it."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from worker.cli.answers import ask
from worker.cli.cluster import Cluster
from worker.cli.demo_cluster import DemoCluster
from worker.cli.demo_display import Display
from worker.cli.demo_enter import Output, image_command, run_anything, run_python
from worker.cli.exits import Failure
from worker.cli.progress import shown_progress
from worker.cli.stored import read_store
from worker.cli.tables import containers_table, facts, images_table, provisioned_table, stores_pruned_table
from worker.demo_image import pack_python_image
from worker.linux.mountinfo import mounts_at_or_below

CONTAINER = "demo"


@dataclass(slots=True, kw_only=True)
class Demo:
    """One demonstration under way.

    Attributes:
        own: The processes and the directory it started.
        display: Where it shows itself.
        image: What to provision; None for the packed Python.
        timeout_seconds: Of each task.
        findings: What it brought, for `--json`.
    """

    own: DemoCluster
    display: Display
    image: str | None
    timeout_seconds: float
    findings: dict[str, Any] = field(default_factory=dict)

    def ask(self, task: str, **keywords: Any) -> Any:
        """Send a task by its name and wait for the answer, showing how far it is."""
        with shown_progress(self.display.console, f"    {task}") as show:
            app = self.own.cluster.app
            return ask(app, task, keywords, timeout_seconds=self.timeout_seconds, on_status=show)


def run_steps(demo: Demo) -> None:
    """Run all steps. Raises what makes one fail."""
    start(demo)
    image = demo.image or pack(demo)
    info = provision(demo, image)
    enter(demo, info)
    show_state(demo)
    provision_again(demo, image, info)
    destroy(demo)
    prune(demo)
    check_empty(demo)


def start(demo: Demo) -> None:
    """Start Valkey and a worker."""
    with demo.display.step("start an embedded Valkey, persistence on, in a directory of its own"):
        demo.own.start_server()
        demo.display.say(str(demo.own.directory))
    with demo.display.step("start a Celery worker for one node"), demo.display.console.status("starting"):
        demo.own.start_worker()
        view = demo.own.cluster.nodes.all()[0].view
        demo.display.say(f"node {view.name}: backend {view.backend} of {', '.join(view.backends)}")
    if os.geteuid() != 0:
        demo.display.warn(
            f"Not root: the {view.backend} backend is used and ownership is squashed. Every file belongs to you, and "
            "device nodes and setuid bits of the image are given up. As root nothing is."
        )


def pack(demo: Demo) -> str:
    """Pack the running Python installation."""
    with demo.display.step("pack the running Python installation as an OCI image"):
        with demo.display.counting("files") as count:
            packed = 0

            def on_progress(done: int, total: int) -> None:
                nonlocal packed
                packed = total
                count(done, total)

            image = pack_python_image(demo.own.directory / "image", on_progress=on_progress)
        demo.display.say(f"{image}: {packed} files, one of them replaced and one whited out between layers")
    return image


def provision(demo: Demo, image: str) -> Mapping[str, Any]:
    """Enqueue the provision as a scheduler would."""
    with demo.display.step(f"send_task('provisioner.provision', container_id={CONTAINER!r}, image={image!r})"):
        info: Mapping[str, Any] = demo.ask("provision", container_id=CONTAINER, image=image)
        demo.display.show(provisioned_table(info))
        demo.findings["provision"] = info
    return info


def enter(demo: Demo, info: Mapping[str, Any]) -> None:
    """Run a command inside the rootfs."""
    with demo.display.step("run a command inside the rootfs"):
        output = _run_inside(demo, info)
        demo.display.show_output(output.command, output.text)
        demo.findings["output"] = output.text


def _run_inside(demo: Demo, info: Mapping[str, Any]) -> Output:
    if demo.image is None:
        return run_python(info)
    if command := image_command(info):
        demo.display.say(f"the image's own command: {' '.join(command)}")
    return run_anything(info)


def show_state(demo: Demo) -> None:
    """Show the container and the store as `ps`, `inspect` and `images` do."""
    with demo.display.step("look at the state: provisioner ps, provisioner images, mountinfo"):
        cluster = demo.own.cluster
        demo.display.show(containers_table(list(cluster.containers.list())))
        demo.display.show(images_table(read_store(cluster.settings.store_dir)))
        mounts = mounts_at_or_below(demo.own.directory)
        demo.display.show(
            facts({f"mount {mount.fs_type}": mount.path for mount in mounts} or {"mounts": "none needed"})
        )


def provision_again(demo: Demo, image: str, info: Mapping[str, Any]) -> None:
    """Ask for the same once more: the same answer, and no second rootfs."""
    with demo.display.step("provision the same again"):
        started = time.monotonic()
        again = demo.ask("provision", container_id=CONTAINER, image=image)
        if again != info:
            raise Failure(f"the same request got another answer: {again}")
        demo.display.say(f"the same rootfs, answered in {(time.monotonic() - started) * 1000:.0f} ms")


def destroy(demo: Demo) -> None:
    """Take the container down, and once more to see that twice is no error."""
    with demo.display.step(f"send_task('provisioner.destroy', container_id={CONTAINER!r}), twice"):
        answers = [demo.ask("destroy", container_id=CONTAINER) for _ in range(2)]
        if answers != [True, False]:
            raise Failure(f"destroying twice answered {answers}, not true and then false")
        demo.display.say("true, and then false: there is no such container any more")


def prune(demo: Demo) -> None:
    """Free the image, which nothing uses any more."""
    with demo.display.step("send_task('provisioner.prune')"):
        answer = demo.ask("prune")
        demo.display.show(stores_pruned_table(answer["stores"], is_dry_run=False))
        demo.findings["prune"] = answer


def check_empty(demo: Demo) -> None:
    """Look for leftovers, in Redis, on disk and in the kernel."""
    with demo.display.step("look for anything left: ps, images, mountinfo, Redis, directories"):
        left = leftovers(demo.own)
        demo.findings["left"] = left
        demo.display.show(facts({name: str(count) for name, count in left.items()}))
        if any(left.values()):
            raise Failure(f"something is left: {left}")


def leftovers(own: DemoCluster) -> dict[str, int]:
    """Count what destroy and prune must not leave."""
    cluster = own.cluster
    store = read_store(own.settings.store_dir)
    return {
        "containers": len(list(cluster.containers.list())),
        "images": len(store.images),
        "layers": store.layers,
        "mounts": len(mounts_at_or_below(own.directory)),
        "container keys in Redis": _container_keys(cluster),
        "container directories": _entries(own, "work/containers") + _entries(own, "work/trash"),
        "staging and trash": _entries(own, "store/staging") + _entries(own, "store/trash"),
    }


def _container_keys(cluster: Cluster) -> int:
    prefix = cluster.settings.key_prefix
    return sum(1 for kind in ("container", "infos") for _ in cluster.client.scan_iter(match=f"{prefix}:{kind}*"))


def _entries(own: DemoCluster, directory: str) -> int:
    with suppress(FileNotFoundError):
        return sum(1 for _ in (own.directory / directory).iterdir())
    return 0
