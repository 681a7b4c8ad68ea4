# SPDX-License-Identifier: Apache-2.0
"""`provisioner dead-letters`: messages that were laid aside, and what becomes of them."""

from collections.abc import Callable, Sequence

import click

from worker.cli.cluster import Cluster, pass_cluster
from worker.cli.exits import Failure
from worker.cli.output import emit, json_option
from worker.cli.tables import letters_table
from worker.transport.letters import Letter, Letters


@click.command("dead-letters")
@json_option
@pass_cluster
@click.option("--requeue", multiple=True, metavar="LETTER", help="Give this one another chance, at its queue's end.")
@click.option("--drop", multiple=True, metavar="LETTER", help="Delete this one for good.")
def dead_letters(cluster: Cluster, as_json: bool, requeue: Sequence[str], drop: Sequence[str]) -> None:
    """List messages that were laid aside, after doing what is asked with some of them.

    They are there because nobody could decode or run them, or because worker after worker died over them. A LETTER is
    named by its id or the beginning of one; `all` names every one of them.
    """
    letters = Letters(cluster.client, cluster.settings.queue_key)
    known = letters.all()
    # All names are looked up before anything is done, so a misspelt one leaves everything as it is.
    to_requeue, to_drop = (_find(known, names) for names in (requeue, drop))
    for act, chosen in ((letters.requeue, to_requeue), (letters.drop, to_drop)):
        _act(act, chosen)
    left = letters.all() if requeue or drop else known
    document = {"dead_letters": [letter.to_document() for letter in left]}
    emit(document, as_json=as_json, render=lambda: letters_table(left))


def _find(letters: Sequence[Letter], names: Sequence[str]) -> list[Letter]:
    found: dict[str, Letter] = {}
    for name in names:
        matching = [letter for letter in letters if name == "all" or letter.letter_id.startswith(name)]
        if not matching and name != "all":
            raise Failure(f"there is no dead letter {name}")
        if len(matching) > 1 and name != "all":
            raise Failure(f"{name} names several dead letters: {', '.join(each.letter_id for each in matching)}")
        found.update((letter.letter_id, letter) for letter in matching)
    return list(found.values())


def _act(act: Callable[[str], bool], letters: Sequence[Letter]) -> None:
    for letter in letters:
        act(letter.letter_id)
