"""Waiting for a topic: with a clock that only a pause moves."""

from __future__ import annotations

from marketflow.schemas.topic_wait import wait_for_topic


class _World:
    def __init__(self, appears_s: float = 1e9, stops_s: float = 1e9) -> None:
        self.now_s = 100.0
        self.appears_s, self.stops_s = 100.0 + appears_s, 100.0 + stops_s
        self.told: list[str] = []

    def look(self) -> int | None:
        return 4 if self.now_s >= self.appears_s else None

    def pause(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.now_s >= self.stops_s

    def wait(self) -> int | None:
        return wait_for_topic(
            self.look,
            lambda: "no topic t",
            10.0,
            clock=lambda: self.now_s,
            pause=self.pause,
            tell=self.told.append,
        )


def test_a_topic_that_is_there_costs_no_pause() -> None:
    world = _World(appears_s=0)
    assert world.wait() == 4
    assert world.now_s == 100.0


def test_a_topic_that_appears_soon_is_not_told() -> None:
    world = _World(appears_s=0.9)
    assert world.wait() == 4
    assert world.told == []


def test_a_longer_wait_is_told_once() -> None:
    world = _World(appears_s=5)
    assert world.wait() == 4
    assert world.told == ["no topic t. Waiting for it; giving up in 9 s"]


def test_the_patience_ends() -> None:
    world = _World()
    assert world.wait() is None
    assert 110 <= world.now_s < 110.5


def test_a_stop_ends_the_patience() -> None:
    world = _World(stops_s=3)
    assert world.wait() is None
    assert world.now_s < 103.5
