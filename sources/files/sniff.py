"""Refuse a file that is plainly not the feed it is said to be: a look at its first bytes.

Only what cannot be right is refused: one good line among the first is enough, for damage inside a
feed is data and becomes dead letters. Two files that belong together are refused where more than
half of their first rows contradict each other.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from marketflow.sources.errors import SourceError
from marketflow.sources.files import bytes as files
from marketflow.sources.files.config import BinanceConfig, FileConfig, ParquetConfig, TableConfig
from marketflow.sources.files.paths import FRAMES_TABLE

_HEAD_BYTES: Final = 1 << 16
#: A whole book of a REST answer may stand first.
_MARKET_BYTES: Final = 1 << 20
#: Rows of books are longer than messages.
_BOOK_BYTES: Final = 1 << 18
_NEW_ORDER: Final = b"1"
_LEVELS_OF: Final = re.compile(r"_(?:message|orderbook)_(\d+)")
_STAMPED: Final = re.compile(rb"\d{1,19} \S")
_LOBSTER: Final = re.compile(rb"\d+(?:\.\d+)?,\d,-?\d+,\d+,-?\d+,-?\d\r?\Z")
_LEVELS: Final = re.compile(rb"(?:-?\d+,\d+,-?\d+,\d+)(?:,-?\d+,\d+,-?\d+,\d+)*\r?\Z")
_CAPTURED: Final = re.compile(rb'\{.*"t"\s*:')


def _any_line(pattern: re.Pattern[bytes]) -> Callable[[bytes], bool]:
    return lambda head: any(pattern.match(line) for line in head.split(b"\n"))


def _is_itch(head: bytes) -> bool:
    # No message is longer than 50 bytes; a length of 0 is the end mark of some archives.
    return head[0] == 0 and (head[1] == 0 or head[2:3].isalpha() or len(head) < 3)


def _is_dbn(head: bytes) -> bool:
    return head.startswith(b"DBN") or b"ts_event" in head.split(b"\n", 1)[0]


#: scheme -> (looks right, what the file should hold).
_LOOKS: Final[dict[str, tuple[Callable[[bytes], bool], str]]] = {
    "itch": (_is_itch, "ITCH 5.0 messages, each after its 2-byte length"),
    "lobster": (_any_line(_LOBSTER), "lines time,type,order id,size,price,direction"),
    "book": (_any_line(_LEVELS), "lines ask price,ask size,bid price,bid size, once per level"),
    "dbn": (_is_dbn, "DBN, or Databento CSV with a header line"),
    "binance": (_any_line(_STAMPED), "lines <ns> <json>"),
    "capture": (_any_line(_CAPTURED), 'lines of JSON with "t":"header|http|connect|send|recv"'),
    "parquet": (lambda head: head.startswith(b"PAR1"), "Parquet"),
}
_CLUES: Final = (
    (b"PAR1", "Parquet", "parquet:"),
    (b"DBN", "DBN", "dbn:"),
    (b"{", "JSON", "capture:"),
)


def check(config: FileConfig) -> None:
    """SourceError if a file is plainly not of its scheme; undecodable files pass, empty ones with
    a warning."""
    paths, books = config.files
    for path in paths + books:
        if path.stat().st_size == 0:
            warnings.warn(f"{path} is empty: it adds nothing to its feed", stacklevel=3)
    if isinstance(config, ParquetConfig) and config.is_listed:
        return
    for path in paths:
        _check_one(config.scheme, path)
    for path in books:
        _check_one("book", path)
    for path, book in zip(paths, books, strict=False):
        _check_book(path, book)
    if isinstance(config, BinanceConfig):
        _check_market(paths, config.market)
    if isinstance(config, TableConfig) and config.table != FRAMES_TABLE:
        from marketflow.sources.files import tables

        for path in paths:
            tables.check(config.scheme, path, config.table, config.given)


def _check_market(paths: Sequence[Path], market: str) -> None:
    """One file is enough: a session may be cut so that another tells nothing."""
    from marketflow.sources.files import markets

    for path in paths:
        lines = files.head(path, _MARKET_BYTES).split(b"\n")
        found = markets.other_market((line.partition(b" ")[2] for line in lines), market)
        if found is not None:
            raise SourceError(
                f"{path} is a recording of Binance {markets.NAMES[found]}, not of market={market}: "
                f"read it with market={found}"
            )


def _check_book(path: Path, book: Path) -> None:
    """A message file of N levels has the events of the top N, and its book file a row for each:
    with a book of other levels they do not stand beside each other."""
    lines = zip(
        files.head(path, _HEAD_BYTES).split(b"\n")[:-1],
        files.head(book, _BOOK_BYTES).split(b"\n")[:-1],
        strict=False,
    )
    shown = [_shows(message, row) for message, row in lines]
    orders, agreed = len(shown) - shown.count(None), shown.count(True)
    names = _LEVELS_OF.search(path.name), _LEVELS_OF.search(book.name)
    named_apart = names[0] and names[1] and names[0][1] != names[1][1]
    if agreed == orders or (agreed * 2 >= orders and not named_apart):
        return
    wanted = book.with_name(path.name.replace("_message_", "_orderbook_"))
    levels = len(files.head(book, _HEAD_BYTES).split(b"\n", 1)[0].split(b",")) // 4
    fix = f", such as {wanted}" if wanted not in (book, path) and wanted.exists() else ""
    raise SourceError(
        f"{book} (levels: {levels}) does not show the orders of {path}: the two are of different "
        f"levels or days; give book= the orderbook file of the same day and level{fix}"
    )


def _shows(message: bytes, row: bytes) -> bool | None:
    """Does the row hold the price of the new order? None: the message is no new order."""
    fields = message.rstrip(b"\r").split(b",")
    if len(fields) != 6 or fields[1] != _NEW_ORDER:
        return None
    first = 2 if fields[5] == b"1" else 0
    return fields[4] in row.rstrip(b"\r").split(b",")[first::4]


def _check_one(scheme: str, path: Path) -> None:
    if scheme not in _LOOKS:
        return
    looks_right, content = _LOOKS[scheme]
    head = files.head(path, _HEAD_BYTES)
    if len(head) < 2 or looks_right(head):
        return
    for magic, what, other in _CLUES:
        if head.lstrip().startswith(magic) and other != f"{scheme}:":
            raise SourceError(f"{path} looks like {what}, not like {content}; try {other}{path}")
    start = head[:24]
    raise SourceError(
        f"{path} does not hold {content}: it starts with {start!r}; check the path and the scheme"
    )
