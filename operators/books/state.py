"""The arrays of a shard's books: made, grown, packed and unpacked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.pack import (
    PACKED_LEVEL,
    PACKED_ORDER,
    measure,
    pack,
    unpack,
)
from marketflow.operators.events import NO_SEQUENCE, BookType, Instruments, SnapshotRule
from marketflow.operators.kernels.arrays import aligned
from marketflow.schemas.units import INT64_MAX, NO_PRICE

_POLICIES: Final = (
    "max_levels",
    "bbo_tolerance",
    "continuity",
    "snapshot_rule",
    "checksum_rule",
    "first_overlap",
    "may_cross",
)
_NO_SOURCE: Final = (int(SnapshotRule.NONE), int(SnapshotRule.PARTIAL))
_OUTPUTS: Final = (
    ("trades", es.N_TRADES),
    ("quotes", es.N_QUOTES),
    ("depth", es.N_DEPTH),
    ("events", es.N_EVENTS),
    ("quality", es.N_QUALITY),
    ("rejects", es.N_REJECTS),
)
_MARGIN: Final = 256
#: Books are many: pools with a row for each grow by an eighth; rows that few books have are shared
#: out on demand.
_PART: Final = 8
_LEAST: Final = 64
#: Rows of RECENTS that are free before a run of rows.
_RECENTS: Final = 1024
_NONE: Final = np.zeros(0, np.int32)
#: Counters that are part of the state.
_KEPT: Final = (es.LATEST_TS, es.STALE_BOOKS)


class ShardState:
    """Owns the pools behind a state; ``settings`` are values of its configuration counters."""

    def __init__(self, settings: dict[int, int], with_depth: bool) -> None:
        self.pools = es.new_pools()
        self.state: NDArray[np.int64] = self.pools.state
        self._with_depth = with_depth
        self._room_for = -1  # rows of a batch that the outputs have room for
        self._sizes: tuple[int, dict[str, int]] = (-1, {})
        self._new: dict[bytes, Any] = {}  # first rows of books, by policy
        for place, value in settings.items():
            self.state[place] = value

    # One apply.

    def start(self, rows: int, offsets: NDArray[np.int64], quality_base: int) -> None:
        """Empty outputs with room for what so many rows usually make."""
        state = self.state
        state[es.N_TRADES : es.N_REJECTS + 1] = 0
        state[es.STAT_FIRST : es.STAT_FIRST + len(es.STATS)] = 0
        state[es.ENDED] = 0
        state[es.GROUP_EVENT] = -1
        state[es.QUALITY_BASE] = quality_base
        self.pools.put("offsets", np.ascontiguousarray(offsets, np.int64))
        if rows <= self._room_for:
            return
        self._room_for = rows
        usual = {"trades": rows, "quotes": 2 * rows, "events": 2 * rows}
        for name, _ in _OUTPUTS:
            array = self.pools[name]
            wanted = usual.get(name, rows // 16) + _MARGIN
            if len(array) < wanted:
                self.pools.put(name, aligned(_power_above(wanted), array.dtype))

    def outputs(self) -> list[NDArray[np.void]]:
        """Rows made: trades, quotes, depth, events, quality, rejects."""
        return [self.pools[name][: int(self.state[place])] for name, place in _OUTPUTS]

    # Room.

    def make_room(self, code: int, stuck: bool) -> None:
        """Grow what the engine asked for. ``stuck``: it asked before at the same row."""
        state, pools = self.state, self.pools
        if code == es.MORE_OUTPUT:
            for name, place in _OUTPUTS:
                rows = len(pools[name])
                free = rows - int(state[place])
                if stuck or free < _MARGIN or free < rows // 2:
                    pools.grow(name, 2 * rows + _MARGIN)
        elif code == es.MORE_LEVELS:
            rows = len(pools["levels"])
            if rows - int(state[levels.LEVELS_LIVE]) <= rows // 8 and rows < state[es.MAX_LEVELS]:
                pools.grow("levels", 2 * rows)
            nodes = len(pools["nodes"])
            if nodes - int(state[levels.NODES_LIVE]) < 2 * levels.NODES_PER_INSERT:
                pools.grow("nodes", 2 * nodes)
        elif code == es.MORE_ORDERS:
            orders.more_orders(pools, 2 * len(pools["orders"]))
        elif code == es.MORE_PENDING:
            for name in ("pending", "pending_offset"):
                pools.grow(name, 2 * len(pools[name]))
        elif code == es.MORE_RECENTS:
            taken = int(state[es.N_RECENTS])
            pools.grow("recent", taken + max(taken // _PART, _RECENTS))
        else:
            assert code == es.MORE_RINGS, code
            pools.grow("rings", 2 * len(pools["rings"]))

    def add_shown(self, instrument: int) -> None:
        """A row of SHOWN for the book of an instrument, or for every book (-1)."""
        books = self.pools["books"][: int(self.state[es.N_BOOKS])]
        which = self.pools["local_of"][instrument : instrument + 1]
        if instrument < 0:
            which = np.flatnonzero(books["shown_at"] < 0)
        first = int(self.state[es.N_SHOWN])
        self._reserve_shown(first + len(which))
        books["shown_at"][which] = np.arange(first, first + len(which))
        self.state[es.N_SHOWN] += len(which)

    def _reserve_shown(self, rows: int) -> None:
        known = len(self.pools["shown"])
        if rows > known:
            self.pools.grow("shown", max(rows, known + known // _PART, _LEAST))
            self.pools["shown"]["book_state"][known:] = -1

    # Books.

    def know(self, instruments: Instruments) -> None:
        """Make the instrument table as long as the feed's."""
        known = len(self.pools["local_of"])
        if known < len(instruments):
            room = known + known // _PART
            self.pools.grow("local_of", max(room, len(instruments)))
            self.pools["local_of"][known:] = -1

    def _reserve_books(self, books: int) -> None:
        known = len(self.pools["books"])
        if books > known:
            room = max(books, known + known // _PART)
            levels.more_sides(self.pools, 2 * room)
            self.pools.grow("books", room)

    def add_book(self, index: int, policy: Any) -> None:
        """A book for instrument ``index`` (a row of INSTRUMENT), at its first row and not before:
        rows that concern everybody must not depend on what else is in the batch."""
        b = int(self.state[es.N_BOOKS])
        self._reserve_books(b + 1)
        key = policy.tobytes()
        if key not in self._new:
            self._new[key] = self._new_book(policy)
        self.pools["books"][b] = self._new[key]
        self.pools["books"]["instrument"][b] = index
        self.pools["local_of"][index] = b
        self.state[es.N_BOOKS] = b + 1

    def _new_book(self, policy: Any) -> Any:
        """The row that a book with this policy begins with."""
        book = np.zeros(1, es.BOOK)
        for name in _POLICIES:
            book[name] = policy[name]
        live = policy["snapshot_rule"] in _NO_SOURCE
        book["has_book"] = policy["book_type"] != BookType.NONE
        book["phase"] = es.LIVE if live else es.AWAIT
        book["mode"] = es.DIRECT if live else es.WAIT
        book["slow"] = self._with_depth or policy["max_levels"] > 0
        for name in ("price_exp", "size_exp", "state", "bbo", "recent_at"):
            book[name] = -1
        # Where depth is not asked for, all have one row together.
        book["shown_at"] = -1 if self._with_depth else 0
        for name in ("applied", "gone", "buffered_last", "group_sequence"):
            book[name] = NO_SEQUENCE
        for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
            book[name] = NO_PRICE
        book["venue_bid_price"] = book["venue_bid_size"] = NO_PRICE
        book["cause"] = -1
        book["depth_bucket"] = -INT64_MAX
        return book[0]

    def take_pending(self, instrument: int) -> tuple[NDArray[np.void], NDArray[np.int64]]:
        """Remove and return the buffered rows of an instrument and their feed offsets."""
        pools, count = self.pools, int(self.state[es.N_PENDING])
        kept, places = pools["pending"][:count], pools["pending_offset"][:count]
        mine = kept["instrument"] == instrument
        rows, offsets = kept[mine], places[mine]
        left = count - len(rows)
        kept[:left] = kept[~mine]
        places[:left] = places[~mine]
        self.state[es.N_PENDING] = left
        pools["books"]["pending"][pools["local_of"][instrument]] = 0
        rows["frame"] = np.arange(len(rows))
        return rows, offsets

    # Snapshots.

    def pack(self, changes: bool = False) -> dict[str, NDArray[Any]]:
        """Copies of all that is state, or of what changed since the last time: see book_pack."""
        state, pools = self.state, self.pools
        books = pools["books"][: int(state[es.N_BOOKS])]
        which = np.flatnonzero(books["touched"]) if changes else np.arange(len(books))
        books["touched"] = 0
        n_levels, n_orders = measure(state, which)
        packed_levels = np.zeros(n_levels, PACKED_LEVEL)
        packed_orders = np.zeros(n_orders, PACKED_ORDER)
        pack(state, which, packed_levels, packed_orders)
        pending = int(state[es.N_PENDING])
        rows = books[which]
        recent, places = rows["recent"], rows["recent_at"].astype(np.int64)
        rows["recent_at"] = -1
        once, often = recent == 1, recent > 1
        with_shown = np.sort(rows["shown_at"][rows["shown_at"] >= 0]) if self._with_depth else _NONE
        with_rings = np.sort(rows["bbo"][rows["bbo"] >= 0])
        eight = places[often][:, None] + np.arange(es.RECENT)
        return {
            "which": which.astype(np.int32),
            "books": rows,
            "levels": packed_levels,
            "orders": packed_orders,
            "once": pools["recent"][places[once]],
            "often": pools["recent"][eight],
            "shown_of": with_shown.astype(np.int32),
            "shown": pools["shown"][with_shown],
            "rings_of": with_rings,
            "rings": pools["rings"][with_rings],
            "pending": pools["pending"][:pending].copy(),
            "pending_offset": pools["pending_offset"][:pending].copy(),
            "counters": state[list(_KEPT)].copy(),
        }

    def unpack(self, packed: dict[str, NDArray[Any]]) -> None:
        """Become the packed state, a whole one. This one must be new."""
        state, pools, books = self.state, self.pools, packed["books"].copy()
        n = len(books)
        assert len(packed["which"]) == n, "a packed state without some of its books"
        self._reserve_books(n)
        state[list(_KEPT)] = packed["counters"]
        local_of = np.full(int(books["instrument"].max()) + 1 if n else 0, -1, np.int32)
        local_of[books["instrument"]] = np.arange(n)
        pools.put("local_of", local_of)
        once, often = books["recent"] == 1, books["recent"] > 1
        single, more = len(packed["once"]), packed["often"].size
        pools.grow("recent", max(single + more + _RECENTS, len(pools["recent"])))
        pools["recent"][:single] = packed["once"]
        pools["recent"][single : single + more] = packed["often"].reshape(-1)
        books["recent_at"][once] = np.arange(single)
        books["recent_at"][often] = single + es.RECENT * np.arange(len(packed["often"]))
        state[es.N_RECENTS] = single + more
        if not self._with_depth:
            books["shown_at"] = 0
        elif len(packed["shown"]):
            self._reserve_shown(len(packed["shown"]))
            pools["shown"][: len(packed["shown"])] = packed["shown"]
            state[es.N_SHOWN] = len(packed["shown"])
        else:
            books["shown_at"] = -1
        pools["books"][:n] = books
        state[es.N_BOOKS] = n
        for name, place in (
            ("rings", es.N_RINGS), ("pending", es.N_PENDING), ("pending_offset", es.N_PENDING),
        ):  # fmt: skip
            rows = packed[name]
            state[place] = len(rows)
            if len(rows) >= len(pools[name]):
                pools.grow(name, _power_above(len(rows) + 1))
            pools[name][: len(rows)] = rows
        live = len(packed["levels"])
        nodes = live // levels.GROWN_FILL + 2 * n + 2 * levels.NODES_PER_INSERT
        levels.start(pools, len(pools["sides"]), _power_above(live + _MARGIN), _power_above(nodes))
        orders.start(pools, _power_above(len(packed["orders"]) + _MARGIN))
        unpack(state, packed["levels"], packed["orders"])

    def memory(self) -> dict[str, int]:
        """Counts and bytes; see BookShard.memory."""
        state, parts = self.state, self._bytes()
        return {
            "books": int(state[es.N_BOOKS]),
            "orders": int(state[orders.ORDERS_LIVE]),
            "levels": int(state[levels.LEVELS_LIVE]),
            "buffered_rows": int(state[es.N_PENDING]),
            "bytes_per_order": orders.ORDER.itemsize + 2 * 8,
            "bytes_per_level": levels.LEVEL.itemsize + levels.NODE.itemsize // levels.LEAST_FILL,
            **parts,
        }

    def _bytes(self) -> dict[str, int]:
        """Bytes of the arrays, counted anew when one was replaced."""
        if self._sizes[0] != self.pools.version:
            size = self.pools.nbytes
            parts = {
                "order_bytes": size("orders", "slots"),
                "level_bytes": size("levels", "nodes"),
                "book_bytes": size("books", "sides", "recent", "shown", "local_of"),
                "buffer_bytes": size("pending", "pending_offset", "rings"),
                "output_bytes": size(*(name for name, _ in _OUTPUTS)),
            }
            self._sizes = self.pools.version, {**parts, "memory_bytes": sum(parts.values())}
        return self._sizes[1]


def _power_above(rows: int) -> int:
    """The least power of two that is at least ``rows``."""
    return 1 << max(rows - 1, 0).bit_length()
