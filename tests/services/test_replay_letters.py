"""Dead letters fed again: what was refused goes through today's decoder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order, replay
from marketflow.flows.runtime.run import run
from marketflow.flows.settings import load
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.messages import single_rows as wire_rows
from marketflow.schemas.tables.market_data import DEAD_LETTERS
from tests.support.lakes import table_rows
from tests.support.services.topics import Cluster

pytestmark = pytest.mark.services
_TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":%d,'
    b'"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}}'
)


def _letter(number: int, feed: str, raw: bytes) -> wire_rows.Row:
    return {
        "shard": -1, "row_sequence": number, "ts_recv": 1723161255_000_000_007 + number,
        "feed": feed, "partition": 0, "offset": number, "reason": "malformed", "detail": "",
        "raw": raw,
    }  # fmt: skip


def test_letters_of_a_feed_are_read_again(kafka: Cluster, tmp_path: Path) -> None:
    prefix = kafka.tables(1, ["dead_letters"])
    rows = [_letter(n, "kafka:raw.binance", _TRADE % n) for n in range(5)]
    rows += [_letter(5, "kafka:raw.binance", b"still not"), _letter(6, "kafka:raw.okx", b"{}")]
    for some in (rows[:3], rows[3:]):
        message = wire.to_arrow(DEAD_LETTERS, wire_rows.to_batch(DEAD_LETTERS, some))
        kafka.send(f"{prefix}.dead_letters", [message.to_pybytes()])
    kafka.send(f"{prefix}.dead_letters", [b"nobody knows"])
    topic = f"{prefix}.dead_letters?dead_letters=kafka:raw.binance"
    order = Order(Wanted(kafka.brokers, (topic,)), "market_data", (f"parquet:{tmp_path}",))
    summary = replay(order, settings=load())
    assert summary["tables"]["trades"] == 5
    trades = table_rows(tmp_path, "trades")
    assert trades is not None
    assert trades["trade_id"].to_pylist() == ["0", "1", "2", "3", "4"]
    assert trades["ts_recv"].cast(pa.int64()).to_pylist() == [row["ts_recv"] for row in rows[:5]]
    # No shard of the run that they come from.
    assert min(trades["shard"].to_pylist()) >= 1 << 14
    letters = table_rows(tmp_path, "dead_letters")
    assert letters is not None
    assert letters["raw"].to_pylist() == [b"still not", b"nobody knows"]
    assert set(letters["feed"].to_pylist()) == {f"kafka:{prefix}.dead_letters"}


def test_poison_goes_to_the_topic_and_comes_back(kafka: Cluster, tmp_path: Path) -> None:
    """As a flow writes letters, so they are read: here they are still poison."""
    raw, prefix = kafka.topic(), kafka.tables(1)
    poison = [b"{", b"\xff\x00", b'{"stream":"btcusdt@trade","data":{"e":"trade"}}']
    kafka.send(raw, [_TRADE % 1, *poison[:2], _TRADE % 2, poison[2]])
    source = f"kafka://{kafka.brokers}/{raw}?venue=binance&to=latest"
    summary = run("market_data", [source], [f"kafka://{kafka.brokers}/{prefix}"])
    assert sum(summary["dead_letters"].values()) == 3
    topic = f"{prefix}.dead_letters?dead_letters=kafka:{raw}&venue=binance"
    order = Order(Wanted(kafka.brokers, (topic,)), "market_data", (f"parquet:{tmp_path}",))
    again = replay(order, settings=load())
    assert again["dead_letters"] == summary["dead_letters"]
    letters = table_rows(tmp_path, "dead_letters")
    assert letters is not None
    assert sorted(letters["raw"].to_pylist()) == sorted(poison)


@pytest.mark.parametrize(
    ("topic", "fix"),
    [
        ("md.dead_letters", r"dead_letters=kafka:raw\.kraken"),
        ("md.dead_letters?dead_letters=lobster:x.csv", "Add venue=NAME"),
    ],
)
def test_whose_letters_must_be_said(kafka: Cluster, topic: str, fix: str) -> None:
    with pytest.raises(UsageError, match=fix):
        replay(Order(Wanted(kafka.brokers, (topic,)), "market_data", ("null:",)), settings=load())
