"""Which nanoseconds a database's query also asks for."""

from __future__ import annotations

import pytest

from marketflow.flows.queries.exact_times import with_nanoseconds

ASKED = [
    ("SELECT ts_event FROM trades", ["ts_event_epoch_ns"], (0,)),
    ("select a, T.TS_EVENT as x from trades t", ["T.ts_event_epoch_ns"], (1,)),
    ('SELECT "t"."ts_recv" x, b FROM t', ['"t".ts_recv_epoch_ns'], (0,)),
    ("SELECT ts_event, max(ts_recv), 1 FROM t", ["ts_event_epoch_ns", "max(ts_recv_epoch_ns)"],
     (0, 1)),
    ("SELECT a, *, b, ts_open FROM t", ["ts_open_epoch_ns"], (-1,)),
    ("SELECT ts_open, t.*, b FROM t", ["ts_open_epoch_ns"], (0,)),
    ("SELECT DISTINCT ON (a, b) ts_event FROM t", ["ts_event_epoch_ns"], (0,)),
    ("SELECT min(ts_event) FILTER (WHERE a > 1) AS x FROM t",
     ["min(ts_event_epoch_ns) FILTER (WHERE a > 1)"], (0,)),
    ("SELECT lag(ts_event, 2) OVER w FROM t WINDOW w AS (ORDER BY a)",
     ["lag(ts_event_epoch_ns, 2) OVER w"], (0,)),
    ("SELECT a IS DISTINCT FROM b, ts_event FROM t", ["ts_event_epoch_ns"], (1,)),
    ("SELECT extract(epoch FROM ts_event), ts_recv FROM t", ["ts_recv_epoch_ns"], (1,)),
    ("WITH x AS (SELECT ts_recv FROM t) SELECT ts_event FROM x", ["ts_event_epoch_ns"], (0,)),
    ("SELECT ', FROM ' AS a, $$ FROM $$, E'\\' FROM', ts_event FROM t", ["ts_event_epoch_ns"],
     (3,)),
    ("SELECT /* a, /* b */ FROM */ ts_event -- , FROM\n FROM t", ["ts_event_epoch_ns"], (0,)),
]  # fmt: skip
NOTHING = [
    "SELECT price FROM trades",
    "SELECT * FROM trades",
    "SELECT t.* FROM trades t",
    "SELECT date_trunc('hour', ts_event) FROM trades",
    "SELECT ts_event::date, ts_event + interval '1 day', -ts_event FROM trades",
    "SELECT a.ts_event.b FROM t",
    "SELECT *, ts_event, * FROM t",
    "SELECT count(ts_event) FROM trades",
    "SELECT ts_event FROM trades UNION SELECT ts_event FROM quotes",
    "SELECT (SELECT ts_event FROM t)",
    "(SELECT ts_event FROM trades)",
    "VALUES (1)",
    "TABLE trades",
    "SELECT",
    "SELECT max(ts_event",
    "SELECT , FROM t",
    "/* never closed",
    "'never closed",
    "",
]


@pytest.mark.parametrize(("query", "extra", "wanted"), ASKED)
def test_nanoseconds_are_asked_for(query: str, extra: list[str], wanted: tuple[int, ...]) -> None:
    made = with_nanoseconds(query)
    assert made is not None
    assert made.wanted == wanted
    added = made.query
    for text in extra:
        head, found, rest = added.partition(f", {text} AS ")
        assert found, added
        name = rest.split('"')[1]
        assert name.startswith("_nanoseconds_")
        added = head + rest.removeprefix(f'"{name}"')
    assert added == query


@pytest.mark.parametrize("query", NOTHING)
def test_nothing_is_asked_for(query: str) -> None:
    assert with_nanoseconds(query) is None
