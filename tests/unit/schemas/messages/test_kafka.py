"""Frames and rows as messages: every value comes back, and what cannot be read is refused."""

from __future__ import annotations

import io
from contextlib import suppress

import fastavro
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.messages.kafka import WireError
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import TRADES
from marketflow.sinks.jsonl import json_rows
from marketflow.sinks.kafka.encode import identity, json_values
from tests.support.batches import Feed

TABLE = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


def batch(table=TRADES, rows: int = 50, shard: int = 3, seed: int = 1) -> pa.RecordBatch:
    return Feed(np.random.default_rng(seed)).batch(table, shard, rows)


def plain(rows: pa.RecordBatch) -> list[dict]:
    """Values as Python has them; times as integers."""
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in rows.columns]
    return pa.table(columns, names=rows.schema.names).to_pylist()


@TABLE
def test_every_format_gives_back_every_value(table) -> None:
    rows = batch(table)
    messages = wire_rows.to_avro(table, rows, wire_rows.local_schema_id(table))
    text = wire_rows.avro_text(table)
    avro = [wire_rows.from_avro(table, message, text) for message in messages]
    json = [wire_rows.from_json(table, message) for message in json_values(rows)]
    expected = plain(rows)
    assert plain(wire.from_arrow(table, wire.to_arrow(table, rows))) == expected
    assert plain(wire_rows.to_batch(table, avro)) == expected
    assert plain(wire_rows.to_batch(table, json)) == expected


@TABLE
def test_every_message_says_whose_it_is(table) -> None:
    rows = batch(table, 20, shard=-2).slice(5)
    values = [
        *wire_rows.to_avro(table, rows, 7)[-1:],
        *json_values(rows)[-1:],
        wire.to_arrow(table, rows).to_pybytes(),
    ]
    for value in values:
        assert identity(table, value) == (-2, 19)


def test_extreme_values() -> None:
    rows = batch(rows=1)
    limit = 10**28 - 1
    for units, ns, number in ((limit, 2**63 - 1, 2**63 - 1), (-limit, 0, -(2**63)), (0, 1, 0)):
        row = plain(rows)[0] | {"sequence": number}
        raw = {**_raw(row), "price": units, "ts_event": ns, "sequence": number}
        made = wire_rows.to_batch(TRADES, [raw])
        (avro,) = wire_rows.to_avro(TRADES, made, 1)
        again = wire_rows.from_avro(TRADES, avro, wire_rows.avro_text(TRADES))
        assert (again["price"], again["ts_event"], again["sequence"]) == (units, ns, number)


def _raw(row: dict) -> dict:
    decimals = {name: int(row[name].scaleb(12)) for name in ("price", "size", "notional")}
    return {k: v for k, v in {**row, **decimals}.items() if v is not None}


def test_dictionaries_travel_with_the_words_in_use_only() -> None:
    symbols = pa.DictionaryArray.from_arrays(
        pa.array([4999, 7, 7], pa.int32()), pa.array([f"S{n}" for n in range(5000)])
    )
    rows = batch(rows=3)
    place = rows.schema.get_field_index("symbol")
    rows = rows.set_column(place, rows.schema.field(place), symbols)
    value = wire.to_arrow(TRADES, rows)
    assert value.size < 6000
    assert wire.from_arrow(TRADES, value).column("symbol").to_pylist() == ["S4999", "S7", "S7"]


def test_unknown_versions_and_other_tables_are_refused() -> None:
    rows = batch(rows=2)
    newer = rows.replace_schema_metadata(
        {"marketflow.table": "trades", "marketflow.version": str(TRADES.version + 1)}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, newer.schema) as writer:
        writer.write_batch(newer)
    with pytest.raises(WireError, match="version 3 of trades; this release reads up to 2"):
        wire.from_arrow(TRADES, sink.getvalue())
    with pytest.raises(WireError, match="rows of trades, wanted quotes"):
        wire.from_arrow(TABLES["quotes"], wire.to_arrow(TRADES, rows))
    with pytest.raises(WireError, match="unnamed table"):
        wire.from_arrow(TRADES, _stream(pa.record_batch({"a": [1]})))


def _stream(rows: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def test_a_row_that_its_table_cannot_hold_is_refused_by_name() -> None:
    (row,) = json_rows(batch(rows=1))
    for name, value, why in (
        ("price", "1e20", "decimal"),
        ("price", "0.0000000000001", "more than 12 decimals"),
        ("price", "dear", "price"),
        ("price", 1.5, "no decimal in quotes"),
        ("ts_event", "yesterday", "no time such as"),
        ("status", "fine", "no code"),
        ("symbol", None, "trades without symbol"),
        ("shard", 2**53, "no shard"),
        ("sequence", True, "no int64"),
    ):
        with pytest.raises(WireError, match=why):
            wire_rows.from_json(TRADES, msgspec.json.encode({**row, name: value}))
    assert wire_rows.from_json(TRADES, msgspec.json.encode({**row, "new_field": 1}))["shard"] == 3


def test_an_older_writer_is_read_with_its_own_schema() -> None:
    """Fields in another order and without one that may be null."""
    schema = msgspec.json.decode(wire_rows.avro_text(TRADES))
    schema["fields"] = [f for f in reversed(schema["fields"]) if f["name"] != "sequence"]
    text = msgspec.json.encode(schema).decode()
    rows = batch(rows=1)
    (message,) = wire_rows.to_avro(TRADES, rows, 1)
    row = fastavro.schemaless_reader(
        io.BytesIO(message[5:]), wire_rows.plain_schema(wire_rows.avro_text(TRADES)), None
    )
    out = io.BytesIO()
    fastavro.schemaless_writer(out, wire_rows.plain_schema(text), row)
    again = wire_rows.from_avro(TRADES, b"\0\0\0\0\1" + out.getvalue(), text)
    expected = {k: v for k, v in plain(rows)[0].items() if k != "sequence"}
    (found,) = plain(wire_rows.to_batch(TRADES, [again]))
    assert found == {**expected, "sequence": None}


_AVRO = wire_rows.to_avro(TRADES, batch(rows=1), wire_rows.local_schema_id(TRADES))[0]
_JSON = json_values(batch(rows=1))[0]
_ARROW = wire.to_arrow(TRADES, batch(rows=3)).to_pybytes()


@given(st.sampled_from([_AVRO, _JSON, _ARROW]), st.data())
def test_damage_never_raises_anything_else(good: bytes, data: st.DataObject) -> None:
    value = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if value:
            value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    for read in (
        lambda v: wire_rows.from_avro(TRADES, v, wire_rows.avro_text(TRADES)),
        lambda v: wire_rows.to_batch(TRADES, [wire_rows.from_json(TRADES, v)]),
        lambda v: identity(TRADES, v),
        lambda v: wire.from_arrow(TRADES, v),
    ):
        with suppress(WireError):
            read(bytes(value))


@pytest.mark.parametrize("name", [b"row_sequence", b"ts_recv"])
@pytest.mark.parametrize("letter", [b"\x80", b"x"])
def test_a_column_of_another_name(name: bytes, letter: bytes) -> None:
    value = _ARROW.replace(name, letter + name[1:])
    assert value != _ARROW
    if name == b"row_sequence" or letter == b"\x80":
        with pytest.raises(WireError, match="column"):
            identity(TRADES, value)
    else:
        assert identity(TRADES, value) == identity(TRADES, _ARROW)


def test_ids_and_partitions_never_change() -> None:
    assert wire_rows.local_schema_id(TRADES) == _TRADES_ID
    assert len(wire_rows.local_schemas()) == 2 * len(TABLES)
    assert _TRADES_ID_BEFORE in wire_rows.local_schemas()
    assert [wire.partition_of_connection(name, 4) for name in ("", "0", "binance-1", "ü")] == [
        wire.partition_of_connection(name, 8) % 4 for name in ("", "0", "binance-1", "ü")
    ]
    assert wire.partition_of_connection("binance-1", 1 << 30) == _KEPT


_KEPT = 450318466
_TRADES_ID = 1008893454
_TRADES_ID_BEFORE = 550166367


def test_frames_as_messages() -> None:
    frames = pa.RecordBatch.from_pydict(
        {
            "offset": [0, 1, 2],
            "ts_recv": [1_700_000_000_123_456_789, 0, 5],
            "kind": [FrameKind.DATA, FrameKind.HTTP, FrameKind.END],
            "connection": pa.array(["a", "b", ""]).dictionary_encode(),
            "note": [None, "https://x/ü", None],
            "payload": [b"\0\1", b"{}", b""],
        },
        schema=FRAMES,
    )
    (one, first), (two, second) = wire.raw_messages(frames)
    assert (one, two) == ("a", "b")
    stamp = (1_700_000_000_123_456_789).to_bytes(8, "big")
    assert first == (b"a", b"\0\1", [("ts_recv", stamp)], 1_700_000_000_123)
    assert second.headers[1:] == [("kind", b"http"), ("note", "https://x/ü".encode())]
    assert second.ts_ms == 0
