"""Rows of our own tables from CSV and Parquet back to events, exact to the last digit."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketflow.operators import ids
from marketflow.operators.events import NO_SEQUENCE, BookType, EventKind
from marketflow.operators.formats.tables.decoder import TableDecoder
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NO_PRICE, to_decimal
from marketflow.sources.files.tables import REQUIRED
from marketflow.sources.reader import Limits
from tests.support.decoding import Found, cut, decode, frames_of, same
from tests.support.reading import write

TRADES = """ts_event,ts_recv,venue,symbol,price,size,aggressor_side,trade_id,sequence,status
2025-07-17T07:05:09.035793433Z,,X,A,5.510000000,100,buy,17,1,normal
2025-07-17 09:05:10+02:00,1752735911000000000,X,"B, C","5.5",1e2,sell,abc,,bust
1752735910000000002,,GLBX,A,-0.000000000001,1000.000000000001,NONE,"q""x",3,correction
,1752735912000000000,X,A,1,1,,,4,
"""


def decode_table(folder: Path, table: str, text: str | None = None, **kwargs: Any) -> Found:
    """A CSV, or the Parquet file that is there."""
    if text is not None:
        path = write(folder / f"{table}.csv", text.encode(errors="surrogateescape"))
        url = f"csv:{path}?table={table}"
    else:
        url = f"parquet:{folder}/{table}.parquet?table={table}"
    return decode(partial(TableDecoder, table), frames_of(url), **kwargs)


def numbers(found: Found) -> list[tuple[Decimal | None, Decimal]]:
    """Prices and sizes of the rows."""
    return [
        (
            None
            if row["price"] == NO_PRICE
            else to_decimal(int(row["price"]), int(row["price_scale"])),
            to_decimal(int(row["size"]), int(row["size_scale"])),
        )
        for row in found.rows[:-1]
    ]


def test_trades_from_text(tmp_path: Path) -> None:
    found = decode_table(tmp_path, "trades", TRADES)
    assert found.dead == []
    assert found.instruments == (("X", "A"), ("X", "B, C"), ("GLBX", "A"))
    rows = found.rows[:-1]
    assert rows["kind"].tolist() == [
        EventKind.TRADE, EventKind.BUST, EventKind.CORRECTION, EventKind.TRADE,
    ]  # fmt: skip
    assert rows["ts_event"].tolist() == [
        1752735909035793433, 1752735910000000000, 1752735910000000002, 1752735912000000000,
    ]  # fmt: skip
    assert rows["ts_recv"].tolist() == [0, 1752735911000000000, 0, 1752735912000000000]
    assert rows["side"].tolist() == [AggressorSide.BUY, AggressorSide.SELL, 0, 0]
    assert rows["sequence"].tolist() == [1, NO_SEQUENCE, 3, 4]
    assert rows["instrument"].tolist() == [0, 1, 2, 0]
    assert (rows["flags"] == RowFlag.LAST).all()
    assert (
        numbers(found)
        == [
            (Decimal("5.51"), Decimal(100)),
            (Decimal("5.5"), Decimal(100)),
            (Decimal("-0.000000000001"), Decimal("1000.000000000001")),
            (Decimal(1), Decimal(1)),
        ]
        or [letter["reason"] for letter in found.dead] == []
    )
    texts = [
        ids.text_of(*(int(row[f"trade_{part}"]) for part in ("hi", "lo", "kind"))) for row in rows
    ]
    assert texts == ["17", "abc", 'q"x', None]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ("1,,X,A,x,1,buy,,,", "bad_price", "price"),
        ("1,,X,A,,1,buy,,,", "bad_price", "price is empty"),
        ("1,,X,A,1,-1,buy,,,", "negative_size", "size"),
        ("1,,X,A,1,one,buy,,,", "bad_size", "size"),
        ("1,,X,A,1e30,1,buy,,,", "out_of_range", "price"),
        ("1,,X,A,1,1,up,,,", "bad_side", "aggressor_side"),
        ("1,,X,A,1,1,buy,,x,", "malformed", "sequence"),
        ("1,,X,A,1,1,buy,,,what", "malformed", "status"),
        (",,X,A,1,1,buy,,,", "bad_timestamp", "ts_event"),
        ("2025-13-01T00:00:00Z,,X,A,1,1,buy,,,", "bad_timestamp", "ts_event"),
        ("1,,X,,1,1,buy,,,", "unknown_instrument", "venue or symbol is empty"),
        ("1,,X,A,1,1,buy,,", "malformed", "not 10 fields"),
        ("1,,X,A,1,1,buy,,,,", "malformed", "not 10 fields"),
        ('1,,X,"A,1,1,buy,,,', "malformed", "not 10 fields"),
        ("1,,X,A,1,1,buy,an id far too long to be exact,,", "bad_id", "trade_id"),
        ("1,,X,\udcff,1,1,buy,,,", "invalid_encoding", "symbol"),
    ],
)
def test_a_bad_line_is_a_dead_letter_by_itself(
    tmp_path: Path, line: str, reason: str, detail: str
) -> None:
    header, first, *_ = TRADES.splitlines()
    found = decode_table(tmp_path, "trades", f"{header}\n{first}\n{line}\n{first}\n")
    assert [(d["reason"], d["detail"], d["raw"]) for d in found.dead] == [
        (reason, detail, line.encode(errors="surrogateescape"))
    ]
    assert found.dead[0]["offset"] == len(header) + len(first) + 2
    assert found.dead[0]["ts_recv"] == 1752735909035793433
    assert len(found.rows) == 3
    assert found.messages == 3
    assert found.instruments == (("X", "A"),)


def test_parquet_is_the_csv(tmp_path: Path) -> None:
    decimal = pa.decimal128(28, 12)
    stamp = pa.timestamp("ns", "UTC")
    name = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "shard": pa.array([3, 3, 4]),
        "ts_event": pa.array([1, 2, 3], stamp),
        "venue": pa.array(["X", "GLBX", "Y"]).cast(name),
        "symbol": pa.array(["A", "B", "A"]).cast(name),
        "price": pa.array([Decimal("1.5"), Decimal(-2), Decimal("0.000000000001")], decimal),
        "size": pa.array([Decimal(10**10), Decimal(5), Decimal("9999999999999999")], decimal),
        "aggressor_side": pa.array(["buy", None, "sell"]).cast(name),
        "trade_id": pa.array(["1", None, "x"]),
        "sequence": pa.array([7, None, 9]),
    }
    pq.write_table(pa.table(columns), tmp_path / "trades.parquet", row_group_size=2)
    text = (
        "ts_event,venue,symbol,price,size,aggressor_side,trade_id,sequence\n"
        "1,X,A,1.5,10000000000,buy,1,7\n2,GLBX,B,-2,5,,,\n"
        "3,Y,A,0.000000000001,9999999999999999,sell,x,9\n"
    )
    found = decode_table(tmp_path, "trades")
    assert found.dead == []
    assert same(found, decode_table(tmp_path, "trades", text))
    small = frames_of(f"parquet:{tmp_path}/trades.parquet?table=trades", Limits(max_rows=1))
    again = decode(partial(TableDecoder, "trades"), small, restarts=True)
    assert same(again, found)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([15, 25]),
        pa.array(["15", "25"]),
        pa.array([Decimal("15.0"), Decimal("25.0")], pa.decimal128(10, 1)),
        pa.array([Decimal(15), Decimal(25)], pa.decimal256(50, 20)),
        pa.array(["15", "25"], pa.large_string()),
        pa.array(["15", "25"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers_of_any_exact_type(tmp_path: Path, column: pa.Array) -> None:
    table = pa.table(
        {
            "ts_event": [1, 2],
            "venue": ["X"] * 2,
            "symbol": ["A"] * 2,
            "price": column,
            "size": column,
        }
    )
    pq.write_table(table, tmp_path / "trades.parquet")
    assert numbers(decode_table(tmp_path, "trades")) == [(15, 15), (25, 25)]


def test_a_number_finer_than_the_column_is_dead_by_itself(tmp_path: Path) -> None:
    price = pa.array([Decimal("1.5"), Decimal("0.0000000000001")], pa.decimal128(30, 13))
    table = pa.table(
        {
            "ts_event": [1, 2],
            "venue": ["X"] * 2,
            "symbol": ["A"] * 2,
            "price": price,
            "size": [1, 1],
        }
    )
    pq.write_table(table, tmp_path / "trades.parquet")
    found = decode_table(tmp_path, "trades")
    assert numbers(found) == [(Decimal("1.5"), 1)]
    assert [(d["reason"], d["detail"], d["offset"]) for d in found.dead] == [
        ("out_of_range", "price", 1)
    ]


def test_quotes_are_the_venues_own(tmp_path: Path) -> None:
    text = ",".join(REQUIRED["quotes"]) + "\n1,X,A,1.5,2,1.6,3\n2,X,A,,,1.6,4\n"
    found = decode_table(tmp_path, "quotes", text)
    assert found.rows["kind"].tolist() == [EventKind.VENUE_BID, EventKind.VENUE_ASK] * 2 + [
        EventKind.FEED_END
    ]
    assert found.rows["flags"].tolist() == [0, 1, 0, 1, 1]
    assert numbers(found) == [
        (Decimal("1.5"), 2), (Decimal("1.6"), 3), (None, 0), (Decimal("1.6"), 4),
    ]  # fmt: skip


def test_book_events_of_orders_and_of_levels(tmp_path: Path) -> None:
    text = """ts_event,venue,symbol,action,side,price,size,order_id,flags
1,X,ORDERS,clear,none,,,7,3
1,X,ORDERS,add,bid,10,5,7,2
2,X,ORDERS,modify,bid,11,4,7,1
3,X,ORDERS,execute,bid,11,1,7,1
4,X,ORDERS,cancel,bid,,1,7,1
5,X,ORDERS,cancel,bid,,,7,1
6,X,LEVELS,add,ask,12,5,,1
7,X,LEVELS,cancel,ask,12,,,1
8,X,LEVELS,clear,ask,,,,1
9,X,LEVELS,modify,ask,,1,,1
9,X,LEVELS,modify,none,1,1,,1
"""
    found = decode_table(tmp_path, "book_events", text)
    assert found.rows["kind"].tolist() == [
        EventKind.CLEAR, EventKind.ADD, EventKind.MODIFY, EventKind.EXECUTE, EventKind.REDUCE,
        EventKind.DELETE, EventKind.LEVEL, EventKind.LEVEL, EventKind.CLEAR, EventKind.FEED_END,
    ]  # fmt: skip
    assert found.rows["flags"].tolist() == [3, 2, 1, 1, 1, 1, 1, 1, 1, 1]
    assert found.rows["side"].tolist()[6:9] == [Side.ASK] * 3
    assert [letter["reason"] for letter in found.dead] == ["bad_price", "bad_side"]
    decoder = TableDecoder("book_events")
    for batch in frames_of(f"csv:{tmp_path}/book_events.csv?table=book_events"):
        instruments = decoder.apply(batch).events.instruments
    assert instruments.rows["book_type"].tolist() == [BookType.L3, BookType.L2]


def test_the_rest_passes_the_books_by(tmp_path: Path) -> None:
    text = "ts_event,kind,value,text\n1,open_interest,1.5,\n2,mood,,fine\n3,oops,x,\n4,,1,\n"
    path = write(tmp_path / "statistics.csv", text.encode())
    url = f"csv:{path}?table=statistics&venue=V&symbol=S%2F1"
    found = decode(partial(TableDecoder, "statistics"), frames_of(url))
    assert found.instruments == (("V", "S/1"),)
    assert [(row["kind"], row["value"], row["text"]) for row in found.tables["statistics"]] == [
        ("open_interest", Decimal("1.5"), None),
        ("mood", None, "fine"),
    ]
    assert [(d["reason"], d["detail"]) for d in found.dead] == [
        ("bad_price", "value"), ("malformed", "kind is empty"),
    ]  # fmt: skip
    assert len(found.rows) == 1


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_the_least_a_table_needs(tmp_path: Path, name: str) -> None:
    """A file of the required columns alone gives its row; codes that may not be null are 0."""
    values = {
        "ts_event": "5", "venue": "V", "symbol": "S", "action": "add", "side": "bid",
        "status": "open", "kind": "k",
    }  # fmt: skip
    header = ",".join(REQUIRED[name])
    line = ",".join(values.get(column, "1") for column in REQUIRED[name])
    found = decode_table(tmp_path, name, f"{header}\n{line}\n")
    assert found.dead == []
    assert len(found.rows) + len(found.tables.get(name, [])) >= 2
    assert {f.name for f in TABLES[name].fields} >= set(REQUIRED[name])


def test_cuts_and_restarts_change_nothing(tmp_path: Path) -> None:
    header, *lines = TRADES.splitlines()
    text = "\n".join([header, *[*lines, "bad,line", '1,,X,"q'] * 20])
    path = write(tmp_path / "trades.csv.gz", text.encode())
    url = f"csv:{path},{path}?table=trades"
    make = partial(TableDecoder, "trades")
    whole = decode(make, frames_of(url))
    assert len(whole.dead) == 80
    assert same(decode(make, cut(frames_of(url), 3), restarts=True), whole)


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    """polars' CSV of a frame with decimals and ns times."""
    frame = pl.DataFrame(
        {
            "ts_event": [1752735909035793433, 1752735909035793434],
            "venue": ["X", "X"],
            "symbol": ["A", "A"],
            "price": ["1.50", "2"],
            "size": ["3", "4.000000000001"],
        }
    ).with_columns(
        pl.col("ts_event").cast(pl.Datetime("ns", "UTC")),
        pl.col("price", "size").cast(pl.Decimal(28, 12)),
    )
    frame.write_csv(tmp_path / "polars.csv")
    frame.write_parquet(tmp_path / "trades.parquet")
    url = f"csv:{tmp_path}/polars.csv?table=trades"
    found = decode(partial(TableDecoder, "trades"), frames_of(url))
    assert found.dead == []
    assert numbers(found) == numbers(decode_table(tmp_path, "trades"))
    assert found.rows["ts_event"].tolist()[:2] == [1752735909035793433, 1752735909035793434]
