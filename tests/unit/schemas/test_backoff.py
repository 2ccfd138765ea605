"""Backoff, deadline and log throttling of one outage: pure."""

from __future__ import annotations

import random

from marketflow.schemas.backoff import Backoff, Outage

BACKOFF = Backoff(first_s=0.25, longest_s=60.0)


def test_pauses_double_up_to_the_longest() -> None:
    assert [BACKOFF.pause_s(n) for n in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 2.0]
    assert BACKOFF.pause_s(9) == BACKOFF.pause_s(10_000) == 60.0


def test_chance_takes_away_up_to_half() -> None:
    chance = random.Random(5)
    pauses = [BACKOFF.pause_s(4, chance.random()) for _ in range(1000)]
    assert min(pauses) >= 1.0
    assert max(pauses) <= 2.0
    assert max(pauses) - min(pauses) > 0.9


def test_patience_begins_with_the_first_failure_and_cuts_the_last_pause() -> None:
    outage = Outage(BACKOFF, 1.0)
    assert outage.failed(100.0)[:2] == (0.25, 1.0)
    assert outage.failed(100.25)[:2] == (0.5, 0.75)
    assert outage.failed(100.75)[:2] == (0.25, 0.25), "no pause beyond the patience"
    assert outage.failed(101.0)[:2] == (0.0, 0.0)


def test_patience_may_begin_with_the_call() -> None:
    outage = Outage(BACKOFF, 1.0, since_s=99.5)
    assert outage.failed(100.0).left_s == 0.5


def test_the_end_of_an_outage_starts_the_pauses_over() -> None:
    outage = Outage(BACKOFF)
    assert outage.ended(99.0) == 0.0, "there was none"
    outage.failed(100.0)
    outage.failed(100.25)
    assert outage.ended(103.0) == 3.0
    assert outage.failed(200.0).pause_s == 0.25


def test_the_same_reason_is_logged_now_and_then_another_one_at_once() -> None:
    outage = Outage(BACKOFF, tell_every_s=10.0)
    calls = [(0.0, "gone"), (1.0, "gone"), (2.0, "slow"), (11.0, "slow"), (12.0, "slow")]
    assert [outage.failed(*call).tell for call in calls] == [True, False, True, False, True]
