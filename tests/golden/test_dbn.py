"""Databento's files: every vector against their decoder, MBO books against MBP-10 and the end."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import databento_dbn
import numpy as np
import pytest

from marketflow.operators.events import EventKind
from marketflow.operators.formats.dbn.decoder import DbnDecoder
from marketflow.schemas.codes import Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import interval_ns
from marketflow.sources.reader import Limits
from tests.reference import dbn as twin
from tests.reference.books import NaiveBook, groups
from tests.support.captures import TestFrame, frames
from tests.support.dbn_files import csv_rows, nanos, told_levels
from tests.support.decoding import Found, cut, decode, frames_of, same

#: mbo L3; whole tops L2; the rest has no book.
BOOKS = {"mbo": "L3", "mbp-1": "L2", "mbp-10": "L2", "tbbo": "L2"}
TABLES = {"imbalance": "imbalances", "statistics": "statistics", "status": "market_status"} | {
    f"ohlcv-{interval}": "bars" for interval in ("1s", "1m", "1h", "1d")
}


def twin_rows(found: np.ndarray) -> list[twin.Row]:
    """EVENT rows as the twin's, without the feed's end."""
    assert found[-1]["kind"] == EventKind.FEED_END
    assert (found[:-1]["price_scale"] == 9).all()
    names = (
        "kind", "side", "price", "size", "order_lo", "count", "flags", "sequence", "ts_event",
        "ts_recv",
    )  # fmt: skip
    return [twin.Row(*row) for row in found[list(names)][:-1].tolist()]


def test_every_vector_decodes_to_what_their_own_decoder_says(data: Path) -> None:
    paths = sorted((data / "databento-dbn-vectors").glob("*.dbn.zst"))
    assert len(paths) == 43
    for path in paths:
        metadata, *records = twin.objects(path)
        schema = path.name.split(".")[1]
        found = decode(DbnDecoder, frames_of(f"dbn:{path}"))
        assert found.dead == [], path.name
        assert found.messages == len(records), path.name
        book = BOOKS.get(schema, "")
        expected = [row for record in records for row in twin.rows(record, book)]
        assert twin_rows(found.rows) == expected, path.name
        tables = {name: len(rows) for name, rows in found.tables.items()}
        told = {TABLES[schema]: len(records)} if schema in TABLES and records else {}
        assert tables == told, path.name
        if expected or tables:
            symbols = list(metadata.mappings) or [f"#{records[0].instrument_id}"]
            venue = "XNAS" if schema == "imbalance" else "GLBX"
            assert found.instruments == tuple((venue, s) for s in symbols[:1]), path.name


def test_versions_agree(data: Path) -> None:
    """The same records in DBN 1, 2 and 3 make the same rows and tables."""
    by_schema: dict[str, list[Found]] = {}
    for path in sorted((data / "databento-dbn-vectors").glob("*.dbn.zst")):
        found = decode(DbnDecoder, frames_of(f"dbn:{path}"))
        by_schema.setdefault(path.name.split(".")[1], []).append(found)
    for name, versions in by_schema.items():
        assert all(same(versions[0], other) for other in versions[1:]), name


def test_tables_of_the_vectors(data: Path) -> None:
    folder = data / "databento-dbn-vectors"
    imbalances = decode(DbnDecoder, frames_of(f"dbn:{folder}/*imbalance.v3*")).tables["imbalances"]
    for row, record in zip(
        imbalances, twin.objects(folder / "test_data.imbalance.v3.dbn.zst")[1:], strict=True
    ):
        assert row["reference_price"].scaleb(9) == record.ref_price
        assert row["imbalance_size"] == record.total_imbalance_qty
        assert row["side"] == {"B": "bid", "A": "ask"}[str(record.side)]
        assert (row["far_price"], row["near_price"]) == (None, None)
    status = decode(DbnDecoder, frames_of(f"dbn:{folder}/*status.v3*")).tables["market_status"]
    assert (status[0]["status"], status[0]["reason"]) == ("open", "trading scheduled")
    statistics = decode(DbnDecoder, frames_of(f"dbn:{folder}/*statistics.v1*")).tables["statistics"]
    assert [row["kind"] for row in statistics] == ["lowest_offer", "trading_session_high_price"]
    assert statistics[0]["value"] == 100


@pytest.mark.parametrize("interval", ["1s", "1m", "1h", "1d"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_bars_of_the_vectors(data: Path, interval: str, version: int) -> None:
    """Every ohlcv record is a row of bars, with what it tells and nulls for what it does not."""
    path = data / "databento-dbn-vectors" / f"test_data.ohlcv-{interval}.v{version}.dbn.zst"
    _, *records = twin.objects(path)
    bars = decode(DbnDecoder, frames_of(f"dbn:{path}")).tables.get("bars", [])
    assert len(bars) == len(records) == (0 if interval == "1d" else 2)
    for row, record in zip(bars, records, strict=True):
        assert row["ts_open"] == record.ts_event
        assert row["ts_close"] == record.ts_event + interval_ns(interval)
        prices = (record.open, record.high, record.low, record.close)
        assert tuple(row[name].scaleb(9) for name in ("open", "high", "low", "close")) == prices
        assert (row["volume"], row["interval"]) == (record.volume, interval)
        assert (row["origin"], row["is_final"]) == ("venue", True)
        untold = ("notional", "trade_count", "buy_volume", "sell_volume")
        assert [row[name] for name in untold] == [None] * 4


def words(*values: int) -> bytes:
    return np.array(values, np.uint64).tobytes()


def ohlcv(rtype: int, size: int = 7, **changed: int) -> bytes:
    """One record of 64-bit words, as documented."""
    values = {"ts": 1_700_000_000 * 10**9, "open": 5, "high": 9, "low": 1, "close": 2**63 - 2}
    values |= {"volume": 2**64 - 1} | changed
    head = 7 << 32 | 1 << 16 | rtype << 8 | 2 * size
    return words(head, *values.values())[: 8 * size]


def decoded(file: Path, *records: bytes) -> Found:
    """Records behind the header of a vector without bars (its schema says nothing of them)."""
    header = frames_of(f"dbn:{file}")[0].column("payload")[0].as_py()
    batch = frames([TestFrame(header, FrameKind.HEADER), TestFrame(b"".join(records))])
    return decode(DbnDecoder, [batch])


def test_bars_that_cannot_be_taken_are_letters(data: Path) -> None:
    file = data / "databento-dbn-vectors" / "test_data.trades.v3.dbn.zst"
    good = ohlcv(33)
    bad = {
        "truncated": ohlcv(33, size=6),
        "unknown_message": ohlcv(17),
        "bad_timestamp": ohlcv(36, ts=2**63 - 1),
        "bad_price": ohlcv(32, low=2**63 - 1),
    }
    found = decoded(file, good, *bad.values(), ohlcv(36))
    assert [letter["reason"] for letter in found.dead] == list(bad)
    assert [letter["raw"] for letter in found.dead] == list(bad.values())
    assert [row["interval"] for row in found.tables["bars"]] == ["1m", "eod"]
    (row, _) = found.tables["bars"]
    assert (row["close"], row["volume"]) == (Decimal(2**63 - 2).scaleb(-9), 2**64 - 1)


def test_records_without_a_row_are_counted_by_kind(data: Path) -> None:
    file = data / "databento-dbn-vectors" / "test_data.trades.v3.dbn.zst"
    header = frames_of(f"dbn:{file}")[0].column("payload")[0].as_py()
    system = words(40 // 4 + (23 << 8), 0, 0, 0, 0)
    mbo = [
        words(14 | 160 << 8 | 7 << 32, 10, 1, 5, ord(a) << 48 | ord("B") << 56 | 1, 10, 0)
        for a in "FFN"
    ]
    payload = b"".join([system, *mbo, system])
    batch = frames([TestFrame(header, FrameKind.HEADER), TestFrame(payload)])
    events = DbnDecoder().apply(batch).events
    assert {k: n for k, n in events.rowless.items() if n} == {
        "system": 2,
        "mbo_fill": 2,
        "mbo_none": 1,
    }
    assert events.messages == 5


def test_mbo_rows_make_every_mbp10_row(data: Path) -> None:
    """Each of 1,040 MBP-10 rows is the book after an MBO record of the same sequence."""
    path = data / "databento-mbo-mbp" / "ARL_XNAS_20250717_mbo_first.csv.zst"
    found = decode(DbnDecoder, frames_of(f"dbn:{path}"))
    assert (found.messages, found.dead) == (1500, [])
    assert found.instruments == (("XNAS", "ARL"),)
    book = NaiveBook()
    after: dict[int, list[Any]] = {}
    for row in found.rows[:-1]:
        book.apply(row)
        state = (book.side(Side.BID, 10), book.side(Side.ASK, 10))
        after.setdefault(int(row["sequence"]), []).append(state)
    assert book.unknown == 0
    told = csv_rows(data, "ARL_XNAS_20250717_mbp10_first.csv.zst")
    assert len(told) == 1040
    missing = [
        row["sequence"] for row in told if told_levels(row) not in after[int(row["sequence"])]
    ]
    assert missing == []


def test_mbp10_rows_are_whole_books(data: Path) -> None:
    path = data / "databento-mbo-mbp" / "ARL_XNAS_20250717_mbp10_first.csv.zst"
    found = decode(DbnDecoder, frames_of(f"dbn:{path}"))
    assert (found.messages, found.dead) == (1040, [])
    told = csv_rows(data, "ARL_XNAS_20250717_mbp10_first.csv.zst")
    book = NaiveBook()
    states, trades = [], 0
    for group in groups(found.rows[:-1]):
        for row in group:
            book.apply(row)
        if group[-1]["kind"] == EventKind.END:
            states.append((book.side(Side.BID), book.side(Side.ASK)))
        else:
            trades += 1
    assert states == [told_levels(row) for row in told]
    assert trades == sum(row["action"] == "T" for row in told)


def test_csv_columns_are_the_mbo_fields(data: Path) -> None:
    name = "ARL_XNAS_20250717_mbo_first.csv.zst"
    found = decode(DbnDecoder, frames_of(f"dbn:{data}/databento-mbo-mbp/{name}")).rows[:-1]
    kinds = {"A": EventKind.ADD, "C": EventKind.REDUCE, "R": EventKind.CLEAR, "T": EventKind.TRADE}
    told = [row for row in csv_rows(data, name) if row["action"] != "F"]
    rows = found[found["kind"] != EventKind.CLOCK]
    for row, line in zip(rows, told, strict=True):
        assert row["kind"] == kinds[line["action"]]
        assert row["sequence"] == int(line["sequence"])
        assert np.datetime64(int(row["ts_event"]), "ns") == np.datetime64(line["ts_event"][:-1])
        if line["action"] in "AC":
            assert row["order_lo"] == int(line["order_id"])
            assert row["price"] == nanos(line["price"])
            assert row["size"] == int(line["size"])


def test_a_snapshot_and_its_changes_end_in_the_final_book(data: Path) -> None:
    folder = data / "databento-mbo-mbp"
    name = "orderbooks_ESM4_mbo_20240508T000000_2s.dbn.zst"
    oracle = json.loads((folder / "expected.json").read_text())[name]["final"]
    found = decode(DbnDecoder, frames_of(f"dbn:{folder / name}"))
    assert (found.messages, found.dead) == (13_796, [])
    assert found.instruments == (("GLBX", "ESM4"),)
    records = twin.objects(folder / name)[1:]
    expected = [row for record in records for row in twin.rows(record, "L3")]
    assert twin_rows(found.rows) == expected
    book = NaiveBook()
    for row in found.rows:
        book.apply(row)
    bids, asks = book.side(Side.BID), book.side(Side.ASK)
    assert len(book.orders) == oracle["orders"]
    assert (len(bids), len(asks)) == (oracle["bid_levels"], oracle["ask_levels"])
    for side, best in ((bids, oracle["best_bid"]), (asks, oracle["best_ask"])):
        assert (side[0][0] / 10**9, side[0][1]) == tuple(best)


@pytest.mark.parametrize(
    "pattern",
    [
        "databento-mbo-mbp/ARL_XNAS_20250717_mbo_first.csv.zst",
        "databento-mbo-mbp/ARL_XNAS_20250717_mbp10_first.csv.zst",
        "databento-mbo-mbp/*.dbn.zst",
        "databento-dbn-vectors/*",
        "databento-mbo-mbp/*mbo*",
    ],
)
def test_cuts_and_restarts_change_nothing(data: Path, pattern: str) -> None:
    url = f"dbn:{data}/{pattern}"
    whole = decode(DbnDecoder, frames_of(url))
    small = frames_of(url, Limits(max_rows=97, max_bytes=30_000))
    assert same(decode(DbnDecoder, cut(small, 41), restarts=True), whole)


def test_all_fixed_layouts_are_their_dtypes() -> None:
    """The words the kernel reads stand where databento_dbn says."""
    fields = _offsets(databento_dbn.MBOMsg._dtypes)
    assert [fields[n] for n in ("order_id", "price", "size", "ts_recv", "sequence")] == [
        16, 24, 32, 40, 52,
    ]  # fmt: skip
    fields = _offsets(databento_dbn.MBP10Msg._dtypes)
    assert [fields[n] for n in ("price", "size", "action", "ts_recv", "bid_px_09")] == [
        16, 24, 28, 32, 336,
    ]  # fmt: skip


def _offsets(dtypes: list[tuple[str, str]]) -> dict[str, int]:
    layout = np.dtype([(name, kind) for name, kind in dtypes])
    assert layout.fields is not None
    return {name: at for name, (_, at, *_) in layout.fields.items()}
