"""Very many instruments: a cap, little memory each, and snapshots that cost what has changed."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import aside
from marketflow.flows.runtime.aside import AsideCore
from marketflow.operators.bars.core import BarsConfig, BarsShard
from marketflow.operators.books.core import BookConfig, BookShard
from marketflow.operators.events import Rows
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.operators.formats.tables.decoder import TableDecoder
from marketflow.operators.instruments import BookRules, RefusedInstrumentError, Registry
from marketflow.operators.names import NameTable, Packed
from marketflow.operators.normalise.core import Normaliser, ShardPlan
from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.operators.venues.binance.feed import BinanceFeed
from marketflow.schemas.recovery import StateError
from tests.support.captures import frames
from tests.support.decoding import cut, decode, frames_of, same
from tests.support.itch_messages import DAY, add, blocks
from tests.support.trades_csv import trades_csv

MANY = 50_000
SHARDS = 16


def _limited(make: Callable[[], FeedDecoder], most: int) -> Callable[[], FeedDecoder]:
    def made() -> FeedDecoder:
        decoder = make()
        decoder.limit(most)
        return decoder

    return made


def _table(folder: Path) -> list[pa.RecordBatch]:
    return frames_of(trades_csv(folder, [0, 1, 0, 2, 3, 1, 4, 2, 0, 5]))


def _binance(_: Path) -> list[pa.RecordBatch]:
    trade = (
        '{{"stream":"x@trade","data":{{"e":"trade","E":1723161255343,"s":"S{0}","t":{1},'
        '"p":"1.5","q":"2","T":1723161255342,"m":true,"M":true}}}}'
    )
    symbols = [0, 1, 0, 2, 3, 1, 4, 2, 0, 5]
    return [frames([trade.format(s, i) for i, s in enumerate(symbols)])]


def _itch(_: Path) -> list[pa.RecordBatch]:
    symbols = [0, 1, 0, 2, 3, 1, 4, 2, 0, 5]
    messages = [
        add(100 + i, stock=f"S{s}      ".encode(), locate=s + 1) for i, s in enumerate(symbols)
    ]
    return [frames(blocks(messages))]


@pytest.mark.parametrize(
    ("make", "batches"),
    [
        (partial(TableDecoder, "trades"), _table),
        (partial(BinanceFeed, "spot"), _binance),
        (partial(ItchDecoder, DAY), _itch),
    ],
    ids=["csv", "binance", "itch"],
)
def test_the_first_instruments_are_in_and_all_others_dead_letters(
    tmp_path: Path, make: Callable[[], FeedDecoder], batches: Callable[[Path], list[pa.RecordBatch]]
) -> None:
    feed, limited = batches(tmp_path), _limited(make, 3)
    whole = decode(limited, feed)
    assert len(whole.instruments) == 3
    assert [letter["reason"] for letter in whole.dead] == ["too_many_instruments"] * 3
    assert all("max_instruments" in letter["detail"] for letter in whole.dead)
    everything = decode(make, feed)
    assert len(everything.instruments) == 6
    known = everything.rows["instrument"] < 3
    assert whole.rows.tobytes() == everything.rows[known].tobytes()
    assert whole.messages == everything.messages
    for size in (1, 3):
        assert same(decode(limited, cut(feed, size)), whole)
        assert same(decode(limited, cut(feed, size), restarts=True), whole)


def test_a_registry_goes_on_from_its_changes() -> None:
    registry = Registry("V", lambda *_: BookRules(), SHARDS, most=5)
    assert [registry.index(s) for s in ("A", "B", "A")] == [0, 1, 0]
    parts = [registry.snapshot()]
    assert registry.index("C", "W") == 2
    parts.append(registry.snapshot(changes=True))
    parts.append(registry.snapshot(changes=True))
    assert len(pickle.dumps(parts[2])) < len(pickle.dumps(parts[1]))
    assert registry.index("C") == 3
    parts.append(registry.snapshot(changes=True))
    other = Registry("V", lambda *_: BookRules(), SHARDS, most=5)
    for part in parts:
        other.restore(part)
    assert other.snapshot() == registry.snapshot()
    assert [other.find(s) for s in ("A", "B", "C", "D")] == [0, 1, 3, None]
    assert other.find("C", "W") == 2
    assert other.index("D") == 4
    with pytest.raises(RefusedInstrumentError, match="max_instruments"):
        other.index("E")
    assert other.index("D") == 4


def test_a_registry_of_another_release_is_refused() -> None:
    registry = Registry("V", lambda *_: BookRules(), SHARDS)
    _, *values = registry.snapshot()
    with pytest.raises(StateError, match="the release that wrote it"):
        registry.restore((2, *values))


def test_names_are_found_again_whatever_they_are() -> None:
    chance = Random(3)
    texts = ["", "\0", "\0\0", "ÜÑ€", *(chance.randbytes(9).hex()[: i % 17] for i in range(3000))]
    table, known = NameTable(), {}
    for text in texts:
        for venue in ("", "V"):
            assert table.find(venue, text) == known.get((venue, text), -1)
            index = known.setdefault((venue, text), len(known))
            assert table.index(venue, text) == index
    copy = NameTable()
    copy.unpack(table.pack())
    assert copy.names().symbols.to_pylist() == table.names().symbols.to_pylist()
    for (venue, text), index in known.items():
        assert copy.find(venue, text) == index
    other = NameTable()
    other.unpack(Packed(*table.pack()))
    assert other.pack() == table.pack(0)


class Flow:
    """Normalise, books and bars of one feed, as a run puts them together; ``folder``: where their
    states are kept aside."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.cores: dict[tuple[str, int], Any] = {}
        self.bars = BarsConfig(("1s", "1m", "1h"))

    def core(self, step: str, index: int) -> Any:
        key = (step, index)
        if key not in self.cores:
            core: Any
            if step == "normalise":
                core = Normaliser("feed", TableDecoder("trades"), ShardPlan(0))
            elif step == "books":
                core = BookShard(index, BookConfig())
            else:
                core = BarsShard(self.bars)
            if self.folder is not None:
                core = AsideCore(core, self.folder, step, index)
            self.cores[key] = core
        return self.cores[key]

    def apply(self, batch: pa.RecordBatch) -> list[Rows]:
        found = []
        for shard, events in self.core("normalise", 0).apply(batch).parts:
            rows = self.core("books", shard).apply(events)
            found += [rows, self.core("bars", shard).apply(rows)]
        return found

    def books(self) -> int:
        """Instruments with a row."""
        found = [c.memory()["books"] for (step, _), c in self.cores.items() if step == "books"]
        return sum(found)

    def snapshot(self) -> dict[tuple[str, int], bytes]:
        """As the engine keeps it: pickled at once."""
        return {key: pickle.dumps(core.snapshot()) for key, core in self.cores.items()}

    def restore(self, states: dict[tuple[str, int], bytes]) -> None:
        for key, state in states.items():
            self.core(*key).restore(pickle.loads(state))


def _tables(rows: list[Rows]) -> list[Any]:
    return [(r.shard, name, b.to_pydict()) for r in rows for name, b in sorted(r.tables.items())]


def _batches(url: str, size: int = 4000) -> list[pa.RecordBatch]:
    return cut(frames_of(url), size)


def test_a_symbol_that_is_only_traded_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    first, *batches = _batches(trades_csv(tmp_path, list(range(MANY))))
    flow = Flow()
    flow.apply(first)  # what is there whatever the number of symbols: pools, room for rows
    before = flow.books()
    gc.collect()
    tracemalloc.start()
    for batch in batches[:-1]:  # the last one ends the feed
        flow.apply(batch)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    more = flow.books() - before
    assert more > MANY // 2
    print(f"{taken / more:.0f} bytes a symbol")
    assert taken / more < 1024


def test_a_snapshot_costs_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "SMALL", 1 << 16)
    flow = Flow(tmp_path)
    for batch in _batches(trades_csv(tmp_path, list(range(MANY))))[:-1]:
        flow.apply(batch)
    kept = flow.snapshot()
    whole = sum(path.stat().st_size for path in tmp_path.glob("*.state"))
    assert whole > 200 * MANY
    assert all(len(state) < 1000 for state in kept.values())
    few = _batches(trades_csv(tmp_path, [*range(100, 110), MANY + 1], first=MANY), 6)
    for batch in few[:2]:  # without the end of the feed, which concerns every book
        flow.apply(batch)
    flow.snapshot()
    grown = sum(path.stat().st_size for path in tmp_path.glob("*.state")) - whole
    assert 0 < grown < 60_000 + whole // 1000


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_snapshot_the_flow_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A new flow takes over from the newest snapshot or one before it, as after a kill."""
    monkeypatch.setattr(aside, "SMALL", 5000)
    chance = Random(seed)
    symbols = [chance.randrange(40 + i // 4) for i in range(6000)]
    batches = _batches(trades_csv(tmp_path, symbols), 150)
    calm = Flow()
    wanted = [_tables(calm.apply(batch)) for batch in batches]
    folder = tmp_path / "aside"
    flow = Flow(folder)
    history: list[tuple[int, dict[tuple[str, int], bytes]]] = []
    at = kills = 0
    while at < len(batches):
        assert _tables(flow.apply(batches[at])) == wanted[at]
        at += 1
        if chance.random() < 0.6:
            history.append((at, flow.snapshot()))
            history = history[-3:]
        elif history and chance.random() < 0.4:
            at, states = history.pop(-1 if chance.random() < 0.7 or len(history) < 2 else -2)
            history = [(at, states)]
            for path in folder.glob("*.state"):
                with path.open("ab") as file:  # what an unfinished epoch wrote, torn
                    file.write(chance.randbytes(chance.randrange(40)))
            flow = Flow(folder)
            flow.restore(states)
            kills += 1
    assert kills > 3
    assert list(folder.glob("*.state"))
    for key, core in calm.cores.items():
        mine = flow.cores[key]._core
        if key[0] != "normalise":
            assert mine.state_hash() == core.state_hash(), key
    # Old files go: of each core there are the newest and those that a kill may go back to.
    assert all(len(list(folder.glob(f"{step}-{index}-*.state"))) <= 4 for step, index in flow.cores)


def test_a_state_that_leaves_its_store_takes_its_files_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "SMALL", 2000)
    flow = Flow(tmp_path / "old")
    for batch in _batches(trades_csv(tmp_path, list(range(2000))), 500)[:-1]:
        flow.apply(batch)
        flow.snapshot()
    kept = {key: pickle.dumps((key[1], core.snapshot())) for key, core in flow.cores.items()}
    moved = {key: aside.inlined(tmp_path / "old", state) for key, state in kept.items()}
    for path in (tmp_path / "old").glob("*.state"):
        path.unlink()
    other, plain = Flow(tmp_path / "new"), Flow()
    for key, state in moved.items():
        index, snapshot = pickle.loads(state)
        assert index == key[1]
        other.core(*key).restore(snapshot)
        plain.core(*key).restore(*aside.state_parts(snapshot))
    more = _batches(trades_csv(tmp_path, [5, 6, 2500], first=9000), 2)
    wanted = [_tables(flow.apply(batch)) for batch in more]
    assert [_tables(other.apply(batch)) for batch in more] == wanted
    assert [_tables(plain.apply(batch)) for batch in more] == wanted
    with pytest.raises(FileNotFoundError):
        aside.inlined(tmp_path / "old", kept["normalise", 0])


def test_a_lost_or_damaged_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "SMALL", 500)
    flow = Flow(tmp_path)
    for batch in _batches(trades_csv(tmp_path, list(range(500))), 500)[:1]:
        flow.apply(batch)
    states = flow.snapshot()
    path = next(tmp_path.glob("normalise-0-*.state"))
    data = path.read_bytes()
    state = pickle.loads(states["normalise", 0])
    path.write_bytes(data[:-1])
    with pytest.raises(UsageError, match="from one backup"):
        Flow(tmp_path).core("normalise", 0).restore(state)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UsageError, match="damaged"):
        Flow(tmp_path).core("normalise", 0).restore(state)
    path.write_bytes(data)
    Flow(tmp_path).core("normalise", 0).restore(state)


def test_books_merge_their_changes() -> None:
    """Orders, levels and venue quotes of many books, from a whole state and changes after it."""
    chance = np.random.default_rng(5)
    from marketflow.operators.books.pack import merge
    from tests.support.books import L2, L3, Script, instruments

    named = instruments(*(L3 if i % 2 else L2 for i in range(30)))
    from marketflow.operators.events import EventBatch

    shard, parts = BookShard(0, BookConfig()), []
    script = Script()
    for step in range(40):
        before = script.out.count
        for instrument in chance.integers(0, 2 + step // 2, 4).tolist():
            if instrument % 2 == 0:
                price, size = 100 + int(chance.integers(9)), int(chance.integers(3))
                script.group([(1, price, size)], instrument=instrument)
        shard.apply(EventBatch(script.rows[before:].copy(), named, offsets=np.zeros(1, np.int64)))
        parts.append(pickle.loads(pickle.dumps(shard.snapshot(changes=step > 0))))
    other = BookShard(0, BookConfig())
    other.restore(*parts)
    assert other.state_hash() == shard.state_hash()
    assert len(merge([part["kept"] for part in parts])["books"]) == shard.memory()["books"]
