"""MoldUDP64 and SoupBinTCP: against the slow twins, damaged at every byte, cut anywhere."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.arbitration import mold
from marketflow.operators.arbitration.mold import MoldDecoder
from marketflow.operators.arbitration.soup import SoupClient, SoupError, State, packet
from marketflow.schemas.messages.lines import PACKET
from marketflow.schemas.messages.lines import PacketKind as K
from tests.reference import framing as twin

SESSION = b"  20191230"
MESSAGES = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=5)


def decoded(datagrams: list[bytes], decoder: MoldDecoder | None = None) -> list[tuple[Any, ...]]:
    """(kind, first, messages or why) of each."""
    data = np.frombuffer(b"".join(datagrams) + bytes(20), np.uint8)
    sizes = np.array([len(d) for d in datagrams], np.int64)
    begins = np.cumsum(sizes) - sizes
    stamps = np.arange(len(sizes), dtype=np.int64)
    found = []
    for row in (decoder or MoldDecoder()).apply(data, begins, sizes, stamps, 1):
        assert row["line"] == 1
        block = data[row["begin"] : row["begin"] + row["size"]].tobytes()
        if row["kind"] == K.BAD:
            found.append((K.BAD, 0, int(row["why"])))
            continue
        messages = split(block)
        assert len(messages) == row["count"]
        found.append((int(row["kind"]), int(row["first"]), messages))
    return found


def split(block: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(block):
        end = at + 2 + int.from_bytes(block[at : at + 2], "big")
        found.append(block[at + 2 : end])
        at = end
    return found


def twins(datagrams: list[bytes]) -> list[tuple[Any, ...]]:
    session, found = None, []
    for data in datagrams:
        found.append(twin.mold(data, session))
        if found[-1][0] != K.BAD and session is None:
            session = data[:10]
    return found


@given(st.lists(st.tuples(MESSAGES, st.integers(1, 2**62), st.booleans()), max_size=6), st.data())
def test_mold_equals_its_twin(parts: list[Any], data: st.DataObject) -> None:
    datagrams = [mold.datagram(SESSION, min(n, 2**62 - 1), m) for m, n, _ in parts]
    for k, (_, _, hurt) in enumerate(parts):
        if hurt:
            at = data.draw(st.integers(0, len(datagrams[k]) - 1))
            flip = data.draw(st.integers(1, 255))
            whole = datagrams[k]
            datagrams[k] = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    datagrams += [data.draw(st.binary(max_size=40)), mold.signal(SESSION, 7)]
    assert decoded(datagrams) == twins(datagrams)


def test_every_kind_of_datagram() -> None:
    datagrams = [
        b"short", mold.datagram(SESSION, 1, [b"a", b"bc"]), mold.signal(SESSION, 3),
        mold.datagram(b"other     ", 3, [b"x"]), mold.datagram(SESSION, 3, [b"x"]) + b"!",
        mold.datagram(SESSION, 3, [b"xyz"])[:-1], mold.signal(SESSION, 0),
        mold.signal(SESSION, 3, mold.END_OF_SESSION),
    ]  # fmt: skip
    found = decoded(datagrams)
    assert found == twins(datagrams)
    assert [row[0] for row in found] == [
        K.BAD, K.DATA, K.HEARTBEAT, K.BAD, K.BAD, K.BAD, K.BAD, K.END,
    ]  # fmt: skip
    assert {row[2] for row in found if row[0] == K.BAD} <= mold.WORDS.keys()


def test_the_session_may_be_known_before() -> None:
    decoder = MoldDecoder("OTHER")
    assert decoder.session == b"     OTHER"
    assert decoded([mold.signal(SESSION, 1)], decoder)[0][0] == K.BAD
    assert MoldDecoder().session is None
    with pytest.raises(ValueError, match="10 characters"):
        MoldDecoder("ELEVENCHARS")


def test_requests_say_what_is_missing() -> None:
    decoder = MoldDecoder()
    decoded([mold.signal(SESSION, 9)], decoder)
    assert mold.parse_request(decoder.request(5, 8)) == (SESSION, 5, 4)
    assert mold.parse_request(decoder.request(1, 10**6)) == (SESSION, 1, mold.MAX_REQUEST)
    assert mold.parse_request(b"x") is None
    assert mold.parse_request(mold.signal(SESSION, 3)) is None


# SoupBinTCP


ACCEPTED = packet(b"A", SESSION + b"1".rjust(20))


def receive(
    client: SoupClient, stream: bytes, cuts: list[int], room: int = 4096
) -> list[tuple[Any, ...]]:
    """(kind, first, messages) of a stream that comes in pieces."""
    bounds = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    left, found = b"", []
    for a, b in pairwise(bounds):
        left += stream[a:b]
        while True:
            out = np.zeros(room, np.uint8)
            data = np.frombuffer(left + b"\0", np.uint8)
            made, taken = client.receive(data, len(left), out, 100, 5)
            left = left[taken:]
            for row in made:
                begin = row["begin"] - 100
                block = out[begin : begin + row["size"]].tobytes()
                found.append((int(row["kind"]), int(row["first"]), split(block)))
            if not taken:
                break
    return found


def joined(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Runs of messages one by one."""
    items: list[tuple[Any, ...]] = []
    for kind, first, messages in found:
        if kind == K.DATA:
            items += [(first + k, message) for k, message in enumerate(messages)]
        else:
            items.append((K(kind).name, first))
    return items


@given(
    st.lists(st.tuples(st.sampled_from(b"SSSSHU+"), st.binary(max_size=40)), max_size=30),
    st.lists(st.integers(0, 900), max_size=10),
)
def test_soup_equals_its_twin_however_it_is_cut(
    parts: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = ACCEPTED + b"".join(packet(bytes([kind]), body) for kind, body in parts)
    client = SoupClient(2)
    client.connect(1)
    wanted: list[tuple[Any, ...]] = [("UP", 1), ("HEARTBEAT", 1)]
    number = 1
    for kind, body in twin.soup(stream)[0][1:]:
        if kind == b"S":
            wanted.append((number, body))
            number += 1
        elif kind == b"H":
            wanted.append(("HEARTBEAT", number))
    assert joined(receive(client, stream, cuts, room=60)) == wanted
    assert client.next_sequence == number


def test_login_says_who_wants_what() -> None:
    client = SoupClient(0, "user", "secret", "20191230", 42)
    login = client.connect(7)
    assert login == packet(b"L", b"user  secret      20191230" + b"42".rjust(20))
    assert client.state is State.LOGIN


def test_a_new_connection_goes_on_at_the_next_sequence() -> None:
    client = SoupClient(0)
    assert client.connect(1).endswith(b" 1")
    receive(client, ACCEPTED + packet(b"S", b"a") + packet(b"S", b"b"), [])
    lost = client.lose(9)
    assert (lost["kind"], lost["line"]) == (K.DOWN, 0)
    again = client.connect(10)
    assert again == packet(b"L", b" " * 16 + SESSION + b"3".rjust(20))
    found = receive(client, packet(b"A", SESSION + b"3".rjust(20)) + packet(b"S", b"c"), [])
    assert joined(found)[-1] == (3, b"c")


def test_heartbeats_are_sent_and_missed() -> None:
    client = SoupClient(0)
    client.connect(0)
    assert client.idle(2 * 10**9) == b""
    receive(client, ACCEPTED, [])
    assert client.idle(2 * 10**9) == packet(b"R")
    assert client.idle(2 * 10**9 + 1) == b""
    with pytest.raises(SoupError, match="silent for 15 seconds"):
        client.idle(20 * 10**9)


def test_the_end_of_a_session() -> None:
    client = SoupClient(0)
    client.connect(0)
    found = receive(client, ACCEPTED + packet(b"S", b"a") + packet(b"Z") + packet(b"S"), [])
    assert joined(found)[2:] == [(1, b"a"), ("END", 2)]
    assert client.state is State.ENDED


@pytest.mark.parametrize(
    ("stream", "words", "final"),
    [
        (packet(b"J", b"A"), "username and password", True),
        (packet(b"J", b"S"), "session is not available", True),
        (packet(b"J", b"?"), r"reason '\?'", True),
        (packet(b"S", b"x"), "answered the login", False),
        (packet(b"A", SESSION + b"x".rjust(20)), "no number", False),
        (packet(b"A", b"x"), "answered the login", False),
        (ACCEPTED + packet(b"L"), "may not", False),
        (ACCEPTED + b"\0\0", "length 0", False),
    ],
)
def test_a_peer_that_breaks_the_protocol(stream: bytes, words: str, final: bool) -> None:
    client = SoupClient(0)
    client.connect(0)
    with pytest.raises(SoupError, match=words) as caught:
        receive(client, stream, [])
    assert caught.value.final == final


def test_what_came_before_the_fault_counts() -> None:
    client = SoupClient(0)
    client.connect(0)
    stream = np.frombuffer(ACCEPTED + packet(b"S", b"a") + packet(b"L") + b"\0", np.uint8)
    made, taken = client.receive(stream, len(stream) - 1, np.zeros(99, np.uint8), 0, 1)
    assert made["kind"].tolist() == [K.UP, K.HEARTBEAT, K.DATA]
    assert client.next_sequence == 2
    with pytest.raises(SoupError, match="may not"):
        client.receive(stream[taken:], len(stream) - 1 - taken, np.zeros(99, np.uint8), 0, 1)
    client.connect(2)
    assert client.idle(3) == b""


def test_another_session_after_a_loss_is_no_continuation() -> None:
    client = SoupClient(0)
    client.connect(0)
    receive(client, ACCEPTED, [])
    client.lose(1)
    client.connect(2)
    with pytest.raises(SoupError, match="in session OTHER") as caught:
        receive(client, packet(b"A", b"OTHER".rjust(10) + b"1".rjust(20)), [])
    assert not caught.value.final


def test_names_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="username"):
        SoupClient(0, "longer than six")
    assert PACKET.itemsize % 8 == 0
