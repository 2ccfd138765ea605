"""Databento: DBN of versions 1 to 3, and Databento's CSV, both to the same rows.

**Input.** A HEADER frame (DBN metadata, or the CSV line of column names), then DATA frames: blocks
of whole records, or one CSV line each. Several files with headers of their own may follow.

**Instruments.** ``symbol`` is the name that the metadata maps the instrument id to on the day of
the record, a symbol mapping or definition record before it, or the CSV's symbol column; else
``#<id>``. ``venue`` is the publisher's market (XNAS.ITCH -> XNAS). An instrument's first record
decides how its book is kept, by the schema of its file:

- mbo: L3, joined in the middle (unknown orders are counted); a clear (R) makes it whole. A adds,
  C reduces by its size, M modifies, T is a trade, F and N change nothing. Groups end at F_LAST.
- mbp-1, mbp-10, tbbo: L2; every record is the whole top of the book (SnapshotRule.EVERY), a trade
  record also a trade.
- others: no book. bbo, cmbp and cbbo are the venue's own best prices, trades are trades.

Prices are multiples of 1e-9, INT64_MAX is none. ``ts_recv`` flagged F_BAD_TS_RECV is none.
Status, imbalance, statistics and definition records and bars (ohlcv, ``origin`` venue) go to their
tables (:mod:`operators.venues.dbn_tables`, :mod:`operators.venues.dbn_bars`).
Records that make no row are counted by kind: symbol mappings, system and error records, and of mbo
the fills (F) and empty actions (N).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, NamedTuple

import databento_dbn
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from operators.events import EVENT, NO_SEQUENCE, BookType, EventBatch, EventKind, SnapshotRule
from operators.feeds import Decoded, FrameColumns
from operators.kernels import dbn as kernels
from operators.passing import PassingRows
from operators.registry import BookRules, Registry
from operators.rejects import Rejects
from operators.venues import dbn_bars, dbn_csv, dbn_tables
from operators.venues.dbn_names import Names
from operators.venues.dbn_publishers import publisher
from operators.venues.table_columns import run_end
from schemas.codes import RejectReason, RowFlag
from schemas.frames import FrameKind
from schemas.recovery import OTHER_RELEASE, StateError
from schemas.shards import DEFAULT_SHARDS
from schemas.units import NO_PRICE

SNAPSHOT_VERSION: Final = 1
_MAGIC: Final = b"DBN"
#: The stubs call the members of this enum integers.
_NEWEST: Final[Any] = databento_dbn.VersionUpgradePolicy.UPGRADE_TO_V3
_ROWLESS: Final = {21: "error", 23: "system"}
_ROWLESS_ACTIONS: Final = {ord("F"): "mbo_fill", ord("N"): "mbo_none"}
_L2_LEVELS: Final = {"mbp-1": 1, "mbp-10": 10, "tbbo": 1}
_RTYPE_SCHEMAS: Final = {160: "mbo", 1: "mbp-1", 10: "mbp-10", 0: "trades"} | dict.fromkeys(
    (17, 32, 33, 34, 35, 36), "ohlcv"
)


class Records(NamedTuple):
    """Records of one or more frames: ``words`` (see kernels.dbn), and per record its first word,
    rtype, publisher << 32 | instrument id, time for naming it, and frame."""

    words: NDArray[np.int64]
    ats: NDArray[np.int64]
    rtypes: NDArray[np.uint8]
    keys: NDArray[np.int64]
    times: NDArray[np.int64]
    frames: NDArray[np.int32]

    def slice(self, first: int, last: int) -> Records:
        """Records ``first`` to ``last``."""
        chosen = slice(first, last)
        return Records(
            self.words,
            self.ats[chosen],
            self.rtypes[chosen],
            self.keys[chosen],
            self.times[chosen],
            self.frames[chosen],
        )

    def raw(self, index: int) -> bytes:
        """The bytes of a record."""
        at = int(self.ats[index])
        return self.words[at : at + (int(self.words[at]) & 255) // 2].tobytes()


class _Batch:
    """What one frames batch gives, in the making."""

    def __init__(self, columns: FrameColumns) -> None:
        self.columns = columns
        self.parts: list[NDArray[np.void]] = []
        self.passing = PassingRows()
        self.rejects = Rejects()
        self.messages = 0
        #: Records that make no row, by kind.
        self.rowless: Counter[str] = Counter()


class DbnDecoder:
    """FeedDecoder of Databento files."""

    def __init__(self, *, shards: int = DEFAULT_SHARDS) -> None:
        self._rules = BookRules()
        self._registry = Registry("", lambda *_: self._rules, shards)
        self._books: list[int] = []
        self._header = b""
        self._names = Names()
        self._schema: str | None = None
        self._version = databento_dbn.DBN_VERSION
        self._ts_out = False
        self._columns: tuple[str, ...] = ()
        self._latest = 0

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Events, tables and dead letters of a frames batch."""
        columns = FrameColumns(frames)
        batch = _Batch(columns)
        last = 0
        while last < len(columns):
            first = last
            lines = columns.kinds[first] == FrameKind.DATA and self._columns
            last = run_end(columns.kinds, first) if lines else first + 1
            self._frames(batch, first, last)
        parts = batch.parts or [np.zeros(0, EVENT)]
        events = EventBatch(
            parts[0] if len(parts) == 1 else np.concatenate(parts),
            self._registry.instruments(),
            batch.messages,
            batch.passing.batches(),
            columns.offsets,
            batch.rowless,
        )
        return Decoded(events, batch.rejects.batch())

    def _frames(self, batch: _Batch, first: int, last: int) -> None:
        """One frame, or a run of CSV lines."""
        match int(batch.columns.kinds[first]):
            case FrameKind.DATA if self._columns:
                batch.messages += last - first
                for records in dbn_csv.records(
                    batch.columns, first, last, self._columns, self._names, self._reject(batch)
                ):
                    self._run(batch, records)
            case FrameKind.DATA:
                self._block(batch, first)
            case FrameKind.HEADER:
                self._open(batch, first)
            case FrameKind.END:
                end = np.zeros(1, EVENT)
                end["kind"], end["instrument"], end["frame"] = EventKind.FEED_END, -1, first
                end["flags"], end["price"], end["sequence"] = RowFlag.LAST, NO_PRICE, NO_SEQUENCE
                batch.parts.append(end)
            case FrameKind.TRUNCATED:
                self._reject(batch)(first, RejectReason.TRUNCATED, "the feed ends inside a record")
            case FrameKind.BROKEN:
                self._reject(batch)(first, RejectReason.INVALID_ENCODING, "cannot be unpacked")

    def _reject(self, batch: _Batch) -> dbn_csv.Reject:
        """Dead letters of a frame; see dbn_csv.Reject."""

        def add(
            row: int, reason: RejectReason, detail: str, raw: bytes | None = None, ts: int = 0
        ) -> None:
            frame = batch.columns.frame(row)
            batch.rejects.add(
                frame.ts_recv or ts or self._latest,
                int(batch.columns.offsets[row]),
                reason,
                frame.note or detail,
                frame.payload if raw is None else raw,
            )

        return add

    def _open(self, batch: _Batch, row: int) -> None:
        """A file begins: what its header says holds until the next one."""
        try:
            self._take_header(batch.columns.frame(row).payload)
        except (databento_dbn.DBNError, ValueError) as error:
            self._header = b""
            self._reject(batch)(row, RejectReason.MALFORMED, f"header: {error}")

    def _take_header(self, payload: bytes) -> None:
        self._header = payload
        self._names = Names()
        self._columns, self._schema = (), None
        if not payload.startswith(_MAGIC):
            self._columns = dbn_csv.columns(payload)
            self._schema = dbn_csv.schema(self._columns)
            return
        metadata = databento_dbn.Metadata.decode(payload)
        self._names = Names(metadata.mappings)
        self._schema = metadata.schema
        # Decoded metadata says the newest version whatever the file's own is.
        self._version, self._ts_out = payload[len(_MAGIC)], metadata.ts_out

    def _block(self, batch: _Batch, row: int) -> None:
        """A DATA frame of whole records."""
        columns = batch.columns
        start, stop = int(columns.bounds[row]), int(columns.bounds[row + 1])
        size = (stop - start) // 8
        # A copy, because words must be aligned and a payload need not be.
        words = np.empty(size, np.int64)
        words.view(np.uint8)[:] = columns.text[start : start + 8 * size]
        room = size // 2
        ats, keys, times = np.empty((3, room), np.int64)
        rtypes = np.empty(room, np.uint8)
        count, read = kernels.index(words, ats, rtypes, keys, times)
        frames = np.full(count, row, np.int32)
        batch.messages += count
        self._records(
            batch, Records(words, ats[:count], rtypes[:count], keys[:count], times[:count], frames)
        )
        if 8 * read < stop - start:
            raw = columns.text[start + 8 * read : stop].tobytes()
            detail = f"no record of a known length at byte {8 * read} of the block"
            self._reject(batch)(row, RejectReason.MALFORMED, detail, raw)

    def _records(self, batch: _Batch, records: Records) -> None:
        """Records in order; a symbol mapping holds for those behind it."""
        first = 0
        for at in np.flatnonzero(kernels.CLASSES[records.rtypes] == kernels.MAPPING).tolist():
            self._run(batch, records.slice(first, at))
            (mapping,) = self._objects([records.raw(at)])
            self._names.add(mapping.instrument_id, mapping.stype_in_symbol)
            batch.rowless["symbol_mapping"] += 1
            first = at + 1
        self._run(batch, records.slice(first, len(records.ats)))

    def _run(self, batch: _Batch, records: Records) -> None:
        """Records without a symbol mapping among them."""
        classes = kernels.CLASSES[records.rtypes]
        plain = np.flatnonzero(classes == kernels.PLAIN)
        reject = self._reject(batch)
        for at in np.flatnonzero(classes == kernels.UNKNOWN).tolist():
            detail = f"record type {int(records.rtypes[at])}"
            frame, ts = int(records.frames[at]), max(int(records.times[at]), 0)
            reject(frame, RejectReason.UNKNOWN_MESSAGE, detail, records.raw(at), ts)
        objects = self._objects([records.raw(at) for at in plain.tolist()])
        for definition in objects:
            if isinstance(definition, databento_dbn.InstrumentDefMsg):
                self._names.add(definition.instrument_id, definition.raw_symbol, known=False)
        wanted = (classes != kernels.UNKNOWN) & (classes != kernels.IGNORED)
        instruments = self._instruments(records, wanted)
        rows = np.zeros(kernels.rows_needed(records.rtypes), EVENT)
        bad = np.empty((len(records.ats), 2), np.int64)
        books = np.array(self._books or [0], np.int8)
        count, bads = kernels.decode(
            records.words, records.ats, records.rtypes, instruments, books, records.frames, rows,
            bad,
        )  # fmt: skip
        batch.parts.append(rows[:count])
        if count:
            self._latest = int(rows["ts_event"][count - 1]) or self._latest
        for at, reason in bad[:bads].tolist():
            detail = f"record type {int(records.rtypes[at])} cannot be taken"
            frame, ts = int(records.frames[at]), max(int(records.times[at]), 0)
            reject(frame, RejectReason(reason), detail, records.raw(at), ts)
        for at, record in zip(plain.tolist(), objects, strict=True):
            dbn_tables.add(record, int(instruments[at]), batch.passing)
        candles = np.flatnonzero(classes == kernels.BARS)
        if len(candles):
            bars, bad_bars = dbn_bars.rows(
                records.words, records.ats[candles], instruments[candles], self._schema
            )
            batch.passing.extend("bars", bars)
            for index, reason, detail in bad_bars:
                at = int(candles[index])
                ts = max(int(records.times[at]), 0)
                reject(int(records.frames[at]), reason, detail, records.raw(at), ts)
        self._count_rowless(batch, records, classes)

    @staticmethod
    def _count_rowless(batch: _Batch, records: Records, classes: NDArray[np.int8]) -> None:
        for rtype, kind in _ROWLESS.items():
            batch.rowless[kind] += int(np.count_nonzero(records.rtypes == rtype))
        orders = records.ats[records.rtypes == kernels.MBO]
        if len(orders):
            actions = records.words[orders + 4] >> 48 & 255
            for action, kind in _ROWLESS_ACTIONS.items():
                batch.rowless[kind] += int(np.count_nonzero(actions == action))

    def _objects(self, raw: list[bytes]) -> list[Any]:
        """Records as databento_dbn's objects, upgraded to the newest version."""
        if not raw:
            return []
        decoder = databento_dbn.DBNDecoder(
            has_metadata=False,
            ts_out=self._ts_out,
            input_version=self._version,
            upgrade_policy=_NEWEST,
        )
        decoder.write(b"".join(raw))
        return list(decoder.decode())

    def _instruments(self, records: Records, wanted: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Registry index per record, -1 where it is not wanted; registers new ones in order."""
        indices = np.full(len(records.ats), -1, np.int32)
        chosen = np.flatnonzero(wanted)
        encoded = pa.array(records.keys[chosen]).dictionary_encode()
        codes = encoded.indices.to_numpy()
        unique = encoded.dictionary.to_numpy()
        if not any(self._names.changes(int(key) & 0xFFFFFFFF) for key in unique):
            firsts = np.full(len(unique), len(chosen))
            np.minimum.at(firsts, codes, np.arange(len(codes)))
            table = [
                self._index(int(key), records, int(chosen[first]))
                for key, first in zip(unique, firsts, strict=True)
            ]
            indices[chosen] = np.array(table, np.int32)[codes] if table else 0
            return indices
        for at in chosen.tolist():
            indices[at] = self._index(int(records.keys[at]), records, at)
        return indices

    def _index(self, key: int, records: Records, at: int) -> int:
        """Instrument of record ``at``, registered with the book rules of its file."""
        who = publisher(key >> 32)
        number = key & 0xFFFFFFFF
        symbol = self._names.name(number, int(records.times[at])) or f"#{number}"
        schema = self._schema or _RTYPE_SCHEMAS.get(int(records.rtypes[at]), "mbo")
        # Venues outside Nasdaq's own feeds publish their auctions' crossed books.
        may_cross = not who.dataset.endswith(".ITCH")
        if schema == "mbo":
            self._rules = BookRules(
                BookType.L3, snapshot_rule=SnapshotRule.PARTIAL, may_cross=may_cross
            )
        elif schema in _L2_LEVELS:
            self._rules = BookRules(
                BookType.L2,
                snapshot_rule=SnapshotRule.EVERY,
                max_levels=_L2_LEVELS[schema],
                may_cross=may_cross,
            )
        else:
            self._rules = BookRules(BookType.NONE)
        index = self._registry.index(symbol, who.venue)
        if index == len(self._books):
            self._books.append(int(self._rules.book_type))
        return index

    def snapshot(self) -> Any:
        """(version, header of the current file, later names, instruments, books, latest time)."""
        return (
            SNAPSHOT_VERSION,
            self._header,
            self._names.snapshot(),
            self._registry.snapshot(),
            tuple(self._books),
            self._latest,
        )

    def restore(self, state: Any) -> None:
        """Take a snapshot back; StateError with the remedy if it is of another format."""
        if state[0] != SNAPSHOT_VERSION:
            raise StateError(
                f"recovery state of the Databento decoder has format {state[0]}, this release "
                f"reads {SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        _, header, names, registry, books, self._latest = state
        if header:
            self._take_header(header)
        self._names.restore(names)
        self._registry.restore(registry)
        self._books = list(books)
