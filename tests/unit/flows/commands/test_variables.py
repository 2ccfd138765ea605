"""Flags by variable and file: every flag of ``run`` has both; an unknown name is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from marketflow.flows.commands.app import app
from marketflow.flows.errors import UsageError
from marketflow.flows.options import ConfiguredGroup
from marketflow.flows.settings import load
from marketflow.flows.variables import FILE, PREFIX, check_variables, read_file
from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import parse_sink
from marketflow.sinks.timescale.config import TimescaleConfig
from tests.support.root import ROOT

SIM = "sim:?events=3000&symbols=3&seed=3"


def _marketflow(cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketflow", *arguments],
        capture_output=True, text=True, timeout=280, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **env},
    )  # fmt: skip


def test_every_flag_of_run_is_shown_with_its_variable() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, ConfiguredGroup)
    context = group.make_context("marketflow", ["run", "--help"], resilient_parsing=True)
    command = group.get_command(context, "run")
    options = [p for p in command.params if p.opts[0].startswith("--") and p.name != "help"]
    assert len(options) >= 12
    for option in options:
        flag = max(option.opts, key=len)
        expected = PREFIX + flag.lstrip("-").replace("-", "_").upper()
        assert option.envvar == [expected]
        assert f"{flag} {expected}" in command.epilog


def test_variables_and_the_file_set_flags_and_the_line_wins(tmp_path: Path) -> None:
    """A run by variables alone has its recovery folder; a run by the file does the same."""
    done = _marketflow(
        tmp_path, "run", "market_data",
        MARKETFLOW_SOURCE=SIM, MARKETFLOW_SINK="parquet:one null:", MARKETFLOW_RECOVERY="state",
        MARKETFLOW_TABLES="trades", MARKETFLOW_JSON="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tables"].keys() == {"trades"}
    assert (tmp_path / "state").is_dir()
    assert (tmp_path / "one" / "trades").is_dir()
    (tmp_path / FILE).write_text(
        f'source = ["{SIM}"]\nsink = "parquet:two"\nrecovery = "told"\njson = true\n'
        'tables = ["trades", "bars"]\nlake = "two"\n'
    )
    done = _marketflow(tmp_path, "run", "market_data", MARKETFLOW_TABLES="quotes")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tables"].keys() == {"quotes"}  # the variable wins
    assert (tmp_path / "told").is_dir()
    done = _marketflow(tmp_path, "run", "market_data", "--tables", "trades", "--recovery", "third",
                       MARKETFLOW_TABLES="quotes", MARKETFLOW_SINK="null:")  # fmt: skip
    assert json.loads(done.stdout)["tables"].keys() == {"trades"}  # the line wins
    assert (tmp_path / "third").is_dir()
    query = "SELECT count(*) > 0 AS any FROM quotes"
    done = _marketflow(tmp_path, "sql", "--format", "csv", query)
    assert (done.returncode, done.stdout) == (0, "any\ntrue\n"), done.stderr


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MARKETFLOW_RECOVER", "MARKETFLOW_RECOVERY"),
        ("MARKETFLOW_SHARD", "MARKETFLOW_SHARDS"),
        ("MARKETFLOW_KAFKA_PASWORD", "MARKETFLOW_KAFKA_PASSWORD"),
        ("MARKETFLOW_XYZZY", ""),
    ],
)
def test_an_unknown_variable_is_refused(tmp_path: Path, name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=name) as refused:
        check_variables({name: "x", "PATH": "y"})
    assert f"did you mean {nearest}?" in str(refused.value) or not nearest
    done = _marketflow(tmp_path, "run", "market_data", "--source", SIM, "--sink", "null:",
                       **{name: "x"})  # fmt: skip
    assert done.returncode == 2
    assert name in done.stderr
    assert _marketflow(tmp_path, "run", "--help", **{name: "x"}).returncode == 0


def test_variables_of_a_neighbouring_kubernetes_service_are_none_of_ours() -> None:
    check_variables({
        "MARKETFLOW_GATEWAY_SERVICE_HOST": "10.0.0.1",
        "MARKETFLOW_GATEWAY_SERVICE_PORT_HTTP": "80",
        "MARKETFLOW_GATEWAY_PORT": "tcp://10.0.0.1:80",
        "MARKETFLOW_GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
    })  # fmt: skip
    with pytest.raises(UsageError, match="MARKETFLOW_KAFKA_PORT"):
        check_variables({"MARKETFLOW_KAFAK_PORT": "9092"})


def test_unknown_keys_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text("recovry = 'x'\n")
    with pytest.raises(UsageError, match="did you mean recovery"):
        read_file(path)
    path.write_text("recovery = \n")
    with pytest.raises(UsageError, match="cannot be read"):
        read_file(path)
    assert read_file(tmp_path / "none.toml") == {}


def test_the_notebook_api_refuses_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARKETFLOW_EPOCH", "5")
    with pytest.raises(UsageError, match="MARKETFLOW_EPOCH_MS"):
        load()
    monkeypatch.delenv("MARKETFLOW_EPOCH")
    (tmp_path / FILE).write_text("late_ms = 7\nepoch_ms = 50\n")
    monkeypatch.setenv("MARKETFLOW_EPOCH_MS", "60")
    settings = load(shards=None)
    assert (settings.late_ms, settings.epoch_ms) == (7, 60)


def test_lake_and_database(tmp_path: Path) -> None:
    """What the line names wins over a variable for the other; both by variable is ambiguous."""
    there = {"MARKETFLOW_DSN": "postgresql://nobody@127.0.0.1:1/x"}
    done = _marketflow(tmp_path, "sql", "--lake", "absent", "SELECT 1", **there)
    assert done.returncode == 2
    assert "absent" in done.stderr
    done = _marketflow(tmp_path, "sql", "SELECT 1", **there, MARKETFLOW_LAKE="absent")
    assert done.returncode == 2
    assert "--lake DIR or --dsn DSN" in done.stderr
    done = _marketflow(tmp_path, "sql", "SELECT 1", **there)
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr


def test_a_database_sink_without_a_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARKETFLOW_DSN", raising=False)
    with pytest.raises(SinkError, match="or set MARKETFLOW_DSN"):
        parse_sink("timescale:")
    monkeypatch.setenv("MARKETFLOW_DSN", "postgresql://a@b/c")
    found = parse_sink("timescale:?flush_rows=9")
    assert isinstance(found, TimescaleConfig)
    assert (found.dsn, found.options.flush_rows) == ("postgresql://a@b/c", 9)
