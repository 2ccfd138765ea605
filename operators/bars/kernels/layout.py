"""What the bars of a shard consist of: the rows of its arrays and pools, and what comes out."""

from __future__ import annotations

from typing import Final

import numpy as np

#: Watermark of an instrument without trades.
NEVER: Final = -(2**63)
#: ``due`` of an instrument without open bars.
NOT_DUE: Final = 2**63 - 1

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = ("volume", "buy_volume", "sell_volume")


def _words(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(n + part, kind) for n in names for part, kind in (("_hi", "<i8"), ("_lo", "<u8"))]


#: An open bar. ``first_ts`` and ``last_ts`` are the times of its open and close price; the
#: notional's exact sum takes four words (kernels.int256).
OPEN_BAR: Final = np.dtype(
    [
        ("ts_open", "<i8"),
        ("first_ts", "<i8"),
        ("last_ts", "<i8"),
        ("trade_count", "<i8"),
        *_words(_PRICES + _SUMS),
        *((f"notional_{i}", "<u8") for i in (3, 2, 1, 0)),
    ]
)

#: A closed bar: the ``bars`` table with its prices as words (see operators.rows).
BAR_ROW: Final = np.dtype(
    [
        ("ts_open", "<i8"),
        ("ts_close", "<i8"),
        ("trade_count", "<i8"),
        *_words((*_PRICES, *_SUMS, "notional")),
        ("instrument", "<i4"),
        ("interval", "<i4"),
        ("is_final", "i1"),
    ],
    align=True,
)

#: ``watermark``: latest ts_event of the instrument's trades; ``due``: watermark at which the
#: first of its open bars is final; ``seed``: its seed, -1 without; ``touched``: changed since the
#: last snapshot.
CLOCK: Final = np.dtype([("watermark", "<i8"), ("due", "<i8"), ("seed", "<i4"), ("touched", "<i4")])

#: The only trade of all open bars of an instrument.
SEED: Final = np.dtype(
    [
        ("ts", "<i8"),
        ("price_hi", "<i8"),
        ("price_lo", "<u8"),
        ("size_hi", "<i8"),
        ("size_lo", "<u8"),
        ("side", "<i8"),
    ]
)

#: One interval: its length in ns, and its ring in an instrument's row of open bars.
WINDOW: Final = np.dtype([("length", "<i8"), ("first", "<i8"), ("places", "<i8")])

# What is counted besides bars.
LATE: Final = 0  # left out of at least one bar, which is final already
AHEAD: Final = 1  # dated too far after its arrival: left out of all bars, moves no watermark
BEYOND: Final = 2  # left out of at least one bar whose sums would not fit their columns
NOT_NORMAL: Final = 3  # busts and corrections: bars are not rewritten
N_COUNTS: Final = 4

# Places of the pools' counters: head of the list of free rows (-1: none), rows ever taken, rows
# in use.
BARS_FREE, BARS_USED, BARS_LIVE, SEEDS_FREE, SEEDS_USED, SEEDS_LIVE = range(6)
N_POOLS: Final = 6
