"""Every state that a recovery folder keeps is plain data, so that moving a file breaks none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketflow.operators.arbitration.lines import Arbiter, ArbiterConfig
from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.formats.capture import CaptureFeed
from marketflow.operators.formats.dbn.decoder import DbnDecoder
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.operators.formats.lobster.decoder import LobsterDecoder
from marketflow.operators.formats.tables.decoder import TableDecoder
from marketflow.operators.normalise.core import Normaliser
from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.operators.venues import DECODERS, VENUES
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import PACKET
from marketflow.schemas.recovery import StateError
from marketflow.schemas.shards import ShardPlan
from marketflow.sources.reader import Limits
from marketflow.sources.registry import open_reader, parse_source
from tests.support.captures import TestFrame, batches, capture_frames
from tests.support.decoded import examples
from tests.support.halfway import stopped_halfway
from tests.support.states import assert_plain_folder, plain

_DAY = date(2026, 3, 2)
_CAPTURES = "cryptofeed-captures/{}.jsonl.zst", "checksum-captures/{}.open.jsonl.zst"
#: Sets of texts and maps of text to int, which neither a capture nor an example fills.
_EMPTY = {"partial_symbols", "top_pairs", "history_end", "listing"}
_TOP = {
    "topic": "orderbook.1.X", "type": "snapshot", "ts": 1,
    "data": {"s": "X", "b": [["1", "2"]], "a": [["3", "4"]], "u": 5, "seq": 6},
}  # fmt: skip


def _documented(venue: object) -> list[str]:
    """The messages in the docstrings of a venue's handlers."""
    functions = {
        name: function
        for base in type(venue).__mro__
        for name, function in vars(base).items()
        if base.__module__.startswith("marketflow.operators.venues") and callable(function)
    }
    return [text for function in functions.values() for text in examples(function)]


@pytest.mark.parametrize("exchange", DECODERS)
def test_venues(data: Path, exchange: str) -> None:
    rows = [TestFrame(json.dumps({"exchange": exchange}), FrameKind.HEADER)]
    for name in _CAPTURES:
        if (path := data / name.format(exchange)).is_file():
            rows += capture_frames(path)[:3000]
    rows += map(TestFrame, [*_documented(VENUES[exchange]()), json.dumps(_TOP)])
    feed = CaptureFeed()
    for batch in batches(rows):
        feed.apply(batch)
    for changes in (False, True):
        *_, (_, venue, registry, _, state) = plain(feed.snapshot(changes=changes))
        assert venue
        assert registry
        assert {name for name, value in state.items() if not len(value)} <= _EMPTY


def _itch(_: Path, folder: Path) -> str:
    (folder / "feed.itch").write_bytes(
        b"".join(p for b in _frames("sim:?events=900&symbols=3&seed=1") for p in b[5].to_pylist())
    )
    return f"itch:{folder / 'feed.itch'}?date={_DAY}"


def _lobster(data: Path, _: Path) -> str:
    message, book = sorted((data / "lobster").glob("*_5.csv.zst"))
    return f"lobster:{message}?symbol=X&date={_DAY}&book={book}"


def _csv(_: Path, folder: Path) -> str:
    rows = [f"2026-03-02T10:00:0{n}Z,X,S{n},1.5,2" for n in range(5)]
    (folder / "trades.csv").write_text("\n".join(["ts_event,venue,symbol,price,size", *rows]))
    return f"csv:{folder}/trades.csv?table=trades"


def _dbn(data: Path, _: Path) -> str:
    return f"dbn:{data}/databento-mbo-mbp/orderbooks_ESM4_mbo_20240508T000000_2s.dbn.zst"


def _capture(data: Path, _: Path) -> str:
    return f"capture:{data}/{_CAPTURES[0].format('KUCOIN')}"


def _binance(data: Path, _: Path) -> str:
    return f"binance:{data}/binance-ws-hftbacktest/spot_btcusdt_20240808.gz?market=spot"


def _simulated(form: str, _: Path, __: Path) -> str:
    return f"sim:?events=900&symbols=3&seed=1&format={form}"


def _frames(url: str) -> list[Any]:
    reader = open_reader(parse_source(url))
    found = []
    while (batch := reader.read()) is not None:
        found.append(batch)
    return found


_FEEDS: dict[str, tuple[Callable[[Path, Path], str], Callable[[], FeedDecoder]]] = {
    "itch": (_itch, partial(ItchDecoder, _DAY)),
    "sim itch": (partial(_simulated, "itch"), partial(ItchDecoder, _DAY)),
    "sim binance": (partial(_simulated, "binance"), BinanceFeed),
    "binance": (_binance, BinanceFeed),
    "lobster": (_lobster, partial(LobsterDecoder, "X", _DAY)),
    "csv": (_csv, partial(TableDecoder, "trades")),
    "dbn": (_dbn, DbnDecoder),
    "capture": (_capture, CaptureFeed),
}


def _of_another_version(state: Any) -> Any:
    return {**state, "version": 0} if isinstance(state, dict) else (0, *state[1:])


@pytest.mark.parametrize("name", _FEEDS)
def test_cores_and_readers(data: Path, tmp_path: Path, name: str) -> None:
    """A feed through all cores, a few messages at a time: each state on the way; one of another
    version is refused."""
    url, decoder = _FEEDS[name]
    reader = open_reader(parse_source(url(data, tmp_path)), None, Limits(max_rows=200))
    normaliser = Normaliser("feed", decoder(), ShardPlan(0))
    books: dict[int, BookShard] = {}
    bars: dict[int, BarsShard] = {}
    for _ in range(8):
        frames = reader.read()
        if frames is None:
            break
        plain(reader.position())
        for shard, events in normaliser.apply(frames).parts:
            book = books.setdefault(shard, BookShard(shard, BookConfig()))
            bar = bars.setdefault(shard, BarsShard(BarsConfig(("1s", "1m"))))
            bar.apply(book.apply(events))
        cores: list[Any] = [normaliser, *books.values(), *bars.values()]
        for core in cores:
            plain(core.snapshot(changes=True))
            plain(core.snapshot())
    reader.close()
    assert any(book.memory()["books"] for book in books.values())
    cores = [normaliser, normaliser.decoder, *books.values(), *bars.values()]
    for core in cores:
        with pytest.raises(StateError, match="the release that wrote it"):
            core.restore(_of_another_version(core.snapshot()))


def test_arbiter_of_lines() -> None:
    """One message has come, and one behind a hole is held."""
    arbiter = Arbiter(ArbiterConfig(("A", "B")))
    arbiter.session = b"TODAY"
    message = b"\0\1x"
    packets = np.zeros(2, PACKET)
    packets["first"], packets["count"], packets["size"] = (1, 5), 1, len(message)
    packets["begin"], packets["ts_recv"] = (0, len(message)), 1
    arbiter.apply(np.frombuffer(2 * message + b"\0", np.uint8), packets)
    _, _, _, held, *_ = plain(arbiter.snapshot())
    assert len(held) == 1


def test_a_recovery_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of sources, counters, writers, and states written aside."""
    monkeypatch.setattr("marketflow.flows.runtime.aside.SMALL", 2000)
    sinks = [f"jsonl:{tmp_path / 'rows.jsonl'}", "null:"]
    run = stopped_halfway(tmp_path, monkeypatch, more_sinks=sinks)
    assert_plain_folder(run.recovery, "feed", "normalise", "books", "bars", "sinks")
    assert list(run.recovery.glob("*/aside/*.state"))
