"""What a benchmark is and how its figures are taken.

Each benchmark runs in a process of its own, pinned to core 0 unless it says otherwise, several
times; the median is the figure. Peers are measured in the same call, on the same rows, one right
after the other, because the machine's speed drifts: quote the ratio, not the single figure.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Result:
    """One figure beside its target and its peers, with the conditions it was taken under."""

    name: str
    value: float
    unit: str
    target: float | None
    conditions: str
    better: Better = "higher"
    peers: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Benchmark:
    """A named function of (quick) that yields its results."""

    name: str
    run: Callable[[bool], Iterator[Result]]
    pinned: bool = True


REGISTRY: dict[str, Benchmark] = {}


def benchmark(
    name: str, pinned: bool = True
) -> Callable[[Callable[[bool], Iterator[Result]]], Callable[[bool], Iterator[Result]]]:
    """Register a benchmark under ``name``."""

    def register(run: Callable[[bool], Iterator[Result]]) -> Callable[[bool], Iterator[Result]]:
        assert name not in REGISTRY, name
        REGISTRY[name] = Benchmark(name, run, pinned)
        return run

    return register


@contextmanager
def pinned(core: int = 0) -> Iterator[None]:
    """This process (and what it starts) on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before) if core not in before else core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def rate(work: Callable[[], int], runs: int = 5) -> float:
    """Median of units per second; ``work`` does one run and returns its units. One run warms up."""
    work()
    rates = []
    for _ in range(runs):
        started = time.perf_counter()
        units = work()
        rates.append(units / (time.perf_counter() - started))
    return statistics.median(rates)
