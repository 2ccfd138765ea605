"""Bars against the slow twin, whatever the cuts and restarts, and rule by rule."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.bars.core import BarsConfig, BarsShard, bars_input, without_bars
from marketflow.operators.engine import core_step
from marketflow.operators.events import Rows
from marketflow.operators.kernels import int256
from marketflow.schemas.derived import arrow
from marketflow.schemas.tables.market_data import BARS
from marketflow.schemas.units import NS_PER_S
from tests.reference.bars import EXACT, STEP, SlowBars, Trade
from tests.support.trades import trade_rows, trades_batch

CONFIG = BarsConfig(("1s", "5s", "2s"), 2 * NS_PER_S, 10 * NS_PER_S)
START = 1_700_000_000 * NS_PER_S


def as_dicts(batches: list[pa.RecordBatch]) -> list[dict]:
    rows = []
    for batch in batches:
        assert batch.schema.equals(arrow.schema(BARS), check_metadata=True)
        columns = {
            name: (c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c).to_pylist()
            for name, c in zip(batch.schema.names, batch.columns, strict=True)
        }
        rows += [dict(zip(columns, v, strict=True)) for v in zip(*columns.values(), strict=True)]
    return rows


def run(
    items: list[Rows], config: BarsConfig = CONFIG, restart: bool = False
) -> tuple[list[dict], Counter[str], str]:
    shard = BarsShard(config)
    batches, stats = [], Counter()
    for item in items:
        result = shard.apply(item)
        batches += result.tables.values()
        stats.update(result.stats)
        if restart:
            state = pickle.loads(pickle.dumps(shard.snapshot()))
            shard = BarsShard(config)
            shard.restore(state)
    return as_dicts(batches), stats, shard.state_hash()


def slow(trades: list[Trade], ended: bool, config: BarsConfig = CONFIG) -> SlowBars:
    twin = SlowBars(config.intervals, config.allowed_lateness_ns, config.max_ahead_ns)
    for trade in trades:
        twin.trade(trade)
    if ended:
        twin.end()
    return twin


def numbered(bars: list[dict]) -> list[dict]:
    return [{"shard": 0, "row_sequence": i, **bar} for i, bar in enumerate(bars)]


TRADE = st.builds(
    Trade,
    st.sampled_from(["A", "B"]),
    st.sampled_from(["X", "Y"]),
    st.one_of(
        st.integers(0, 60).map(lambda n: START + n * NS_PER_S // 2),
        st.integers(START, START + 40 * NS_PER_S),
    ),
    st.sampled_from([None, START + 20 * NS_PER_S]),
    st.decimals(-5000, 10**15, places=12),
    st.decimals(0, 10**10, places=12),
    st.sampled_from(["buy", "sell", "none"]),
    st.sampled_from(["normal"] * 9 + ["bust", "correction"]),
)


@given(st.lists(TRADE, max_size=60), st.data(), st.booleans(), st.booleans())
def test_equals_the_slow_twin_however_cut(
    trades: list[Trade], data: st.DataObject, ordered: bool, ended: bool
) -> None:
    if ordered:
        trades.sort(key=lambda t: t.ts_event)
    twin = slow(trades, ended)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(trades)), max_size=5)))
    edges = [0, *cuts, len(trades)]
    items = [trade_rows(trades[a:b]) for a, b in itertools.pairwise(edges)]
    whole = run([trade_rows(trades, ended)])
    pieces = run([*items, trade_rows([], ended)], restart=True)
    assert whole[0] == numbered(twin.bars)
    assert whole[1] == +twin.stats
    assert pieces == whole


def test_more_bars_than_one_kernel_call_holds() -> None:
    trades = [
        Trade("A", f"S{i % 7}", START + i * NS_PER_S, None, Decimal(i + 1), Decimal(2))
        for i in range(6000)
    ]
    bars, stats, _ = run([trade_rows(trades, ended=True)])
    assert bars == numbered(slow(trades, True).bars)
    assert len(bars) > 4096 + 100
    assert not stats


def one(seconds: float, price: int = 1, **values) -> Trade:
    trade = Trade("A", "X", START + int(seconds * NS_PER_S), None, Decimal(price), Decimal(1))
    return Trade(**{**vars(trade), **values})


def test_a_bar_is_final_when_the_watermark_reaches_close_and_grace() -> None:
    config = BarsConfig(("1s",), NS_PER_S)
    assert run([trade_rows([one(0.5), one(1.999999999)])], config)[0] == []
    bars, _, _ = run([trade_rows([one(0.5), one(2.0)])], config)
    assert [(b["ts_open"], b["ts_close"], b["is_final"]) for b in bars] == [
        (START, START + NS_PER_S, True)
    ]


def test_a_late_trade_in_grace_lands_by_event_time() -> None:
    config = BarsConfig(("1s",), NS_PER_S)
    trades = [one(0.5, 10), one(1.2, 11), one(0.1, 12), one(0.9, 13), one(0.9, 14), one(5)]
    bar = run([trade_rows(trades)], config)[0][0]
    assert [bar[n] for n in ("open", "high", "low", "close", "trade_count")] == [12, 14, 10, 14, 4]


def test_a_trade_after_its_final_bar_counts_in_longer_ones_only() -> None:
    config = BarsConfig(("1s", "1m"), NS_PER_S)
    bars, stats, _ = run([trade_rows([one(0), one(3), one(0.5), one(1)], ended=True)], config)
    assert stats == {"bars_late_trades": 2}
    assert [(b["interval"], b["trade_count"], b["is_final"]) for b in bars] == [
        ("1s", 1, True),
        ("1s", 1, False),
        ("1m", 4, False),
    ]


def test_another_instruments_clock_is_its_own() -> None:
    trades = [one(0), one(9000, symbol="Y"), one(0.5)]
    assert run([trade_rows(trades)])[1] == {}


def test_a_date_far_ahead_of_arrival_ends_no_bars() -> None:
    trades = [one(0), one(9000, ts_recv=START), one(0.5)]
    bars, stats, _ = run([trade_rows(trades, ended=True)])
    assert stats == {"bars_trades_ahead": 1}
    assert {b["trade_count"] for b in bars} == {2}


def test_sums_that_no_column_holds_leave_the_trade_out() -> None:
    huge = Decimal("9999999999999999.5")
    shard = BarsShard(BarsConfig(("1s",)))
    big = [one(0.1, price=huge, size=Decimal(9 * 10**9)) for _ in range(3)]
    result = [shard.apply(trade_rows(big)), shard.apply(trade_rows([one(0.2)], ended=True))]
    assert result[0].stats == {"bars_trades_beyond": 2}
    (bar,) = as_dicts(list(result[1].tables.values()))
    assert bar["trade_count"] == 2
    assert bar["notional"] == huge * 9 * 10**9 + 1


def test_instruments_survive_new_dictionaries_and_slices() -> None:
    trades = [one(i / 10, symbol="XYZ"[i % 3]) for i in range(30)]
    batch = trades_batch([one(0, symbol="unused"), *trades]).slice(1)
    sliced = run([Rows(0, {"trades": batch}, {}, True)])
    assert sliced == run([trade_rows(trades[:5]), trade_rows(trades[5:], ended=True)])


def test_snapshots_are_copies() -> None:
    shard = BarsShard(CONFIG)
    shard.apply(trade_rows([one(0)]))
    state, before = shard.snapshot(), shard.state_hash()
    shard.apply(trade_rows([one(0.1)]))
    assert shard.state_hash() != before
    shard.restore(state)
    assert shard.state_hash() == before


def test_a_snapshot_of_other_settings_is_refused_with_the_remedy() -> None:
    state = BarsShard(CONFIG).snapshot()
    with pytest.raises(ValueError, match="keep the settings"):
        BarsShard(BarsConfig(("1m",))).restore(state)
    with pytest.raises(ValueError, match="empty --recovery"):
        BarsShard(CONFIG).restore((99, *state[1:]))


def test_settings_that_cannot_work_name_the_fix() -> None:
    with pytest.raises(ValueError, match="longer interval"):
        BarsConfig(("1ms",), 60 * NS_PER_S)
    with pytest.raises(ValueError, match="twice"):
        BarsConfig(("1s", "1s"))


INT128 = st.integers(-(2**127) + 1, 2**127 - 1)


@given(INT128, INT128, st.integers(-(2**165), 2**165))
def test_wide_arithmetic(a: int, b: int, c: int) -> None:
    def words(value: int, count: int) -> tuple[np.uint64, ...]:
        parts = [np.uint64(value >> 64 * i & (2**64 - 1)) for i in reversed(range(count))]
        return tuple(parts)

    def value(parts: tuple[int, ...]) -> int:
        number = 0
        for part in parts:
            number = number * 2**64 + int(part)
        return number - 2**256 if number >= 2**255 else number

    (a_hi, a_lo), (b_hi, b_lo) = words(a, 2), words(b, 2)
    product = int256.multiply(a_hi.astype(np.int64), a_lo, b_hi.astype(np.int64), b_lo)
    assert value(product) == a * b
    wide = tuple(np.uint64(w) for w in product)
    assert (value(int256.add(*words(c, 4), wide)) - (a * b + c)) % 2**256 == 0
    assert int256.fits_sum(*words(c, 4)) == (abs(c) < 2**166)
    hi, lo = int256.rounded_sum(*words(c, 4))
    expected = Decimal(f"{c}E-24").quantize(STEP, context=EXACT).scaleb(12, EXACT)
    assert int(hi) * 2**64 + int(lo) == int(expected)


def test_the_step_runs_in_a_flow() -> None:
    import bytewax.operators as op
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, TestingSource, run_main

    trades = [one(i / 2) for i in range(20)]
    items = [trade_rows(trades[:7]), Rows(0, {}, {"messages": 1}), trade_rows(trades[7:], True)]
    out: list[Rows] = []
    flow = Dataflow("bars_flow")
    rows = op.input("in", flow, TestingSource(items))
    traded = op.filter_map("trades", rows, lambda item: bars_input(item, CONFIG.intervals))
    bars = core_step("bars", traded, lambda _: BarsShard(CONFIG))
    op.output("out", bars, TestingSink(out))
    run_main(flow)
    found = [bar for rows in out for bar in as_dicts(list(rows.tables.values()))]
    assert [{**bar, "shard": 0} for bar in found] == numbered(slow(trades, True).bars)


def test_bars_of_the_venue_are_numbered_with_ours() -> None:
    """One table, one run of numbers, whoever made the row; without intervals theirs come alone."""
    first, second = [
        Trade("A", "X", START + n * NS_PER_S, None, Decimal(1), Decimal(1), "buy", "normal")
        for n in (0, 99)
    ]
    (ours,) = BarsShard(BarsConfig(("1m",))).apply(trade_rows([first], True)).tables.values()
    numbers, words = pa.array([0], pa.int64()), arrow.dictionary(BARS.field("origin"))
    origin = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), words)
    theirs = ours.set_column(1, ours.schema.field(1), numbers)
    theirs = theirs.set_column(len(BARS.fields) - 1, ours.schema.field("origin"), origin)
    for intervals in (("1m",), ()):
        shard = BarsShard(BarsConfig(intervals))
        both = Rows(0, {"bars": theirs, **trade_rows([first, second]).tables})
        found = [
            (bar["row_sequence"], bar["origin"])
            for rows in (shard.apply(Rows(0, {"bars": theirs})), shard.apply(both))
            for bar in rows.tables["bars"].to_pylist()
        ]
        made = [(2, "trades")] if intervals else []
        assert found == [(0, "venue"), (1, "venue"), *made]
    others = without_bars(Rows(3, {"bars": theirs, "trades": theirs}, {"messages": 1}))
    assert (set(others.tables), others.stats) == ({"trades"}, {"messages": 1})
