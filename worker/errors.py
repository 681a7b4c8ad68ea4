# SPDX-License-Identifier: Apache-2.0
"""The error tree: whether a retry can help is part of the type.

Every error is one sentence that names the culprit. The sentence is a format string over the error's typed
attributes, so raise sites pass facts and never prose::

    raise DigestMismatch(subject="layer blob", expected=str(descriptor.digest), actual=str(actual))

An error crosses Celery's JSON result backend as its type's name and its message; `cls(message)` rebuilds it on
the caller's side, without the attributes.
"""

from typing import ClassVar


class ProvisionerError(Exception):
    """Root of every error the provisioner raises on purpose.

    Args:
        message: The finished sentence, when rebuilt from a task's result; otherwise it is built from `attributes`.
        attributes: Exactly the attributes annotated in the class.
    """

    sentence: ClassVar[str] = "{reason}"

    def __init__(self, message: str | None = None, /, **attributes: object) -> None:
        super().__init__(self.sentence.format_map(attributes) if message is None else message)
        for name, value in attributes.items():
            setattr(self, name, value)


class TransientError(ProvisionerError):
    """A retry may succeed without anybody changing anything; the task layer retries it with backoff."""

    retry_after_seconds: float | None = None


class PermanentError(ProvisionerError):
    """A retry gives the same answer until somebody changes the request, the image or the node."""


# What the caller asked for is not well formed or not possible.


class InvalidArgument(PermanentError):
    """An argument of a task or a setting is malformed."""

    argument: str
    value: str
    reason: str
    sentence = "invalid {argument} {value!r}: {reason}"


class ContainerConflict(PermanentError):
    """The container already has a rootfs of this name from another image."""

    container_id: str
    name: str
    image: str
    requested: str
    sentence = "container {container_id} already has rootfs {name!r} from {image}, so not from {requested}"


class ContainerDestroying(PermanentError):
    """The container, or an ancestor of it, is being destroyed; nothing may be provisioned into it."""

    container_id: str
    sentence = "container {container_id} is being destroyed"


class SecretNotFound(PermanentError):
    """The node has no usable secret of this name."""

    secret: str
    reason: str
    sentence = "secret {secret!r} cannot be used on this node: {reason}"


class SecretsUnavailable(TransientError):
    """A place that may have the secret does not answer."""

    secret: str
    place: str
    reason: str
    sentence = "secret {secret!r} cannot be looked up in {place}: {reason}"


# The image.


class ImageNotFound(PermanentError):
    """The source has no image of this name."""

    image: str
    reason: str
    sentence = "image {image} not found: {reason}"


class PlatformNotFound(PermanentError):
    """The image's index has no manifest for the platform."""

    image: str
    platform: str
    available: str
    sentence = "image {image} has no manifest for {platform}; it has {available}"


class AccessDenied(PermanentError):
    """The registry refuses the image to these credentials, or to none."""

    image: str
    reason: str
    sentence = "access to {image} denied: {reason}"


class InvalidImage(PermanentError):
    """A manifest, index, configuration or archive breaks its specification or uses what is not supported."""

    image: str
    reason: str
    sentence = "image {image} is invalid: {reason}"


class UserNotFound(PermanentError):
    """The user an image or a caller wants to run as is none of the rootfs's."""

    user: str
    reason: str
    sentence = "user {user!r:.160} cannot be looked up in the rootfs: {reason}"


class DirectoryMissing(PermanentError):
    """An image has not what a runtime needs to find where it cannot make it."""

    image: str
    path: str
    sentence = (
        "image {image} has no directory {path!r:.160}, which a runtime cannot make in a rootfs that refuses writes"
    )


class DigestMismatch(PermanentError):
    """Content does not hash to the digest it was asked for by."""

    subject: str
    expected: str
    actual: str
    sentence = "{subject} has digest {actual}, expected {expected}"


class SizeMismatch(PermanentError):
    """Content is longer or shorter than its descriptor says, both in bytes."""

    subject: str
    expected: int
    actual: int
    sentence = "{subject} has {actual} bytes, expected {expected}"


class InvalidLayer(PermanentError):
    """A layer's archive is corrupt, hostile or uses what is not supported; `entry` is the member's path."""

    layer: str
    entry: str
    reason: str
    sentence = "layer {layer} is refused at entry {entry!r}: {reason}"


class LayerLimitExceeded(PermanentError):
    """A layer goes beyond a limit of the settings."""

    layer: str
    limit: str
    maximum: int
    sentence = "layer {layer} exceeds {limit} of {maximum}"


# The node.


class BackendUnsupported(PermanentError):
    """The backend cannot work on this node, on these directories, or on this image."""

    backend: str
    reason: str
    sentence = "backend {backend} is not supported: {reason}"


class MountFailed(PermanentError):
    """The kernel refused a mount or an unmount."""

    target: str
    reason: str
    sentence = "mount at {target} failed: {reason}"


class RecordCorrupt(PermanentError):
    """A file of the store or of a container's directory cannot be read as what it must be."""

    path: str
    reason: str
    sentence = "{path} is corrupt: {reason}"


class TeardownFailed(TransientError):
    """Part of a container could not be removed; every failure is listed. Destroying again continues."""

    container_id: str
    failures: str
    sentence = "container {container_id} is not fully destroyed: {failures}"


class RemovalFailed(TransientError):
    """Part of a directory tree could not be deleted; everything else of it is gone."""

    path: str
    failures: str
    sentence = "{path} is not fully removed: {failures}"


class StorageExhausted(TransientError):
    """A filesystem has no space or no inodes left."""

    path: str
    reason: str
    sentence = "no room at {path}: {reason}"


class LayerVanished(TransientError):
    """A layer was in the store and is not any more; pulling again brings it back."""

    layer: str
    sentence = "layer {layer} vanished from the store"


class LayerDamaged(TransientError):
    """A layer in the store is not what it was committed as; it is not used, and pulling again replaces it."""

    layer: str
    reason: str
    sentence = "layer {layer} in the store is damaged: {reason}"


class LayerInUse(PermanentError):
    """A damaged layer's tree cannot be replaced under the rootfses that stand on it."""

    layer: str
    users: str
    sentence = "layer {layer} cannot be replaced while {users} stand on it; destroy them first"


class TaskLaidAside(PermanentError):
    """Worker after worker died over the task, or the process that ran it; it is not tried again by itself."""

    task_id: str
    sentence = "task {task_id} was laid aside: worker after worker died over it; `provisioner dead-letters` has it"


class NodeForgotten(PermanentError):
    """The node that the task was for is gone, and an operator said that it will not come back."""

    node: str
    sentence = "node {node} is gone, and its tasks with it"


class NodeUnreachable(TransientError):
    """No worker serves the node."""

    node: str
    sentence = "node {node} has no live worker"


class NodesFailed(PermanentError):
    """Some of the nodes that a task was spread over failed, each in its way; the others have done their part."""

    failed: int
    asked: int
    failures: str
    sentence = "{failed} of {asked} nodes failed: {failures}"


# The services around the node.


class RegistryUnavailable(TransientError):
    """A registry or an Engine cannot be reached, answers 5xx or 429, or broke off a transfer."""

    registry: str
    reason: str
    sentence = "{registry} is unavailable: {reason}"


class RegistryUnusable(PermanentError):
    """A registry breaks its specification, or leads where the node must not follow."""

    registry: str
    reason: str
    sentence = "{registry} cannot be used: {reason}"


class StateUnavailable(TransientError):
    """Redis cannot be reached or refuses writes."""

    reason: str
    sentence = "the state store is unavailable: {reason}"


class ViewIncomplete(TransientError):
    """Redis lost data, and not all nodes have shown their containers again: what it does not show may be there."""

    reason: str
    retry_after_seconds: float | None
    sentence = "the state store lost its data: {reason}"


class StateLost(TransientError):
    """A state transition found another state than it left: Redis lost data, or somebody else moved on."""

    container_id: str
    reason: str
    sentence = "state of container {container_id} changed meanwhile: {reason}"


class ProvisionUnderWay(TransientError):
    """Somebody works on the very rootfs that is to be undone: another request for it, or a process about to die."""

    container_id: str
    name: str
    sentence = "rootfs {name!r} of container {container_id} is being worked on"


class LockTimeout(TransientError):
    """The cluster lock was not granted in time."""

    lock: str
    mode: str
    seconds: float
    sentence = "lock {lock} not granted for {mode} use within {seconds:g} s"


class LeaseLost(TransientError):
    """A lease of the cluster lock can no longer be proven held."""

    lock: str
    owner: str
    reason: str
    sentence = "lease {owner} on lock {lock} is lost: {reason}"


# Programs this one starts, and answers it waits for.


class ServerFailed(PermanentError):
    """The embedded server did not start."""

    directory: str
    reason: str
    sentence = "the embedded Valkey in {directory} did not start: {reason}"


class AnswerTimeout(TransientError):
    """A task gave no answer in time; it may still run, and its answer will be under its id."""

    task: str
    task_id: str
    seconds: float
    sentence = "{task} ({task_id}) gave no answer within {seconds:g} s; it may still run"
