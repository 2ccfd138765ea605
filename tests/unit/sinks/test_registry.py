"""Sink URLs: what they say, what they refuse, and that no secret is repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from marketflow.flows.runtime import recovery, run_identity
from marketflow.flows.settings import load
from marketflow.sinks.errors import SinkError
from marketflow.sinks.kafka.config import KafkaConfig, KafkaOptions
from marketflow.sinks.lake.config import LakeConfig, SealOptions
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.null import NullWriter
from marketflow.sinks.redaction import redacted
from marketflow.sinks.registry import SCHEMES, parse_sink
from marketflow.sinks.timescale.config import TimescaleConfig, TimescaleOptions
from marketflow.sinks.timescale.dsn import one_line, shown
from marketflow.sinks.timescale.writer import TimescaleWriter

SECRET = "s3same"
_EXAMPLES = {
    "parquet": "parquet:lake?seal_rows=5",
    "timescale": f"timescale:postgresql://u:{SECRET}@h/d?flush_rows=5",
    "kafka": f"kafka://b:1/md?security=sasl_ssl&username=u&password={SECRET}",
    "jsonl": "jsonl:rows.jsonl",
    "null": "null:",
}
_SAME_PLACES = {
    "parquet": ("parquet:x/../lake?seal_rows=5", "parquet:lake"),
    "timescale": ("timescale:postgresql://u:p@h/d?flush_rows=5", "timescale:host=h dbname=d"),
    "kafka": ("kafka://b:1,a:2/md?commit_ms=5", "kafka://a:2,b:1/md"),
    "jsonl": ("jsonl:x/../rows", "jsonl:rows"),
    "null": ("null:", "null:"),
}


def test_a_database_url_keeps_libpqs_parameters_and_gives_ours() -> None:
    found = TimescaleConfig.parse(
        "timescale:postgresql://u:p%40w@h:1/d?sslmode=require&flush_rows=5&outage_s=2.5&options=x"
    )
    assert found.dsn == "postgresql://u:p%40w@h:1/d?sslmode=require&options=x"
    assert found.options == TimescaleOptions(flush_rows=5, outage_s=2.5)
    assert TimescaleConfig.parse("timescale:host=h dbname=d").dsn == "host=h dbname=d"
    writer = parse_sink("timescale:postgresql://u@h/d?flush_rows=5").open("w1", "r")
    assert isinstance(writer, TimescaleWriter)
    assert writer.writer == "w1"


def test_a_url_is_a_typed_config() -> None:
    lake = parse_sink("parquet:x/y?seal_rows=5&seal_after_s=0.5")
    assert isinstance(lake, LakeConfig)
    assert (lake.folder, lake.seal) == (Path("x/y"), SealOptions(seal_rows=5, seal_after_s=0.5))
    assert isinstance(lake.open("w1"), ParquetWriter)
    topics = parse_sink("kafka://b:1/md?format=avro&partitions=8&commit_ms=20")
    assert isinstance(topics, KafkaConfig)
    assert (topics.prefix, topics.options) == (
        "md",
        KafkaOptions(format="avro", partitions=8, commit_ms=20),
    )
    assert isinstance(parse_sink("null:").open(), NullWriter)


@pytest.mark.parametrize("name", SCHEMES)
def test_configs_are_frozen_and_closed(name: str) -> None:
    config = parse_sink(_EXAMPLES[name])
    with pytest.raises(ValidationError):
        config.text = "other"
    with pytest.raises(ValidationError):
        type(config)(**{**dict(config), "flush": 1})
    assert config.shown == _EXAMPLES[name].replace(SECRET, "***")
    assert SECRET not in f"{config!r} {config} {config.place}"


def test_every_scheme_has_an_example_here() -> None:
    assert _EXAMPLES.keys() == SCHEMES.keys()


@pytest.mark.parametrize("name", SCHEMES)
def test_a_place_is_that_of_the_store_alone(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = _SAME_PLACES[name]
    assert parse_sink(one).place == parse_sink(other).place


def test_only_standard_output_belongs_to_one_process() -> None:
    assert not parse_sink("jsonl:-").is_shared
    assert all(parse_sink(text).is_shared for text in _EXAMPLES.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timescale:", "names no destination; write timescale:postgresql://"),
        (f"timescale:postgresql://u:{SECRET}@h/d?flush_rows=0", "flush_rows='0' is no number"),
        (f"timescale:postgresql://u:{SECRET}@h/d?flush_row=5", "did you mean 'flush_rows'?"),
        (f"timescale:postgresql://u:{SECRET}@h/d?direct_compress=x", "'x' is neither 1 nor 0"),
        (f"timescale:postgresql://u:{SECRET}@h/d?nonsense=1", "no PostgreSQL connection string"),
        (f"timescale:postgresql:/u:{SECRET}@h/d", "no PostgreSQL connection string"),
        (f"timescale:u {SECRET}", "no PostgreSQL connection string"),
        (
            f"timscale:postgresql://u:{SECRET}@h/d",
            "unknown kind (did you mean 'timescale'?); known sinks: parquet:DIR",
        ),
        ("postgres:x", "unknown kind; known sinks: parquet:DIR"),
        ("lake", "unknown kind; known sinks: parquet:DIR"),
        ("parquet:x?flush_rows=1", "unknown option 'flush_rows'"),
        ("parquet:x?seal_row=5", "(did you mean 'seal_rows'?); parquet: takes seal_rows, seal_b"),
        ("parquet:x?folder=y", "unknown option 'folder'"),
        ("parquet:x?stage_rows=5", "unknown option 'stage_rows'"),
        ("parquet:x?seal_rows=0", "seal_rows='0' is no number above 0"),
        ("parquet:x?seal_rows=many", "no number above 0"),
        ("parquet:x?seal_after_s=inf", "no number above 0"),
        ("parquet:x?seal_after_s=nan", "no number above 0"),
        ("parquet:", "write parquet:DIR"),
        ("jsonl:", "write jsonl:PATH"),
        ("jsonl:x?a=1", "unknown option 'a'; jsonl: takes none"),
        ("null:x", "takes no path"),
        ("kafka://b:1", "names no topic"),
        ("kafka:", "write kafka://HOST:PORT"),
        ("kafka://b:1/md?format=xml", "format=xml is none of arrow, avro, json"),
        ("kafka://b:1/md?partitions=0", "no number above 0"),
        ("kafka://b:1/md?patience_s=900", "at most 840: brokers let no transaction"),
        ("kafka://b:1/md?registry=http://r", "registry= goes with format=avro"),
        ("kafka://b:1/md?linger=5", "unknown option 'linger'; kafka: takes format"),
        ("kafka://b:1/md?pasword=5", "did you mean 'password'?"),
        (f"kafka://u:{SECRET}@b:1/md", "security=sasl_ssl"),
        (f"kafka://b:1/md?password={SECRET}&commit_ms=0", "commit_ms='0' is no number above 0"),
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
    url = f"timescale:postgresql://u:{SECRET}@127.0.0.1:1/d"
    identity = run_identity.of_run("market_data", ["sim:?events=1000"], [url], load())
    recovery.prepare(tmp_path / "recovery", identity, 1)
    note = (tmp_path / "recovery" / "run.json").read_text()
    assert SECRET not in note
    assert json.loads(note)["sinks"] == ["timescale:127.0.0.1:1/d"]
