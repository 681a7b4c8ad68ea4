# SPDX-License-Identifier: Apache-2.0
"""What an image says of itself as annotations of a runtime configuration.

Labels go first: an author's explicit `org.opencontainers.image.os` is kept against the configuration's own. But some
annotations are orders to the runtime: crun opens files that `run.oci.hooks.stdout` names, systemd units take
`org.systemd.property.*`, others choose a virtual machine or a restart policy (CVE-2026-53488). An image gives no
orders; these are left out and returned apart, so that somebody can say so.

Source: image-spec v1.1.1, conversion.md, "Annotation Fields", "Annotations"; crun(1), "EXTENSIONS TO OCI".
"""

from worker.bundle.execution import Execution

_PREFIX = "org.opencontainers.image."
_ORDERS = (
    "cdi.k8s.io/",
    "com.github.containers.",
    "containerd.io/",
    "dev.gvisor.",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.",
    "io.podman.",
    "krun.",
    "module.wasm.",
    "org.criu.",
    "org.systemd.property.",
    "run.oci.",
)


def annotations_of(execution: Execution) -> dict[str, str]:
    """Return the annotations, sorted by name."""
    facts = {f"{_PREFIX}{name}": value for name, value in execution.facts.items()}
    if execution.stop_signal:
        facts[f"{_PREFIX}stopSignal"] = execution.stop_signal
    if execution.ports:
        facts[f"{_PREFIX}exposedPorts"] = ",".join(execution.ports)
    labels = {name: value for name, value in execution.labels.items() if not _is_order(name)}
    return dict(sorted({**facts, **labels}.items()))


def omitted_labels(execution: Execution) -> tuple[str, ...]:
    """Return the names of the labels that are left out."""
    return tuple(sorted(name for name in execution.labels if _is_order(name)))


def _is_order(name: str) -> bool:
    return name.startswith(_ORDERS)
