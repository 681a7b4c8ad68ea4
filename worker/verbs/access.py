# SPDX-License-Identifier: Apache-2.0
"""Who may have an image that the store has already.

What a registry gave to anybody, anybody may have, and costs nothing here. For what it gave to a login the store keeps a
mark of that login beside what the reference resolved to. Whoever shows the same is served from the store; whoever shows
another, or none, is served if the registry gives the image, by its digest, to them too. If it does not, they are told
what they would be told if the image were not here: the source is asked as for any image that is not.

Callers without a secret show what the node has: its name and its Docker configuration, as it is now.

Source: Kubernetes KEP 2535, "Ensure Secret Pulled Images", for the rule; the ancestor had none.
"""

from worker.errors import PermanentError
from worker.oci.platform import Platform
from worker.oci.reference import ImageSource
from worker.puller import Credential, RemoteImage
from worker.registry.docker_config import config_fingerprint
from worker.store.resolved import ResolvedReference
from worker.verbs.node import Node


def opener_of(node: Node, source: ImageSource, remote: RemoteImage) -> str | None:
    """Return the mark of whom the source gave the image to, or None if it gives it to anybody."""
    return _mark(node, source, remote.credential) if remote.is_private else None


def may_have(
    node: Node, source: ImageSource, found: ResolvedReference, *, platform: Platform, secret: str | None
) -> bool:
    """Tell whether a caller with this secret may have what the reference resolved to.

    Cost: nothing for what anybody may have; for the rest three small files, and two requests of the registry the first
    time a login comes.

    Raises:
        SecretNotFound, SecretsUnavailable: The secret cannot be had.
        RegistryUnavailable: The registry was to be asked and does not answer.
    """
    if found.openers is None or source.host is None:
        return True
    credential = node.credential(secret, source)
    if _mark(node, source, credential) in found.openers:
        return True
    return _is_given(node, source, found, platform=platform, credential=credential)


def _is_given(
    node: Node, source: ImageSource, found: ResolvedReference, *, platform: Platform, credential: Credential | None
) -> bool:
    """Ask the source for this very image with the credential; what it says no with is for whoever asks it next."""
    exact = source.exactly(found.digest)
    try:
        with node.puller(exact).open(exact, platform=platform, credential=credential) as remote:
            opener, is_same = opener_of(node, source, remote), remote.digest == found.digest
    except PermanentError:
        return False
    if is_same:
        node.store.images.admit(found, opener=opener)
    return is_same


def _mark(node: Node, source: ImageSource, credential: Credential | None) -> str:
    if credential is None:
        who = ("node", node.name, config_fingerprint(node.settings.docker_config_dir))
    else:
        who = ("credential", credential.username, credential.password)
    return node.store.openers.mark(source.normalised, *who)
