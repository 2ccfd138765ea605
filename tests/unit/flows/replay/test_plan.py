"""What is asked of a replay, checked before any broker is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from marketflow.flows.console import Progress
from marketflow.flows.errors import UsageError
from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order, replay, speed_of


@pytest.mark.parametrize(("text", "speed"), [("max", None), ("1x", 1.0), ("0.5x", 0.5)])
def test_speeds(text: str, speed: float | None) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "10", "fast", "0x", "-1x", "1e3x", "x", "MAX"])
def test_a_speed_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="neither max nor a pace such as 1x"):
        speed_of(text)


@pytest.mark.parametrize(
    ("wanted", "order", "fix"),
    [
        ({"topics": ()}, {}, "at least one --topic"),
        ({}, {"sinks": ()}, "at least one --topic and one --sink"),
        ({"topics": ("a?venue=x", "a")}, {}, "named twice"),
        ({"brokers": "me:secret@host:9092"}, {}, "MARKETFLOW_KAFKA_PASSWORD"),
        ({"topics": ("a", "b"), "start": "100"}, {}, "give a time"),
        ({"topics": ("a", "b"), "end": "0:1,1:2"}, {}, "give a time"),
        ({"topics": ("raw.kraken?from=3",)}, {}, "use --from and --to"),
        ({}, {"flow": "trading"}, "no flow 'trading'"),
        ({}, {"sinks": ("file:x",)}, "known sinks"),
        ({}, {"speed": "quick"}, "neither max"),
        ({}, {"replace": True}, "--replace needs --recovery"),
        (
            {},
            {"replace": True, "recovery": Path("r"), "sinks": ("jsonl:-",)},
            "rows of jsonl: cannot be replaced",
        ),
    ],
)
def test_nonsense_is_refused(wanted: dict[str, Any], order: dict[str, Any], fix: str) -> None:
    asked = Wanted(**{"brokers": "127.0.0.1:1", "topics": ("raw.kraken",), **wanted})
    with pytest.raises(UsageError, match=fix):
        replay(Order(**{"wanted": asked, "flow": "market_data", "sinks": ("null:",), **order}))


def test_progress_knows_how_much_is_left() -> None:
    progress = Progress("replay", dict, Console())
    said = []
    for seconds, replayed, warm_up in ((1.0, 0, 5000), (2.0, 1000, 0), (12.0, 26_000, 0)):
        state = {
            "messages": 0, "tables": {}, "dead_letters": {},
            "replayed": replayed, "to_replay": 100_000, "warm_up": warm_up,
        }  # fmt: skip
        said.append(progress.cells(state, seconds)[2].text)
    assert said == ["warming up: 5.0 k messages to go", "1 %", "26 %, 0:00:30 left"]
