"""The arrays of a shard's books: made, grown, packed and unpacked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from operators.events import NO_SEQUENCE, BookType, Instruments, SnapshotRule
from operators.kernels import engine_state as es
from operators.kernels import levels, orders
from operators.kernels.arrays import aligned
from operators.kernels.engine_pack import PACKED_LEVEL, PACKED_ORDER, pack, unpack
from schemas.units import INT64_MAX, NO_PRICE

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
        for place, value in settings.items():
            self.state[place] = value
        if with_depth:
            self.pools.grow("shown", len(self.pools["books"]))

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
            least = _MARGIN + 4 * int(state[es.N_BOOKS])
            for name, place in _OUTPUTS:
                rows = len(pools[name])
                free = rows - int(state[place])
                if stuck or free < least or free < rows // 2:
                    pools.grow(name, 2 * rows + least)
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
        else:
            assert code == es.MORE_RINGS, code
            pools.grow("rings", 2 * len(pools["rings"]))

    # Books.

    def know(self, instruments: Instruments) -> None:
        """Make the instrument table as long as the feed's."""
        known = len(self.pools["local_of"])
        if known < len(instruments):
            self.pools.grow("local_of", len(instruments))
            self.pools["local_of"][known:] = -1

    def _reserve_books(self, books: int) -> None:
        if books <= len(self.pools["books"]):
            return
        room = _power_above(books)
        levels.more_sides(self.pools, 2 * room)
        self.pools.grow("books", room)
        self.pools.grow("recent", room * es.RECENT)
        if self._with_depth:
            self.pools.grow("shown", room)

    def add_book(self, index: int, policy: Any) -> None:
        """A book for instrument ``index`` (a row of INSTRUMENT), at its first row and not before:
        rows that concern everybody must not depend on what else is in the batch."""
        b = int(self.state[es.N_BOOKS])
        self._reserve_books(b + 1)
        book = self.pools["books"][b : b + 1]
        for name in _POLICIES:
            book[name] = policy[name]
        live = policy["snapshot_rule"] in _NO_SOURCE
        book["instrument"] = index
        book["has_book"] = policy["book_type"] != BookType.NONE
        book["phase"] = es.LIVE if live else es.AWAIT
        book["mode"] = es.DIRECT if live else es.WAIT
        book["slow"] = self._with_depth or policy["max_levels"] > 0
        for name in ("price_exp", "size_exp", "state", "bbo"):
            book[name] = -1
        for name in ("applied", "gone", "buffered_last", "group_sequence"):
            book[name] = NO_SEQUENCE
        for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
            book[name] = NO_PRICE
        book["venue_bid_price"] = book["venue_bid_size"] = NO_PRICE
        book["cause"] = -1
        book["depth_bucket"] = -INT64_MAX
        if self._with_depth:
            self.pools["shown"]["book_state"][b] = -1
        self.pools["local_of"][index] = b
        self.state[es.N_BOOKS] = b + 1

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

    def pack(self) -> dict[str, NDArray[Any]]:
        """Copies of all that is state."""
        state, pools = self.state, self.pools
        n = int(state[es.N_BOOKS])
        packed_levels = np.zeros(int(state[levels.LEVELS_LIVE]), PACKED_LEVEL)
        packed_orders = np.zeros(int(state[orders.ORDERS_LIVE]), PACKED_ORDER)
        pack(state, packed_levels, packed_orders)
        pending = int(state[es.N_PENDING])
        seen = np.flatnonzero(pools["books"]["recent"][:n])
        return {
            "books": pools["books"][:n].copy(),
            "levels": packed_levels,
            "orders": packed_orders,
            "recent_of": seen,
            "recent": pools["recent"].reshape(-1, es.RECENT)[seen].copy(),
            "shown": pools["shown"][: n if self._with_depth else 0].copy(),
            "rings": pools["rings"][: int(state[es.N_RINGS])].copy(),
            "pending": pools["pending"][:pending].copy(),
            "pending_offset": pools["pending_offset"][:pending].copy(),
            "counters": state[list(_KEPT)].copy(),
        }

    def unpack(self, packed: dict[str, NDArray[Any]]) -> None:
        """Become the packed state. This one must be new."""
        state, pools, books = self.state, self.pools, packed["books"]
        n = len(books)
        self._reserve_books(n)
        pools["books"][:n] = books
        state[es.N_BOOKS] = n
        state[list(_KEPT)] = packed["counters"]
        local_of = np.full(int(books["instrument"].max()) + 1 if n else 0, -1, np.int32)
        local_of[books["instrument"]] = np.arange(n)
        pools.put("local_of", local_of)
        pools["recent"].reshape(-1, es.RECENT)[packed["recent_of"]] = packed["recent"]
        if self._with_depth:
            if len(packed["shown"]) == n:
                pools["shown"][:n] = packed["shown"]
            else:
                pools["shown"]["book_state"][:n] = -1
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
