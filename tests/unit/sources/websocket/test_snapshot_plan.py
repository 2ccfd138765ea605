"""When to ask for which snapshot: pure."""

from __future__ import annotations

from marketflow.sources.websocket.snapshot_plan import BACKOFF, SnapshotPlan


def test_asks_after_the_first_difference_and_not_before() -> None:
    plan = SnapshotPlan(quiet_s=1.0)
    assert plan.need("A", 100.0)
    assert not plan.need("A", 100.0), "known already"
    assert plan.listens
    assert plan.due(100.5) is None
    assert plan.next_s(100.5) == 101.0
    plan.seen("A", 70)
    plan.seen("A", 90)
    assert not plan.listens
    assert plan.due(100.5) == "A"
    assert plan.due(100.5) is None, "it was asked for"
    assert plan.answered("A", 69, 100.6), "69 meets the difference that begins at 70"
    assert len(plan) == 0


def test_a_quiet_instrument_is_asked_for_all_the_same() -> None:
    plan = SnapshotPlan(quiet_s=1.0)
    plan.need("A", 100.0)
    assert plan.due(101.0) == "A"
    assert plan.answered("A", 5, 101.1)


def test_a_snapshot_older_than_the_stream_is_asked_for_again() -> None:
    plan = SnapshotPlan()
    plan.need("A", 100.0)
    plan.seen("A", 70)
    assert plan.due(100.0) == "A"
    assert not plan.answered("A", 68, 100.1)
    assert plan.due(100.2) is None
    again = plan.next_s(100.2)
    assert again == 100.1 + BACKOFF.first_s
    assert plan.due(again) == "A"
    assert not plan.answered("A", 68, again)
    later = plan.next_s(again)
    assert later is not None
    assert later - again == 2 * BACKOFF.first_s, "each time later"


def test_no_answer_is_waited_for_and_then_asked_again() -> None:
    plan = SnapshotPlan(quiet_s=0.0, patience_s=15.0)
    plan.need("A", 100.0, asked=True)
    assert plan.due(114.9) is None
    assert plan.due(115.0) == "A"
    assert plan.due(129.9) is None
    assert plan.due(130.0) == "A"


def test_the_venue_says_how_long_to_wait() -> None:
    plan = SnapshotPlan()
    plan.need("A", 100.0)
    plan.seen("A", 1)
    plan.due(100.0)
    assert plan.failed("A", 100.0, wait_s=40.0) == 40.0
    assert plan.next_s(100.0) == 140.0


def test_asking_is_paced_and_an_instrument_not_asked_for_all_the_time() -> None:
    plan = SnapshotPlan(quiet_s=0.0, pause_s=0.5, burst=3, again_s=2.0)
    for symbol in "ABCDE":
        plan.need(symbol, 100.0)
    assert [plan.due(100.0) for _ in range(4)] == ["A", "B", "C", None]
    assert plan.next_s(100.0) == 100.5
    assert plan.due(100.5) == "D"
    assert plan.due(100.9) is None
    assert plan.due(101.0) == "E"
    plan.answered("A", None, 101.0)
    plan.need("A", 101.0)
    assert plan.due(101.9) is None
    assert plan.due(102.0) == "A"


def test_a_lost_connection_forgets_needs_but_not_the_pace() -> None:
    plan = SnapshotPlan(quiet_s=0.0, burst=1, pause_s=10.0)
    plan.need("A", 100.0)
    assert plan.due(100.0) == "A"
    plan.clear()
    assert not len(plan)
    plan.need("B", 101.0)
    assert plan.due(101.0) is None
    assert plan.due(110.0) == "B"
