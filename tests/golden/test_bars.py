"""Bars of recorded trades: the exchange's own for XRPETH, exact reference bars for BTCUSDT."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.schemas.units import NS_PER_MS
from tests.reference.bars import EXACT, STEP, Trade
from tests.support.trades import trade_rows

#: Batches of 700 trades: many cuts inside bars.
BATCH_ROWS = 700


def bars_of(trades: list[Trade], intervals: tuple[str, ...]) -> list[dict]:
    shard = BarsShard(BarsConfig(intervals))
    batches: list[pa.RecordBatch] = []
    for start in range(0, len(trades), BATCH_ROWS):
        stop = start + BATCH_ROWS
        result = shard.apply(trade_rows(trades[start:stop], ended=stop >= len(trades)))
        assert result.stats == {}
        batches += result.tables.values()
    table = pa.Table.from_batches(batches)
    times = {name: table.column(name).cast(pa.int64()) for name in ("ts_open", "ts_close")}
    for name, column in times.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table.to_pylist()


@pytest.mark.parametrize(("interval", "count"), [("1m", 2469), ("5m", 706)])
def test_xrpeth_equals_the_exchange(data: Path, interval: str, count: int) -> None:
    folder = data / "trades-and-bars" / "binance-XRPETH"
    with gzip.open(folder / "XRP_ETH-aggTrades-raw.json.gz") as file:
        raw = [row["info"] for row in json.load(file)]
    trades = [
        Trade(
            "BINANCE",
            "XRPETH",
            t["T"] * NS_PER_MS,
            None,
            Decimal(t["p"]),
            Decimal(t["q"]),
            "sell" if t["m"] else "buy",
        )
        for t in raw
    ]
    bars = [b for b in bars_of(trades, ("1m", "5m")) if b["interval"] == interval]
    bars.sort(key=lambda b: b["ts_open"])
    with (folder / f"XRP_ETH-{interval}.csv").open(newline="") as file:
        expected = [
            (
                int(datetime.fromisoformat(row["date"]).timestamp()) * 10**9,
                *(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")),
            )
            for row in csv.DictReader(file)
        ]
    found = [
        tuple(b[n] for n in ("ts_open", "open", "high", "low", "close", "volume")) for b in bars
    ]
    assert found == expected
    assert len(found) == count


def spot_trades(folder: Path) -> Iterator[Trade]:
    for day in ("20240808", "20240809"):
        with gzip.open(folder / f"spot_btcusdt_{day}.gz", "rt") as file:
            for line in file:
                arrived, _, text = line.partition(" ")
                if '"e":"trade"' in text:
                    t = json.loads(text)["data"]
                    side = "sell" if t["m"] else "buy"
                    price, size = Decimal(t["p"]), Decimal(t["q"])
                    yield Trade(
                        "BINANCE", t["s"], t["T"] * NS_PER_MS, int(arrived), price, size, side
                    )


def test_btcusdt_whole_minutes(data: Path) -> None:
    folder = data / "binance-ws-hftbacktest"
    bars = {b["ts_open"]: b for b in bars_of(list(spot_trades(folder)), ("1m",))}
    with (folder / "spot_btcusdt_ref_bars_1m.csv").open(newline="") as file:
        reference = [row for row in csv.DictReader(file) if row["complete"] == "1"]
    assert reference
    for row in reference:
        bar = bars[int(row["open_time_ms"]) * NS_PER_MS]
        for name in ("open", "high", "low", "close"):
            assert bar[name] == Decimal(row[name])
        assert bar["volume"] == Decimal(row["base_volume"])
        assert bar["notional"] == Decimal(row["quote_volume"]).quantize(STEP, context=EXACT)
        assert bar["buy_volume"] == Decimal(row["taker_buy_base"])
        assert bar["sell_volume"] == bar["volume"] - bar["buy_volume"]
        assert bar["trade_count"] == int(row["trades"])
        assert bar["is_final"]
