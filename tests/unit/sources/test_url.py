"""Source URLs: what they mean, and errors that name the fix."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from marketflow.sources.errors import SourceError
from marketflow.sources.registry import open_reader, parse_source
from marketflow.sources.url import split
from tests.support.reading import read_all, write

ITCH = (12).to_bytes(2, "big") + b"S" + bytes(10) + b"O"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.itch", "a.itch", "c.itch.gz"):
        write(tmp_path / name, ITCH)
    write(tmp_path / "captured.jsonl", b'{"t":"header","exchange":"X"}\n')
    write(tmp_path / "message.csv", b"34200.01,1,11,21,2238100,1\n")
    write(tmp_path / "book.csv", b"2239500,100,2238100,21\n")
    write(tmp_path / "lines", b'17 {"e":1}\n')
    write(tmp_path / "file.dbn.zst", b"DBN\x03" + bytes(60))
    write(tmp_path / "trades.csv", b'"ts_event",venue,symbol,price,size\n1,X,A,1,1\n')
    pl.DataFrame({"ts_event": [1], "symbol": ["A"], "price": [1.5], "size": [1]}).write_parquet(
        tmp_path / "trades.parquet"
    )
    return tmp_path


def test_paths_globs_and_order(folder: Path) -> None:
    spec = parse_source(f"itch:{folder}/b.itch,{folder}/[ac].itch*?date=2019-12-30")
    assert [path.name for path in spec.paths] == ["b.itch", "a.itch", "c.itch.gz"]
    assert spec.date == date(2019, 12, 30)
    assert spec.name == "itch:b.itch+2"
    questioned = parse_source(f"itch:{folder}/?.itch?date=2019-12-30")
    assert [path.name for path in questioned.paths] == ["a.itch", "b.itch"]


def test_values_are_decoded_and_secrets_blotted_out() -> None:
    url = split("sim:?symbol=a%2Fb&password=x%26y&seed=1", "")
    assert url.params == {"symbol": "a/b", "password": "x&y", "seed": "1"}
    assert url.text == "sim:?symbol=a%2Fb&password=***&seed=1"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("itsh:x", r"did you mean itch:"),
        ("postgres://x", r"one of itch:, lobster:, dbn:, binance:, capture:, csv:"),
        ("{}/a.itch", r"say what the file is, such as itch:"),
        ("itch:{}/a.itch", r"needs date: add date=2019-12-30"),
        ("itch:{}/a.itch?date=30.12.2019", r"date=30.12.2019 is not a day as YYYY-MM-DD"),
        ("itch:{}/a.itch?date=2019-02-30", r"is not a day"),
        ("itch:{}/a.itch?dat=2019-12-30", r"parameter 'dat'; known: date, id; did you mean date"),
        ("itch:{}/a.itch?date", r"needs date"),
        ("itch:{}/a.itch?date=2019-12-30&x", r"'x' has no value"),
        ("itch:{}/a.itch?date=2019-12-30&date=2019-12-31", r"given twice"),
        ("itch:{}/a.itsh?date=2019-12-30", r"did you mean .*/a.itch"),
        ("itch:{}/none/a.itch?date=2019-12-30", r"there is no folder .*/none"),
        ("itch:{}/*.bin?date=2019-12-30", r"no file matches .*\*\.bin"),
        ("itch:{}?date=2019-12-30", r"is a directory, no lake; name its files, such as .*/\*"),
        ("itch:?date=2019-12-30", r"a path is missing"),
        ("itch:{}/a.itch,,{}/b.itch?date=2019-12-30", r"a path is missing"),
        ("itch:{}/captured.jsonl?date=2019-12-30", r"looks like JSON, .*; try capture:"),
        ("itch:{}/trades.parquet?date=2019-12-30", r"looks like Parquet, .*; try parquet:"),
        ("itch:{}/message.csv?date=2019-12-30", r"it starts with b'34200.01"),
        ("capture:{}/a.itch", r"does not hold lines of JSON"),
        ("binance:{}/captured.jsonl?market=spot", r"does not hold|looks like JSON"),
        ("binance:{}/lines", r"needs market: add market=spot"),
        ("binance:{}/lines?market=margin", r"is not one of spot, us, usdm, coinm"),
        ("lobster:{}/book.csv?symbol=A&date=2012-06-21", r"lines time,type,order id"),
        ("lobster:{}/message.csv?book={}/lines&symbol=A&date=2012-06-21", r"lines ask price"),
        (
            "lobster:{}/message.csv?book={}/book.csv,{}/book.csv&symbol=A&date=2012-06-21",
            r"1 message files but 2 book files",
        ),
        ("dbn:{}/captured.jsonl", r"try capture:"),
        ("csv:{}/trades.csv?table=bars", r"is not one of book_events, trades"),
        ("csv:{}/book.csv?table=trades", r"has no column ts_event, venue, symbol, price, size"),
        ("parquet:{}/trades.csv?table=trades", r"does not hold Parquet"),
        ("parquet:{}/trades.parquet?table=trades&venue=X", r"column price is double: a float"),
        ("sim:x?seed=1", r"sim: takes no path"),
        ("csv:{}/trades.csv?table=trades&symbol=" + "A" * 300, r"symbol has 300 bytes"),
        (
            "csv:{}/trades.csv?table=trades&venue=__HIVE_DEFAULT_PARTITION__",
            r"not a venue that can be stored: .* is reserved",
        ),
    ],
)
def test_errors_name_the_fix(folder: Path, url: str, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        parse_source(url.replace("{}", str(folder)))


def test_an_empty_file_is_an_empty_feed_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "empty.itch", b"")
    with pytest.warns(UserWarning, match="adds nothing to its feed"):
        spec = parse_source(f"itch:{tmp_path}/empty.itch?date=2019-12-30")
    assert len(read_all(open_reader(spec))) == 1


def test_a_parameter_stands_for_a_missing_column(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"no column venue.* add venue=VALUE to the URL"):
        parse_source(f"parquet:{folder}/trades.parquet?table=statistics&symbol=A")
