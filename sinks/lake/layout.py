"""Layout of a lake: plain hive-partitioned Parquet and one folder of our own.

::

    DIR/<table>/date=YYYY-MM-DD/venue=V/<writer>-<run>-<number>.parquet    sealed by a writer
    DIR/<table>/date=YYYY-MM-DD/venue=V/merged-<number>.parquet            made by compaction
    DIR/_marketflow/lake.json              marks the folder as a lake, with its format and the
                                           versions of the tables when it was made
    DIR/_marketflow/compact.json           compaction: files being replaced (see sinks.lake.compact)
    DIR/_marketflow/feeds.json             what was loaded, by which run (see sinks.lake.feeds)
    DIR/_marketflow/<writer>/...           aside log and progress of a writer (sinks.lake.run)

Tables without a venue have no venue level. ``date`` and ``venue`` are in the path only. A name
that starts with a dot is unfinished and belongs to whoever made it. Whoever lists files through
:func:`list_files` never sees a row twice, compaction running or not.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from marketflow.schemas.moments import date_of, day_of
from marketflow.schemas.names import venue_folder
from marketflow.schemas.tables import TABLES
from marketflow.sinks.durable import Survives, replace
from marketflow.sinks.errors import SinkError, disk_failed

#: 2: shards are numbers of schemas.shards; before they were counted within a run.
FORMAT: Final = 2
OWN_FOLDER: Final = "_marketflow"
_MARKER: Final = "lake.json"
_JOURNAL: Final = "compact.json"
_WRITER_FILE: Final = re.compile(r"([A-Za-z0-9]+)-(\d{6})-(\d{8})\.parquet")
_COLUMNS: Final = frozenset({"date"}.union(*(table.names for table in TABLES.values())))
_LISTING_TRIES: Final = 50
_LISTING_PAUSE_S: Final = 0.02


class Partition(NamedTuple):
    """One folder of a lake. ``day`` counts from 1970-01-01; ``venue`` is None without a level."""

    table: str
    day: int
    venue: str | None

    @property
    def folder(self) -> str:
        """Path below the lake."""
        parts = [self.table, f"date={date_of(self.day)}"]
        if self.venue is not None:
            parts.append(venue_folder(self.venue))
        return "/".join(parts)


class WriterFile(NamedTuple):
    """What the name of a writer's file says."""

    writer: str
    run: int
    number: int


def writer_file_name(writer: str, run: int, number: int) -> str:
    return f"{writer}-{run:06d}-{number:08d}.parquet"


def parse_writer_file(name: str) -> WriterFile | None:
    """The parts of a writer's file name; None for any other file."""
    match = _WRITER_FILE.fullmatch(name)
    return WriterFile(match[1], int(match[2]), int(match[3])) if match else None


def own_folder(root: Path) -> Path:
    return root / OWN_FOLDER


def prepare_lake(root: Path) -> None:
    """Make ``root`` a lake, or check that it is one that we may write.

    Raises SinkError with the remedy when it is something else or of another format, LakeFailed
    when the disk refuses.
    """
    if check_writable(root):
        return
    try:
        own_folder(root).mkdir(parents=True, exist_ok=True)
        raise_format(root)
    except OSError as error:
        raise disk_failed("cannot make the lake", root, error) from error


def check_writable(root: Path) -> bool:
    """Whether ``root`` is a lake already; SinkError with the remedy where it may not become one."""
    _check_path(root)
    if is_lake(root):
        check_lake(root)
        return True
    try:
        strangers = (
            [p.name for p in root.iterdir() if p.name != OWN_FOLDER] if root.exists() else []
        )
    except NotADirectoryError:
        raise SinkError(f"{root} is a file: name a folder for the lake") from None
    except OSError as error:
        raise disk_failed("cannot read", root, error) from error
    if strangers:
        raise SinkError(
            f"{root} is not empty and no marketflow lake (it has no {OWN_FOLDER}/{_MARKER}): "
            "name an empty or new folder"
        )
    return False


def is_lake(root: Path) -> bool:
    """Whether the folder is marked as a lake, of whatever format."""
    return (own_folder(root) / _MARKER).is_file()


def check_lake(root: Path) -> None:
    """Raise SinkError with the remedy unless ``root`` is a lake this release reads."""
    check_known(root)
    if format_of(root) < FORMAT:
        raise SinkError(
            f"{root} is a lake of format {format_of(root)}, this release reads {FORMAT}: bring it "
            f"up once with marketflow migrate --lake {root}"
        )


def check_known(root: Path) -> None:
    """Raise SinkError unless ``root`` is a lake of this release or one before."""
    _check_path(root)
    marker = own_folder(root) / _MARKER
    if not root.exists():
        raise SinkError(f"no lake at {root}: name the folder a run wrote with --sink parquet:DIR")
    found = read_json(marker)
    if found is None:
        raise SinkError(
            f"{root} is no marketflow lake (no readable {OWN_FOLDER}/{_MARKER}): name the folder "
            "a run wrote with --sink parquet:DIR"
        )
    version = found.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise SinkError(
            f"{root} is a lake of format {version}, this release knows up to {FORMAT}: use the "
            "release that wrote it or a newer one"
        )


def format_of(root: Path) -> int:
    """The lake's format."""
    return int((read_json(own_folder(root) / _MARKER) or {})["format"])


def raise_format(root: Path) -> None:
    """Mark the lake as one of this release, whose files all are."""
    versions = {table.name: table.version for table in TABLES.values()}
    marker = {"format": FORMAT, "tables": versions}
    write_json(own_folder(root) / _MARKER, marker, durable=True)


def files_of(root: Path, table: str) -> list[Path]:
    """Every file of a table, whoever it belongs to."""
    partitions = list_partitions(root, table)
    return [path for place in partitions for path in _parquet_files(root / place.folder)]


def oldest_version(root: Path, table: str) -> int:
    """No file of the table is of a version before this one."""
    versions = (read_json(own_folder(root) / _MARKER) or {}).get("tables")
    return int(versions.get(table, 1)) if isinstance(versions, dict) else 1


def _check_path(root: Path) -> None:
    for part in root.parts:
        if part.partition("=")[0] in _COLUMNS and "=" in part:
            raise SinkError(
                f"{root}: readers would take the folder {part} for a column of the tables; name a "
                "lake that does not lie in such a folder"
            )


def list_files(
    root: Path,
    table: str,
    *,
    first: date | None = None,
    last: date | None = None,
    venues: Collection[str] | None = None,
) -> list[Path]:
    """The files that hold a table's rows now, each row in exactly one of them, by path.

    ``first`` and ``last`` bound the date inclusively; ``venues`` keeps only those.
    A compaction that commits while we look is seen by its journal, and we look again.
    """
    for _ in range(_LISTING_TRIES):
        before = read_journal(root)
        folders = _folders(root, table, first, last, venues)
        below = {folder: str(folder.relative_to(root)) for folder in folders}
        found = {f"{below[f]}/{path.name}": path for f in folders for path in _parquet_files(f)}
        walked = set(below.values())
        if read_journal(root) == before and _settle(root, found, walked, before["pending"]):
            return [found[name] for name in sorted(found)]
        time.sleep(_LISTING_PAUSE_S)
    why = OSError("compactions follow each other too fast")
    raise disk_failed("cannot list", root, why, "ask again")


def _settle(
    root: Path, found: dict[str, Path], walked: set[str], pending: list[dict[str, Any]]
) -> bool:
    """Take out of ``found`` what pending replacements have made superfluous; False: look again,
    the listing fell between the appearance of a merged file and the removal of its parts.
    Changes that are one (``at_once``) have all happened as soon as the journal says so."""
    for change in pending:
        replaced = change["replaces"]
        if change.get("at_once"):
            _apply(change, root, found, walked)
        elif change["merged"] is None or change["merged"] in found:
            for name in replaced:
                found.pop(name, None)
        elif replaced[0].rpartition("/")[0] in walked and not found.keys() >= set(replaced):
            return False
    return True


def _apply(change: dict[str, Any], root: Path, found: dict[str, Path], walked: set[str]) -> None:
    for name in change["replaces"]:
        found.pop(name, None)
    merged = change["merged"]
    if merged is not None and merged not in found and merged.rpartition("/")[0] in walked:
        found[merged] = root / change["temporary"]


def _folders(
    root: Path,
    table: str,
    first: date | None,
    last: date | None,
    venues: Collection[str] | None,
) -> list[Path]:
    chosen = []
    for day, folder in _children(root / table, "date="):
        try:
            when = date.fromisoformat(day)
        except ValueError:
            continue
        if (first is not None and when < first) or (last is not None and when > last):
            continue
        if TABLES[table].has_venue:
            inner = _children(folder, "venue=")
            chosen += [path for venue, path in inner if venues is None or venue in venues]
        else:
            chosen.append(folder)
    return chosen


def _children(folder: Path, prefix: str) -> list[tuple[str, Path]]:
    """(value, path) of the hive folders below ``folder``, in order of their values."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []
    return [(unquote(n[len(prefix) :]), folder / n) for n in names if n.startswith(prefix)]


def _parquet_files(folder: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []
    return [folder / n for n in names if n.endswith(".parquet") and not n.startswith(".")]


def list_partitions(root: Path, table: str) -> list[Partition]:
    """Every partition folder of a table, by date and venue."""
    found = []
    for day, folder in _children(root / table, "date="):
        try:
            number = day_of(date.fromisoformat(day))
        except ValueError:
            continue
        if TABLES[table].has_venue:
            found += [Partition(table, number, v) for v, _ in _children(folder, "venue=")]
        else:
            found.append(Partition(table, number, None))
    return found


def files_of_run(root: Path, writer: str, run: int) -> list[tuple[int, Partition, Path]]:
    """(number, partition, path) of every file that a run of a writer sealed, by number."""
    found = []
    for table in TABLES:
        for partition in list_partitions(root, table):
            for path in _parquet_files(root / partition.folder):
                name = parse_writer_file(path.name)
                if name is not None and name.writer == writer and name.run == run:
                    found.append((name.number, partition, path))
    return sorted(found)


def read_journal(root: Path) -> dict[str, Any]:
    """Compaction's journal: ``sequence`` rises with every change, ``pending`` lists replacements
    {"merged": path or None, "temporary": path or None, "replaces": [paths]} below the lake. A
    back-fill's (sinks.lake.backfill) are ``at_once``: for readers all of them happen together."""
    return read_json(own_folder(root) / _JOURNAL) or {"sequence": 0, "pending": []}


def write_journal(
    root: Path, sequence: int, pending: list[dict[str, Any]], feeds: dict[str, Any] | None = None
) -> None:
    """Replace the journal durably. ``feeds``: what changes of them with it (sinks.lake.feeds)."""
    journal = {"sequence": sequence, "pending": pending}
    if feeds is not None:
        journal["feeds"] = feeds
    write_json(own_folder(root) / _JOURNAL, journal, durable=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None when it is absent or no JSON object (a write cut by a power
    failure: every user of a file treats that as the cautious answer)."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any], *, durable: bool) -> None:
    """Replace a file as a whole; ``durable``: it survives a power failure once we return."""
    replace(path, json.dumps(value).encode(), Survives.POWER if durable else Survives.PROCESS)
