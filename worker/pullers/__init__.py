# SPDX-License-Identifier: Apache-2.0
"""The pullers: one per kind of source, see `worker.puller` for what all of them keep.

::

    registry    docker://name     distribution-spec over HTTP
    layout      oci:PATH          an OCI layout on this node
    archives    docker://name     the same names in a directory of archives, if the settings say so
    archive     docker-archive:   what `docker save` and `podman save` write, or wrote before Docker 1.10
    daemon      docker-daemon:    a Docker Engine of this node
    appc        appc:             App Container images, on the web or in a directory

`resolve` finds the image of a platform for all of them; `content`, `choice`, `members`, `saved`, `legacy`,
`remote_archive`, `made_manifest` and `spool` are what the local ones are made of.
"""

from collections.abc import Mapping

from worker.oci.reference import Transport
from worker.paths import StorePaths
from worker.puller import Puller
from worker.pullers.appc.puller import AppcPuller
from worker.pullers.archive import ArchivePuller
from worker.pullers.archives import ArchivesPuller
from worker.pullers.daemon import DaemonPuller
from worker.pullers.layout import LayoutPuller
from worker.pullers.registry import RegistryPuller
from worker.settings import Settings


def make_pullers(settings: Settings) -> Mapping[Transport, Puller]:
    """Return the puller of each kind of source that the node takes.

    Raises:
        InvalidArgument: A setting is unusable.
    """
    paths = StorePaths(settings.store_dir)
    spool_dir = paths.staging_dir
    archives = ArchivePuller(settings, spool_dir=spool_dir)
    pullers: tuple[Puller, ...] = (
        ArchivesPuller(settings, archives) if settings.archives else RegistryPuller(settings),
        LayoutPuller(settings),
        archives,
        DaemonPuller(settings, spool_dir=spool_dir),
        AppcPuller(settings, spool_dir=spool_dir, known_dir=paths.acis_dir),
    )
    taken = settings.image_sources
    return {transport: puller for puller in pullers for transport in puller.transports if transport in taken}
