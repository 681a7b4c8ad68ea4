# SPDX-License-Identifier: Apache-2.0
"""No layer in use is removed, in any interleaving at this bound; and what each part is there for."""

import pytest

from tests.model.protocol import Bound, explore

CALM = {"has_pauses": False, "has_crashes": False, "has_losses": False, "has_clock_steps": False}
UNFENCED = {"has_flock": False, "has_tokens": False}


@pytest.mark.parametrize(
    "bound",
    [
        pytest.param(Bound(containers=1, pruners=1), id="everything goes wrong"),
        pytest.param(Bound(containers=1, pruners=2), id="and two prune"),
        pytest.param(Bound(containers=2, pruners=1, has_losses=False), id="all but losses to two containers"),
    ],
)
def test_no_layer_in_use_is_removed(bound: Bound) -> None:
    """Killed, paused, with Redis emptied and clocks set: the fence keeps what a container uses."""
    result = explore(bound)

    assert result.counterexample is None, "\n".join(result.counterexample or ())
    assert result.states > 5_000


def test_without_the_fence_a_paused_worker_lets_a_layer_in_use_be_removed() -> None:
    """The model is able to fail: a lease alone lapses between a check and what it permits."""
    result = explore(Bound(containers=1, pruners=1, **UNFENCED))

    assert result.counterexample is not None
    print(*result.counterexample, sep="\n")
    assert result.counterexample[-1] == "prune 1 removes the layer"
    assert "container 0 mounts" in result.counterexample


@pytest.mark.parametrize("misfortune", ["has_pauses", "has_losses", "has_clock_steps"])
def test_without_the_fence_each_of_these_is_enough(misfortune: str) -> None:
    """What a lease cannot withstand, one by one."""
    assert explore(Bound(containers=1, pruners=1, **{**UNFENCED, **CALM, misfortune: True})).counterexample is not None


def test_without_the_fence_killed_workers_do_no_harm() -> None:
    """The lock alone is right as long as holders act within their leases: what a killed one held lapses later."""
    assert explore(Bound(containers=2, pruners=2, **{**UNFENCED, **CALM, "has_crashes": True})).counterexample is None


def test_tokens_alone_do_not_replace_the_flock() -> None:
    """A token is looked at once; between the look and the act there can be a pause, as after a check."""
    assert explore(Bound(containers=1, pruners=1, has_flock=False)).counterexample is not None


def test_a_ref_dropped_before_the_unmount_costs_a_layer_in_use() -> None:
    """Destroy unmounts first: killed in between, it leaves a ref too many and not one too few."""
    result = explore(Bound(containers=1, pruners=1, unmounts_first=False))

    assert result.counterexample is not None
    assert "process 0 is killed" in result.counterexample
