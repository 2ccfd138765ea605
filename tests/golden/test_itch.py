"""Recorded Nasdaq ITCH 5.0 files, whole, against the twin and the recorded oracle."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from marketflow.operators.events import EventKind, SnapshotRule
from marketflow.operators.formats.itch.decoder import ItchDecoder, midnight_ns
from marketflow.schemas.messages.frames import FrameKind
from tests.support.itch_messages import DAY, assert_equals_twin, batch_of, blocks, decode, split

DIRECTORY = "sod_directory_1000msgs.itch50"
ALL_SYMBOLS = "20191230_0930open_first400.itch50"
AAPL = "AAPL_20191230_0935_first20000.itch50.zst"


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "nasdaq-itch50" / "expected.json").read_text())
    return found


def read(data: Path, name: str) -> bytes:
    path = data / "nasdaq-itch50" / name
    if not name.endswith(".zst"):
        return path.read_bytes()
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
        content: bytes = file.read()
    return content


@pytest.mark.parametrize("name", [DIRECTORY, ALL_SYMBOLS, AAPL])
def test_every_row_equals_the_twin(data: Path, expected: dict[str, Any], name: str) -> None:
    content = read(data, name)
    oracle = expected[name]
    messages = split(content)
    assert Counter(chr(m[2]) for m in messages) == oracle["by_type"]
    part = messages if name != AAPL else messages[:4_000]
    batch = assert_equals_twin(blocks([b"".join(part), (FrameKind.END, b"")]))
    assert batch.messages == len(part)
    assert batch.rows["kind"][-1] == EventKind.FEED_END


@pytest.mark.parametrize("name", [DIRECTORY, ALL_SYMBOLS, AAPL])
def test_counts_and_times(data: Path, expected: dict[str, Any], name: str) -> None:
    batch, dead = decode(blocks([read(data, name)]))
    oracle = expected[name]
    by_type = Counter(oracle["by_type"])
    assert dead is None
    assert batch.messages == oracle["messages"]
    assert Counter(batch.rows["kind"].tolist()) == +Counter(
        {
            EventKind.ADD: by_type["A"] + by_type["F"],
            EventKind.EXECUTE: by_type["E"] + by_type["C"],
            EventKind.REDUCE: by_type["X"],
            EventKind.DELETE: by_type["D"],
            EventKind.REPLACE: by_type["U"],
            EventKind.TRADE: by_type["P"] + by_type["Q"],
            EventKind.CLOCK: by_type["S"],
        }
    )
    midnight = midnight_ns(DAY)
    if by_type["A"]:
        times = batch.rows["ts_event"]
        assert np.all(np.diff(times) >= 0)
        assert times[0] == midnight + oracle["first_ts_ns"]
        assert times[-1] == midnight + oracle["last_ts_ns"]
        assert batch.instruments.rows["snapshot_rule"][-1] == SnapshotRule.PARTIAL


def test_the_directory_of_a_session(data: Path) -> None:
    batch, _ = decode(blocks([read(data, DIRECTORY)]))
    table = batch.tables["instruments"]
    assert table.num_rows == 993
    assert batch.instruments.symbols[:4] == ("*", "A", "AA", "AAAU")
    assert table.column("instrument_id").to_pylist()[:3] == ["1", "2", "3"]
    assert pc.unique(table.column("quote_currency")).to_pylist() == ["USD"]
    assert Counter(batch.tables["market_status"].column("status").to_pylist()) == {
        "pre_open": 1,
        "open": 3,
        "short_sale_allowed": 3,
    }
    assert set(batch.instruments.rows["snapshot_rule"]) == {SnapshotRule.NONE}
    assert batch.tables["statistics"].num_rows == 993


def test_what_the_p_prints_sum_to(data: Path, expected: dict[str, Any]) -> None:
    batch, _ = decode(blocks([read(data, AAPL)]))
    prints = batch.rows[batch.rows["kind"] == EventKind.TRADE]
    oracle = expected[AAPL]["book_after_all"]
    assert prints["size"].sum() == oracle["trade_P_shares"]
    assert batch.instruments.symbols == ("AAPL",)


def test_every_damaged_byte_of_the_opening_is_taken(data: Path) -> None:
    content = read(data, ALL_SYMBOLS)[:1_500]
    for at in range(0, len(content), 7):
        hurt = content[:at] + bytes([content[at] ^ 0xA5]) + content[at + 1 :]
        assert_equals_twin(blocks([hurt]))


def test_one_frame_per_message_equals_one_block(data: Path) -> None:
    content = read(data, AAPL)
    whole, _ = decode(blocks([content]))
    decoder = ItchDecoder(DAY)
    rows = blocks(split(content))
    parts = [decoder.apply(batch_of(rows[at : at + 700])).events for at in range(0, len(rows), 700)]
    again = np.concatenate([part.rows for part in parts])
    for name in again.dtype.names:
        if name != "frame":
            assert np.array_equal(whole.rows[name], again[name]), name
    assert sum(part.messages for part in parts) == whole.messages
