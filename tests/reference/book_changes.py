"""Slow twin of operators.books.core, part 3: what rows do to a book, and trades."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from marketflow.operators import ids
from marketflow.operators.events import EventKind as K
from marketflow.schemas.codes import AggressorSide, DeadLetterReason
from marketflow.schemas.units import INT64_MAX, NO_PRICE, to_decimal
from tests.reference.book_show import TwinShow
from tests.reference.book_state import SIDES, Book, Level, Q, Row, known


class TwinChanges(TwinShow):
    """Changes of books, and prints."""

    # Changes of a book.

    def _empty(self, book: Book, row: Row, ts: int, flags: int) -> None:
        if book.sides[0] or book.sides[1]:
            book.sides[0].clear()
            book.sides[1].clear()
            book.orders.clear()
            book.changed = True
            self._event(book, ts, row, "clear", "none", None, None, None, flags)

    def _truncate(self, book: Book, row: Row, ts: int) -> None:
        most = book.policy["max_levels"]
        for k, side in enumerate(book.sides):
            while most and len(side) > most:
                price = (min, max)[k](side)
                for key in side.pop(price).queue:
                    del book.orders[key]
                zero = Decimal(0)
                self._event(book, ts, row, "cancel", SIDES[k + 1], price, zero, None, row["flags"])

    def _change(self, book: Book, row: Row, ts: int) -> int:
        """Apply one book row; 1 if it is a no-op that its group reports."""
        kind = row["kind"]
        if kind == K.LEVEL:
            return self._level(book, row, ts)
        if kind == K.CLEAR:
            if row["side"] == 0:
                self._empty(book, row, ts, row["flags"])
            elif book.sides[row["side"] - 1]:
                for level in book.sides[row["side"] - 1].values():
                    for key in level.queue:
                        del book.orders[key]
                book.sides[row["side"] - 1].clear()
                book.changed = True
                name = SIDES[row["side"]]
                self._event(book, ts, row, "clear", name, None, None, None, row["flags"])
        elif kind == K.EXECUTE:
            self._execute(book, row, ts, live=True)
        else:
            key = (row["order_hi"], row["order_lo"], row["order_kind"])
            if kind == K.ADD:
                self._add(book, row, ts, key, row["side"])
            elif key not in book.orders:
                self._unknown(book, row, ts)
            else:
                self._change_order(book, row, ts, key)
        return 0

    def _unknown(self, book: Book, row: Row, ts: int) -> None:
        low, plain = row["order_lo"], row["order_hi"] == 0 and row["order_kind"] == 1
        value = low if plain and low <= INT64_MAX else None
        self._fault(book, Q.UNKNOWN_ORDER, ts, row, value=value)

    def _level(self, book: Book, row: Row, ts: int) -> int:
        if row["price"] == 0:
            if book.mode != "apply":
                self._fault(book, Q.NO_OP, ts, row, value=1)
            return 1
        price = self._fit(book, row, "price")
        if price is None:
            return 0
        size = self._fit(book, row, "size") or Decimal(0)
        side, name = book.sides[row["side"] - 1], SIDES[row["side"]]
        known = side.get(price)
        sent = ((row["price"], row["price_scale"]), (row["size"], row["size_scale"]))
        if known is None and not size:
            return 0
        if known and size and (known.size, known.count, known.queue) == (size, row["count"], []):
            known.sent = sent
            return 0
        for key in known.queue if known else ():
            del book.orders[key]
        book.changed = True
        if size:
            side[price] = Level(size, row["count"], sent)
        else:
            del side[price]
        action = "add" if known is None else "modify" if size else "cancel"
        self._event(book, ts, row, action, name, price, size, None, row["flags"])
        return 0

    def _join(self, book: Book, row: Row, key: Any, side: int, price: Decimal, size: Any) -> bool:
        level = book.sides[side - 1].get(price, Level())
        limit = min(10 ** (16 + book.size_exp) - 1, INT64_MAX)
        if (level.size + size).scaleb(book.size_exp) > limit:
            self._dead(book, row, row["size"], row["size_scale"], DeadLetterReason.OUT_OF_RANGE)
            return False
        level.size += size
        level.count += 1
        level.queue.append(key)
        book.sides[side - 1][price] = level
        book.orders[key] = [side, price, size]
        book.changed = True
        return True

    def _leave(self, book: Book, key: Any) -> None:
        side, price, size = book.orders.pop(key)
        level = book.sides[side - 1][price]
        level.size -= size
        level.count -= 1
        level.queue.remove(key)
        if not level.size:
            del book.sides[side - 1][price]
        book.changed = True

    def _add(self, book: Book, row: Row, ts: int, key: Any, side: int) -> None:
        price, size = self._fit(book, row, "price"), self._fit(book, row, "size")
        if price is None or size is None or not size:
            return
        if key in book.orders:
            self._fault(book, Q.DUPLICATE, ts, row)
        elif self._join(book, row, key, side, price, size):
            name = SIDES[side]
            self._event(book, ts, row, "add", name, price, size, key, row["flags"])

    def _cancel(self, book: Book, row: Row, ts: int, key: Any, size: Any, flags: int) -> None:
        side, price, _ = book.orders[key]
        self._event(book, ts, row, "cancel", SIDES[side], price, size, key, flags)
        self._take(book, key, size)

    def _take(self, book: Book, key: Any, size: Decimal) -> None:
        side, price, have = book.orders[key]
        if size >= have:
            self._leave(book, key)
            return
        book.orders[key][2] -= size
        book.sides[side - 1][price].size -= size
        book.changed = True

    def _change_order(self, book: Book, row: Row, ts: int, key: Any) -> None:
        kind, flags = row["kind"], row["flags"]
        side, price, have = book.orders[key]
        if kind == K.DELETE:
            self._cancel(book, row, ts, key, have, flags)
        elif kind == K.REDUCE:
            size = self._fit(book, row, "size")
            self._cancel(book, row, ts, key, have if size is None else min(size, have), flags)
        elif kind == K.REPLACE:
            self._cancel(book, row, ts, key, have, flags & ~1)
            new = (row["trade_hi"], row["trade_lo"], row["trade_kind"])
            self._add(book, row, ts, new, side)
        else:
            size = self._fit(book, row, "size")
            new_price: Decimal | None = price
            if kind == K.MODIFY and row["price"] != NO_PRICE and size is not None:
                new_price = self._fit(book, row, "price")
            if new_price is None or not size:
                self._cancel(book, row, ts, key, have, flags)
                return
            if new_price == price and size <= have:
                self._take(book, key, have - size)
                book.changed = True
            else:
                self._leave(book, key)
                if not self._join(book, row, key, side, new_price, size):
                    return
            self._event(book, ts, row, "modify", SIDES[side], new_price, size, key, flags)

    # Trades.

    def _print(self, book: Book, row: Row, ts: int) -> None:
        self._check_time(book, row)
        status = {K.TRADE: "normal", K.BUST: "bust", K.CORRECTION: "correction"}[row["kind"]]
        if status == "normal" and row["trade_kind"]:
            seen = (row["trade_hi"], row["trade_lo"], row["price"], row["size"], ts)
            if seen in book.trades:
                self._fault(book, Q.DUPLICATE, ts, row)
                return
            book.trades = [*book.trades, seen][-8:]
        price = row["price"], row["price_scale"]
        if status == "bust" and row["price"] == NO_PRICE:
            price = 0, 0
        self._trade(book, row, ts, to_decimal(*price), row["side"], status)

    def _trade(self, book: Book, row: Row, ts: int, price: Any, side: int, status: str) -> None:
        size = to_decimal(row["size"], row["size_scale"])
        trade_id = ids.text_of(row["trade_hi"], row["trade_lo"], row["trade_kind"])
        for value, what in ((price, "price"), (size, "size")):
            if abs(value) >= 10**16 or value != round(value, 12) or row["size"] < 0:
                negative = what == "size" and row["size"] < 0
                why = DeadLetterReason.NEGATIVE_SIZE if negative else DeadLetterReason.OUT_OF_RANGE
                if not (what == "price" and row["size"] < 0):
                    self._dead(book, row, row[what], row[f"{what}_scale"], why)
                    return
        self._put(
            "trades", book, ts, row, price=price, size=size, notional=round(price * size, 12),
            aggressor_side=AggressorSide(side).name.lower(), trade_id=trade_id,
            sequence=known(row["sequence"]), status=status,
        )  # fmt: skip

    def _execute(self, book: Book, row: Row, ts: int, live: bool) -> None:
        key = (row["order_hi"], row["order_lo"], row["order_kind"])
        order = book.orders.get(key) if live else None
        if live and order is None:
            self._unknown(book, row, ts)
        side = order[0] if order else row["side"]
        price = None if row["price"] == NO_PRICE else to_decimal(row["price"], row["price_scale"])
        if price is None and order:
            price = order[1]
        if price is not None and row["extra"] != 1:
            self._trade(book, row, ts, price, {1: 2, 2: 1}.get(side, 0), "normal")
        if order:
            size = self._fit(book, row, "size")
            taken = order[2] if size is None else min(size, order[2])
            self._event(
                book, ts, row, "execute", SIDES[order[0]], order[1], taken, key, row["flags"]
            )
            self._take(book, key, taken)
