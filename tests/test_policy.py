"""Time as arithmetic: each class is a sentence of a policy's docstring."""

# ruff: noqa: S311 - a seeded generator is what makes these tests repeat

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each

from piapi_async import PollPolicy, RetryPolicy
from piapi_async.policy import Backoff, Pace, TokenBucket
from piapi_async.tasks import Usual

seconds = st.floats(0.0, 1e6)
shares = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**32)
retry_policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 10**7),
    total=seconds,
    initial=seconds,
    maximum=seconds,
    jitter=st.floats(0.0, 10.0),
)

UNBOUNDED = RetryPolicy(attempts=10**9, total=math.inf, initial=0.5, maximum=16.0, jitter=0.0)


class Fixed(Random):
    """Chance that always falls the same way."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def random(self) -> float:
        return self.share


def waits(
    policy: RetryPolicy, *, tries: int, rng: Random, retry_after: float | None = None
) -> list[float | None]:
    """Return the waits of a call whose every try fails at once."""
    elapsed, found = 0.0, []
    for n in range(1, tries + 1):
        wait = policy.delay(n, elapsed=elapsed, retry_after=retry_after, rng=rng)
        found.append(wait)
        elapsed += wait or 0.0
    return found


class TestRetryPolicyWaitsTwiceAsLongEachTime:
    """Between two tries it waits ``min(maximum, initial · 2ⁿ) · (1 + jitter · random)`` seconds."""

    @for_each(
        ("tries", "expected"),
        [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 16.0), (60, 16.0)],
    )
    def test_up_to_the_maximum(self, tries: int, expected: float) -> None:
        assert UNBOUNDED.delay(tries, elapsed=0.0, retry_after=None, rng=Random(0)) == expected

    @given(policy=retry_policies, tries=st.integers(1, 50), share=shares)
    def test_by_the_formula(self, policy: RetryPolicy, tries: int, share: float) -> None:
        endless = attrs.evolve(policy, attempts=100, total=math.inf)
        expected = min(policy.maximum, policy.initial * 2.0 ** (tries - 1)) * (1.0 + policy.jitter * share)

        wait = endless.delay(tries, elapsed=0.0, retry_after=None, rng=Fixed(share))

        assert wait == pytest.approx(expected)

    @for_each("tries", [61, 1023, 1024, 1025, 1_000_000, 10**8])
    def test_without_overflowing_however_often(self, tries: int) -> None:
        assert UNBOUNDED.delay(tries, elapsed=0.0, retry_after=None, rng=Random(0)) == 16.0

    def test_without_overflowing_when_there_is_no_maximum(self) -> None:
        policy = RetryPolicy(attempts=10**9, total=math.inf, initial=1e300, maximum=math.inf)

        assert policy.delay(1_000_000, elapsed=0.0, retry_after=None, rng=Random(0)) == math.inf

    def test_from_nothing_if_it_begins_with_nothing(self) -> None:
        policy = attrs.evolve(UNBOUNDED, initial=0.0)

        assert policy.delay(1_000_000, elapsed=0.0, retry_after=None, rng=Random(0)) == 0.0


class TestRetryPolicyHeedsTheServer:
    """…or what the server asked for if that is longer."""

    @for_each(
        ("retry_after", "expected"),
        [(None, 0.5), (0.0, 0.5), (0.1, 0.5), (0.5, 0.5), (7.0, 7.0), (900.0, 900.0)],
    )
    def test_when_it_asks_for_longer(self, retry_after: float | None, expected: float) -> None:
        assert UNBOUNDED.delay(1, elapsed=0.0, retry_after=retry_after, rng=Random(0)) == expected

    @given(
        policy=retry_policies, tries=st.integers(1, 10**6), elapsed=seconds, retry_after=seconds, seed=seeds
    )
    def test_and_never_waits_less(
        self, policy: RetryPolicy, tries: int, elapsed: float, retry_after: float, seed: int
    ) -> None:
        wait = policy.delay(tries, elapsed=elapsed, retry_after=retry_after, rng=Random(seed))

        assert wait is None or wait >= retry_after


class TestRetryPolicyGivesUpAfterSoManyTries:
    """It gives up after `attempts` tries…"""

    @for_each("attempts", [1, 2, 5])
    def test_and_not_before(self, attempts: int) -> None:
        policy = RetryPolicy(attempts=attempts, total=math.inf)
        found = waits(policy, tries=attempts + 2, rng=Random(0))

        assert [wait is None for wait in found] == [False] * (attempts - 1) + [True] * 3

    @given(policy=retry_policies, extra=st.integers(0, 10**6), seed=seeds)
    def test_whatever_else_it_says(self, policy: RetryPolicy, extra: int, seed: int) -> None:
        tries = policy.attempts + extra

        assert policy.delay(tries, elapsed=0.0, retry_after=None, rng=Random(seed)) is None


class TestRetryPolicyGivesUpAfterSoLong:
    """…or when the wait would end more than `total` seconds after the call began."""

    @given(
        policy=retry_policies,
        tries=st.integers(1, 10**6),
        elapsed=seconds,
        retry_after=st.none() | seconds,
        seed=seeds,
    )
    def test_and_never_waits_beyond(
        self, policy: RetryPolicy, tries: int, elapsed: float, retry_after: float | None, seed: int
    ) -> None:
        wait = policy.delay(tries, elapsed=elapsed, retry_after=retry_after, rng=Random(seed))

        assert wait is None or elapsed + wait <= policy.total * (1 + 1e-12)  # the sum is rounded too

    @for_each(("elapsed", "expected"), [(0.0, 4.0), (6.0, 4.0), (6.001, None), (10.0, None), (99.0, None)])
    def test_but_uses_the_time_to_the_last(self, elapsed: float, expected: float | None) -> None:
        policy = RetryPolicy(total=10.0, jitter=0.0)

        assert policy.delay(1, elapsed=elapsed, retry_after=4.0, rng=Random(0)) == expected

    @for_each("retry_after", [121.0, 3600.0, 1e300, math.inf])
    def test_at_once_when_the_server_asks_for_more_than_there_is(self, retry_after: float) -> None:
        assert RetryPolicy().delay(1, elapsed=0.0, retry_after=retry_after, rng=Random(0)) is None

    @given(seeds)
    def test_but_tries_three_times_at_least_by_default(self, seed: int) -> None:
        assert None not in waits(RetryPolicy(), tries=2, rng=Random(seed), retry_after=30.0)

    @given(seeds)
    def test_but_makes_all_its_tries_by_default_when_the_server_names_no_time(self, seed: int) -> None:
        found = waits(RetryPolicy(), tries=6, rng=Random(seed))

        assert [wait is None for wait in found] == [False] * 5 + [True]


class TestRetryPolicyJitter:
    """Jitter only lengthens: a server that names a time means it."""

    @given(policy=retry_policies, tries=st.integers(1, 100), retry_after=st.none() | seconds, seed=seeds)
    def test_only_lengthens(
        self, policy: RetryPolicy, tries: int, retry_after: float | None, seed: int
    ) -> None:
        plain = attrs.evolve(policy, jitter=0.0, total=math.inf)
        base = plain.delay(tries, elapsed=0.0, retry_after=retry_after, rng=Random(seed))
        wait = policy.delay(tries, elapsed=0.0, retry_after=retry_after, rng=Random(seed))

        assert wait is None or (base is not None and wait >= base)

    @given(tries=st.integers(1, 5), seed=seeds)
    def test_by_its_share_at_most(self, tries: int, seed: int) -> None:
        base = 0.5 * 2 ** (tries - 1)
        wait = RetryPolicy(jitter=0.25).delay(tries, elapsed=0.0, retry_after=None, rng=Random(seed))

        assert wait is not None
        assert base <= wait <= base * 1.25

    def test_spreads_callers_apart(self) -> None:
        rng = Random(7)
        found = {RetryPolicy().delay(3, elapsed=0.0, retry_after=None, rng=rng) for _ in range(100)}

        assert len(found) == 100

    @given(policy=retry_policies, seed=seeds)
    def test_is_the_same_for_the_same_seed(self, policy: RetryPolicy, seed: int) -> None:
        assert waits(policy, tries=8, rng=Random(seed)) == waits(policy, tries=8, rng=Random(seed))


class TestBackoff:
    """A back-off counts the tries of one call, and asks its policy for each pause."""

    @given(policy=retry_policies, seed=seeds, retry_after=st.none() | seconds)
    def test_pauses_as_the_policy_says(
        self, policy: RetryPolicy, seed: int, retry_after: float | None
    ) -> None:
        backoff = Backoff(policy, Random(seed), started_at=100.0)
        rng = Random(seed)

        for tries, elapsed in enumerate((0.0, 3.0, 50.0), start=1):
            expected = policy.delay(tries, elapsed=elapsed, retry_after=retry_after, rng=rng)
            assert expected == backoff.after_failure(100.0 + elapsed, retry_after=retry_after)
            assert tries == backoff.tries

    def test_gives_up_after_the_last_attempt(self) -> None:
        backoff = Backoff(RetryPolicy(attempts=2, jitter=0.0), Random(0), started_at=0.0)

        assert backoff.after_failure(0.0) == 0.5
        assert backoff.after_failure(0.5) is None


class TestRetryPolicyNever:
    """Return the policy that tries once."""

    @given(tries=st.integers(1, 10**6), retry_after=st.none() | seconds, seed=seeds)
    def test_never_waits(self, tries: int, retry_after: float | None, seed: int) -> None:
        assert (
            RetryPolicy.never().delay(tries, elapsed=0.0, retry_after=retry_after, rng=Random(seed)) is None
        )

    def test_is_a_policy_like_another(self) -> None:
        assert RetryPolicy.never() == RetryPolicy(attempts=1)


def drained(bucket: TokenBucket, times: list[float]) -> list[float]:
    """Return when each of the requests that come at `times` may go."""
    return [now + bucket.reserve(now) for now in times]


arrivals = st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60).map(
    lambda gaps: [sum(gaps[: n + 1]) for n in range(len(gaps))]
)


class TestTokenBucketBurst:
    """At most `requests` at once…"""

    @for_each(("requests", "seconds"), [(1, 1.0), (5, 1.0), (3, 0.1), (7, 60.0), (100, 1.0)])
    def test_lets_so_many_through_at_once_and_no_more(self, requests: int, seconds: float) -> None:
        bucket = TokenBucket(requests, seconds)
        goes = drained(bucket, [1000.0] * (requests + 1))

        assert goes[:-1] == pytest.approx([1000.0] * requests, abs=1e-9)
        assert goes[-1] == pytest.approx(1000.0 + seconds / requests)

    def test_is_full_again_after_a_rest(self) -> None:
        bucket = TokenBucket(3, 6.0)
        drained(bucket, [0.0] * 10)

        assert drained(bucket, [1000.0] * 3) == [1000.0] * 3

    def test_saves_nothing_up_beyond_that(self) -> None:
        bucket = TokenBucket(3, 6.0)
        bucket.reserve(0.0)

        assert drained(bucket, [1e6] * 4)[-1] == pytest.approx(1e6 + 2.0)

    def test_starts_full_whatever_the_clock_shows(self) -> None:
        assert TokenBucket(1, 60.0).reserve(-1e9) == 0.0


class TestTokenBucketRate:
    """…and `requests` per `seconds` in the long run."""

    @given(
        requests=st.integers(1, 20),
        seconds=st.floats(0.05, 100.0),
        times=arrivals,
        start=st.floats(-1e5, 1e5),
    )
    def test_lets_no_more_through_in_any_window(
        self, requests: int, seconds: float, times: list[float], start: float
    ) -> None:
        goes = drained(TokenBucket(requests, seconds), [start + time for time in times])

        for first in range(len(goes)):
            for last in range(first, len(goes)):
                window = goes[last] - goes[first]
                assert last - first + 1 <= requests + requests * window / seconds + 1e-4

    @given(requests=st.integers(1, 20), seconds=st.floats(0.05, 100.0), times=arrivals)
    def test_serves_in_order_and_never_in_the_past(
        self, requests: int, seconds: float, times: list[float]
    ) -> None:
        goes = drained(TokenBucket(requests, seconds), times)

        assert goes == sorted(goes)
        assert all(go >= time for go, time in zip(goes, times, strict=True))

    @given(requests=st.integers(1, 20), seconds=st.floats(0.05, 100.0), count=st.integers(1, 200))
    def test_makes_no_request_wait_longer_than_the_rate_asks(
        self, requests: int, seconds: float, count: int
    ) -> None:
        goes = drained(TokenBucket(requests, seconds), [0.0] * count)

        assert goes[-1] == pytest.approx(max(0.0, count - requests) * seconds / requests, abs=1e-9)

    def test_does_not_hold_up_those_who_keep_to_it(self) -> None:
        bucket = TokenBucket(2, 1.0)
        times = [n * 0.5 for n in range(100)]

        assert drained(bucket, times) == times


# A task's age in seconds, and how it comes along, each with "not known".
ages = st.none() | st.floats(0.0, 1e7)
paces = st.none() | st.builds(Pace, st.floats(0.0, 100.0), st.floats(1e-3, 1e3))


class TestPollPolicyEvery:
    """Return the plain schedule: a poll every `seconds`."""

    @given(every=st.floats(1e-3, 1e6), seed=seeds, age=ages, pace=paces)
    def test_polls_about_that_often_whatever_is_known_of_the_task(
        self, every: float, seed: int, age: float | None, pace: Pace | None
    ) -> None:
        wait = PollPolicy.every(every).next_poll(Random(seed), age=age, pace=pace)

        assert wait == pytest.approx(every, rel=0.1)

    def test_spreads_the_polls_of_many_tasks(self) -> None:
        policy, rng = PollPolicy.every(2.0), Random(7)

        assert len({policy.next_poll(rng) for _ in range(100)}) == 100

    def test_differs_from_the_policy_of_the_same_delay(self) -> None:
        assert PollPolicy.every(2.0) != PollPolicy(PollPolicy.every(2.0).delay)


class TestPollPolicyNextPoll:
    """Return the seconds until the next poll of a task that has not ended; jitter only lengthens them."""

    @given(delay=st.floats(0.1, 100.0), age=ages, pace=paces, seed=seeds)
    def test_jitter_only_lengthens_and_by_little(
        self, delay: float, age: float | None, pace: Pace | None, seed: int
    ) -> None:
        policy = PollPolicy(delay)
        plain = policy.next_poll(Fixed(0.0), age=age, pace=pace)
        wait = policy.next_poll(Random(seed), age=age, pace=pace)

        assert 0.0 < plain <= wait <= plain * 1.1 < math.inf

    @given(age=ages, pace=paces, seed=seeds)
    def test_is_the_same_for_the_same_seed(self, age: float | None, pace: Pace | None, seed: int) -> None:
        first, second = (PollPolicy().next_poll(Random(seed), age=age, pace=pace) for _ in range(2))

        assert first == second


class TestPollPolicyDelay:
    """`delay` is the one knob: 95 % of ends are noticed within that many seconds."""

    def test_is_a_second_and_a_half_by_default(self) -> None:
        assert PollPolicy() == PollPolicy(1.5) == PollPolicy(delay=1.5)

    @given(delay=st.floats(0.1, 100.0), factor=st.floats(2.0, 100.0), age=ages, pace=paces)
    def test_of_a_longer_kind_means_no_more_polls(
        self, delay: float, factor: float, age: float | None, pace: Pace | None
    ) -> None:
        often, seldom = PollPolicy(delay), PollPolicy(delay * factor)

        assert often.next_poll(Fixed(0.5), age=age, pace=pace) <= seldom.next_poll(
            Fixed(0.5), age=age, pace=pace
        )


class TestPollPolicyAtSpeed:
    """Return the policy for a host that is `speed` times faster than real time."""

    @given(speed=st.floats(0.01, 1e4), age=st.none() | st.floats(0.0, 1e5), seed=seeds)
    def test_is_the_same_life_so_many_times_faster(self, speed: float, age: float | None, seed: int) -> None:
        slow = PollPolicy().next_poll(Random(seed), age=age)
        fast = PollPolicy().at_speed(speed).next_poll(Random(seed), age=None if age is None else age / speed)

        assert fast == pytest.approx(slow / speed)

    def test_keeps_a_plain_schedule_plain(self) -> None:
        plain = PollPolicy.every(2.0).at_speed(4.0)

        assert plain.next_poll(Fixed(0.0), age=0.0) == plain.next_poll(Fixed(0.0)) == pytest.approx(0.5)


class TestPollPolicyRarePolls:
    """Polls are rarer while a task is too young to end, and where the host reports progress also while it is far."""

    def test_at_a_young_task(self) -> None:
        policy = PollPolicy()

        assert policy.next_poll(Fixed(0.0), age=0.0) > 2 * policy.next_poll(Fixed(0.0), age=60.0)

    def test_at_one_that_has_far_to_go(self) -> None:
        policy = PollPolicy()
        far = policy.next_poll(Fixed(0.0), pace=Pace(10.0, 1.0))
        near = policy.next_poll(Fixed(0.0), pace=Pace(95.0, 1.0))

        assert far > 2 * near


class TestPollPolicyOfAnUnknownAge:
    """95 % of ends are noticed within `delay` seconds also where nothing is known of the task."""

    @for_each("delay", [0.5, 1.5, 10.0])
    def test_holds_for_ends_at_any_moment(self, delay: float) -> None:
        policy, rng = PollPolicy(delay), Random(7)
        polls: list[float] = []
        now = 0.0
        while len(polls) < 20_000:
            now += policy.next_poll(rng)
            polls.append(now)
        noticed = sum(min(delay, later - earlier) for earlier, later in pairwise(polls))

        assert noticed / (polls[-1] - polls[0]) >= 0.95


class TestPollPolicySafetyNet:
    """Doubt about how long tasks take brings the next poll forward, where a webhook was to report the end."""

    def test_is_made_when_nearly_all_have_ended(self) -> None:
        policy, usual = PollPolicy(), Usual(10.0, 0.1, known=True)

        assert usual.after(2.0) < policy.safety_net(0.0, usual) < usual.after(3.0)
        assert policy.safety_net(10_000.0, usual) == pytest.approx(10.0)

    @for_each("spread", [0.7, 1.65, 100.0])
    def test_is_made_at_four_typical_durations_at_the_latest(self, spread: float) -> None:
        assert PollPolicy().safety_net(5.0, Usual(10.0, spread, known=True)) <= 35.0


NOT_NUMBERS: list[Any] = [None, "1", True, False, b"1", [1.0], {}]
COUNTERS: list[tuple[Callable[..., Any], str]] = [
    (lambda value: RetryPolicy(attempts=value), "RetryPolicy.attempts"),
    (lambda value: TokenBucket(value, 1.0), "TokenBucket.requests"),
]
MAKERS: list[tuple[Callable[..., Any], str]] = [
    (lambda value: TokenBucket(1, value), "TokenBucket.seconds"),
    (PollPolicy, "PollPolicy.delay"),
]
ENDLESS: list[Callable[..., Any]] = [
    PollPolicy,
    PollPolicy.every,
    lambda value: PollPolicy(typical_duration=value),
    lambda value: RetryPolicy(jitter=value),
    lambda value: RetryPolicy(initial=value),
    lambda value: TokenBucket(1, value),
]
MAKERS_FROM_ZERO: list[tuple[Callable[..., Any], str]] = [
    (lambda value: RetryPolicy(total=value), "RetryPolicy.total"),
    (lambda value: RetryPolicy(initial=value), "RetryPolicy.initial"),
    (lambda value: RetryPolicy(maximum=value), "RetryPolicy.maximum"),
    (lambda value: RetryPolicy(jitter=value), "RetryPolicy.jitter"),
]


def refusal_of(make: Callable[..., Any], value: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller compares the whole text
        make(value)
    return str(caught.value)


class TestArguments:
    @for_each("value", [0, 0.0, -1, -0.5, -math.inf, math.nan, *NOT_NUMBERS])
    @for_each(("make", "name"), MAKERS, ids=[name for _, name in MAKERS])
    def test_that_must_be_above_zero(self, make: Callable[..., Any], name: str, value: object) -> None:
        assert refusal_of(make, value) == f"{name}: {value!r} is not allowed; it must be above 0"

    @for_each("value", [0, 0.5, 1.5, 2.0, -1, math.inf, math.nan, *NOT_NUMBERS])
    @for_each(("make", "name"), COUNTERS, ids=[name for _, name in COUNTERS])
    def test_that_are_counted_must_be_whole(self, make: Callable[..., Any], name: str, value: object) -> None:
        assert (
            refusal_of(make, value) == f"{name}: {value!r} is not allowed; it must be a whole number above 0"
        )

    @for_each("make", ENDLESS)
    def test_that_would_never_end_must_be_finite(self, make: Callable[..., Any]) -> None:
        assert "inf is not allowed; it must be finite" in refusal_of(make, math.inf)

    def test_that_bound_something_else_may_be_infinite(self) -> None:
        policy = RetryPolicy(total=math.inf, maximum=math.inf)

        assert policy.total == policy.maximum == math.inf

    @for_each("value", [-1, -0.5, -math.inf, math.nan, *NOT_NUMBERS])
    @for_each(("make", "name"), MAKERS_FROM_ZERO, ids=[name for _, name in MAKERS_FROM_ZERO])
    def test_that_must_not_be_negative(self, make: Callable[..., Any], name: str, value: object) -> None:
        assert refusal_of(make, value) == f"{name}: {value!r} is not allowed; it must be 0 or more"

    @for_each("value", [0, 0.0, 1, 2.5])
    @for_each(("make", "name"), MAKERS_FROM_ZERO, ids=[name for _, name in MAKERS_FROM_ZERO])
    def test_that_may_be_zero(self, make: Callable[..., Any], name: str, value: float) -> None:
        assert getattr(make(value), name.partition(".")[2]) == value

    @for_each("value", [0, -1.0, math.nan])
    def test_of_every_must_be_above_zero_too(self, value: float) -> None:
        assert refusal_of(PollPolicy.every, value).startswith("PollPolicy.")

    @for_each(("requests", "seconds"), [(1, math.inf), (math.inf, 1.0), (math.inf, math.inf)])
    def test_of_a_bucket_must_be_finite(self, requests: Any, seconds: float) -> None:
        with pytest.raises(ValueError, match="is not allowed"):
            TokenBucket(requests, seconds)

    @for_each("cls", [RetryPolicy])
    def test_of_a_retry_policy_go_by_name(self, cls: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="positional"):
            cls(3)

    @for_each(("policy", "name"), [(RetryPolicy(), "attempts"), (PollPolicy(), "delay")])
    def test_cannot_be_changed_afterwards(self, policy: object, name: str) -> None:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(policy, name, 3)
