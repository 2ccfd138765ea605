"""The arbiter of redundant lines: against its slow twin, and its rules one by one."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.arbitration.lines import Arbiter, ArbiterConfig
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import PACKET, from_hole, from_line_note, from_start
from marketflow.schemas.messages.lines import PacketKind as K
from tests.reference.arbiter import Packet, TwinArbiter

CONFIG = ArbiterConfig(("A", "B"), wait_ns=50, lag_ns=320, silent_ns=3000, lag_messages=1000)
Items = list[tuple[Any, ...]]


def packed(packets: Sequence[Packet]) -> tuple[np.ndarray, np.ndarray]:
    """Packets as the arbiter takes them."""
    data, rows = b"", np.zeros(len(packets), PACKET)
    for row, packet in zip(rows, packets, strict=True):
        block = b"".join(len(m).to_bytes(2, "big") + m for m in packet.messages)
        row["first"], row["count"], row["line"] = packet.first, len(packet.messages), packet.line
        row["begin"], row["size"] = len(data), len(block)
        row["ts_recv"], row["kind"] = packet.ts, packet.kind
        data += block
    return np.frombuffer(data + b"\0", np.uint8), rows


def told(batches: Sequence[pa.RecordBatch]) -> Items:
    """Frames as the twin tells them: messages are numbered by what went before them."""
    items: Items = []
    number = offset = 0
    for batch in batches:
        columns = ("kind", "ts_recv", "payload", "offset", "note")
        for kind, ts, payload, at, note in zip(
            *(batch.column(c).to_pylist() for c in columns), strict=True
        ):
            assert at == offset
            assert (note is None) == (kind in (FrameKind.DATA, FrameKind.END))
            if kind == FrameKind.DATA:
                offset += len(payload)
                while payload:
                    end = 2 + int.from_bytes(payload[:2], "big")
                    items.append(("message", number, payload[2:end], ts))
                    number, payload = number + 1, payload[end:]
            elif kind in (FrameKind.GAP, FrameKind.FILLED, FrameKind.LOST):
                first, last = from_hole(payload)
                items.append((FrameKind(kind).name.lower(), first, last))
                number = last + 1 if kind == FrameKind.LOST else number
            elif kind == FrameKind.START:
                number, session = from_start(payload)
                assert session == b"TODAY"
                items.append(("start", number))
            elif kind == FrameKind.LINE:
                line = from_line_note(payload)
                items.append(("line", line.line, line.event, line.sequence, line.behind, ts))
            else:
                items.append(("broken", payload) if kind == FrameKind.BROKEN else ("end",))
    return items


def arbiter_of(config: ArbiterConfig) -> Arbiter:
    arbiter = Arbiter(config)
    arbiter.session = b"TODAY"
    return arbiter


def run(packets: Sequence[Packet], config: ArbiterConfig = CONFIG) -> tuple[Items, Arbiter]:
    """All packets at once; what is told, but for where it starts."""
    arbiter = arbiter_of(config)
    items = told([arbiter.apply(*packed(packets))])
    assert items[:1] == twin(packets, config)[:1]
    return [item for item in items if item[0] != "start"], arbiter


def twin(packets: Sequence[Packet], config: ArbiterConfig = CONFIG) -> Items:
    found = TwinArbiter(config)
    for packet in packets:
        found.take(packet)
    return found.items


def body(number: int) -> bytes:
    return number.to_bytes(4, "big") * (1 + number % 3)


def data(line: int, first: int, count: int = 1, ts: int = 1) -> Packet:
    return Packet(line, first, tuple(body(n) for n in range(first, first + count)), ts)


@st.composite
def feeds(draw: st.DrawFn) -> tuple[list[Packet], ArbiterConfig]:
    """Two lines (and one that is asked) of one session, with losses, delays and nonsense."""
    total = draw(st.integers(1, 60))
    rng = draw(st.randoms(use_true_random=False))
    start = rng.choice([1, 1, 1, 5])
    step = rng.choice([1, 5, 30, 400])
    packets: list[Packet] = []
    for line in (0, 1, 2):
        loss = rng.choice([0.0, 0.1, 0.4]) if line < 2 else 0.8
        delay = rng.choice([0, 0, 40, 500, 5000])
        at = start + (rng.randint(0, 3) if line else 0)
        while at < total:
            count = rng.randint(1, 4)
            ts = 1 + at * step + delay + rng.randint(0, 30)
            if rng.random() >= loss:
                packets += [data(line, at, count, ts)] * rng.choice([1, 1, 1, 2])
            if rng.random() < 0.1:
                packets.append(Packet(line, at + count, (), ts + 1, K.HEARTBEAT))
            if rng.random() < 0.03:
                kind = rng.choice([K.BAD, K.UP, K.DOWN, K.CLOCK, K.DATA, K.HEARTBEAT])
                far = at + rng.choice([100, 10**7, 10**9])
                packets.append(Packet(line, far, (b"x",) if kind <= K.DATA else (), ts, kind))
            at += count
        if rng.random() < 0.5:
            packets.append(Packet(line, at, (), 1 + at * step + delay, K.END))
    packets.sort(key=lambda p: p.ts + rng.choice([0, 0, 0, 25]))
    config = replace(
        CONFIG,
        recover_ns=rng.choice([0, 0, 100, 2000]),
        max_packets=rng.choice([2, 5, 1000]),
        max_behind=rng.choice([3, 20, 10**6]),
        lag_messages=rng.choice([4, 1000]),
        first=rng.choice([0, 0, start]),
    )
    return packets, config


@given(feeds())
def test_equals_the_twin(feed: tuple[list[Packet], ArbiterConfig]) -> None:
    packets, config = feed
    arbiter = arbiter_of(config)
    items = told([arbiter.apply(*packed(packets))])
    assert items == twin(packets, config)
    counts = arbiter.stats()
    assert counts["messages"] == sum(item[0] == "message" for item in items)
    assert counts["holes"] <= sum(item[0] == "lost" for item in items)


@given(feeds(), st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_cuts_and_restores_change_nothing(
    feed: tuple[list[Packet], ArbiterConfig], cuts: list[int], restore: bool
) -> None:
    packets, config = feed
    whole = told([arbiter_of(config).apply(*packed(packets))])
    arbiter, batches = arbiter_of(config), []
    bounds = sorted({0, len(packets), *(c for c in cuts if c < len(packets))})
    for a, b in pairwise(bounds):
        if restore:
            state = pickle.dumps(arbiter.snapshot())
            arbiter = arbiter_of(config)
            arbiter.restore(pickle.loads(state))
        batches.append(arbiter.apply(*packed(packets[a:b])))
    assert told(batches) == whole


def messages(items: Items) -> list[int]:
    return [item[1] for item in items if item[0] == "message"]


def test_first_copy_wins_and_the_other_line_fills() -> None:
    feed = [data(0, 1, 2, 10), data(1, 1, 2, 11), data(0, 5, 1, 20), data(1, 3, 2, 30)]
    feed += [data(1, 5, 1, 31)]
    items, arbiter = run(feed)
    assert messages(items) == [1, 2, 3, 4, 5]
    assert len(items) == 5
    counts = arbiter.stats()
    assert counts["duplicates"] == 3
    assert counts["lines"]["A"]["messages"] == 3


def test_lines_may_cut_packets_differently() -> None:
    items, _ = run([data(0, 1, 3, 1), data(1, 2, 4, 2), data(0, 4, 3, 3)])
    assert messages(items) == [1, 2, 3, 4, 5, 6]


def test_a_hole_waits_and_is_given_up() -> None:
    feed = [data(0, 1), data(0, 4, 1, 10), Packet(-1, 0, (), 59, K.CLOCK)]
    assert messages(run(feed)[0]) == [1]
    items, arbiter = run([*feed, Packet(-1, 0, (), 60, K.CLOCK)])
    assert items[1:] == [("lost", 2, 3), ("message", 4, body(4), 10)]
    assert arbiter.hole is None
    assert arbiter.stats()["lost"] == 2


def test_what_can_be_asked_for_is_told_and_then_filled_in_order() -> None:
    config = replace(CONFIG, recover_ns=1000)
    feed = [data(0, 1), data(0, 4, 1, 10), Packet(-1, 0, (), 60, K.CLOCK)]
    items, arbiter = run(feed, config)
    assert items[1:] == [("gap", 2, 3)]
    assert arbiter.hole == (2, 3, 10)
    feed += [data(2, 2, 1, 70)]
    items, arbiter = run(feed, config)
    assert items[1:] == [("gap", 2, 3)]
    assert arbiter.hole == (3, 3, 10)
    filled, _ = run([*feed, data(2, 3, 1, 80)], config)
    assert filled[1:3] == [("gap", 2, 3), ("filled", 2, 3)]
    assert messages(filled) == [1, 2, 3, 4]
    lost, _ = run([*feed, Packet(-1, 0, (), 1060, K.CLOCK)], config)
    assert [item[0] for item in lost] == [
        "message", "gap", "filled", "message", "lost", "message",
    ]  # fmt: skip
    assert messages(lost) == [1, 2, 4]


def test_a_heartbeat_tells_of_a_hole_at_the_end() -> None:
    feed = [data(0, 1), Packet(0, 3, (), 10, K.HEARTBEAT), Packet(0, 3, (), 60, K.HEARTBEAT)]
    assert run(feed)[0][1:] == [("lost", 2, 2)]
    assert run([*feed, Packet(1, 3, (), 61, K.END)])[0][1:] == [("lost", 2, 2), ("end",)]


def test_a_full_buffer_gives_up_the_oldest_hole() -> None:
    config = replace(CONFIG, max_packets=3, wait_ns=10**6, max_jump=10**6)
    feed = [data(0, 1), data(0, 10), data(0, 20), data(0, 30), data(0, 40)]
    items, arbiter = run(feed, config)
    assert [i[:3] for i in items if i[0] == "lost"] == [("lost", 2, 9)]
    assert messages(items) == [1, 10]
    assert arbiter.hole is not None


def test_a_stop_lets_out_what_waits() -> None:
    arbiter = arbiter_of(replace(CONFIG, recover_ns=10**6))
    feed = [data(0, 1), data(0, 3, 1, 10), data(0, 6, 1, 20), Packet(-1, 0, (), 70, K.CLOCK)]
    first = arbiter.apply(*packed(feed))
    items = told([first, arbiter.flush()])
    assert [item[:2] for item in items] == [
        ("start", 1), ("message", 1), ("gap", 2), ("lost", 2), ("message", 3), ("lost", 4),
        ("message", 6),
    ]  # fmt: skip
    assert told([arbiter.flush()]) == []


def test_bytes_are_bounded_too() -> None:
    config = replace(CONFIG, max_bytes=1 << 20, wait_ns=10**6)
    big = tuple(b"x" * 40_000 for _ in range(12))
    feed = [data(0, 1), *(Packet(0, 10 + 20 * k, big) for k in range(6))]
    items, _ = run(feed, config)
    assert items == twin(feed, config)[1:]
    assert [i[1:3] for i in items if i[0] == "lost"] == [(2, 9), (22, 29), (42, 49), (62, 69)]


def test_a_number_far_ahead_is_not_believed_alone() -> None:
    feed = [data(0, 1), data(0, 10**9), data(0, 2)]
    items, arbiter = run(feed)
    assert [item[0] for item in items] == ["message", "broken", "message"]
    assert arbiter.stats()["bad_packets"] == 1
    far = [*feed, data(1, 10**9 + 1, 1, 2), data(0, 10**9 + 2, 1, 2)]
    items, _ = run(far)
    assert items[3:] == [
        ("lost", 3, 10**9), ("message", 10**9 + 1, body(10**9 + 1), 2),
        ("message", 10**9 + 2, body(10**9 + 2), 2),
    ]  # fmt: skip


def test_a_silent_line_is_down_and_comes_back() -> None:
    feed = [data(0, n, 1, 1000 * n) for n in range(1, 6)]
    items, arbiter = run([data(1, 1, 1, 900), *feed])
    assert [item for item in items if item[0] == "line"] == [
        ("line", "B", "line_down", 2, None, 4000)
    ]
    assert arbiter.stats()["lines"]["B"]["status"] == "down"
    items, _ = run([data(1, 1, 1, 900), *feed, data(1, 5, 1, 5001)])
    assert [item[2] for item in items if item[0] == "line"] == ["line_down", "line_recovered"]


def test_a_lost_connection_is_down_at_once() -> None:
    items, _ = run([data(0, 1), Packet(1, 0, (), 2, K.DOWN), Packet(1, 0, (), 3, K.UP)])
    assert [item[1:3] for item in items[1:]] == [("B", "line_down"), ("B", "line_recovered")]


def test_a_line_that_lags_says_so_once_and_again_when_it_has_caught_up() -> None:
    ahead = [data(0, n, 1, 100 * n) for n in range(1, 60)]
    behind = [data(1, n, 1, 100 * n + (700 if 10 <= n < 40 else 0)) for n in range(1, 60)]
    items, _ = run(sorted([*ahead, *behind], key=lambda p: p.ts))
    assert messages(items) == list(range(1, 60))
    events = [item[1:3] for item in items if item[0] == "line"]
    assert events == [("B", "line_lagging"), ("B", "line_recovered")]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"lines": ()}, "a name of its own"), ({"wait_ns": -1}, "0 or more"),
     ({"lag_ns": 0}, "1 or more"), ({"max_bytes": 5}, "at least"), ({"max_packets": 1}, "2 or")],
)  # fmt: skip
def test_settings_that_cannot_be_meant(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, **change)


def test_state_of_other_lines_is_refused() -> None:
    state = Arbiter(CONFIG).snapshot()
    with pytest.raises(ValueError, match="same lines"):
        Arbiter(replace(CONFIG, lines=("A", "C"))).restore(state)
