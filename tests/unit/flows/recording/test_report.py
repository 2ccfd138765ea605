"""What a recording says at its end."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from marketflow.flows.errors import RunFailed
from marketflow.flows.recording.record import check_recorded, print_recording


def _summary(**more: Any) -> dict[str, Any]:
    connection = {
        "connection": "okx.0", "frames": 10, "bytes": 100, "connects": 1, "disconnects": 0,
        "resyncs": 0, "refused": 0, "reason": "", "channels": {"books": 9, "trades": 0, "": 3},
    }  # fmt: skip
    return {
        "connections": [connection], "frames": 10, "seconds": 1.0, "frames_per_s": 10,
        "stopped": False, "ended": False, **more,
    }  # fmt: skip


def _printed(summary: dict[str, Any]) -> str:
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_recording(summary, console)
    return " ".join(console.export_text().split())


def test_messages_are_counted_by_channel_and_silence_is_said() -> None:
    text = _printed(_summary())
    assert "okx.0: books 9 messages" in text
    assert "okx.0: trades was subscribed and has brought nothing" in text


@pytest.mark.parametrize(
    ("how", "ending"),
    [
        ({}, "time is over"),
        ({"ended": True}, "the session is over"),
        ({"stopped": True}, "stopped"),
    ],
)
def test_why_it_ended(how: dict[str, bool], ending: str) -> None:
    assert _printed(_summary(**how)).endswith(ending)


def test_lost_messages_are_a_failure_unless_they_may_be_lost() -> None:
    lost = _summary(arbiter={"messages": 100, "lost": 12345})
    with pytest.raises(RunFailed, match=r"12,345 messages were LOST.*--allow-loss"):
        check_recorded(lost)
    check_recorded(lost, allow_loss=True)
    check_recorded(_summary(arbiter={"messages": 100, "lost": 0}))


def test_a_venue_without_its_recording_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_venue", "--venue", "okx",
         "--capture", "/no/such"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no file /no/such: name a recording with --capture" in done.stderr
