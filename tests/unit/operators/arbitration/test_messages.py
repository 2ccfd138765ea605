"""Redundant connections to a venue: recorded Binance messages split over two lines with faults."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from marketflow.operators.arbitration.messages import MessageArbiter, MessageArbiterConfig
from marketflow.operators.arbitration.sequences import Sequenced, sequence_of
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.normalise.core import Normaliser, ShardPlan
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import from_line_note
from tests.support.captures import TestFrame, frames

MS = 1_000_000
T0 = 1_723_161_253_000_000_000
CONFIG = MessageArbiterConfig("BINANCE", ("A", "B"), lag_ns=1000 * MS)
SNAPSHOT = {"lastUpdateId": 50093239188, "bids": [["61700.00", "1"]], "asks": [["61900.00", "1"]]}


@pytest.fixture(scope="module")
def recorded(data: Path) -> list[tuple[int, bytes]]:
    """(arrival, message) of a part of a recorded feed: depth, trades, best prices."""
    path = data / "binance-ws-hftbacktest" / "spot_btcusdt_20240808.gz"
    with gzip.open(path) as file:
        lines = [next(file).split(b" ", 1) for _ in range(3_000)]
    return [(int(ts), text.strip()) for ts, text in lines]


def on_line(
    messages: Sequence[tuple[int, bytes]], line: str, lost: frozenset[int] = frozenset(),
    delay: int = 0,
) -> list[TestFrame]:  # fmt: skip
    """What one connection receives, its opening and the REST answer included."""
    start = messages[0][0] - 1
    found = [
        TestFrame(b"", FrameKind.CONNECT, line, "wss://x/stream?streams=btcusdt@depth", start),
        TestFrame(json.dumps(SNAPSHOT), FrameKind.HTTP, line, "/depth?symbol=BTCUSDT", start),
    ]
    found += [
        TestFrame(text, FrameKind.DATA, line, None, ts + delay)
        for k, (ts, text) in enumerate(messages)
        if k not in lost
    ]
    return found


def merged(*lines: list[TestFrame]) -> list[TestFrame]:
    return sorted((frame for line in lines for frame in line), key=lambda f: f.ts_recv)


def arbitrated(
    rows: Sequence[TestFrame], config: MessageArbiterConfig = CONFIG, cut: int = 700
) -> tuple[list[dict[str, Any]], MessageArbiter]:
    arbiter = MessageArbiter(config)
    parts = [arbiter.apply(frames(rows[at : at + cut])) for at in range(0, len(rows), cut)]
    parts.append(arbiter.flush())
    return pa.Table.from_batches(parts).to_pylist(), arbiter


def tables(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What the flow makes of frames, without arrival times."""
    batch = frames(
        TestFrame(r["payload"], r["kind"], r["connection"], r["note"], r["ts_recv"]) for r in rows
    )
    normaliser = Normaliser("feed", BinanceFeed("spot", 1), ShardPlan(0, 1))
    shard = BookShard(0, BookConfig(shards_per_feed=1))
    normalised = normaliser.apply(batch)
    made = shard.apply(normalised.parts[0][1]).tables
    assert not normalised.feed.tables
    found = {}
    for name, table in made.items():
        columns = [c for c in table.schema.names if c != "ts_recv"]
        plain = pa.Table.from_batches([table.select(columns)])
        for k, field in enumerate(plain.schema):
            if pa.types.is_timestamp(field.type):
                plain = plain.set_column(k, field.name, plain.column(k).cast(pa.int64()))
        found[name] = plain.to_pylist()
    return found


def books(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {n: found[n] for n in ("book_events", "trades", "depth") if n in found}


def events(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    notes = [from_line_note(r["payload"]) for r in rows if r["kind"] == FrameKind.LINE]
    return [(note.line, note.event) for note in notes]


def is_gapless(payload: bytes) -> bool:
    """Best prices are only ever the newest: one that comes late is not made up for."""
    sequence = sequence_of("BINANCE", payload)
    return sequence is not None and sequence.gapless


def test_losses_of_one_line_are_filled_by_the_other(recorded: list[tuple[int, bytes]]) -> None:
    rng = random.Random(3)
    lost = [frozenset(rng.sample(range(3_000), 600)) for _ in range(2)]
    only_a = frozenset(lost[0] - lost[1])
    only_b = frozenset(lost[1] - lost[0])
    rows, arbiter = arbitrated(
        merged(on_line(recorded, "A", only_a), on_line(recorded, "B", only_b, 3 * MS))
    )
    alone, _ = arbitrated(on_line(recorded, "A"))
    numbered = Counter(r["payload"] for r in rows if is_gapless(r["payload"]))
    assert max(numbered.values()) == 1
    assert numbered.keys() == {r["payload"] for r in alone if is_gapless(r["payload"])}
    assert arbiter.skipped == 0
    assert arbiter.filled > 50
    assert events(rows) == []
    found, wanted = tables(rows), tables(alone)
    assert books(found)["book_events"] == books(wanted)["book_events"]
    assert found["trades"] == wanted["trades"]
    assert "gap" not in {row["kind"] for row in found.get("quality_events", [])}


def test_what_both_lose_makes_that_book_stale_until_its_snapshot(
    recorded: list[tuple[int, bytes]],
) -> None:
    depth = [k for k, (_, text) in enumerate(recorded) if b"depthUpdate" in text]
    gone = depth[len(depth) // 2]
    lost = frozenset([gone])
    rows, arbiter = arbitrated(
        merged(on_line(recorded, "A", lost), on_line(recorded, "B", lost, MS))
    )
    assert arbiter.skipped == 1
    late = json.loads(recorded[depth[len(depth) // 2 + 4]][1])["data"]
    answer = dict(SNAPSHOT, lastUpdateId=late["u"])
    at = next(k for k, r in enumerate(rows) if r["payload"] == recorded[depth[-5]][1])
    rows.insert(
        at,
        dict(
            rows[at], kind=FrameKind.HTTP, note="/depth?symbol=BTCUSDT", payload=json.dumps(answer)
        ),
    )
    found = tables(rows)["quality_events"]
    kinds = [row["kind"] for row in found if row["kind"] in ("gap", "stale", "valid")]
    assert kinds == ["gap", "stale", "valid"]
    missing = json.loads(recorded[gone][1])["data"]
    (gap,) = [row for row in found if row["kind"] == "gap"]
    assert (gap["sequence_from"], gap["sequence_to"]) == (missing["U"], missing["u"])


def test_a_line_that_lags_and_one_that_is_lost(recorded: list[tuple[int, bytes]]) -> None:
    a, b = on_line(recorded, "A"), on_line(recorded, "B", delay=5_000 * MS)
    rows, arbiter = arbitrated(merged(a, b))
    assert events(rows) == [("B", "line_lagging")]
    assert arbiter.stats()["lines"]["B"]["status"] == "lagging"
    middle = recorded[1_500][0]
    first = [f for f in a if f.ts_recv < middle]
    first.append(TestFrame("", FrameKind.DISCONNECT, "A", "reset by peer", middle))
    rows, _ = arbitrated(merged(first, on_line(recorded, "B", delay=MS)))
    assert events(rows) == [("A", "line_down")]
    # One line is left: no book minds.
    assert {r["kind"] for r in rows} == {
        FrameKind.CONNECT, FrameKind.HTTP, FrameKind.DATA, FrameKind.LINE,
    }  # fmt: skip
    found, wanted = tables(rows), tables(arbitrated(a)[0])
    assert found["book_events"] == wanted["book_events"]
    assert [(q["symbol"], q["kind"]) for q in found["quality_events"] if "line" in q["kind"]] == [
        ("line:A", "line_down")
    ]


def test_the_last_line_takes_the_books_with_it(recorded: list[tuple[int, bytes]]) -> None:
    some = recorded[:200]
    end = some[-1][0]
    gone = [TestFrame("", FrameKind.DISCONNECT, n, "reset", end + k) for k, n in enumerate("AB", 1)]
    back = TestFrame("", FrameKind.CONNECT, "B", "wss://x", end + 9)
    rows, _ = arbitrated([*merged(on_line(some, "A"), on_line(some, "B")), *gone, back])
    assert [r["kind"] for r in rows[-5:]] == [
        FrameKind.LINE, FrameKind.LINE, FrameKind.DISCONNECT, FrameKind.LINE, FrameKind.CONNECT,
    ]  # fmt: skip
    assert [e for _, e in events(rows)] == ["line_down", "line_down", "line_recovered"]


def depth(first: int, last: int, line: str, ts: int) -> TestFrame:
    body = {"e": "depthUpdate", "E": 1, "s": "X", "U": first, "u": last, "b": [], "a": []}
    return TestFrame(json.dumps(body), FrameKind.DATA, line, None, ts)


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [json.loads(r["payload"])["u"] for r in rows if r["kind"] == FrameKind.DATA]


def test_a_hole_waits_for_the_other_line_within_bounds() -> None:
    start = [depth(1, 1, "A", 1), depth(1, 1, "B", 2)]
    late = [depth(3, 3, "A", 10), depth(2, 2, "B", 20)]
    assert numbers(arbitrated([*start, *late])[0]) == [1, 2, 3]
    # Nobody has it: it waits, no longer than it may.
    arbiter = MessageArbiter(CONFIG)
    assert arbiter.apply(frames([*start, late[0]])).num_rows == 1
    assert arbiter.tick(9 + CONFIG.wait_ns).num_rows == 0
    assert arbiter.tick(10 + CONFIG.wait_ns).num_rows == 1
    # A single line has nobody to wait for.
    assert numbers(arbitrated([start[0], late[0]], cut=1)[0]) == [1, 3]
    assert MessageArbiter(CONFIG).apply(frames([start[0], late[0]])).num_rows == 2
    many = [depth(n, n, "A", n) for n in range(3, 30)]
    small = MessageArbiterConfig("BINANCE", ("A", "B"), max_waiting=5)
    assert MessageArbiter(small).apply(frames([*start, *many])).num_rows == 28


def test_numbers_that_begin_anew() -> None:
    rows = [depth(n, n, "A", n) for n in (500, 501, 1, 2, 3)]
    assert numbers(arbitrated(rows)[0]) == [500, 501, 1, 2, 3]


def test_messages_without_numbers_come_from_one_line() -> None:
    rows = [
        TestFrame('{"e":"24hrTicker"}', FrameKind.DATA, n, None, k) for k, n in enumerate("ABAB", 1)
    ]
    found, arbiter = arbitrated(rows)
    assert len(found) == 2
    assert arbiter.left_out == 2


@pytest.mark.parametrize(
    ("venue", "text", "wanted"),
    [
        ("BINANCE_USDM", {"e": "depthUpdate", "s": "X", "U": 5, "u": 9, "pu": 3},
         Sequenced(("depthUpdate", "X"), 4, 9)),
        ("BINANCE", {"stream": "x@depth20@100ms",
                     "data": {"e": "depthUpdate", "s": "X", "U": 5, "u": 9}},
         Sequenced(("x@depth20@100ms", "X"), 9, 9, gapless=False, full=True)),
        ("BINANCE", {"e": "aggTrade", "s": "X", "a": 7}, Sequenced(("aggTrade", "X"), 7, 7)),
        ("BINANCE", {"u": 7, "s": "X", "b": "1", "B": "1", "a": "2", "A": "2"},
         Sequenced(("bookTicker", "X"), 7, 7, gapless=False)),
        ("BINANCE", {"result": None, "id": 1}, None),
        ("OKX", {"arg": {"channel": "books", "instId": "X"}, "action": "update",
                 "data": [{"prevSeqId": 121, "seqId": 123}]}, Sequenced(("books", "X"), 122, 123)),
        ("OKX", {"arg": {"channel": "books", "instId": "X"}, "action": "snapshot",
                 "data": [{"prevSeqId": -1, "seqId": 123}]},
         Sequenced(("books", "X"), 123, 123, full=True)),
        ("OKX", {"arg": {"channel": "books", "instId": "X"}, "action": "update",
                 "data": [{"prevSeqId": 123, "seqId": 123}]}, None),
        ("OKX", {"arg": {"channel": "trades", "instId": "X"},
                 "data": [{"tradeId": "9", "count": "3"}]},
         Sequenced(("trades", "X"), 7, 9)),
        ("OKX", {"event": "subscribe", "arg": {"channel": "books", "instId": "X"}}, None),
        ("BYBIT", {"topic": "orderbook.50.X", "type": "delta", "data": {"s": "X", "u": 8}},
         Sequenced(("orderbook", "orderbook.50.X"), 8, 8)),
        ("BYBIT", {"topic": "orderbook.50.X", "type": "snapshot", "data": {"s": "X", "u": 1}},
         Sequenced(("orderbook", "orderbook.50.X"), 1, 1, full=True)),
        ("BYBIT", {"topic": "publicTrade.X", "data": [{"i": "x"}]}, None),
    ],
)  # fmt: skip
def test_which_numbers_count(venue: str, text: dict[str, Any], wanted: Sequenced | None) -> None:
    assert sequence_of(venue, json.dumps(text).encode()) == wanted


def test_what_is_no_message_has_no_sequence() -> None:
    for venue in ("BINANCE", "OKX", "BYBIT"):
        for payload in (b"", b"pong", b"[1]", b'{"e":5}', b'{"topic":1}', b"\xff"):
            assert sequence_of(venue, payload) is None


def test_lines_of_venues_that_number_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="KRAKEN carry no numbers"):
        MessageArbiterConfig("KRAKEN", ("A", "B"))
