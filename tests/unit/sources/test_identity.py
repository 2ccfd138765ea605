"""Which feed it is: the same bytes are the same feed, wherever and however they lie."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from marketflow.sources.errors import SourceError
from marketflow.sources.identity import Beginning, FeedIdentity, identity
from marketflow.sources.kafka.config import topic_of
from marketflow.sources.registry import parse_source

BYTES = b"2026-03-02T14:30:00Z,V,S,0.5,1\n" * 9_000
HEAD = b"ts_event,venue,symbol,price,size\n"


def of(text: str, shards: int = 16) -> FeedIdentity:
    return identity(parse_source(text), shards)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + BYTES)
    return path


def test_values_on_record(tmp_path: Path) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(bytes([0, 12, 83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 79]))
    found = of(f"itch:{path}?date=2026-03-02")
    assert json.loads(found.text).keys() == {"kind", "shards", "date", "begin"}
    assert found.number == 4002524569541
    assert found.digest.startswith("747d21c3f8b176")
    assert of("sim:?events=1000").number == of("sim:?events=1000&seed=1").number == 6832863147018


def test_neither_path_nor_compression_nor_end_matter(file: Path, tmp_path: Path) -> None:
    plain = of(f"csv:{file}?table=trades")
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(file.read_bytes()))
    grown = tmp_path / "grown.csv"
    grown.write_bytes(file.read_bytes() + BYTES)
    for path in (other, grown):
        assert of(f"csv:{path}?table=trades") == plain
    assert of(f"csv:{file},{grown}?table=trades") == plain


def test_what_decides_the_rows_matters(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.csv"
    other.write_bytes(HEAD + b"2026-03-02T14:30:01Z,V,S,0.5,1\n" + BYTES)
    found = [
        of(f"csv:{file}?table=trades"),
        of(f"csv:{file}?table=trades", 8),
        of(f"csv:{file}?table=trades&venue=A&symbol=B"),
        of(f"csv:{file}?table=trades&symbol=B"),
        of(f"csv:{file}?table=trades&id=second"),
        of(f"csv:{other}?table=trades"),
        of("sim:?events=1000"),
        of("sim:?events=1000&seed=2"),
        of("sim:?events=1000&id=second"),
    ]
    assert len({each.number for each in found}) == len(found)


def test_a_parquet_file_is_known_by_its_footer(tmp_path: Path) -> None:
    names = []
    for name, price in (("a", "1"), ("b", "1"), ("c", "2")):
        rows = {"ts_event": [1], "price": [price], "size": ["1"]}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
        url = f"parquet:{tmp_path / name}.parquet?table=trades&venue=V&symbol=S&time_unit=s"
        names.append(of(url).number)
    assert names[0] == names[1] != names[2]


def test_a_partition_is_known_by_topic_and_beginning() -> None:
    topic = topic_of(parse_source("kafka://h:1/raw.binance"))
    spec = topic.of_partition(2)
    found = [
        identity(spec, 16, Beginning("topic", 0)),
        identity(spec, 16, Beginning("topic", 7)),
        identity(spec, 16, Beginning("anew", 0)),
        identity(
            parse_source("kafka://h:1/raw.binance").of_partition(3), 16, Beginning("topic", 0)
        ),
    ]
    assert len({each.number for each in found}) == len(found)
    elsewhere = topic_of(parse_source("kafka://other:9/raw.binance?group=g")).of_partition(2)
    assert identity(elsewhere, 16, Beginning("topic", 0)) == found[0]
    with pytest.raises(SourceError, match="do not tell the topic's id"):
        identity(spec, 16, Beginning("", 0))
