# SPDX-License-Identifier: Apache-2.0
"""The model of lock and fence at a bound that takes minutes."""

import pytest

from tests.model.protocol import Bound, explore


@pytest.mark.timeout(3600)
def test_no_layer_in_use_is_removed_whatever_happens_to_two_containers() -> None:
    """As in tests/model, with losses beside two containers."""
    result = explore(Bound(containers=2, pruners=1))

    assert result.counterexample is None, "\n".join(result.counterexample or ())
    print(f"{result.states} states")
