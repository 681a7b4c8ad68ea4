# SPDX-License-Identifier: Apache-2.0
"""`provisioner doctor`: what this machine and its Redis can do and what is wrong with them; nothing is changed.

It is to be run where the worker runs, as its user and with its environment.
"""

from collections.abc import Iterator

import click

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.doctor_node import check_node
from worker.cli.doctor_redis import check_redis
from worker.cli.exits import ExitCode
from worker.cli.findings import Finding, Verdict
from worker.cli.output import emit, json_option
from worker.cli.tables import findings_table


@click.command()
@json_option
@pass_cluster
def doctor(cluster: Cluster, as_json: bool) -> None:
    """Check this node: Redis, directories, backends, layer formats, credentials. Ends with 1 if something is wrong."""
    findings = list(_examine(cluster))
    is_well = all(finding.verdict is not Verdict.WRONG for finding in findings)
    document = {"is_well": is_well, "findings": [finding.to_document() for finding in findings]}
    emit(document, as_json=as_json, render=lambda: findings_table(findings))
    if not is_well:
        click.get_current_context().exit(ExitCode.FAILED)


def _examine(cluster: Cluster) -> Iterator[Finding]:
    yield from check_redis(cluster)
    yield from check_node(cluster.settings)
