"""Readers of files: what their frames hold, also of damaged archives.

That cuts and stops change nothing is the contract of all readers (tests/contract/test_readers.py).
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import END_OF_TIME_NS
from marketflow.sources.errors import SourceError
from marketflow.sources.files.bytes import ByteFile, compression
from marketflow.sources.files.dbn import DbnReader
from marketflow.sources.files.itch import ItchReader
from marketflow.sources.files.stamped_json import BinanceReader
from marketflow.sources.files.text_lines import HeadedLineReader, LineReader
from marketflow.sources.reader import Limits
from tests.support.reader_cases import dbn_bytes, itch_bytes
from tests.support.reading import Row, joined, read_all, read_in_pieces, write

SMALL = Limits(max_rows=3, max_bytes=64, max_message_bytes=512)
SUFFIXES = ("", ".gz", ".zst")


def test_itch_blocks_are_the_file(tmp_path: Path) -> None:
    data = [itch_bytes(seed, 50) for seed in (1, 2)]
    paths = [write(tmp_path / f"{i}.gz", part) for i, part in enumerate(data)]
    rows = joined(read_all(ItchReader(paths, limits=SMALL)))
    assert rows == [
        Row(FrameKind.DATA, 0, 0, "", None, b"".join(data)),
        Row(FrameKind.END, len(data[0]) + len(data[1]), 0, "", None, b""),
    ]


def test_lines_without_their_ends(tmp_path: Path) -> None:
    one = write(tmp_path / "one", b"a\r\n\r\n\nbc\nlast")
    two = write(tmp_path / "two.gz", b"next\r")
    rows = read_all(LineReader([one, two]))
    assert [(row.offset, row.payload) for row in rows[:-1]] == [
        (0, b"a"), (6, b"bc"), (9, b"last"), (13, b"next"),
    ]  # fmt: skip
    assert rows[-1].offset == 18


def test_first_line_of_each_file_is_its_header(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, b"\nh1,h2\n1,2\n") for name in ("a", "b.zst")]
    rows = read_all(HeadedLineReader(paths))
    kinds = [row.kind for row in rows]
    assert kinds == [FrameKind.HEADER, FrameKind.DATA] * 2 + [FrameKind.END]


def test_stamps_and_lines_without(tmp_path: Path) -> None:
    path = write(
        tmp_path / "feed",
        b'17 {"a":1}\nno\n9214646399999999999 x\n9214646400000000000 x\n 1 x\n12\n12 \n3  y',
    )
    rows = read_all(BinanceReader([path]))
    assert [(row.kind.name, row.ts_recv, row.payload) for row in rows[:-1]] == [
        ("DATA", 17, b'{"a":1}'),
        ("BROKEN", 0, b"no"),
        ("DATA", END_OF_TIME_NS - 1, b"x"),
        ("BROKEN", 0, b"9214646400000000000 x"),
        ("BROKEN", 0, b" 1 x"),
        ("BROKEN", 0, b"12"),
        ("BROKEN", 0, b"12 "),
        ("DATA", 3, b" y"),
    ]
    assert rows[1].note == "the line does not start with a time in ns and a blank"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("left_out", [1, 5, 400, 5000])
def test_a_cut_archive_gives_what_it_holds(suffix: str, left_out: int, tmp_path: Path) -> None:
    rng = random.Random(left_out)
    data = b"".join(b"%d %d\n" % (i, rng.randrange(10**12)) for i in range(20_000))
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(write(tmp_path / f"whole{suffix}", data).read_bytes()[:-left_out])
    after = write(tmp_path / "after", b"1 after\n")
    rows = read_all(LineReader([cut, after]))
    (damage,) = [row for row in rows if row.kind is not FrameKind.DATA][:-1]
    assert damage.kind is FrameKind.TRUNCATED
    assert damage.note is not None and damage.note.startswith(f"cut{suffix}: truncated")
    before = rows[: rows.index(damage)]
    assert (
        b"".join(row.payload + b"\n" for row in before) + damage.payload
        == data[: damage.offset + len(damage.payload)]
    )
    assert len(before) > 4000
    assert rows[-2].payload == b"1 after"
    small = Limits(max_rows=500, max_bytes=20_000)
    assert read_all(LineReader([cut, after], limits=small)) == rows
    again = read_in_pieces(lambda p: LineReader([cut, after], p, small), batches=7)
    assert again == rows


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_corrupt_archive_is_broken_from_there_on(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"feed{suffix}", random.Random(1).randbytes(400_000).hex().encode())
    raw = bytearray(path.read_bytes())
    if suffix == ".gz":
        raw[-8] ^= 0xFF  # the checksum at the end
    else:
        raw[len(raw) // 2 :] = b"\xff" * (len(raw) - len(raw) // 2)
    path.write_bytes(raw)
    rows = read_all(LineReader([path]))
    assert [row.kind for row in rows] == [FrameKind.BROKEN, FrameKind.END]
    assert rows == read_all(LineReader([path], limits=Limits(max_bytes=1000)))


@pytest.mark.parametrize("kind", ["itch", "dbn"])
def test_bytes_left_over_are_told(kind: str, tmp_path: Path) -> None:
    reader, make = {"itch": (ItchReader, itch_bytes), "dbn": (DbnReader, dbn_bytes)}[kind]
    data = make(3, 20)
    paths = [write(tmp_path / "a", data[:-1]), write(tmp_path / "b", data)]
    rows = joined(read_all(reader(paths, limits=SMALL)))
    cut = rows[[row.kind for row in rows].index(FrameKind.TRUNCATED)]
    assert cut.offset + len(cut.payload) == len(data) - 1
    assert rows[-1].offset == 2 * len(data) - 1


def test_an_impossible_record_ends_its_file(tmp_path: Path) -> None:
    good = dbn_bytes(1, 3)
    paths = [write(tmp_path / "a", good + bytes(64) + good), write(tmp_path / "b", good)]
    rows = joined(read_all(DbnReader(paths)))
    assert [row.kind.name for row in rows] == [
        "HEADER", "DATA", "BROKEN", "HEADER", "DATA", "END",
    ]  # fmt: skip
    assert read_in_pieces(lambda p: DbnReader(paths, p)) == read_all(DbnReader(paths))


def test_an_endless_line_is_one_broken_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "feed", b"x" * 1300 + b"\nok\n")
    rows = read_all(LineReader([path], limits=SMALL))
    sizes = [(row.kind.name, len(row.payload)) for row in rows]
    assert sizes == [("BROKEN", 1300), ("DATA", 2), ("END", 0)]
    assert read_in_pieces(lambda p: LineReader([path], p, SMALL)) == rows


def test_a_file_that_shrank_is_refused(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path = write(tmp_path / f"feed{suffix}", b"a\nb\n" * 100)
        with pytest.raises(SourceError, match="changed since"):
            ByteFile(path, 401)
        with pytest.raises(SourceError, match="cannot be read"):
            ByteFile(tmp_path / "gone", 0)


def test_compression_is_told_by_the_bytes(tmp_path: Path) -> None:
    assert compression(write(tmp_path / "x.gz", b"abc")) == "gzip"
    assert compression(write(tmp_path / "x.zst", b"abc")) == "zstd"
    (tmp_path / "plain.gz").write_bytes(b"abc")
    assert compression(tmp_path / "plain.gz") is None
    (tmp_path / "skip").write_bytes(b"\x5a\x2a\x4d\x18\x00")
    assert compression(tmp_path / "skip") == "zstd"


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b""))), st.booleans())
def test_lines_are_those_of_python(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "feed"
    # Not at the start of the file, where two of these bytes would say that it is compressed.
    data = b"#\n" + b"\n".join(lines) + (b"\n" if ended else b"")
    path.write_bytes(data)
    found = [row.payload for row in read_all(LineReader([path], limits=SMALL))[:-1]]
    assert found == [line.rstrip(b"\r") for line in data.split(b"\n") if line.rstrip(b"\r")]
