# SPDX-License-Identifier: Apache-2.0
"""Mirrors: hosts that are asked for a registry's images before it is asked itself.

`PROVISIONER_REGISTRY_MIRRORS=docker.io=mirror.local:5000,docker.io=cache.example/hub` asks the first for `library/a` of
Docker Hub under its own name, and the second for it as `hub/library/a`.
"""

from collections.abc import Iterable, Mapping

from worker.errors import InvalidArgument
from worker.oci.reference import Reference


def parse_mirrors(words: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Parse `registry=host[:port][/prefix]`; return each registry's mirrors, in order.

    Raises:
        InvalidArgument: A word is not so formed.
    """
    mirrors: dict[str, tuple[str, ...]] = {}
    for word in words:
        registry, _, mirror = word.partition("=")
        if "/" in registry or not (_is_host(registry) and _is_host(mirror)):
            reason = "it must be registry=host[:port][/prefix]"
            raise InvalidArgument(argument="PROVISIONER_REGISTRY_MIRRORS", value=word[:300], reason=reason)
        mirrors[registry] = (*mirrors.get(registry, ()), mirror)
    return mirrors


def _is_host(name: str) -> bool:
    """Tell whether a reference may begin so, with a host for its registry."""
    try:
        return Reference.parse(f"{name}/any").registry == name.partition("/")[0]
    except InvalidArgument:
        return False


def at_mirror(reference: Reference, mirror: str) -> Reference:
    """Return where a mirror has what the reference names."""
    host, _, prefix = mirror.partition("/")
    repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
    return Reference(host, repository, reference.tag, reference.digest)
