"""The command line and the runner: exit codes, messages with their fix, signals, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.command import marketflow
from tests.support.lakes import assert_same_lakes
from tests.support.patience import PATIENCE_S, until
from tests.support.root import ROOT

SIM = "sim:?events=30000&symbols=6&seed=3"


def _run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return marketflow("run", "market_data", *arguments, **env)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "nasdaq:FILE", "--sink", "null:"], "itch"),
        (["--source", "itch:/no/such/file?date=2019-12-30", "--sink", "null:"], "no file"),
        (["--source", SIM, "--sink", "mysql:X"], "parquet:DIR"),
        (["--source", SIM, "--sink", "null:", "--intervals", "1x"], "5m"),
        (["--source", SIM, "--sink", "null:", "--tables", "tades"], "trades"),
        (["--source", "sim:?events=many", "--sink", "null:"], "events"),
    ],
)  # fmt: skip
def test_wrong_use_exits_2_and_names_the_fix(arguments: list[str], says: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_query_may_begin_with_a_comment(tmp_path: Path) -> None:
    assert _run("--source", SIM, "--sink", f"parquet:{tmp_path}").returncode == 0
    query = "-- how many\nSELECT count(*) > 0 AS any FROM quotes"
    done = marketflow("sql", "--lake", str(tmp_path), "--format", "csv", query)
    assert (done.returncode, done.stdout) == (0, "any\ntrue\n"), done.stderr


def test_unknown_flow_and_unknown_setting(tmp_path: Path) -> None:
    done = marketflow("run", "trading", "--source", SIM, "--sink", "null:")
    assert done.returncode == 2
    assert "market_data" in done.stderr
    (tmp_path / "marketflow.toml").write_text("shard = 4\n")
    done = subprocess.run(
        [sys.executable, "-m", "marketflow", "run", "market_data", "--source", SIM,
         "--sink", "null:"],
        capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "shard" in done.stderr


def test_a_file_that_is_no_such_feed(tmp_path: Path) -> None:
    wrong = tmp_path / "feed.json"
    wrong.write_text('{"stream": "btcusdt@trade"}\n' * 50)
    done = _run("--source", f"itch:{wrong}?date=2019-12-30", "--sink", "null:")
    assert done.returncode == 2
    assert str(wrong) in done.stderr


def test_a_folder_that_is_no_lake_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    done = _run("--source", SIM, "--sink", f"parquet:{tmp_path}")
    assert done.returncode == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["precious.txt"]


def test_json_summary_and_processes_give_one_truth(tmp_path: Path) -> None:
    """Two processes write the same tables as one, and count the same."""
    summaries = []
    for processes in (1, 2):
        lake = tmp_path / f"lake{processes}"
        done = _run("--source", SIM, "--sink", f"parquet:{lake}", "--json",
                    "--processes", str(processes))  # fmt: skip
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout))
    one, two = summaries
    rows = assert_same_lakes(tmp_path / "lake1", tmp_path / "lake2")
    assert rows == one["tables"] == two["tables"]
    for name in ("messages", "dead_letters", "quality_events", "checksums_verified"):
        assert one[name] == two[name]
    assert one["messages"] == 30000
    assert {"seconds", "messages_per_s", "checksums_failed", "stopped"} <= one.keys()


def test_batching_does_not_matter(tmp_path: Path) -> None:
    for rows in ("97", "65536"):
        done = _run("--source", SIM, "--sink", f"parquet:{tmp_path / rows}",
                    MARKETFLOW_BATCH_ROWS=rows)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert assert_same_lakes(tmp_path / "97", tmp_path / "65536")["quotes"] > 1000


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully_and_the_run_resumes(tmp_path: Path, number: int) -> None:
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    sim = "sim:?events=120000&symbols=6&seed=3"
    assert _run("--source", sim, "--sink", f"parquet:{calm}").returncode == 0
    command = [
        sys.executable, "-m", "marketflow", "run", "market_data", "--json", "--source", sim,
        "--sink", f"parquet:{stopped}", "--recovery", str(tmp_path / "state"),
    ]  # fmt: skip
    env = {**os.environ, "MARKETFLOW_BATCH_ROWS": "500", "MARKETFLOW_EPOCH_MS": "100"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    _wait_for_epochs(tmp_path / "state", child)
    child.send_signal(number)
    out, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, errors
    first = json.loads(out)
    assert first["stopped"]
    assert first["messages"] < 120000
    resumed = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, env=env)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["messages"] == 120000
    assert_same_lakes(calm, stopped)


def _wait_for_epochs(state: Path, child: subprocess.Popen[bytes]) -> None:
    """Until the run has written into its recovery store."""
    sizes: set[int] = set()

    def written() -> bool:
        sizes.add(sum(f.stat().st_size for f in state.rglob("*.sqlite3*")))
        return len(sizes) >= 3

    until(lambda: child.poll() is not None or written())
    assert child.poll() is None, "the run ended before it could be stopped"


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """A parent that is killed cannot stop them: the next start would find the lake locked."""
    child = subprocess.Popen(
        [sys.executable, "-m", "marketflow", "run", "market_data", "--processes", "2",
         "--source", "sim:?events=100000000", "--sink", f"parquet:{tmp_path / 'lake'}"],
    )  # fmt: skip
    parent = psutil.Process(child.pid)
    until(lambda: child.poll() is not None or len(parent.children()) == 2)
    workers = parent.children()
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive


def test_recovery_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    base = ["--sink", f"parquet:{tmp_path / 'lake'}", "--recovery", str(state)]
    assert _run("--source", "sim:?events=2000&symbols=2", *base).returncode == 0
    other = _run("--source", "sim:?events=3000&symbols=2", *base)
    assert other.returncode == 2
    assert "sources" in other.stderr
    more = _run("--source", "sim:?events=2000&symbols=2", *base, "--processes", "2")
    assert more.returncode == 2
    assert "processes" in more.stderr
    note = state / "run.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "format": 99}))
    newer = _run("--source", "sim:?events=2000&symbols=2", *base)
    assert newer.returncode == 2
    assert "format 99" in newer.stderr


def test_strict_turns_bad_input_into_exit_1(tmp_path: Path) -> None:
    feed = tmp_path / "bad.lines"
    good = '{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":%d,'
    good += '"p":"1.0","q":"1.0","T":1723161255342,"m":true,"M":true}}'
    lines = [f"1723161254036059768 {good % i}" for i in range(1, 5)]
    lines[2] = lines[2].replace('"p":"1.0"', '"p":"one"')
    feed.write_text("\n".join(lines) + "\n")
    arguments = ["--source", f"binance:{feed}?market=spot", "--sink", "null:", "--json"]
    lax, strict = _run(*arguments), _run(*arguments, "--strict")
    assert (lax.returncode, strict.returncode) == (0, 1)
    summary = json.loads(lax.stdout)
    assert summary["dead_letters"] == {"bad_price": 1}
    assert summary["tables"]["trades"] == 3
