"""A flow that no catalogue lists runs, is killed and resumed like those that one lists."""

from __future__ import annotations

from pathlib import Path

from tests.recovery.kills import kill_and_resume
from tests.support.counting import FLOW


def test_kills_of_two_processes(tmp_path: Path) -> None:
    outcome = kill_and_resume(
        ["sim:?events=20000&symbols=4&seed=5&format=binance"],
        kills=2,
        seed=8,
        folder=tmp_path,
        processes=2,
        flow=FLOW,
    )
    assert outcome.rows == {"statistics": outcome.undisturbed["messages"]}
    for name in ("flow", "messages", "tables", "counted"):
        assert outcome.summary[name] == outcome.undisturbed[name], name
