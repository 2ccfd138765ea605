"""What a run left in its lake, its topics and its database, and whether another left the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import psycopg
import pyarrow as pa

from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import Service
from marketflow.schemas.derived import sql
from marketflow.schemas.messages import kafka as wire
from marketflow.schemas.tables import TABLES
from tests.reference.kafka import read_messages
from tests.support.lakes import assert_gapless, assert_same_lakes, plain_columns, table_rows
from tests.support.services.local import administrator, new_name
from tests.support.services.topics import Cluster

PARTITIONS = 2


class Outputs(NamedTuple):
    """Where a run writes."""

    lake: Path
    prefix: str
    dsn: str

    def sinks(self, kafka: Cluster, database_query: str = "", kafka_query: str = "") -> list[str]:
        """The sink URLs."""
        return [
            f"parquet:{self.lake}",
            f"timescale:{self.dsn}{database_query}",
            f"kafka://{kafka.brokers}/{self.prefix}{kafka_query}",
        ]


def new_outputs(folder: Path, kafka: Cluster, timescale: Service) -> Outputs:
    """An empty lake, empty topics and an empty database."""
    name = new_name()
    with administrator(timescale) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = timescale.url.rpartition("/")[0] + f"/{name}"
    migrate(dsn, TABLES)
    return Outputs(folder / f"lake-{name}", kafka.tables(PARTITIONS), dsn)


def drop_database(timescale: Service, outputs: Outputs) -> None:
    """Room for the next run."""
    name = outputs.dsn.rpartition("/")[2]
    with administrator(timescale) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def assert_same_outputs(kafka: Cluster, calm: Outputs, rough: Outputs) -> dict[str, int]:
    """Every table of all three equal, row by row; returns rows per table."""
    rows = assert_same_lakes(calm.lake, rough.lake)
    for name in TABLES:
        topic = topic_rows(kafka, rough.prefix, name)
        assert (topic is None) == (name not in rows), f"{name}: the lake and the topic differ"
        if topic is None:
            continue
        assert topic.num_rows == rows[name], f"topic {name}: {topic.num_rows} != {rows[name]} rows"
        lake = table_rows(calm.lake, name)
        assert lake is not None
        for column in lake.column_names:
            found_column = topic[column].cast(lake[column].type)  # bytes may be small or large ones
            assert found_column.equals(lake[column]), f"topic {name}.{column} differs"
        found, expected = stored_digest(rough.dsn, name), stored_digest(calm.dsn, name)
        assert found == expected, f"database {name}: rows and digest {found} != {expected}"
        assert found[0] == rows[name], f"database {name}: {found[0]} != {rows[name]} rows"
    return rows


def topic_rows(kafka: Cluster, prefix: str, name: str) -> pa.Table | None:
    """All committed rows of a table in identity order, none twice and none missing."""
    parts = [
        pa.Table.from_batches([wire.from_arrow(TABLES[name], message.value())])
        for partition in range(PARTITIONS)
        for message in read_messages(kafka.brokers, f"{prefix}.{name}", partition)
    ]
    if not parts:
        return None
    order = [("shard", "ascending"), ("row_sequence", "ascending")]
    found = pa.concat_tables([plain_columns(part) for part in parts]).sort_by(order)
    assert_gapless(found, f"topic {name}")
    return found


def stored_digest(dsn: str, name: str) -> tuple[int, str]:
    """Rows of a stored table, and a digest of every value of them in identity order."""
    columns = ", ".join(sql.quoted(column.name) for column in sql.columns(TABLES[name]))
    query = f"SELECT {columns} FROM store.{name} ORDER BY shard, row_sequence"
    digest = hashlib.blake2b(digest_size=16)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
            for block in copy:
                digest.update(block)
        return cursor.rowcount, digest.hexdigest()
