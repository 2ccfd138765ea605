"""Bringing a lake of the release before up to this one: every row's ``shard`` is numbered anew.

Format 1 had shards by their index within a run, as int16. They become numbers of feeds that no
other feed has (:func:`schemas.shards.renumbered`). A file is replaced whole or not at all, and the
lake's format is raised last, so a migration that was cut off is simply run again; until it is
through no reader takes the lake for either format.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.shards import renumbered
from marketflow.schemas.tables import TABLES
from marketflow.sinks.columns import Names, shape, to_bare
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.compact import FILE, alone
from marketflow.sinks.lake.file import read_file, sorted_rows, sync_folders, write_file
from marketflow.sinks.lake.layout import (
    check_known,
    files_of,
    format_of,
    own_folder,
    raise_format,
)
from marketflow.sinks.lake.run import WriterFolder


def migrate_lake(root: Path) -> dict[str, int]:
    """Bring the lake up to this release; again: changes nothing. Returns ``files`` and ``rows``
    that were rewritten.

    Nobody may write meanwhile, and no run may have rows that no file holds yet: those are only read
    by the release that wrote them. Raises SinkError with the remedy, LakeFailed.
    """
    check_known(root)
    if format_of(root) > 1:
        return {"files": 0, "rows": 0}
    done = {"files": 0, "rows": 0}
    with alone(root, check_known), ExitStack() as held:
        for writer in sorted(p.parent for p in own_folder(root).glob("*/lock")):
            if not held.enter_context(WriterFolder.unused(writer)):
                raise SinkError(f"{root} is being written (as {writer.name}): stop that run first")
            _check_settled(root, writer)
        for table in TABLES:
            folders = set()
            for path in files_of(root, table):
                rows = _renumber(path, table)
                if rows:
                    folders.add(path.parent)
                    done["files"] += 1
                    done["rows"] += rows
            sync_folders(folders, root)
        raise_format(root)
    return done


def _check_settled(root: Path, writer: Path) -> None:
    """SinkError if a run has rows in its aside log."""
    for log in sorted(writer.glob("run-*/log-*.rows")):
        if log.stat().st_size:
            raise SinkError(
                f"{root}: a run that was cut off (as {writer.name}) has rows that are in no file "
                "yet: resume it to its end with the release that began it, then migrate; or remove "
                f"{log} to give those rows up"
            )


def _renumber(path: Path, table: str) -> int:
    """Rewrite a file whose shards are int16; how many rows it has (0: it was not)."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        failure = error if isinstance(error, OSError) else OSError(str(error))
        raise disk_failed("cannot read", path, failure) from error
    if schema.field("shard").type != pa.int16():
        return 0
    found = read_file(path, table)
    shards = renumbered(found.column("shard").to_numpy().astype(np.int64))
    place = found.column_names.index("shard")
    found = found.set_column(place, "shard", pa.array(shards))
    form, names = shape(table), Names()
    write_file(path, form, sorted_rows(form, [to_bare(form, found, names)], names), FILE)
    return int(found.num_rows)
