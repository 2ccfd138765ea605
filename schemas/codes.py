"""Coded values: int8 in kernels, words in Arrow.

Every enum's member value is its index in the Arrow dictionary, its lower-case name is the word a
user reads. Members are only ever appended: a code on disk or in a snapshot keeps its meaning.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Side(IntEnum):
    """Side of the book a row belongs to (FIX 54 reads buy/sell for orders; books say bid/ask)."""

    NONE = 0
    BID = 1
    ASK = 2


class AggressorSide(IntEnum):
    """Who took liquidity (FIX 2446). ``none``: a cross, hidden, or not told by the venue."""

    NONE = 0
    BUY = 1
    SELL = 2


class Action(IntEnum):
    """What a ``book_events`` row does to its order or level (Databento MBO actions)."""

    ADD = 0
    MODIFY = 1
    CANCEL = 2
    EXECUTE = 3
    CLEAR = 4


class RowFlag(IntFlag):
    """``flags`` of ``book_events`` (Databento's F_LAST, F_SNAPSHOT, F_MAYBE_BAD_BOOK in spirit)."""

    LAST = 1
    SNAPSHOT = 2
    MAYBE_BAD = 4


class TradeStatus(IntEnum):
    NORMAL = 0
    BUST = 1
    CORRECTION = 2


class Origin(IntEnum):
    """Where a quote comes from: our kept book, or the venue's own best-price message."""

    BOOK = 0
    VENUE = 1


class BarOrigin(IntEnum):
    """Where a bar comes from: the trades of the flow, or the venue's (or vendor's) own record."""

    TRADES = 0
    VENUE = 1


class BookState(IntEnum):
    """State of a book at the end of a message group, worst first where several hold.

    Precedence: stale > empty > one_sided > crossed > locked > valid.
    """

    VALID = 0
    STALE = 1
    CROSSED = 2
    LOCKED = 3
    ONE_SIDED = 4
    EMPTY = 5


class QualityKind(IntEnum):
    """Kinds of ``quality_events``. One fault has one primary kind; consequences name it in
    ``cause_id``."""

    GAP = 0  # sequence numbers are missing: the book goes stale
    DUPLICATE = 1  # a message or trade seen before: skipped
    OUT_OF_ORDER = 2  # a message older than one already applied: skipped
    UNKNOWN_ORDER = 3  # refers to an order never seen (feed joined mid-session): counted
    BAD_CHECKSUM = 4  # the venue's checksum disagrees with the kept book: stale
    CROSSED = 5  # best bid above best ask at the end of a group: stale
    LOCKED = 6  # best bid equals best ask at the end of a group: counted at its onset
    NO_OP = 7  # a change that changes nothing (KuCoin's price "0")
    LATE = 8  # ts_event went backwards within one instrument and channel
    CLOCK_SKEW = 9  # onset of arrival stamped before the venue's own time (or far after it)
    BBO_MISMATCH = 10  # venue's own best prices disagree with the kept book
    STALE = 11  # consequence: a valid book became stale
    VALID = 12  # consequence: a stale book became valid again (ts_event..ts_until = outage)
    NO_SNAPSHOT = 13  # deltas without a snapshot to apply them to
    CAPACITY = 14  # a documented cap was hit: level or order left out, book stale
    LATE_TRADE = 15  # trade older than its final bar: not in the bar
    INCOMPLETE_GROUP = 16  # the feed ended or was cut inside a message group
    DEPTH_TRUNCATED = 17  # levels beyond the subscribed depth dropped as the venue documents
    DISCONNECT = 18  # the recorded connection was lost and came back
    LINE_DOWN = 19  # one of several redundant lines is silent or has lost its connection
    LINE_LAGGING = 20  # one of several redundant lines comes later than the others allow
    LINE_RECOVERED = 21  # consequence: the line is back (ts_event..ts_until = outage)


class DeadLetterReason(IntEnum):
    """Why input became a dead letter."""

    TRUNCATED = 0  # message shorter than its own length says, or cut by the end of the file
    MALFORMED = 1  # not the shape the venue documents
    UNKNOWN_MESSAGE = 2  # well-formed, but a type or channel we do not know
    UNKNOWN_INSTRUMENT = 3  # no directory entry or symbol for it
    BAD_PRICE = 4  # price text is not a number, or not allowed here
    BAD_SIZE = 5  # size text is not a number
    NEGATIVE_SIZE = 6
    OUT_OF_RANGE = 7  # exact value does not fit the instrument's int64 / decimal128(28, 12)
    BAD_TIMESTAMP = 8
    BAD_SIDE = 9
    BAD_ID = 10  # order id that no exact 128-bit form can hold
    INVALID_ENCODING = 11  # not UTF-8, broken gzip frame, bad base64
    TOO_MANY_INSTRUMENTS = 12  # names an instrument beyond those that a feed may have


class MarketStatus(IntEnum):
    """Trading status of an instrument, across venues."""

    UNKNOWN = 0
    PRE_OPEN = 1
    OPEN = 2
    HALTED = 3
    PAUSED = 4
    QUOTING = 5  # quotation-only period
    AUCTION = 6
    CLOSED = 7
    POST_CLOSE = 8
    SUSPENDED = 9
    DELISTED = 10
    SHORT_SALE_RESTRICTED = 11
    SHORT_SALE_ALLOWED = 12


def words(codes: type[IntEnum]) -> tuple[str, ...]:
    """The Arrow dictionary of an enum: its lower-case names in value order (gapless from 0)."""
    members = sorted(codes, key=int)
    assert [int(m) for m in members] == list(range(len(members))), codes
    return tuple(m.name.lower() for m in members)
