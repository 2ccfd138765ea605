"""What the ITCH decoder makes of a recorder's notes: holes, lines, recordings begun again."""

from __future__ import annotations

import pickle

import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import EventKind as K
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.operators.normalise.core import Normaliser, ShardPlan
from marketflow.schemas.messages.frames import FrameKind as F
from marketflow.schemas.messages.lines import (
    LineNote,
    from_hole,
    from_line_note,
    to_hole,
    to_line_note,
    to_start,
)
from tests.support.captures import TestFrame
from tests.support.itch_messages import DAY, add, batch_of, blocks, buried, decode, message

START_OF_DAY = message("S", b"O", locate=0)
ONE, TWO, THREE, FOUR, FIVE = (add(n) for n in range(1, 6))
OTHER = add(9, stock=b"XYZ     ", locate=2)


def start(first: int, session: bytes = b"TODAY") -> tuple[F, bytes]:
    return F.START, to_start(first, session)


def kinds(*parts: bytes | tuple[F, bytes]) -> list[tuple[str, int | None, int]]:
    """(kind, sequence, instrument) of every row."""
    batch, dead = decode(blocks(parts))
    assert buried(dead) == []
    return [(K(r["kind"]).name, int(r["sequence"]), int(r["instrument"])) for r in batch.rows]


def test_lost_messages_keep_the_count_in_step() -> None:
    rows = kinds(start(1), START_OF_DAY, ONE, (F.LOST, to_hole(3, 7)), TWO)
    assert rows == [
        ("CLOCK", 1, -1), ("ADD", 2, 1), ("LOST", 7, 0), ("LOST", 7, -1), ("ADD", 8, 1),
    ]  # fmt: skip


def test_messages_counts_messages_not_holes() -> None:
    batch, _ = decode(blocks([ONE, (F.LOST, to_hole(2, 999)), TWO]))
    assert batch.messages == 2


def test_a_hole_that_is_filled() -> None:
    rows = kinds(START_OF_DAY, ONE, (F.GAP, to_hole(3, 3)), (F.FILLED, to_hole(3, 3)), TWO)
    assert [row[:2] for row in rows[2:]] == [("GAP", 3), ("GAP", 3), ("FILLED", 2), ("ADD", 3)]


def test_a_hole_that_was_told_is_lost_without_telling_the_market_again() -> None:
    rows = kinds(START_OF_DAY, ONE, (F.GAP, to_hole(3, 3)), (F.LOST, to_hole(3, 3)))
    assert rows[2:] == [("GAP", 3, 0), ("GAP", 3, -1), ("LOST", 3, -1)]


def test_instruments_that_are_named_behind_a_hole_are_stale_where_the_feed_was_whole() -> None:
    hole = (F.LOST, to_hole(3, 4))
    assert kinds(START_OF_DAY, ONE, hole, OTHER)[4:] == [("LOST", 4, 2), ("ADD", 5, 2)]
    # Joined in mid-session no book was whole.
    assert kinds(ONE, hole, OTHER)[3:] == [("ADD", 5, 2)]


def test_a_recording_that_joins_in_mid_session() -> None:
    rows = kinds(start(500), ONE)
    assert rows == [("LOST", 499, 0), ("LOST", 499, -1), ("ADD", 500, 1)]
    batch, _ = decode(blocks([start(500), ONE]))
    assert batch.instruments.rows["snapshot_rule"][1] == 3  # PARTIAL


def test_what_has_been_read_is_not_read_again() -> None:
    rows = kinds(START_OF_DAY, ONE, TWO, start(1), START_OF_DAY + ONE + TWO + THREE, FOUR)
    assert [row[:2] for row in rows] == [
        ("CLOCK", 1), ("ADD", 2), ("ADD", 3), ("ADD", 4), ("ADD", 5),
    ]  # fmt: skip
    # A hole in what has been read is none; one that reaches beyond it begins there.
    rows = kinds(
        START_OF_DAY, ONE, TWO, start(1), START_OF_DAY, (F.GAP, to_hole(2, 2)),
        (F.LOST, to_hole(2, 2)), TWO, (F.LOST, to_hole(4, 5)), FIVE,
    )  # fmt: skip
    assert [row[:2] for row in rows[3:]] == [("LOST", 5), ("LOST", 5), ("ADD", 6)]
    rows = kinds(START_OF_DAY, ONE, TWO, start(1), (F.LOST, to_hole(1, 4)), FIVE)
    assert rows[3:] == [("LOST", 4, 0), ("LOST", 4, -1), ("ADD", 5, 1)]


def test_a_recording_that_broke_off_in_a_hole() -> None:
    rows = kinds(START_OF_DAY, ONE, (F.GAP, to_hole(3, 3)), start(3), TWO)
    assert [row[0] for row in rows[2:]] == ["GAP", "GAP", "FILLED", "ADD"]
    rows = kinds(START_OF_DAY, ONE, (F.GAP, to_hole(3, 3)), start(5), TWO)
    assert [row[:2] for row in rows[4:]] == [("LOST", 4), ("ADD", 5)]


def test_another_session_is_left_out() -> None:
    batch, dead = decode(
        blocks([start(1), START_OF_DAY, ONE, start(1, b"NEXT"), START_OF_DAY, TWO])
    )
    assert len(batch.rows) == 2
    assert [letter[1] for letter in buried(dead)] == ["malformed"]


def test_lines_are_instruments_of_their_own() -> None:
    note = LineNote("A", "line_lagging", 7, 30)
    frame = TestFrame(to_line_note(note), F.LINE, "", None, 5_000, 0)
    batch, _ = decode([*blocks([START_OF_DAY]), frame])
    row = batch.rows[-1]
    assert batch.instruments.symbols[row["instrument"]] == "line:A"
    assert (row["ts_event"], row["sequence"], row["size"]) == (5_000, 7, 30)


@pytest.mark.parametrize(
    "bad",
    [(F.GAP, b"short"), (F.LOST, to_hole(1, 2)[:8] + bytes(8)), (F.LINE, b"{}"), (F.START, b"x"),
     (F.LINE, b'{"line":"A","event":"gap"}'), (F.FILLED, b"")],
)  # fmt: skip
def test_notes_that_cannot_be_read_are_dead_letters(bad: tuple[F, bytes]) -> None:
    batch, dead = decode(blocks([START_OF_DAY, bad, ONE]))
    assert [K(r["kind"]).name for r in batch.rows] == ["CLOCK", "ADD"]
    assert [(letter[1], letter[2]) for letter in buried(dead)] == [("malformed", bad[1])]


def test_cuts_and_restores_change_nothing() -> None:
    parts = [
        start(1), START_OF_DAY, ONE, (F.GAP, to_hole(3, 3)), (F.FILLED, to_hole(3, 3)), TWO,
        start(1), START_OF_DAY + ONE, (F.LOST, to_hole(3, 6)), THREE, OTHER,
    ]  # fmt: skip
    rows = blocks(parts)
    whole = decode(rows)[0].rows
    decoder, found = ItchDecoder(DAY), []
    for row in rows:
        state = pickle.loads(pickle.dumps(decoder.snapshot()))
        decoder = ItchDecoder(DAY)
        decoder.restore(state)
        found += decoder.apply(batch_of([row])).events.rows.tolist()
    names = [n for n in whole.dtype.names if n != "frame"]
    places = [whole.dtype.names.index(n) for n in names]
    assert [[r[k] for k in places] for r in found] == [
        [r[k] for k in places] for r in whole.tolist()
    ]


def test_a_partial_book_is_stale_until_its_next_message() -> None:
    normaliser = Normaliser("feed", ItchDecoder(DAY, shards=1), ShardPlan(0, 1))
    shard = BookShard(0, BookConfig(shards_per_feed=1))
    parts = [ONE, add(2, b"S", price=1_010_000), (F.LOST, to_hole(3, 4)), THREE]
    tables = shard.apply(normaliser.apply(batch_of(blocks(parts))).parts[0][1]).tables
    kinds = tables["quality_events"].column("kind").to_pylist()
    assert kinds == ["gap", "gap", "stale", "valid"]
    states = tables["quotes"].column("book_state").to_pylist()
    assert states == ["one_sided", "valid", "stale", "one_sided"]


def test_payloads_say_what_they_are() -> None:
    assert from_hole(to_hole(3, 9)) == (3, 9)
    note = LineNote("A", "line_down", 5)
    assert from_line_note(to_line_note(note)) == note
    for bad in (to_hole(9, 3), to_hole(0, 1), b""):
        with pytest.raises(ValueError, match=r"hole|range"):
            from_hole(bad)
