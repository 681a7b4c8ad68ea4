# SPDX-License-Identifier: Apache-2.0
"""What every runtime configuration holds and no image says: about what `runc spec` and containerd's default hold.

Left out, because whoever runs the container knows and an image does not:

seccomp: a list of system calls belongs to one kernel and one libseccomp; a stale one breaks programs in odd ways.
    A runtime or scheduler with a profile adds it.
rlimits: they are inherited. Raising one needs CAP_SYS_RESOURCE, which whoever starts the runtime may not have, and
    the 1,024 files of `runc spec` are too few for servers.
cgroupsPath: runtimes name the cgroup after the container.
"""

from typing import Any

SPEC_VERSION = "1.0.2"

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""Podman's set: containerd's without CAP_MKNOD, CAP_NET_RAW and CAP_AUDIT_WRITE, which few programs miss and which
make devices, forge packets, and fill the host's audit log."""

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICE_RULES = ({"allow": False, "access": "rwm"},)
"""Runtimes add /dev/null and its kin. Without it a device node in the image is the host's disk: no mount of a rootfs
carries `nodev`."""


def mount(destination: str, fs_type: str, *options: str, source: str | None = None) -> dict[str, Any]:
    """Return one entry of `mounts`."""
    return {"destination": destination, "type": fs_type, "source": source or fs_type, "options": list(options)}


MOUNTS = (
    mount("/proc", "proc", "nosuid", "noexec", "nodev"),
    mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k", source="shm"),  # noqa: S108 - the container's own
    mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
    mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
)

MOUNT_POINTS = ("/proc", "/dev", "/sys")
"""What is below these is no image's business: a volume there would hide what the container is isolated by."""
