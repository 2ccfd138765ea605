"""Redundant lines over real sockets: recorded, run, and compared with an undisturbed feed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from marketflow.flows.recording.line_pump import LinePump
from marketflow.flows.recording.record import record
from marketflow.flows.runtime.run import run
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.tables import TABLES
from marketflow.sources.lines.config import parse_lines
from tests.support.fake_lines import FakeLines, MoldFaults, SoupFaults, itch_messages
from tests.support.lakes import table_rows
from tests.support.line_rows import listening, plain, rows
from tests.support.patience import PATIENCE_S, until
from tests.support.ports import free_port

EVENTS = 6_000
SIM = f"sim:?events={EVENTS}&seed=7&symbols=5"
#: Nothing here lags or is silent for so long; and the first packet may be lost too.
CALM = "first=1&lag_ms=60000&down_ms=60000"


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    return itch_messages(SIM)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("undisturbed")
    run("market_data", [SIM], [f"parquet:{lake}"])
    return lake


def recorded(
    fake: FakeLines, urls: Sequence[str], folder: Path, port: int | None = None
) -> dict[str, Any]:
    """What a recording says of itself; it ends with the session."""
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(record, urls, [f"parquet:{folder}"], duration="60s")
        if port is not None:
            listening(port)
        fake.release()
        try:
            summary = work.result()
        finally:
            fake.stop()
    assert not summary["stopped"]
    return summary


def lake_of(folder: Path, lake: Path) -> dict[str, Any]:
    """Run what was recorded."""
    source = f"parquet:{folder}?table=frames&venue=xnas&date=2026-03-02"
    summary: dict[str, Any] = run("market_data", [source], [f"parquet:{lake}"])
    return summary


def same(one: Path, other: Path, names: Sequence[str] = tuple(TABLES)) -> None:
    for name in names:
        left, right = rows(one, name), rows(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            for column in left.column_names:
                assert left[column].to_pylist() == right[column].to_pylist(), (name, column)


def faults(lake: Path) -> list[dict[str, Any]]:
    table = table_rows(lake, "quality_events")
    assert table is not None
    found: list[dict[str, Any]] = plain(table).to_pylist()
    return found


def of_lines(lake: Path) -> list[tuple[str, str]]:
    found = [row for row in faults(lake) if row["symbol"].startswith("line:")]
    found.sort(key=lambda row: (row["ts_recv"], row["row_sequence"]))
    return [(row["symbol"], row["kind"]) for row in found]


def two_lines(
    messages: list[bytes], a: MoldFaults, b: MoldFaults, **more: Any
) -> tuple[FakeLines, list[int]]:
    ports = [free_port(), free_port()]
    molds = [(("127.0.0.1", port), faults) for port, faults in zip(ports, (a, b), strict=True)]
    return FakeLines(messages, molds, hold=0, **more).start(), ports


def every(step: int, start: int = 0) -> frozenset[int]:
    return frozenset(range(start, 10_000, step))


def test_what_one_line_loses_the_other_brings(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    a = MoldFaults(drop=every(5), garbage=frozenset([9]), duplicate=every(11))
    b = MoldFaults(drop=every(5, 2), swap=every(13, 3), delay_s=0.01)
    fake, ports = two_lines(messages, a, b)
    urls = [f"mold:127.0.0.1:{port}?wait_ms=5000&{CALM}" for port in ports]
    summary = recorded(fake, urls, tmp_path / "raw", ports[1])
    assert summary["arbiter"]["messages"] == len(messages)
    assert summary["arbiter"]["lost"] == 0
    assert summary["arbiter"]["bad_packets"] == 4
    assert [line["stamps"] for line in summary["connections"]] == ["kernel", "kernel"]
    done = lake_of(tmp_path / "raw", tmp_path / "lake")
    assert done["dead_letters"] == {"invalid_encoding": 4}
    same(tmp_path / "lake", undisturbed, [name for name in TABLES if name != "dead_letters"])
    letters = table_rows(tmp_path / "lake", "dead_letters")
    assert letters is not None
    assert "line A: its messages are longer than the datagram" in letters["detail"].to_pylist()


def test_both_lines_lose_the_same_and_nobody_has_it(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    lost = MoldFaults(drop=frozenset([200]))
    fake, ports = two_lines(messages, lost, lost)
    first, missing = fake.packets[200]
    urls = [f"mold:127.0.0.1:{port}?wait_ms=30&{CALM}" for port in ports]
    summary = recorded(fake, urls, tmp_path / "raw", ports[1])
    assert summary["arbiter"]["lost"] == len(missing)
    assert summary["arbiter"]["holes"] == 1
    lake_of(tmp_path / "raw", tmp_path / "lake")
    found = faults(tmp_path / "lake")
    gaps = [row for row in found if row["kind"] == "gap"]
    books = {row["symbol"] for row in found if row["kind"] == "stale"}
    # Every book, and the market itself; the sequence numbers are the lines' own.
    assert {row["symbol"] for row in gaps} == books | {"*"}
    assert len(books) == 5
    assert {(row["sequence_from"], row["sequence_to"]) for row in gaps} == {
        (first, first + len(missing) - 1)
    }
    assert not [row for row in found if row["kind"] == "valid"]
    stale_from = {(row["shard"], row["row_sequence"]): row for row in gaps}
    for row in found:
        if row["kind"] == "stale":
            assert stale_from[row["shard"], row["cause_id"]]["symbol"] == row["symbol"]
    # Up to the hole all is as it was, behind it no book is shown but as stale.
    quotes, wanted = rows(tmp_path / "lake", "quotes"), rows(undisturbed, "quotes")
    assert quotes is not None and wanted is not None
    before = quotes.filter(pc.less(quotes["sequence"], first))
    assert before.equals(wanted.filter(pc.less(wanted["sequence"], first)))
    after = quotes.filter(pc.greater_equal(quotes["sequence"], first))
    assert Counter(after["book_state"].to_pylist()) == {"stale": 5}
    # Prints need no book.
    prints = rows(tmp_path / "lake", "trades")
    assert prints is not None and pc.max(prints["sequence"]).as_py() > first


def test_what_both_lines_lose_can_be_asked_for(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    lost = MoldFaults(drop=frozenset([150, 151]))
    fake, ports = two_lines(messages, lost, lost)
    asked = fake.serve_requests(skip=2)
    first = fake.packets[150][0]
    missing = len(fake.packets[150][1]) + len(fake.packets[151][1])
    urls = [f"mold:127.0.0.1:{port}?wait_ms=20&recover_ms=30000&{CALM}" for port in ports]
    urls[0] += f"&rerequest=127.0.0.1:{asked}"
    summary = recorded(fake, urls, tmp_path / "raw", ports[1])
    assert fake.requests[0] == (first, missing)
    assert summary["arbiter"]["lost"] == 0
    assert summary["arbiter"]["messages"] == len(messages)
    lake_of(tmp_path / "raw", tmp_path / "lake")
    found = faults(tmp_path / "lake")
    kinds = Counter(row["kind"] for row in found)
    books = {row["symbol"] for row in found if row["kind"] == "stale"}
    assert kinds["gap"] == kinds["stale"] + 1
    assert books == {row["symbol"] for row in found if row["kind"] == "valid"}
    for row in found:
        if row["kind"] == "gap":
            assert (row["sequence_from"], row["sequence_to"]) == (first, first + missing - 1)
    # The books are right again, to the last level: nothing of the feed is missing or twice.
    same(tmp_path / "lake", undisturbed, ["book_events", "trades", "bars", "market_status"])
    quotes, wanted = rows(tmp_path / "lake", "quotes"), rows(undisturbed, "quotes")
    assert quotes is not None and wanted is not None
    shown = quotes.to_pylist()
    outages = [k for k, row in enumerate(shown) if row["book_state"] == "stale"]
    assert {shown[k]["symbol"] for k in outages} == books
    assert len(outages) == len(books)
    # Each outage is one row, and one that shows the book as it was before it.
    again = [k + 1 for k in outages]
    for k in outages:
        assert shown[k + 1]["sequence"] == first - 1
        assert shown[k]["ts_event"] == shown[k + 1]["ts_event"]
    rest = [row for k, row in enumerate(shown) if k not in {*outages, *again}]
    whole = wanted.to_pylist()
    for row in (*rest, *whole):
        del row["row_sequence"]
    assert rest == whole


def test_a_line_that_lags_is_told_and_costs_nothing(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    fake, ports = two_lines(messages, MoldFaults(), MoldFaults(delay_s=0.4), rate=400)
    urls = [
        f"mold:127.0.0.1:{port}?first=1&wait_ms=5000&lag_ms=150&down_ms=60000" for port in ports
    ]
    summary = recorded(fake, urls, tmp_path / "raw", ports[1])
    assert summary["connections"][1]["state"] == "lagging"
    assert summary["connections"][1]["messages"] == 0
    lake_of(tmp_path / "raw", tmp_path / "lake")
    assert of_lines(tmp_path / "lake") == [("line:B", "line_lagging")]
    (lagging,) = [row for row in faults(tmp_path / "lake") if row["kind"] == "line_lagging"]
    assert lagging["value"] > 0
    same(tmp_path / "lake", undisturbed, [n for n in TABLES if n != "quality_events"])


def test_a_line_dies_and_comes_back(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    dead = MoldFaults(silent=range(50, 300))
    fake, ports = two_lines(messages, dead, MoldFaults(drop=every(9, 320)), rate=400)
    urls = [
        f"mold:127.0.0.1:{port}?first=1&wait_ms=5000&lag_ms=60000&down_ms=250" for port in ports
    ]
    recorded(fake, urls, tmp_path / "raw", ports[1])
    lake_of(tmp_path / "raw", tmp_path / "lake")
    assert of_lines(tmp_path / "lake") == [("line:A", "line_down"), ("line:A", "line_recovered")]
    down, back = [row for row in faults(tmp_path / "lake") if row["symbol"] == "line:A"]
    assert back["cause_id"] == down["row_sequence"]
    assert back["ts_event"] == down["ts_event"] and back["ts_until"] > down["ts_event"]
    same(tmp_path / "lake", undisturbed, [n for n in TABLES if n != "quality_events"])


def test_tcp_goes_on_at_the_next_sequence(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    fake = FakeLines(messages, hold=0).start()
    port = fake.serve_soup(SoupFaults(disconnect=[1_000, 2_500], garbage=[4_000]))
    url = f"soup:127.0.0.1:{port}?username=me&password=secret&{CALM}"
    summary = recorded(fake, [url], tmp_path / "raw")
    (line,) = summary["connections"]
    assert (line["connects"], line["disconnects"]) == (4, 3)
    assert summary["arbiter"]["messages"] == len(messages)
    assert summary["arbiter"]["duplicates"] == 0
    lake_of(tmp_path / "raw", tmp_path / "lake")
    assert of_lines(tmp_path / "lake") == [
        ("line:A", "line_down"), ("line:A", "line_recovered"),
    ] * 3  # fmt: skip
    same(tmp_path / "lake", undisturbed, [n for n in TABLES if n != "quality_events"])


def test_udp_and_tcp_are_lines_of_one_feed(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    port = free_port()
    fake = FakeLines(messages, [(("127.0.0.1", port), MoldFaults(drop=every(3)))], hold=0).start()
    tcp = fake.serve_soup()
    urls = [f"mold:127.0.0.1:{port}?wait_ms=5000&{CALM}", f"soup:127.0.0.1:{tcp}?line=tcp"]
    summary = recorded(fake, urls, tmp_path / "raw", port)
    assert summary["arbiter"]["lost"] == 0
    lake_of(tmp_path / "raw", tmp_path / "lake")
    same(tmp_path / "lake", undisturbed)


def _holds_data(folder: Path) -> bool:
    kinds = [pq.read_table(path)["kind"].to_pylist() for path in folder.rglob("*.parquet")]
    return any(FrameKind.DATA in found for found in kinds)


def test_a_recording_that_is_begun_again_doubles_nothing(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    fake = FakeLines(messages, hold=150).start()
    port = fake.serve_soup()
    url = f"soup:127.0.0.1:{port}?{CALM}"
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        sink = f"parquet:{tmp_path / 'raw'}?seal_after_s=0.1"
        work = pool.submit(record, [url], [sink], stop=stop)
        until(lambda: work.done() or _holds_data(tmp_path / "raw"))
        stop.set()
        first = work.result()
    assert first["stopped"]
    assert 0 < first["arbiter"]["messages"] < len(messages)
    again = recorded(fake, [url], tmp_path / "raw")
    assert again["arbiter"]["messages"] == len(messages)  # from the session's start
    lake_of(tmp_path / "raw", tmp_path / "lake")
    same(tmp_path / "lake", undisturbed)


def test_who_was_held_up_loses_nothing_that_can_be_asked_for(messages: list[bytes]) -> None:
    lost = MoldFaults(drop=every(10, 3))
    fake, ports = two_lines(messages, lost, lost, rate=400)
    urls = [f"mold:127.0.0.1:{port}?wait_ms=20&recover_ms=300&{CALM}" for port in ports]
    urls[0] += f"&rerequest=127.0.0.1:{fake.serve_requests()}"
    pump = LinePump(parse_lines(urls))
    fake.release()
    until(lambda: fake.done)
    # A second of stamps is in the kernel's buffers, far more than a hole may wait.
    batches = []
    while not pump.ended:
        batches.append(pump.pump(0.1))
    pump.close()
    fake.stop()
    found = pa.Table.from_batches(batches)
    kinds = Counter(found["kind"].to_pylist())
    assert kinds[FrameKind.LOST] == 0
    assert pump.arbiter.stats()["lost"] == 0
    blocks = found.filter(pc.equal(found["kind"], FrameKind.DATA))["payload"].to_pylist()
    assert b"".join(blocks) == b"".join(len(m).to_bytes(2, "big") + m for m in messages)


def test_a_login_that_is_refused_is_told_with_its_fix(
    messages: list[bytes], tmp_path: Path
) -> None:
    with FakeLines(messages) as fake:
        port = fake.serve_soup()
        with pytest.raises(OSError, match=r"soup:.*password=\*\*\*.*username and password"):
            record(
                [f"soup:127.0.0.1:{port}?username=nobody&password=hidden"],
                [f"parquet:{tmp_path}"],
                duration="20s",
            )


def test_the_commands_of_the_readme(
    messages: list[bytes], undisturbed: Path, tmp_path: Path
) -> None:
    ports = [free_port(), free_port()]
    ask = free_port()
    raw = tmp_path / "raw"
    command = [
        sys.executable, "-m", "marketflow", "record", "--json", "--for", "60s",
        "--source", f"mold:127.0.0.1:{ports[0]}?rerequest=127.0.0.1:{ask}&first=1",
        "--source", f"mold:127.0.0.1:{ports[1]}", "--sink", f"parquet:{raw}",
    ]  # fmt: skip
    recorder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    listening(ports[1])
    sender = subprocess.Popen(
        [
            sys.executable, "-m", "tests.support.fake_lines", SIM,
            "--mold", f"127.0.0.1:{ports[0]}?drop=every:4", "--rate", "2000",
            "--mold", f"127.0.0.1:{ports[1]}?drop=every:6&swap=5", "--rerequest", str(ask),
        ],
    )  # fmt: skip
    try:
        out, _ = recorder.communicate(timeout=PATIENCE_S)
    finally:
        sender.terminate()
        sender.wait(10)
        recorder.kill()
    assert recorder.returncode == 0
    summary = json.loads(out)
    assert summary["ended"], "the session is over, before the time is"
    assert summary["arbiter"]["lost"] == 0
    assert summary["arbiter"]["messages"] == len(messages)
    lake_of(raw, tmp_path / "lake")
    same(tmp_path / "lake", undisturbed, ["trades", "book_events", "bars"])
