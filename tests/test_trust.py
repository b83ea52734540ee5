"""How far webhooks are relied on: the share of ends that they report, and what follows for the polls."""

from __future__ import annotations

import copy
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async._wait.trust import WebhookTrust


def after(*ends: bool) -> WebhookTrust:
    """Return the trust after some ends, each reported or missed."""
    trust = WebhookTrust()
    for reported in ends:
        note(trust, reported=reported)
    return trust


def note(trust: WebhookTrust, *, reported: bool) -> None:
    if reported:
        trust.confirmed()
    else:
        trust.missed()


def measured(share: float, ends: int, seed: int = 1) -> list[WebhookTrust]:
    """Return the trust after each of many ends, of which this share is reported at random."""
    rng = Random(seed)  # noqa: S311 - a test's own dice
    trust, seen = WebhookTrust(), []
    for _ in range(ends):
        note(trust, reported=rng.random() < share)
        seen.append(copy.copy(trust))
    return seen


def test_nothing_is_relied_on_before_anything_was_reported() -> None:
    trust = WebhookTrust()

    assert (trust.share, trust.ends, trust.relied_on, trust.patience) == (0.0, 0.0, False, 1.0)


def test_eight_in_a_row_are_enough_and_seven_are_not() -> None:
    assert not after(*[True] * 7).relied_on
    assert after(*[True] * 8).relied_on
    assert after(*[True] * 8).patience == math.inf


def test_patience_grows_with_every_end_that_is_reported() -> None:
    patience = [after(*[True] * reported).patience for reported in range(9)]

    assert patience == sorted(patience)
    assert patience[0] == 1.0
    assert patience[1] > 1.1


def test_one_miss_in_a_long_row_is_forgiven_and_three_are_not() -> None:
    row = [True] * 200

    assert [after(*row, *[False] * missed).relied_on for missed in (1, 2, 3)] == [True, True, False]


def test_three_misses_in_a_row_where_all_were_reported_mean_that_something_has_changed() -> None:
    trust = after(*[True] * 200, *[False] * 3)

    assert (trust.share, trust.patience) == (0.0, 1.0)


def test_it_comes_back_when_deliveries_do() -> None:
    row = [True] * 100 + [False] * 20

    assert not after(*row, *[True] * 20).relied_on
    assert after(*row, *[True] * 200).relied_on


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("seed", range(2))
def test_behind_a_balancer_nothing_is_relied_on_and_polls_stay_about_as_they_are(
    workers: int, seed: int
) -> None:
    seen = measured(1 / workers, 2000, seed)

    assert not any(trust.relied_on for trust in seen)
    assert all(trust.patience < 1.3 for trust in seen[64:])
    assert sum(trust.patience for trust in seen) / len(seen) < 1.08


@pytest.mark.parametrize("seed", range(3))
def test_the_share_is_found_out(seed: int) -> None:
    assert measured(0.5, 500, seed)[-1].share == pytest.approx(0.5, abs=0.2)


@given(st.lists(st.booleans(), max_size=200))
def test_whatever_happened_the_numbers_stay_within_their_bounds(ends: list[bool]) -> None:
    trust = after(*ends)

    assert 0.0 <= trust.share < 1.0
    assert trust.patience >= 1.0
    assert trust.ends <= 64.0
    assert trust.relied_on is (trust.patience == math.inf)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 0.9, 0.94])
def test_of_all_ends_95_of_100_are_still_found_within_the_delay(share: float) -> None:
    trust = WebhookTrust(share * 1e6, (1 - share) * 1e6)

    # An end that is not reported falls evenly between two polls, which usually are delay / 0.95 apart.
    in_time = min(1.0, 0.95 / trust.patience)

    assert share + (1 - share) * in_time >= 0.95 - 1e-4
