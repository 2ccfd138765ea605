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
tables (:mod:`operators.formats.dbn.tables`, :mod:`operators.formats.dbn.bars`).
Records that make no row are counted by kind: symbol mappings, system and error records, and of mbo
the fills (F) and empty actions (N).
Trades, orders and quotes are at prices above zero, but for publishers of futures, whose spreads
are not (:mod:`operators.formats.publishers`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import databento_dbn
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import (
    EVENT,
    NO_SEQUENCE,
    BookType,
    EventBatch,
    EventKind,
    SnapshotRule,
)
from marketflow.operators.formats.dbn import bars as dbn_bars
from marketflow.operators.formats.dbn import csv_lines as dbn_csv
from marketflow.operators.formats.dbn import tables as dbn_tables
from marketflow.operators.formats.dbn.kernels import dbn as kernels
from marketflow.operators.formats.dbn.names import Names
from marketflow.operators.formats.dbn.records import Records, fitting, late_definitions
from marketflow.operators.formats.publishers import may_be_negative, publisher
from marketflow.operators.formats.tables.columns import run_end
from marketflow.operators.instruments import BookRules, RefusedInstrumentError, Registry
from marketflow.operators.normalise.feed import Decoded, FrameColumns
from marketflow.operators.normalise.guard import verdict
from marketflow.operators.normalise.passthrough import PassingRows
from marketflow.schemas.codes import DeadLetterReason, RowFlag
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import OTHER_RELEASE, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS
from marketflow.schemas.units import END_OF_TIME_NS, NO_PRICE

SNAPSHOT_VERSION: Final = 1
_MAGIC: Final = b"DBN"
#: The stubs call the members of this enum integers.
_NEWEST: Final[Any] = databento_dbn.VersionUpgradePolicy.UPGRADE_TO_V3
_ROWLESS: Final = {21: "error", 23: "system"}
_ROWLESS_ACTIONS: Final = {ord("F"): "mbo_fill", ord("N"): "mbo_none"}
_RECORD_HEADER_BYTES: Final = 16
_L2_LEVELS: Final = {"mbp-1": 1, "mbp-10": 10, "tbbo": 1}
_RTYPE_SCHEMAS: Final = {160: "mbo", 1: "mbp-1", 10: "mbp-10", 0: "trades"} | dict.fromkeys(
    (17, 32, 33, 34, 35, 36), "ohlcv"
)


class _Batch:
    """Output of one frames batch in the making."""

    def __init__(self, columns: FrameColumns) -> None:
        self.columns = columns
        self.parts: list[NDArray[np.void]] = []
        self.passing = PassingRows()
        self.dead_letters = DeadLetters()
        self.messages = 0
        #: Records that make no row, by kind.
        self.rowless: Counter[str] = Counter()

    def mark(self) -> tuple[int, dict[str, int], int]:
        """Current lengths, for :meth:`undo`."""
        return len(self.parts), self.passing.mark(), len(self.dead_letters)

    def undo(self, mark: tuple[int, dict[str, int], int]) -> None:
        """Forget what came after ``mark``."""
        parts, passing, dead_letters = mark
        del self.parts[parts:]
        self.passing.cut(passing)
        self.dead_letters.cut(dead_letters)


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

    def limit(self, instruments: int) -> None:
        """See FeedDecoder."""
        self._registry.most = instruments

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
        return Decoded(events, batch.dead_letters.batch())

    def _frames(self, batch: _Batch, first: int, last: int) -> None:
        """One frame, or a run of CSV lines."""
        mark = len(batch.dead_letters)
        self._frame(batch, first, last)
        # By record, however many of them a block holds.
        batch.dead_letters.order(mark)

    def _frame(self, batch: _Batch, first: int, last: int) -> None:
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
                self._reject(batch)(
                    first, DeadLetterReason.TRUNCATED, "the feed ends inside a record"
                )
            case FrameKind.BROKEN:
                self._reject(batch)(first, DeadLetterReason.INVALID_ENCODING, "cannot be unpacked")

    def _reject(self, batch: _Batch) -> dbn_csv.Reject:
        """Dead letters of a frame; see dbn_csv.Reject."""

        def add(
            row: int,
            reason: DeadLetterReason,
            detail: str,
            raw: bytes | None = None,
            ts: int = 0,
            place: int = 0,
        ) -> None:
            frame = batch.columns.frame(row)
            batch.dead_letters.add(
                frame.ts_recv or ts or self._latest,
                int(batch.columns.offsets[row]) + place,
                reason,
                frame.note or detail,
                frame.payload if raw is None else raw,
            )

        return add

    def _open(self, batch: _Batch, row: int) -> None:
        """A file begins: what its header says holds until the next one."""
        try:
            self._take_header(batch.columns.frame(row).payload)
        except BaseException as error:
            self._header, self._columns = b"", ()
            reason, detail = verdict(error)
            self._reject(batch)(row, reason, f"header: {detail}")

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
        """A DATA frame of whole records. One that cannot be such is left out alone: its own length
        says where the next one starts."""
        columns = batch.columns
        start, stop = int(columns.bounds[row]), int(columns.bounds[row + 1])
        room = (stop - start) // _RECORD_HEADER_BYTES
        # A copy, because words must be aligned and a payload need not be.
        words = np.empty((stop - start) // 8, np.int64)
        ats, keys, times, places = np.empty((4, room), np.int64)
        rtypes = np.empty(room, np.uint8)
        bad = np.empty((room + 1, 2), np.int64)
        count, bads = kernels.index(
            columns.text[start:stop], words.view(np.uint8), ats, rtypes, keys, times, places, bad
        )
        frames = np.full(count, row, np.int32)
        batch.messages += count + bads
        records = Records(
            words, ats[:count], rtypes[:count], keys[:count], times[:count], frames, places[:count]
        )
        self._records(batch, records)
        for first, last in bad[:bads].tolist():
            detail = f"no record of a type and length we know, {last - first} bytes long"
            raw = columns.text[start + first : start + last].tobytes()
            self._reject(batch)(row, DeadLetterReason.MALFORMED, detail, raw, place=first)

    def _records(self, batch: _Batch, records: Records) -> None:
        """Records in order; a symbol mapping or a definition names only what comes after it, so
        that names do not depend on where blocks are cut."""
        records = self._long_enough(batch, records)
        first = 0
        mappings = np.flatnonzero(kernels.CLASSES[records.rtypes] == kernels.MAPPING).tolist()
        for at in sorted({*mappings, *late_definitions(records)}):
            self._run(batch, records.part(first, at))
            first = at
            if kernels.CLASSES[records.rtypes[at]] != kernels.MAPPING:
                continue
            try:
                (mapping,) = self._objects([records.raw(at)])
                self._names.add(mapping.instrument_id, mapping.stype_in_symbol)
                batch.rowless["symbol_mapping"] += 1
            except BaseException as error:
                self._lost(batch, records, at, *verdict(error))
            first = at + 1
        self._run(batch, records.part(first, len(records.ats)))

    def _long_enough(self, batch: _Batch, records: Records) -> Records:
        """The records that are as long as their type; the library panics at shorter ones."""
        lengths = 4 * (records.words[records.ats] & 255)
        good = fitting(records.rtypes, lengths, self._version, self._ts_out)
        for at in np.flatnonzero(~good).tolist():
            detail = f"record type {int(records.rtypes[at])} is not {lengths[at]} bytes long"
            self._lost(batch, records, at, DeadLetterReason.TRUNCATED, detail)
        return records if good.all() else records.where(good)

    def _lost(
        self, batch: _Batch, records: Records, at: int, reason: DeadLetterReason, detail: str
    ) -> None:
        """Record ``at`` becomes a dead letter."""
        frame, ts = int(records.frames[at]), max(int(records.times[at]), 0)
        if ts >= END_OF_TIME_NS:
            ts = 0
        place = int(records.places[at])
        self._reject(batch)(frame, reason, detail, records.raw(at), ts, place)

    def _run(self, batch: _Batch, records: Records) -> None:
        """Records without a symbol mapping among them; what cannot be decoded is found by halves
        and left out alone."""
        mark = batch.mark()
        try:
            self._decode(batch, records)
        except BaseException as error:
            reason, detail = verdict(error)
            batch.undo(mark)
            half = len(records.ats) // 2
            if not half:
                self._lost(batch, records, 0, reason, detail)
                return
            self._run(batch, records.part(0, half))
            self._run(batch, records.part(half, len(records.ats)))

    def _decode(self, batch: _Batch, records: Records) -> None:
        classes = kernels.CLASSES[records.rtypes]
        plain = np.flatnonzero(classes == kernels.PLAIN)
        for at in np.flatnonzero(classes == kernels.UNKNOWN).tolist():
            detail = f"record type {int(records.rtypes[at])}"
            self._lost(batch, records, at, DeadLetterReason.UNKNOWN_MESSAGE, detail)
        objects = self._objects([records.raw(at) for at in plain.tolist()])
        for definition in objects:
            if isinstance(definition, databento_dbn.InstrumentDefMsg):
                self._names.add(definition.instrument_id, definition.raw_symbol, known=False)
        wanted = (classes != kernels.UNKNOWN) & (classes != kernels.IGNORED)
        instruments = self._instruments(batch, records, wanted)
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
            self._lost(batch, records, at, DeadLetterReason(reason), detail)
        for at, record in zip(plain.tolist(), objects, strict=True):
            if instruments[at] >= 0:
                dbn_tables.add(record, int(instruments[at]), batch.passing)
        candles = np.flatnonzero((classes == kernels.BARS) & (instruments >= 0))
        if len(candles):
            bars, bad_bars = dbn_bars.rows(
                records.words, records.ats[candles], instruments[candles], self._schema
            )
            batch.passing.extend("bars", bars)
            for index, reason, detail in bad_bars:
                self._lost(batch, records, int(candles[index]), reason, detail)
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

    def _instruments(
        self, batch: _Batch, records: Records, wanted: NDArray[np.bool_]
    ) -> NDArray[np.int32]:
        """Registry index per record, -1 where it is not wanted or refused, which is a dead letter;
        registers new ones in order."""
        indices = np.full(len(records.ats), -1, np.int32)
        chosen = np.flatnonzero(wanted)
        encoded = pa.array(records.keys[chosen]).dictionary_encode()
        codes = encoded.indices.to_numpy()
        unique = encoded.dictionary.to_numpy()
        if not any(self._names.changes(int(key) & 0xFFFFFFFF) for key in unique):
            firsts = np.full(len(unique), len(chosen))
            np.minimum.at(firsts, codes, np.arange(len(codes)))
            # In the order of their first records, so that it is the same however blocks are cut.
            table = np.zeros(len(unique), np.int32)
            refused: dict[int, RefusedInstrumentError] = {}
            for code in np.argsort(firsts, kind="stable").tolist():
                try:
                    table[code] = self._index(int(unique[code]), records, int(chosen[firsts[code]]))
                except RefusedInstrumentError as error:
                    table[code], refused[code] = -1, error
            indices[chosen] = table[codes]
            for place in np.flatnonzero(np.isin(codes, list(refused))).tolist() if refused else ():
                why = refused[int(codes[place])]
                self._lost(batch, records, int(chosen[place]), why.reason, why.detail)
            return indices
        for at in chosen.tolist():
            try:
                indices[at] = self._index(int(records.keys[at]), records, at)
            except RefusedInstrumentError as error:
                self._lost(batch, records, at, error.reason, error.detail)
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
            signed = kernels.SIGNED if may_be_negative(who.venue) else 0
            self._books.append(int(self._rules.book_type) | signed)
        return index

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, header of the current file, later names, instruments, books, latest time)."""
        return (
            SNAPSHOT_VERSION,
            self._header,
            self._names.snapshot(),
            self._registry.snapshot(changes=changes),
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
        venues = self._registry.instruments().venues
        self._books = [
            book | (kernels.SIGNED if may_be_negative(venue) else 0)
            for book, venue in zip(books, venues, strict=True)
        ]
