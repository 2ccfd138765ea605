"""Sink URLs: what they say, what they refuse, and that no secret is repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketflow.sinks.errors import SinkError
from marketflow.sinks.registry import open_writer, parse_sink
from marketflow.sinks.timescale.dsn import one_line, redacted, shown
from marketflow.sinks.timescale.writer import TimescaleWriter

SECRET = "s3same"


def test_a_database_url_keeps_libpqs_parameters_and_gives_ours() -> None:
    spec = parse_sink(
        "timescale:postgresql://u:p%40w@h:1/d?sslmode=require&flush_rows=5&outage_s=2.5&options=x"
    )
    assert spec.path == "postgresql://u:p%40w@h:1/d?sslmode=require&options=x"
    assert spec.options == {"flush_rows": "5", "outage_s": "2.5"}
    assert parse_sink("timescale:host=h dbname=d").path == "host=h dbname=d"
    writer = open_writer("timescale:postgresql://u@h/d?flush_rows=5", "w1", "r")
    assert isinstance(writer, TimescaleWriter)
    assert writer.writer == "w1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timescale:", "names no destination; write timescale:postgresql://"),
        (f"timescale:postgresql://u:{SECRET}@h/d?flush_rows=0", "flush_rows='0' is no number"),
        (f"timescale:postgresql://u:{SECRET}@h/d?nonsense=1", "no PostgreSQL connection string"),
        (f"timescale:postgresql:/u:{SECRET}@h/d", "no PostgreSQL connection string"),
        (f"timescale:u {SECRET}", "no PostgreSQL connection string"),
        (f"timscale:postgresql://u:{SECRET}@h/d", "unknown kind; known sinks: parquet:DIR"),
        ("parquet:x?flush_rows=1", "unknown option 'flush_rows'"),
        ("parquet:", "write parquet:PATH"),
        ("null:x", "takes no path"),
    ],
)
def test_mistakes_name_the_fix_and_no_secret(text: str, said: str) -> None:
    with pytest.raises(SinkError) as caught:
        parse_sink(text)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://user:{SECRET}@host:5432/db?sslmode=require",
        f"postgresql://user:{SECRET}/with@slash@host/db",
        f"timescale:postgresql://user@host/db?password={SECRET}&x=1",
        f"host=h password={SECRET} user=u",
        f"host=h password = '{SECRET} \\' more' user=u",
        f"postgresql://user@host/db?sslpassword={SECRET}",
    ],
)
def test_redaction(text: str) -> None:
    assert SECRET not in redacted(text)
    assert "***" in redacted(text)


def test_redaction_leaves_the_rest() -> None:
    for text in ("parquet:lake", "postgresql://user@host/db", "kafka://host:9092/topic", "a: b@c"):
        assert redacted(text) == text


def test_a_dsn_as_people_read_it(monkeypatch) -> None:
    assert shown(f"postgresql://u:{SECRET}@h:7/d") == "u@h:7/d"
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGPORT", "99")
    assert shown("postgresql://u@/d") == "u@elsewhere:99/d"


def test_the_servers_words_without_libpqs_preamble() -> None:
    text = (
        'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
        "\n\tIs the server running on that host and accepting TCP/IP connections?"
    )
    assert one_line(Exception(text)) == "Connection refused"
    assert one_line(Exception("")) == "Exception"


def test_no_password_reaches_a_recovery_folder(tmp_path: Path) -> None:
    from marketflow.flows.errors import UsageError
    from marketflow.flows.runtime import run as run_module

    url = f"timescale:postgresql://u:{SECRET}@127.0.0.1:1/d?outage_s=0.1"
    with pytest.raises((UsageError, OSError)):
        run_module.run(
            "market_data", ["sim:?events=1000&seed=1"], [url], recovery=tmp_path / "recovery"
        )
    note = (tmp_path / "recovery" / "run.json").read_text()
    assert SECRET not in note
    assert json.loads(note)["sinks"] == ["timescale:127.0.0.1:1/d"]
