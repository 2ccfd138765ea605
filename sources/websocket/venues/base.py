"""Declarations of a venue for a recorder: no socket, no clock, no chance.

A subclass says which messages subscribe, which address answers with a snapshot, what keeps the
connection alive. :mod:`sources.websocket.connection` asks and does it; the decoders of
``operators.venues`` read what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import msgspec

_T = TypeVar("_T")
#: How far into a message its kind is looked for.
HEAD: Final = 300

#: Channels by the names that all venues share; a venue's own names may be used beside them.
CHANNELS: Final = ("book", "trades", "quotes")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is wanted of a venue: symbols and channels in the venue's own words, and the levels of
    its books (0: the venue's default here)."""

    symbols: tuple[str, ...]
    channels: tuple[str, ...]
    depth: int


class LiveVenue:
    """One market of a venue. Everything returned is text to send, or the path of an address."""

    #: What ``ws:NAME`` says.
    NAME: ClassVar[str]
    #: Whose decoder reads the frames: ``raw.<decoder>`` is their topic.
    DECODER: ClassVar[str]
    #: How the tables call the market; requests for a resync name it.
    VENUE: ClassVar[str]
    ADDRESS: ClassVar[str]
    REST: ClassVar[str]
    #: A symbol as people write it, for error texts.
    EXAMPLE: ClassVar[str]
    #: The venue's channel for each of CHANNELS.
    NAMES: ClassVar[dict[str, str]]
    #: Levels a book subscription (or snapshot) may ask for; empty: the venue decides.
    DEPTHS: ClassVar[tuple[int, ...]] = ()
    DEPTH: ClassVar[int] = 0
    UPPER_CASE: ClassVar[bool] = True
    #: Sent every ``PING_S``; empty: a WebSocket ping.
    PING: ClassVar[str] = ""
    PING_S: ClassVar[float] = 20.0
    #: Nothing at all for so long, not even an answer to a ping: the connection is dead.
    SILENCE_S: ClassVar[float] = 60.0
    #: Instruments or topics in one message, and the pause between messages.
    CHUNK: ClassVar[int] = 100
    SEND_PAUSE_S: ClassVar[float] = 0.1
    #: What one connection takes.
    MAX_TOPICS: ClassVar[int] = 1000
    #: The start of messages that refuse what was asked.
    REFUSALS: ClassVar[tuple[bytes, ...]] = ()
    #: Finds the channel of a message, near its start.
    CHANNEL: ClassVar[re.Pattern[bytes]]
    #: Where it stands near the start, a message answers one of ours and is of no channel.
    ANSWERS: ClassVar[bytes] = b""
    #: What messages call a channel, where that is not what it is subscribed as.
    CALLED: ClassVar[dict[str, str]] = {}

    def __init__(self, wanted: Subscription) -> None:
        self.symbols = wanted.symbols
        self.channels = wanted.channels
        self.depth = wanted.depth or self.DEPTH

    @property
    def address(self) -> str:
        """Where the channels come from."""
        return self.ADDRESS

    def problem(self) -> str:
        """Why one connection cannot have all of these channels; "": it can."""
        return ""

    @property
    def book_channels(self) -> tuple[str, ...]:
        """Those of the channels that carry books and start with a full one."""
        return tuple(c for c in self.channels if c == self.NAMES["book"])

    def subscribe(self) -> list[str]:
        """Messages after the connection was opened."""
        return list(self._messages("subscribe", self.channels, self.symbols))

    def resubscribe(self, symbol: str) -> list[str]:
        """Messages that make the venue send the full book of one instrument again."""
        return [
            message
            for verb in ("unsubscribe", "subscribe")
            for message in self._messages(verb, self.book_channels, (symbol,))
        ]

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        raise NotImplementedError

    def listings(self) -> list[str]:
        """Paths whose answers describe the instruments (increments, currencies)."""
        return []

    def snapshot(self, symbol: str) -> str:
        """Path of an instrument's full book; "": it comes in the stream."""
        return ""

    def first_id(self, message: bytes) -> tuple[str, int] | None:
        """Symbol and first update id of a book difference; None for all else."""
        return None

    def full_book(self, message: bytes) -> str:
        """Symbol of the full book that a message of the stream is; "" for all else."""
        return ""

    def snapshot_id(self, body: bytes) -> int | None:
        """The last update id that a snapshot holds; None if it is no snapshot."""
        return None

    def channel_of(self, message: bytes) -> str:
        """The subscribed channel that a message is of; "" for all else."""
        match = self.CHANNEL.search(message, 0, HEAD)
        if match is None or (self.ANSWERS and self.ANSWERS in message[:HEAD]):
            return ""
        name = match[1].decode("utf-8", "replace")
        name = self.CALLED.get(name, name)
        return name if name in self.channels else ""

    def refusal(self, message: bytes) -> bool:
        """Does the venue refuse what was asked?"""
        return any(start in message[:HEAD] for start in self.REFUSALS)


def decoded(decoder: msgspec.json.Decoder[_T], message: bytes) -> _T | None:
    """The message, or None where it is not of that shape: a decoder downstream will say so."""
    try:
        return decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def chunks(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """The items in lists of at most ``size``."""
    kept = list(items)
    for start in range(0, len(kept), size):
        yield kept[start : start + size]
