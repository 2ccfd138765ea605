"""The database sink on a real server: every value, every flush once, every mistake explained."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from marketflow.infra.migrate import migrate
from marketflow.schemas.codes import words
from marketflow.schemas.tables import TABLES
from marketflow.sinks.errors import DatabaseFailed, SinkError
from marketflow.sinks.timescale.config import TimescaleOptions
from marketflow.sinks.timescale.writer import TimescaleWriter
from tests.support.batches import Feed, Item
from tests.support.patience import until
from tests.support.services.dsn import replace_password
from tests.support.stored import Expected, stored_rows

pytestmark = pytest.mark.services
Ask = Callable[[str], list[tuple]]
EVERY = dict.fromkeys(TABLES, 40)


def items(seed: int, count: int, rows: dict[str, int], shards: int = 3) -> list[Item]:
    feed = Feed(np.random.default_rng(seed))
    return [feed.item(k % shards, rows) for k in range(count)]


def expected(written: list[Item]) -> dict:
    model = Expected()
    for item in written:
        model.write(item)
    return model.rows


def recut(written: list[Item], rows: int) -> list[Item]:
    """The same rows of each shard in batches of another size."""
    result = []
    for shard in sorted({item.shard for item in written}):
        for name in TABLES:
            batches = [i.tables[name] for i in written if i.shard == shard and name in i.tables]
            if batches:
                whole = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
                batch = whole.to_batches()[0]
                result += [
                    Item(shard, {name: batch.slice(k, rows)})
                    for k in range(0, batch.num_rows, rows)
                ]
    return result


def test_the_views_show_words_and_nanoseconds(database: str, ask: Ask) -> None:
    written = items(2, 1, EVERY)
    writer = TimescaleWriter(database)
    writer.write(written[0])
    writer.close()
    for name, batch in written[0].tables.items():
        table = TABLES[name]
        coded = [f for f in table.fields if f.codes is not None]
        shown = ask(
            f"SELECT {', '.join([f'{table.time_field}_epoch_ns', *(f.name for f in coded)])} "
            f"FROM {name} ORDER BY shard, row_sequence"
        )
        times = batch.column(table.time_field).cast(pa.int64()).to_pylist()
        # Rows that are older than a column are of its first word.
        first = {f.name: words(f.codes)[0] for f in coded if f.codes is not None}
        columns = [
            [first[f.name] if word is None else word for word in batch.column(f.name).to_pylist()]
            for f in coded
        ]
        assert shown == list(zip(times, *columns, strict=True)), name


def test_a_flush_comes_by_rows_bytes_and_age(database: str, ask: Ask) -> None:
    def count() -> int:
        return ask("SELECT count(*) FROM quotes")[0][0]

    def comes(rows: int) -> bool:
        until(lambda: count() >= rows)
        return count() == rows

    feed = Feed(np.random.default_rng(3))
    slow = {"flush_after_s": 1e9}
    by_rows = TimescaleWriter(database, options=TimescaleOptions(flush_rows=50, **slow))
    by_rows.write(feed.item(0, {"quotes": 49}))
    assert count() == 0
    by_rows.write(feed.item(0, {"quotes": 1}))
    assert comes(50)
    by_rows.close()
    by_bytes = TimescaleWriter(database, options=TimescaleOptions(flush_bytes=1, **slow))
    by_bytes.write(feed.item(1, {"quotes": 1}))
    assert comes(51)
    by_bytes.close()
    by_age = TimescaleWriter(database, options=TimescaleOptions(flush_after_s=1e-9))
    by_age.idle()
    by_age.write(feed.item(2, {"quotes": 1}))
    assert comes(52)
    by_age.close()
    counted = "SELECT feeds -> '0' -> 'rows' FROM store.progress ORDER BY 1"
    assert ask(counted) == [({"quotes": 1},), ({"quotes": 1},), ({"quotes": 50},)]


def test_resumed_rows_are_cut_and_skipped_exactly(database: str) -> None:
    """A crash after flushes beyond the snapshot; the rows come again in other batches."""
    written = items(4, 12, {"quotes": 100, "trades": 30, "dead_letters": 3})
    rng = np.random.default_rng(4)
    options = TimescaleOptions(flush_rows=150, flush_after_s=1e9)
    first = TimescaleWriter(database, recovery="r", options=options)
    for item in written[:4]:
        first.write(item)
    state = first.snapshot()
    for item in written[4:9]:
        first.write(item)
    first.abandon()
    for rows in (7, 64, 1000):
        again = TimescaleWriter(database, recovery="r", options=options)
        again.restore(state)
        rest = recut(written[4:], rows)
        stop = len(rest) if rows == 1000 else int(rng.integers(len(rest)))
        for item in rest[:stop]:
            again.write(item)
        again.abandon() if rows < 1000 else again.close()
    assert stored_rows(database) == expected(written)


def test_a_fresh_run_adds_to_what_is_there(database: str, ask: Ask) -> None:
    """As in a lake: two runs of the same input are twice the rows."""
    written = items(6, 2, {"quotes": 50})
    for recovery in (None, "a", "b"):
        writer = TimescaleWriter(database, recovery=recovery)
        for item in written:
            writer.write(item)
        writer.close()
    assert ask("SELECT count(*) FROM quotes") == [(300,)]
    assert ask("SELECT writer FROM store.progress WHERE run IN ('a', 'b')") == [("w0",), ("w0",)]


def test_processes_are_apart(database: str) -> None:
    written = items(7, 6, {"quotes": 50}, shards=2)
    for shard in (0, 1):
        writer = TimescaleWriter(database, f"w{shard}", recovery="r")
        for item in written:
            if item.shard == shard:
                writer.write(item)
        writer.snapshot()
        writer.close()
    assert stored_rows(database) == expected(written)


def test_of_two_writers_of_a_run_the_later_goes_on(database: str) -> None:
    written = items(8, 4, {"quotes": 50})
    one, two = (TimescaleWriter(database, recovery="r") for _ in range(2))
    one.write(written[0])
    one.snapshot()
    one.write(written[1])
    two.write(written[0])
    with pytest.raises(DatabaseFailed, match="another process writes as w0 of this run: stop it"):
        one.snapshot()
    for item in written[1:]:
        two.write(item)
    two.close()
    assert stored_rows(database) == expected(written)


def test_a_lost_connection_is_made_again(database: str, ask: Ask, caplog) -> None:
    written = items(9, 4, {"quotes": 50})
    writer = TimescaleWriter(database, recovery="r")
    for item in written:
        writer.write(item)
        writer.snapshot()
        ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'marketflow w0'"
        )
    writer.close()
    assert stored_rows(database) == expected(written)


def test_a_commit_whose_answer_was_lost_is_not_repeated(database: str, monkeypatch) -> None:
    written = items(10, 2, {"quotes": 50})
    writer = TimescaleWriter(database, recovery="r")
    writer.write(written[0])
    send, lost = writer._send, []

    def committed_but_unheard(*flush) -> None:
        send(*flush)
        if not lost:
            lost.append(True)
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(writer, "_send", committed_but_unheard)
    writer.snapshot()
    writer.write(written[1])
    writer.close()
    assert lost
    assert stored_rows(database) == expected(written)


def test_a_read_only_database_is_waited_for(database: str, ask: Ask, caplog) -> None:
    written = items(11, 2, {"quotes": 50})
    writer = TimescaleWriter(database, recovery="r", options=TimescaleOptions(outage_s=1.5))
    writer.write(written[0])
    writer.snapshot()
    name = database.rpartition("/")[2]
    ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'marketflow w0'"
    )
    writer.write(written[1])
    with (
        caplog.at_level(logging.WARNING, "marketflow"),
        pytest.raises(DatabaseFailed, match=r"read-only; gave up after 1\.5 s.*same --recovery"),
    ):
        writer.snapshot()
    assert "the database is read-only; gives up in" in caplog.text
    writer.abandon()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    repaired = TimescaleWriter(database, recovery="r")
    for item in written:
        repaired.write(item)
    repaired.close()
    assert stored_rows(database) == expected(written)


def test_what_waiting_cannot_mend_is_told_at_once(timescale, database: str, ask: Ask) -> None:
    item = items(12, 1, {"quotes": 5})[0]
    wrong = replace_password(database, "sesame")
    for dsn, text in (
        (wrong, "password is wrong"),
        (timescale.url.rpartition("/")[0] + "/nowhere", "does not exist"),
        (timescale.url.rpartition("/")[0] + "/postgres", "marketflow migrate --dsn"),
    ):
        with pytest.raises(SinkError, match=text) as caught:
            TimescaleWriter(dsn).write(item)
        assert "sesame" not in str(caught.value)
    ask("ALTER TABLE store.quotes DROP COLUMN sequence CASCADE")
    with pytest.raises(SinkError, match=r"no store\.quotes\.sequence \(bigint\).*migrate --dsn"):
        TimescaleWriter(database).write(item)


def test_the_password_may_come_from_the_environment(
    database: str, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = psycopg.conninfo.conninfo_to_dict(database)
    password = str(address["password"])
    bare = database.replace(f":{password}@", "@")
    assert password not in bare
    written = items(16, 2, {"quotes": 5})
    with pytest.raises(SinkError, match="PGPASSWORD, a PGPASSFILE or the DSN"):
        TimescaleWriter(bare).write(written[0])
    with monkeypatch.context() as environment:
        environment.setenv("PGPASSWORD", password)
        writer = TimescaleWriter(bare)
        writer.write(written[0])
        writer.close()
    file = tmp_path / "pgpass"
    file.touch(0o600)
    file.write_text(f"127.0.0.1:{address['port']}:*:marketflow:{password}\n")
    monkeypatch.setenv("PGPASSFILE", str(file))
    writer = TimescaleWriter(bare)
    writer.write(written[1])
    writer.close()
    assert ask("SELECT count(*) FROM quotes") == [(10,)]
    with pytest.raises(SinkError, match=r"does not support SSL.*another sslmode"):
        TimescaleWriter(f"{bare}?sslmode=require").write(written[0])


def test_a_recovery_folder_of_another_database_is_refused(database: str, ask: Ask) -> None:
    written = items(13, 2, {"quotes": 50})
    writer = TimescaleWriter(database, recovery="r")
    writer.write(written[0])
    state = writer.snapshot()
    writer.abandon()
    with pytest.raises(SinkError, match="not of format 1"):
        TimescaleWriter(database, recovery="r").restore((99,))
    ask("UPDATE store.progress SET rows = '{}'")
    with pytest.raises(SinkError, match="holds fewer rows of quotes"):
        TimescaleWriter(database, recovery="r").restore(state)
    ask("DELETE FROM store.progress")
    with pytest.raises(SinkError, match="knows nothing of the run"):
        TimescaleWriter(database, recovery="r").restore(state)


def test_a_database_put_back_under_a_running_writer_ends_it(database: str, ask: Ask) -> None:
    written = items(14, 2, {"quotes": 50})
    writer = TimescaleWriter(database, recovery="r")
    writer.write(written[0])
    writer.snapshot()
    ask("UPDATE store.progress SET next = 0, rows = '{}'")
    writer.write(written[1])
    with pytest.raises(DatabaseFailed, match="lost rows that it had confirmed"):
        writer.snapshot()


def test_nothing_listens_yet(bare_database: str, caplog) -> None:
    """The message names what is waited for; the server is there in time here."""
    migrate(bare_database, TABLES)
    head, _, name = bare_database.rpartition("/")
    absent = f"{head.rpartition(':')[0]}:1/{name}"
    item = items(15, 1, {"quotes": 5})[0]
    with (
        caplog.at_level(logging.WARNING, "marketflow"),
        pytest.raises(DatabaseFailed, match=r"refused; gave up after 0\.3 s"),
    ):
        TimescaleWriter(absent, options=TimescaleOptions(outage_s=0.3)).write(item)
    assert f"waiting for marketflow@127.0.0.1:1/{name}: " in caplog.text
