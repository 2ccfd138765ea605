"""What each venue's messages look like to the one who sends them: topics, books, snapshots.

A model knows which topic a recorded message is on, keeps the books that the messages make, and
writes a full book as the venue would send it now, to somebody who subscribes late. Numbers stay
the text that was recorded, so the checksums of later messages still hold.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

Topic = tuple[str, str]  # (channel, symbol)
Side = dict[str, list[Any]]  # price as sent -> the level as sent

_ZERO: Final = re.compile(r"0*\.?0*")
_SEQUENCE: Final = re.compile(r'"sequence_num":\d+')


class Book:
    """One instrument's levels; ``last`` is the newest message that changed it."""

    def __init__(self) -> None:
        self.bids: Side = {}
        self.asks: Side = {}
        self.last: dict[str, Any] = {}

    def clear(self) -> None:
        self.bids, self.asks = {}, {}

    def apply(self, side: Side, levels: list[list[Any]], size_at: int = 1) -> None:
        """Levels [price, size, ...]; size zero takes one away."""
        for level in levels:
            if _ZERO.fullmatch(level[size_at]):
                side.pop(level[0], None)
            else:
                side[level[0]] = level

    def best(self, side: Side, most: int = 0) -> list[list[Any]]:
        """Levels of a side, best first."""
        levels = sorted(side.values(), key=lambda level: float(level[0]), reverse=side is self.bids)
        return levels[:most] if most else levels


class Model:
    """Base: a venue with its books in the stream."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {}
        #: Symbol -> what its full book is asked for as, once one was seen.
        self.book_topic: dict[str, Topic] = {}

    def topic(self, text: str) -> Topic | None:
        """Topic of a message; None: it is for everybody (status, answers)."""
        raise NotImplementedError

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        """("subscribe" | "unsubscribe" | "ping", topics) of what a client sent."""
        raise NotImplementedError

    def apply(self, text: str, topic: Topic) -> str:
        """Take a message of a topic into the books: "book" for a full one, "update" for changes of
        one, "" for all else."""
        raise NotImplementedError

    def full_book(self, symbol: str) -> str:
        """The book as it is now, as a message of its topic."""
        raise NotImplementedError

    def pong(self, text: str) -> str:
        """The answer to a ping; "": none."""
        return ""

    def stamp(self, text: str, number: int) -> str:
        """The message as number ``number`` of its connection."""
        return text

    def outgoing(self, text: str, topic: Topic | None) -> str:
        """A recorded message as it is sent."""
        return text

    def _book(self, symbol: str) -> Book:
        return self.books.setdefault(symbol, Book())


class BinanceModel(Model):
    """Combined streams; the full book is a REST answer: a recorded one and the changes since."""

    def __init__(self) -> None:
        super().__init__()
        self._ground: dict[str, dict[str, Any]] = {}
        self._changes: dict[str, list[dict[str, Any]]] = {}

    def topic(self, text: str) -> Topic | None:
        stream = json.loads(text).get("stream")
        if not stream:
            return None
        symbol, _, channel = stream.partition("@")
        return channel, symbol.upper()

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        message = json.loads(text)
        streams = (stream.partition("@") for stream in message["params"])
        return message["method"].lower(), [(c, s.upper()) for s, _, c in streams]

    def apply(self, text: str, topic: Topic) -> str:
        data = json.loads(text)["data"]
        if data.get("e") != "depthUpdate":
            return ""
        self._changes.setdefault(topic[1], []).append(data)
        return "update"

    def recorded_book(self, symbol: str, body: str) -> None:
        """A snapshot of the recording: the ground of all later ones."""
        self._ground[symbol] = json.loads(body)

    def knows(self, symbol: str) -> bool:
        """Can :meth:`full_book` be asked?"""
        return symbol in self._ground

    def full_book(self, symbol: str) -> str:
        ground, book = self._ground[symbol], Book()
        last = ground["lastUpdateId"]
        book.apply(book.bids, ground["bids"])
        book.apply(book.asks, ground["asks"])
        for data in self._changes.get(symbol, ()):
            if data["u"] > last:
                book.apply(book.bids, data["b"])
                book.apply(book.asks, data["a"])
                last = data["u"]
        sides = {"bids": book.best(book.bids, 1000), "asks": book.best(book.asks, 1000)}
        return json.dumps({"lastUpdateId": last, **sides})


class CoinbaseModel(Model):
    """Channels of one product or several; messages are numbered per connection."""

    _NAMES: Final = {"l2_data": "level2"}

    def topic(self, text: str) -> Topic | None:
        message = json.loads(text)
        channel = message["channel"]
        if channel == "subscriptions":
            return None
        event = message["events"][0]
        for name in ("trades", "tickers", "candles"):
            if event.get(name):
                event = event[name][0]
        return self._NAMES.get(channel, channel), event.get("product_id", "")

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        message = json.loads(text)
        products = [""] if message["channel"] == "heartbeats" else message["product_ids"]
        return message["type"], [(message["channel"], product) for product in products]

    def apply(self, text: str, topic: Topic) -> str:
        if topic[0] != "level2":
            return ""
        message = json.loads(text)
        event = message["events"][0]
        book = self._book(topic[1])
        self.book_topic[topic[1]] = topic
        if event["type"] == "snapshot":
            book.clear()
        for update in event["updates"]:
            level = [update["price_level"], update["new_quantity"], update]
            book.apply(book.bids if update["side"] == "bid" else book.asks, [level])
        book.last = message
        return "book" if event["type"] == "snapshot" else "update"

    def full_book(self, symbol: str) -> str:
        book = self.books[symbol]
        updates = [level[2] for side in (book.bids, book.asks) for level in book.best(side)]
        event = {"type": "snapshot", "product_id": symbol, "updates": updates}
        message = {**book.last, "events": [event]}
        return json.dumps(message, separators=(",", ":"))

    def stamp(self, text: str, number: int) -> str:
        return _SEQUENCE.sub(f'"sequence_num":{number}', text, count=1)


class KrakenModel(Model):
    """v1: arrays; every update has a checksum of the book after it."""

    def topic(self, text: str) -> Topic | None:
        message = json.loads(text)
        return (message[-2], message[-1]) if isinstance(message, list) else None

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        message = json.loads(text)
        if message["event"] == "ping":
            return "ping", []
        subscription = message["subscription"]
        channel = subscription["name"]
        if channel == "book":
            channel = f"book-{subscription['depth']}"
        return message["event"], [(channel, pair) for pair in message["pair"]]

    def pong(self, text: str) -> str:
        return '{"event":"pong"}'

    def apply(self, text: str, topic: Topic) -> str:
        if not topic[0].startswith("book"):
            return ""
        book = self._book(topic[1])
        self.book_topic[topic[1]] = topic
        array = json.loads(text)
        parts = array[1:-2]
        whole = any("as" in part or "bs" in part for part in parts)
        if whole:
            book.clear()
        for part in parts:
            book.apply(book.bids, part.get("bs") or part.get("b") or [])
            book.apply(book.asks, part.get("as") or part.get("a") or [])
        depth = int(topic[0].partition("-")[2])
        for side in (book.bids, book.asks):
            if len(side) > depth:
                for level in book.best(side)[depth:]:
                    del side[level[0]]
        book.last = {"id": array[0]}
        return "book" if whole else "update"

    def full_book(self, symbol: str) -> str:
        book, (channel, _) = self.books[symbol], self.book_topic[symbol]
        sides = {
            "as": [level[:3] for level in book.best(book.asks)],
            "bs": [level[:3] for level in book.best(book.bids)],
        }
        return json.dumps([book.last["id"], sides, channel, symbol], separators=(",", ":"))


class OkxModel(Model):
    """v5; the checksum of the newest update is the one of the book as it is."""

    def topic(self, text: str) -> Topic | None:
        if text == "pong":
            return None
        message = json.loads(text)
        if "event" in message:
            return None
        return message["arg"]["channel"], message["arg"]["instId"]

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        if text == "ping":
            return "ping", []
        message = json.loads(text)
        return message["op"], [(arg["channel"], arg["instId"]) for arg in message["args"]]

    def pong(self, text: str) -> str:
        return "pong"

    def apply(self, text: str, topic: Topic) -> str:
        if topic[0] != "books":
            return ""
        message = json.loads(text)
        book, data = self._book(topic[1]), message["data"][0]
        self.book_topic[topic[1]] = topic
        whole = message["action"] == "snapshot"
        if whole:
            book.clear()
        book.apply(book.bids, data["bids"])
        book.apply(book.asks, data["asks"])
        book.last = message
        return "book" if whole else "update"

    def full_book(self, symbol: str) -> str:
        book = self.books[symbol]
        data = dict(book.last["data"][0])
        data["bids"], data["asks"] = book.best(book.bids, 400), book.best(book.asks, 400)
        message = {"arg": book.last["arg"], "action": "snapshot", "data": [data]}
        return json.dumps(message, separators=(",", ":"))


class BybitModel(Model):
    """v5 of one market; ``u`` goes on."""

    def topic(self, text: str) -> Topic | None:
        name = json.loads(text).get("topic")
        if not name:
            return None
        channel, _, symbol = name.rpartition(".")
        return channel, symbol

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        message = json.loads(text)
        if message["op"] == "ping":
            return "ping", []
        topics = (name.rpartition(".") for name in message["args"])
        return message["op"], [(channel, symbol) for channel, _, symbol in topics]

    def pong(self, text: str) -> str:
        return '{"success":true,"ret_msg":"pong","op":"ping"}'

    def apply(self, text: str, topic: Topic) -> str:
        if not topic[0].startswith("orderbook."):
            return ""
        message = json.loads(text)
        book, data = self._book(topic[1]), message["data"]
        self.book_topic[topic[1]] = topic
        whole = message["type"] == "snapshot"
        if whole:
            book.clear()
        book.apply(book.bids, data["b"])
        book.apply(book.asks, data["a"])
        book.last = message
        return "book" if whole else "update"

    def full_book(self, symbol: str) -> str:
        book = self.books[symbol]
        data = {
            **book.last["data"],
            "b": book.best(book.bids),
            "a": book.best(book.asks),
        }
        message = {**book.last, "type": "snapshot", "data": data}
        return json.dumps(message, separators=(",", ":"))
