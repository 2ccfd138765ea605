"""Faults on real feeds: each gives its documented event or dead letter, the rest stays right."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.flows.runtime.run import run

Line = tuple[int, str]


def _session(data: Path, count: int = 9000) -> list[str]:
    """The first lines of a spot session, snapshot included: one instrument, valid throughout."""
    file = data / "binance-ws-hftbacktest" / "spot_btcusdt_20240808.gz"
    with gzip.open(file, "rt") as lines:
        return [next(lines).rstrip("\n") for _ in range(count)]


def _depths(lines: list[str]) -> list[int]:
    """Indices of depth updates well after the snapshot."""
    return [i for i, line in enumerate(lines) if '"depthUpdate"' in line][100:]


def _run(tmp_path: Path, lines: list[str] | bytes) -> tuple[dict[str, Any], Path]:
    feed, lake = tmp_path / "feed.lines", tmp_path / "lake"
    if isinstance(lines, bytes):
        feed.write_bytes(lines)
    else:
        feed.write_text("\n".join(lines) + "\n")
    return run("market_data", [f"binance:{feed}?market=spot"], [f"parquet:{lake}"]), lake


def _rows(lake: Path, query: str) -> list[tuple[Any, ...]]:
    return open_lake(lake).sql(query).fetchall()


def _kinds(summary: dict[str, Any]) -> dict[str, int]:
    """Quality events but for the recording's own skewed clocks."""
    own = {"late", "clock_skew", "bbo_mismatch"}
    return {k: v for k, v in summary["quality_events"].items() if k not in own}


def _final_quote(lake: Path) -> tuple[Any, ...]:
    return _rows(
        lake,
        "SELECT bid_price, bid_size, ask_price, ask_size, sequence, book_state FROM quotes "
        "WHERE origin = 'book' ORDER BY row_sequence DESC LIMIT 1",
    )[0]


def _no_prices_while_stale(lake: Path) -> None:
    shown = _rows(
        lake,
        "SELECT count(*) FROM quotes WHERE book_state = 'stale' AND origin = 'book' "
        "AND (bid_price IS NOT NULL OR ask_price IS NOT NULL)",
    )
    assert shown == [(0,)]


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    return _run(tmp_path_factory.mktemp("calm"), _session(data))


def test_undamaged(calm: tuple[dict[str, Any], Path]) -> None:
    summary, _ = calm
    assert _kinds(summary) == {}
    assert summary["dead_letters"] == {}
    assert summary["stale_books"] == 0


def test_a_duplicate_frame_is_skipped(data: Path, tmp_path: Path, calm: Any) -> None:
    lines = _session(data)
    i = _depths(lines)[20]
    lines.insert(i + 1, lines[i])
    summary, lake = _run(tmp_path, lines)
    assert _kinds(summary) == {"duplicate": 1}
    assert summary["stale_books"] == 0
    assert _final_quote(lake) == _final_quote(calm[1])


def test_a_lost_frame_makes_the_book_stale_at_once(data: Path, tmp_path: Path, calm: Any) -> None:
    lines = _session(data)
    first, lost, after = _depths(lines)[20:23]
    u_before, u_after = (int(re.search(r'"u":(\d+)', lines[i]).group(1)) for i in (first, after))
    del lines[lost]
    summary, lake = _run(tmp_path, lines)
    assert _kinds(summary) == {"gap": 1, "stale": 1}
    assert summary["stale_books"] == 1
    _no_prices_while_stale(lake)
    gap, stale = _rows(
        lake,
        "SELECT kind, sequence_from, sequence_to, cause_id, row_sequence FROM quality_events "
        "WHERE kind IN ('gap', 'stale') ORDER BY row_sequence",
    )
    assert gap[0] == "gap"
    assert gap[3] is None
    assert u_before < gap[1] <= gap[2] < u_after
    assert (stale[0], stale[3]) == ("stale", gap[4])
    last_book = _rows(lake, "SELECT max(sequence) FROM quotes WHERE book_state = 'valid' "
                            "AND origin = 'book'")  # fmt: skip
    assert last_book[0][0] <= u_before
    # What needs no book goes on.
    assert summary["tables"]["trades"] == calm[0]["tables"]["trades"]


def test_swapped_frames(data: Path, tmp_path: Path) -> None:
    """The later frame shows the gap; the earlier one then is old news. One primary fault each."""
    lines = _session(data)
    one, two = _depths(lines)[20:22]
    lines[one], lines[two] = lines[two], lines[one]
    summary, lake = _run(tmp_path, lines)
    kinds = _kinds(summary)
    assert kinds["gap"] == 1
    assert kinds["stale"] == 1
    assert summary["stale_books"] == 1
    _no_prices_while_stale(lake)


def test_a_truncated_file(data: Path, tmp_path: Path) -> None:
    raw = ("\n".join(_session(data, 3000)) + "\n").encode()
    summary, _ = _run(tmp_path, raw[:-40])
    assert sum(summary["dead_letters"].values()) == 1
    assert summary["stale_books"] == 0
    packed = tmp_path / "cut.gz"
    packed.write_bytes(gzip.compress(raw)[:-2000])
    summary = run("market_data", [f"binance:{packed}?market=spot"], ["null:"])
    assert sum(summary["dead_letters"].values()) >= 1
    assert summary["messages"] > 2000


def test_random_bytes_among_the_lines(data: Path, tmp_path: Path, calm: Any) -> None:
    chance = random.Random(5)
    lines = [line.encode() for line in _session(data)]
    for _ in range(30):
        junk = bytes(b for b in chance.randbytes(200) if b not in b"\r\n")
        lines.insert(chance.randrange(100, len(lines)), b"1723161254036059768 " + junk)
    summary, lake = _run(tmp_path, b"\n".join(lines) + b"\n")
    assert sum(summary["dead_letters"].values()) == 30
    assert _kinds(summary) == {}
    assert _final_quote(lake) == _final_quote(calm[1])


def test_an_empty_file_is_an_empty_feed(tmp_path: Path) -> None:
    feed = tmp_path / "empty"
    feed.write_bytes(b"")
    with pytest.warns(UserWarning, match="empty"):
        summary = run("market_data", [f"binance:{feed}?market=spot"], ["null:"])
    assert summary["messages"] == 0
    assert summary["dead_letters"] == {}


@pytest.mark.parametrize(
    ("price", "size", "reason"),
    [
        ("1" * 30, "1.0", "out_of_range"),
        ("1." + "3" * 30, "1.0", "out_of_range"),
        ("61000.01", "-2.5", "negative_size"),
        ("sixty", "1.0", "bad_price"),
        ("61000.01", "", "bad_size"),
    ],
)
def test_one_bad_level_dies_alone(
    data: Path, tmp_path: Path, calm: Any, price: str, size: str, reason: str
) -> None:
    lines = _session(data)
    i = _depths(lines)[20]
    lines[i] = lines[i].replace('"b":[', f'"b":[["{price}","{size}"],', 1)
    summary, lake = _run(tmp_path, lines)
    assert summary["dead_letters"] == {reason: 1}
    assert _kinds(summary) == {}
    assert _final_quote(lake) == _final_quote(calm[1])
    detail, raw = _rows(lake, "SELECT detail, raw FROM dead_letters")[0]
    assert detail
    assert (price or size).encode()[:20] in raw


def _flip_one_digit(lines: list[str], venue_mark: str) -> int:
    """Change one digit of a size in a checksummed update; returns the line's index."""
    for i in range(len(lines) // 2, len(lines)):
        if venue_mark in lines[i]:
            changed = re.sub(r'(\\"\d+\.\d*?)([1-9])(\d*\\")', _bump, lines[i], count=1)
            if changed != lines[i]:
                lines[i] = changed
                return i
    raise AssertionError("no checksummed line found")


def _bump(match: re.Match[str]) -> str:
    digit = str(int(match.group(2)) % 9 + 1)
    return match.group(1) + digit + match.group(3)


@pytest.mark.parametrize(
    ("venue", "mark"),
    [("OKX", r"\"action\":\"update\""), ("BITGET", r"\"action\":\"update\"")],
)
def test_a_flipped_digit_is_caught(data: Path, tmp_path: Path, venue: str, mark: str) -> None:
    file = data / "checksum-captures" / f"{venue}.open.jsonl.zst"
    text = subprocess.run(["zstdcat", file], capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    _flip_one_digit(lines, mark)
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("\n".join(lines) + "\n")
    lake = tmp_path / "lake"
    summary = run("market_data", [f"capture:{damaged}"], [f"parquet:{lake}"])
    assert summary["checksums_failed"] == 1
    assert summary["quality_events"]["bad_checksum"] == 1
    assert summary["stale_books"] == 1  # only the instrument that was hit
    _no_prices_while_stale(lake)
    cause = _rows(
        lake,
        "SELECT q.kind FROM quality_events s JOIN quality_events q ON s.shard = q.shard "
        "AND s.cause_id = q.row_sequence WHERE s.kind = 'stale'",
    )
    assert cause == [("bad_checksum",)]


def test_a_far_future_trade_does_not_close_all_bars(data: Path, tmp_path: Path) -> None:
    lines = _session(data)
    trades = [i for i, line in enumerate(lines) if '"e":"trade"' in line]
    i = trades[50]
    lines[i] = re.sub(r'"T":\d+', '"T":4102444800000', lines[i])
    summary, lake = _run(tmp_path, lines)
    assert summary["bars_trades_ahead"] >= 1
    finals = _rows(lake, "SELECT count(*) FROM bars WHERE interval = '1s' AND is_final")
    assert finals[0][0] > 10


def test_crossed_book_is_stale(data: Path, tmp_path: Path) -> None:
    lines = _session(data)
    i = _depths(lines)[20]
    lines[i] = lines[i].replace('"b":[', '"b":[["99000.00000000","1.00000000"],', 1)
    summary, lake = _run(tmp_path, lines)
    kinds = _kinds(summary)
    assert kinds["crossed"] == 1
    assert kinds["stale"] == 1
    assert summary["stale_books"] == 1
    _no_prices_while_stale(lake)


def test_only_the_instrument_with_the_gap_goes_stale(data: Path, tmp_path: Path) -> None:
    file = data / "cryptofeed-captures" / "BINANCE.jsonl.zst"
    text = subprocess.run(["zstdcat", file], capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    hits = [i for i, line in enumerate(lines) if "nknusdt@depth" in line and '"recv"' in line]
    del lines[hits[len(hits) // 2]]
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text("\n".join(lines) + "\n")
    lake = tmp_path / "lake"
    summary = run("market_data", [f"capture:{damaged}"], [f"parquet:{lake}"])
    assert summary["quality_events"]["gap"] == 1
    assert summary["stale_books"] == 1
    stale = _rows(lake, "SELECT DISTINCT symbol FROM quotes WHERE book_state = 'stale'")
    assert [s for (s,) in stale if s == "NKNUSDT"] == ["NKNUSDT"]
    expected = json.loads((data / "cryptofeed-captures/expected_callback_counts.json").read_text())
    assert summary["tables"]["trades"] == expected["BINANCE"]["trades"]
