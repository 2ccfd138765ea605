"""The ITCH decoder against its slow twin: every message type, damage, cuts, snapshots."""

from __future__ import annotations

import pickle
import random
import struct
from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.events import EVENT, BookType, EventKind, SnapshotRule
from marketflow.operators.formats.itch.decoder import ItchDecoder, midnight_ns
from marketflow.operators.formats.itch.kernels.layout import LENGTHS, STOCKS
from marketflow.operators.formats.itch.tables import LAYOUTS
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NS_PER_DAY
from tests.reference.itch import BODIES, STOCK
from tests.support.itch_messages import (
    DAY,
    OPEN_NS,
    add,
    assert_equals_twin,
    batch_of,
    blocks,
    buried,
    decode,
    message,
    split,
    told,
)

ABC, XYZ = b"ABC     ", b"XYZ     "
#: An R message behind its stock.
DIRECTORY = (b"Q", b"N", 100, b"Y", b"C", b"Z ", b"P", b"N", b" ", b"1", b"N", 0, b"N")


def reasons(parts: list[bytes]) -> list[str]:
    return [reason for _, reason, _, _ in buried(decode(blocks(parts))[1])]


def random_value(rng: random.Random, code: str) -> object:
    if code.endswith("s"):
        return bytes(rng.randrange(256) for _ in range(int(code[:-1])))
    if code == "c":
        return rng.choice([b"B", b"S", b"Y", b"N", b"O", b"C", b"T", b"\0", b"\xff", b" ", b"1"])
    return rng.choice([0, 1, 7, 100, 2**31, 2**32 - 1, 2**63, 10**16]) % (
        2**32 if code == "I" else 2**64
    )


def random_message(rng: random.Random) -> bytes:
    """A message of documented shape, mostly with a decent symbol and wild values."""
    letter = rng.choice(list(BODIES))
    codes = []
    digits = ""
    for char in BODIES[letter][1:]:
        if char.isdigit():
            digits += char
        else:
            codes.append(digits + char)
            digits = ""
    body = [random_value(rng, code) for code in codes]
    locate = rng.randrange(4)
    if letter in STOCK and rng.random() < 0.9:
        body[STOCK[letter]] = [ABC, XYZ, b"LONGNAME", b"Q       "][locate]
        if rng.random() < 0.1:
            body[STOCK[letter]] = rng.choice([ABC, b"        ", b"A B     ", b"\0" * 8])
    if letter in "AFP" and rng.random() < 0.8:
        body[1], body[2], body[4] = rng.choice([b"B", b"S"]), 100, 2_500_000
    ns = rng.randrange(2**48) if rng.random() < 0.05 else rng.randrange(NS_PER_DAY)
    return message(letter, *body, locate=locate, ns=ns)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The block with a few bytes changed, lost or added."""
    bytes_ = bytearray(data)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(bytes_))
        match rng.randrange(3):
            case 0:
                bytes_[at] = rng.randrange(256)
            case 1:
                del bytes_[at]
            case _:
                bytes_.insert(at, rng.randrange(256))
    return bytes(bytes_)


def test_layouts_agree_with_each_other() -> None:
    for letter, body in BODIES.items():
        assert LENGTHS[letter] == 11 + struct.calcsize(body)
        if letter in LAYOUTS:
            assert LAYOUTS[letter].itemsize == LENGTHS[letter]
        if letter in STOCK and letter in LAYOUTS:
            assert LAYOUTS[letter].fields["stock"][1] == STOCKS[letter]
    assert set(BODIES) == set(LENGTHS)
    assert set(STOCK) == set(STOCKS)


def test_every_book_message() -> None:
    parts = [
        message("S", b"O", locate=0),
        add(1),
        message("F", 2, b"S", 300, ABC, 1_010_000, b"GSCO"),
        message("E", 2, 100, 900),
        message("C", 2, 50, 901, b"N", 1_005_000),
        message("C", 2, 50, 902, b"Y", 1_005_000),
        message("X", 1, 40),
        message("U", 1, 3, 70, 990_000),
        message("D", 3),
        message("P", 0, b"B", 10, ABC, 1_000_500, 903),
        message("Q", 5_000, ABC, 1_000_000, 904, b"O"),
        message("Q", 0, ABC, 0, 0, b"C"),
        message("B", 903),
    ]
    batch = assert_equals_twin(blocks([b"".join(parts)]))
    kinds = [EventKind(k).name for k in batch.rows["kind"].tolist()]
    assert kinds == [
        "CLOCK", "ADD", "ADD", "EXECUTE", "EXECUTE", "EXECUTE", "REDUCE", "REPLACE", "DELETE",
        "TRADE", "TRADE", "BUST",
    ]  # fmt: skip
    assert batch.rows["extra"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, ord("O"), 0]
    assert batch.messages == len(parts)
    assert batch.instruments.symbols == ("*", "ABC")
    assert batch.instruments.rows["book_type"].tolist() == [BookType.NONE, BookType.L3]
    assert batch.instruments.rows["snapshot_rule"][1] == SnapshotRule.NONE
    assert [t[4][0] for t in told(batch) if t[0] == "statistics"] == [
        "cross_shares",
        "cross_price",
    ] * 2


def test_rare_messages_become_rows() -> None:
    parts = [
        message(
            "R", ABC, b"Q", b"N", 100, b"Y", b"C", b"Z ", b"P", b"N", b" ", b"1", b"N", 0, b"N"
        ),
        message("H", ABC, b"H", b" ", b"LUDP"),
        message("h", ABC, b"Q", b"T"),
        message("Y", ABC, b"1"),
        message("L", b"GSCO", ABC, b"Y", b"N", b"A"),
        message("V", 300_000_000_000, 280_000_000_000, 260_000_000_000),
        message("W", b"2"),
        message("K", ABC, 34_500, b"A", 250_000),
        message("J", ABC, 1_000_000, 1_050_000, 950_000, 1),
        message("N", ABC, b"A"),
        message("O", ABC, b"Y", 1, 2, 3, OPEN_NS, 4, 5),
        message("I", 1_000, 200, b"B", ABC, 0, 990_000, 1_000_000, b"O", b"L"),
        message("I", 0, 0, b"O", ABC, 0, 0, 0, b"C", b" "),
        message("S", b"Q"),
        message("S", b"?"),
    ]
    batch = assert_equals_twin(blocks(parts))
    assert {name: table.num_rows for name, table in batch.tables.items()} == {
        "instruments": 1,
        "market_status": 5,
        "statistics": 20,
        "imbalances": 2,
    }
    assert batch.instruments.symbols == ("ABC", "*")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"\x00\x00", "malformed"),
        (b"\x00\x03zzz", "unknown_message"),
        (b"\x00\x03AAA", "malformed"),
        (message("D", 1) + b"", None),
        (add(9, side=b"X"), "bad_side"),
        (add(9, size=0), "bad_size"),
        (add(9, price=0), "bad_price"),
        (add(9, ns=NS_PER_DAY), "bad_timestamp"),
        (add(9, stock=XYZ), "malformed"),
        (add(9, stock=b"        ", locate=5), "unknown_instrument"),
        (add(9, stock=b"A\x80      ", locate=5), "unknown_instrument"),
        (message("C", 1, 5, 6, b"?", 7), "malformed"),
        (message("Q", 10**16, ABC, 1, 1, b"O"), "out_of_range"),
        (message("I", 10**16, 0, b"B", ABC, 0, 0, 0, b"O", b"L"), "out_of_range"),
    ],
)
def test_a_bad_message_is_one_dead_letter_and_the_rest_lives(bad: bytes, reason: str) -> None:
    parts = [add(1), bad, add(2)]
    rows = blocks([b"".join(parts)], start=1_000)
    batch, dead = decode(rows)
    kinds = batch.rows["kind"].tolist()
    assert kinds.count(EventKind.ADD) == 2
    if reason is None:
        assert dead is None
        return
    at = 1_000 + len(parts[0])
    assert [(o, r, raw) for o, r, raw, _ in buried(dead)] == [(at, reason, bad)]
    assert batch.rows["sequence"].tolist() == ([1, 2] if bad == b"\0\0" else [1, 3])
    assert_equals_twin(rows)


def test_cut_blocks_and_frames_about_the_feed() -> None:
    parts = [
        add(1)[:-1],
        add(2) + b"\x00",
        (FrameKind.TRUNCATED, b"tail"),
        (FrameKind.BROKEN, b"?"),
        (FrameKind.HEADER, b"ignored"),
        (FrameKind.DISCONNECT, b""),
        add(3),
        (FrameKind.END, b""),
    ]
    batch = assert_equals_twin(blocks(parts))
    assert [EventKind(k).name for k in batch.rows["kind"].tolist()] == [
        "ADD", "DISCONNECT", "ADD", "FEED_END",
    ]  # fmt: skip
    assert reasons([add(1)[:-1]]) == ["truncated"]


def test_the_empty_record_that_ends_a_file_is_no_fault() -> None:
    assert reasons([add(1), message("S", b"C", locate=0), b"\0\0"]) == []
    assert reasons([add(1), message("S", b"E", locate=0), b"\0\0"]) == ["malformed"]


def test_orders_of_a_locate_nobody_named_are_its_own_instrument() -> None:
    parts = [message("D", 7, locate=13), add(8, locate=13), message("D", 8, locate=13)]
    batch = assert_equals_twin(blocks(parts))
    assert batch.instruments.symbols == ("#13", "ABC")
    assert batch.rows["instrument"].tolist() == [0, 1, 1]
    assert set(batch.instruments.rows["snapshot_rule"]) == {SnapshotRule.PARTIAL}


def test_a_locate_is_renamed_by_a_directory_or_by_the_second_message_that_says_so() -> None:
    parts = [
        add(1, stock=ABC),
        add(2, stock=XYZ),
        add(3, stock=ABC),
        add(4, stock=XYZ),
        add(5, stock=XYZ),
        message("R", ABC, *DIRECTORY),
        add(6, stock=ABC),
    ]
    batch = assert_equals_twin(blocks(parts))
    assert batch.rows["order_lo"].tolist() == [1, 3, 4, 5, 6]
    assert batch.rows["instrument"].tolist() == [0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2024, 1, 15), 5), (date(2024, 7, 15), 4), (date(2024, 3, 11), 4)]
)
def test_midnight_is_that_of_new_york(day: date, hours: int) -> None:
    days = (day - date(1970, 1, 1)).days
    assert midnight_ns(day) == (days * 24 + hours) * 3_600 * 10**9


def test_a_feed_with_arrival_times_keeps_them() -> None:
    rows = [frame._replace(ts_recv=77) for frame in blocks([add(1) + b"\0\0", message("S", b"Q")])]
    batch, dead = decode(rows)
    assert batch.rows["ts_recv"].tolist() == [77, 77]
    assert buried(dead)[0][3] == 77
    assert batch.tables["market_status"].column("ts_recv").cast("int64").to_pylist() == [77]


@given(st.integers(0, 2**32), st.integers(1, 60), st.booleans())
def test_wild_messages_equal_the_twin(seed: int, count: int, hurt: bool) -> None:
    rng = random.Random(seed)
    parts = []
    for _ in range(rng.randrange(1, 4)):
        block = b"".join(random_message(rng) for _ in range(count))
        parts.append(damaged(rng, block) if hurt else block)
    assert_equals_twin(blocks(parts))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_equal_the_twin(parts: list[bytes]) -> None:
    assert_equals_twin(blocks(parts))


def many(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    return [random_message(rng) for _ in range(count)]


def test_cuts_and_restarts_change_nothing() -> None:
    parts = many(5, 400)
    whole, dead = decode(blocks([b"".join(parts)]))
    decoder = ItchDecoder(DAY)
    rows, tables, letters, offset = [], [], [], 0
    rng = random.Random(6)
    while parts:
        size = rng.randrange(1, 40)
        block, parts = b"".join(parts[:size]), parts[size:]
        batch, more = decode(blocks([block], start=offset), decoder)
        offset += len(block)
        rows.append(batch.rows)
        tables += told(batch)
        letters += buried(more)
        state = pickle.dumps(decoder.snapshot())
        decoder = ItchDecoder(DAY)
        decoder.restore(pickle.loads(state))
    again = np.concatenate(rows)
    for name in EVENT.names or ():
        if name != "frame":
            assert np.array_equal(whole.rows[name], again[name]), name
    assert batch.instruments.symbols == whole.instruments.symbols
    assert np.array_equal(batch.instruments.rows, whole.instruments.rows)
    assert sorted(tables, key=lambda r: r[0]) == sorted(told(whole), key=lambda r: r[0])
    assert letters == buried(dead)


def test_more_notes_than_the_buffer_holds() -> None:
    parts = [message("N", ABC, b"A")] * 20_000 + [b"\0\0"] * 20_000 + [add(1)]
    batch, dead = decode(blocks([b"".join(parts)]))
    assert batch.tables["statistics"].num_rows == 20_000
    assert batch.messages == 20_001
    assert dead is not None
    assert dead.num_rows == 20_000


def test_a_snapshot_does_not_change_when_the_decoder_goes_on() -> None:
    decoder = ItchDecoder(DAY)
    decode(blocks(many(1, 50)), decoder)
    state = decoder.snapshot()
    before = pickle.dumps(state)
    decode(blocks(many(2, 50)), decoder)
    assert pickle.dumps(state) == before
    assert len(before) < 20_000


def test_foreign_snapshots_are_refused_with_the_remedy() -> None:
    state = ItchDecoder(DAY).snapshot()
    with pytest.raises(ValueError, match="--recovery"):
        ItchDecoder(DAY).restore((99, *state[1:]))
    with pytest.raises(ValueError, match="date"):
        ItchDecoder(date(2020, 1, 2)).restore(state)


def test_no_frames_and_sliced_frames() -> None:
    batch, dead = decode([])
    assert len(batch.rows) == 0
    assert dead is None
    whole = batch_of(blocks([add(1), add(2), add(3)]))
    batch, _ = ItchDecoder(DAY).apply(whole.slice(1, 1))
    assert batch.rows["order_lo"].tolist() == [2]
    assert split(add(1) + add(2)) == [add(1), add(2)]


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_shards_that_others_keep_are_left_out_and_nothing_else(rng, cut_at) -> None:
    """A decoder that keeps every other shard gives the rows of those, however it is resumed."""
    parts = [b"".join(random_message(rng) for _ in range(rng.randrange(30))) for _ in range(4)]
    rows = blocks([message("S", b"O", locate=0), *parts])
    whole, dead = decode(rows)
    shards = whole.instruments.rows["shard"]

    def keeps(shard: int) -> bool:
        return shard % 2 == 0

    first = ItchDecoder(DAY)
    first.keep(keeps)
    one, dead_one = decode(rows[: cut_at + 1], first)
    second = ItchDecoder(DAY)
    second.keep(keeps)
    second.restore(pickle.loads(pickle.dumps(first.snapshot())))
    other, dead_other = decode(rows[cut_at + 1 :], second)
    wanted = [
        event
        for event in whole.rows
        if event["instrument"] < 0 or keeps(shards[event["instrument"]])
    ]
    found = [*one.rows, *other.rows]
    names = [name for name in EVENT.names if name != "frame"]
    assert [[e[n] for n in names] for e in found] == [[e[n] for n in names] for e in wanted]
    assert one.messages + other.messages == whole.messages
    assert buried(dead_one) + buried(dead_other) == buried(dead)
    assert sorted(told(one) + told(other)) == sorted(told(whole))
