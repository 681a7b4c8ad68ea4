# SPDX-License-Identifier: Apache-2.0
"""Challenges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.registry.challenge import Challenge, Scheme, choose_challenge

REALM = "https://auth.example/token"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            [f'Bearer realm="{REALM}",service="registry",scope="repository:a/b:pull,push"'],
            Challenge(Scheme.BEARER, REALM, "registry", "repository:a/b:pull,push"),
        ),
        (
            [f'bearer REALM = "{REALM}" , service=plain'],
            Challenge(Scheme.BEARER, REALM, "plain"),
        ),
        (['Basic realm="a \\"quoted\\" realm"'], Challenge(Scheme.BASIC, 'a "quoted" realm')),
        (["Basic"], Challenge(Scheme.BASIC)),
        ([f'Basic realm="x", Bearer realm="{REALM}"'], Challenge(Scheme.BEARER, REALM)),
        (["Basic realm=x", f'Bearer realm="{REALM}"'], Challenge(Scheme.BEARER, REALM)),
        (["Negotiate", "Basic realm=x"], Challenge(Scheme.BASIC, "x")),
        (["Bearer service=x", "Basic realm=y"], Challenge(Scheme.BASIC, "y")),
        (["Negotiate YWJj=="], None),
        (["Bearer"], None),
        (['realm="x"'], None),
        ([""], None),
        ([], None),
    ],
)
def test_the_best_challenge_that_can_be_answered_is_chosen(headers: list[str], expected: Challenge | None) -> None:
    """Tokens before passwords; what is not understood is passed over."""
    assert choose_challenge(headers) == expected


@given(st.lists(st.text(max_size=60), max_size=3))
def test_no_header_crashes_the_parser(headers: list[str]) -> None:
    """Whatever a server sends, there is a challenge or there is none."""
    chosen = choose_challenge(headers)

    assert chosen is None or chosen.scheme in set(Scheme)
