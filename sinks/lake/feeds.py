"""The feeds of a lake: who claimed which, and what the files hold of them.

``DIR/_marketflow/feeds.json`` names runs and the feeds that they claimed (sinks.lineage). It
changes under a lock of its own, as a whole. How many rows there are, and their times, is in the
footers of the files: a row counts from the rename on that shows it.

A run lives while a process holds its lock, ``alive-<run>``, or the lock of one of its writers. A
replacement is part of the journal that swaps the rows (sinks.lake.backfill): until it is carried
out, whoever reads this file adds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.tables import TABLES
from marketflow.sinks import tally as tallies
from marketflow.sinks.durable import lock
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.file import TALLY
from marketflow.sinks.lake.layout import (
    is_lake,
    list_files,
    own_folder,
    prepare_lake,
    read_journal,
    read_json,
    write_json,
)
from marketflow.sinks.lineage import (
    COMPLETE,
    CUT_OFF,
    RUNNING,
    Claim,
    Entry,
    ended,
    entry_of,
    in_the_way,
    plain_claim,
    plain_run,
    refused,
    superseded,
    writers_of,
)
from marketflow.sinks.tally import Tally

_FEEDS: Final = "feeds.json"
_LOCK: Final = "feeds.lock"
_PAUSE_S: Final = 0.01


class LakeLineage:
    """Feeds of one lake, for one run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: IO[Any] | None = None

    def entries(self) -> list[Entry]:
        """See :class:`sinks.lineage.Lineage`."""
        return entries(read_feeds(self._root)) if is_lake(self._root) else []

    def claim(self, claim: Claim, *, replaces: bool = False) -> None:
        """See :class:`sinks.lineage.Lineage`."""
        prepare_lake(self._root)
        with _locked(self._root):
            known = read_feeds(self._root)
            check_goes_on(known, claim.run, self._root)
            void = _void(self._root, known, claim, replaces=replaces)
            if not replaces:
                self._hold(claim.run)
                known = applied(known, added(claim) | {"superseded": void, "void": void})
                known["runs"][claim.run] |= {"complete": False, "ended": None}
                _refresh(known, claim)
                _write(self._root, known)

    def _hold(self, run: str) -> None:
        """Hold the run's lock. SinkError where another process of the same recovery folder does."""
        if self._held is not None:
            return
        for path in own_folder(self._root).glob("alive-*"):  # of runs that were killed
            if not _is_held(path):
                path.unlink(missing_ok=True)
        held = _alive(self._root, run).open("a+")
        while not lock(held, fcntl.LOCK_EX):
            if not lock(held, fcntl.LOCK_SH):
                held.seek(0)
                owner = held.read().strip() or "?"
                held.close()
                raise SinkError(
                    f"{self._root} is being written by process {owner}, a start of this very run: "
                    "wait for it or stop it"
                )
            fcntl.flock(held, fcntl.LOCK_UN)  # only somebody who looks, and not for long
            time.sleep(_PAUSE_S)
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        self._held = held

    def complete(self, run: str, reached: Mapping[int, int]) -> None:
        """See :class:`sinks.lineage.Lineage`."""
        with _locked(self._root):
            known = read_feeds(self._root)
            _note_complete(known, run, reached)
            _write(self._root, known)

    def release(self) -> None:
        """See :class:`sinks.lineage.Lineage`."""
        if self._held is not None:
            Path(self._held.name).unlink(missing_ok=True)
            self._held.close()
            self._held = None


def _alive(root: Path, run: str) -> Path:
    return own_folder(root) / f"alive-{run}"


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        with (own_folder(root) / _LOCK).open("a") as file:
            while not lock(file, fcntl.LOCK_EX):  # held for milliseconds
                time.sleep(_PAUSE_S)
            yield
    except OSError as error:
        raise disk_failed("cannot change", own_folder(root) / _FEEDS, error) from error


@contextmanager
def changing(root: Path) -> Iterator[dict[str, Any]]:
    """What is known of the feeds, while nobody else claims any."""
    with _locked(root):
        yield read_feeds(root)


def read_feeds(root: Path) -> dict[str, Any]:
    """Runs and claims, with a replacement that is not carried out yet."""
    delta = read_journal(root).get("feeds")
    return _read(root) if delta is None else applied(_read(root), delta)


def superseded_runs(root: Path) -> set[str]:
    """Runs that write no more and are never undone."""
    return {run for run, about in read_feeds(root)["runs"].items() if about["superseded"]}


def owners(root: Path, known: dict[str, Any], claim: Claim) -> tuple[set[str], set[int]]:
    """Other runs that claimed what a replacement is for, and the feeds that go. SinkError if one
    of the runs lives, or if ours was superseded."""
    check_goes_on(known, claim.run, root)
    numbers = claim.numbers | {
        entry.number for entry in in_the_way(entries(known), claim, replaces=True)
    }
    there = [e for e in entries(known) if e.number in numbers and e.run != claim.run]
    for entry in there:
        if (state := state_of(root, known, entry.run)) == RUNNING:
            raise refused(str(root), entry, state)
    return {entry.run for entry in there}, set(numbers)


def writer_folders(root: Path, run: str) -> list[Path]:
    """Where the writers of a run have their logs."""
    return sorted(p for p in own_folder(root).glob(f"{writers_of(run)}[lp]*") if p.is_dir())


def carry_out_feeds(root: Path, delta: dict[str, Any]) -> None:
    """Write down what a replacement changed; again: no change."""
    with _locked(root):
        _write(root, applied(_read(root), delta))


def _read(root: Path) -> dict[str, Any]:
    """Runs and claims as they are written down; none where no run has claimed any."""
    path = own_folder(root) / _FEEDS
    known = read_json(path)
    if known is None and path.exists():
        raise SinkError(
            f"{path} cannot be read, and with it what was loaded: put it back from a backup, or "
            "remove it, after which what the lake holds can be loaded once more"
        )
    return known or {"runs": {}, "feeds": []}


def _write(root: Path, known: dict[str, Any]) -> None:
    write_json(own_folder(root) / _FEEDS, known, durable=True)


def added(claim: Claim, reached: Mapping[int, int] | None = None) -> dict[str, Any]:
    """What a claim adds, as plain values; ``reached``: of one that is complete."""
    whole: dict[str, Any] = {
        "runs": {claim.run: plain_run(claim)},
        "feeds": [plain_claim(claim.run, feed) for feed in claim.feeds],
    }
    if reached is not None:
        _note_complete(whole, claim.run, reached)
    return {"run": whole["runs"], "add": whole["feeds"]}


def applied(known: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """What is known with a change; to be applied again without harm.

    ``run``, ``add``: of a claim, where it is new. ``superseded``: runs that end. ``void``: runs
    whose claims go. ``numbers``: feeds of which the claims of every other run go.
    """
    runs = {run: dict(about) for run, about in known["runs"].items()}
    for run, about in delta["run"].items():
        runs.setdefault(run, about)
    for run in delta.get("superseded", []):
        runs[run]["superseded"] = True
    ours = set(delta["run"])
    gone, void = set(delta.get("numbers", [])), set(delta.get("void", []))
    feeds = [
        entry
        for entry in known["feeds"]
        if entry["run"] not in void and (entry["number"] not in gone or entry["run"] in ours)
    ]
    there = {(entry["number"], entry["run"]) for entry in feeds}
    feeds += [entry for entry in delta["add"] if (entry["number"], entry["run"]) not in there]
    return {"runs": runs, "feeds": feeds}


def _refresh(known: dict[str, Any], claim: Claim) -> None:
    """The run goes on: its sources may have more files by now, and where it ends is open."""
    of_run = {feed.number: feed for feed in claim.feeds}
    for entry in known["feeds"]:
        if entry["run"] == claim.run and entry["number"] in of_run:
            entry["parts"] = [dict(part) for part in of_run[entry["number"]].parts]


def _note_complete(known: dict[str, Any], run: str, reached: Mapping[int, int]) -> None:
    known["runs"][run] |= {"complete": True, "ended": time.time_ns()}
    known["feeds"] = [
        ended(entry, reached[entry["number"]])
        if entry["run"] == run and entry["number"] in reached
        else entry
        for entry in known["feeds"]
    ]


def check_goes_on(known: dict[str, Any], run: str, root: Path) -> None:
    """SinkError if the run was superseded."""
    if known["runs"].get(run, {}).get("superseded"):
        raise superseded(str(root))


def _void(root: Path, known: dict[str, Any], claim: Claim, *, replaces: bool) -> list[str]:
    """Runs whose void claims are taken over. SinkError where a feed is another run's; with
    ``replaces`` only where that run lives."""
    found = in_the_way(entries(known), claim, replaces=replaces)
    held = feed_tally(root) if found else {}
    void = set()
    for entry in found:
        state = state_of(root, known, entry.run)
        if state == RUNNING:
            raise refused(str(root), entry, state)
        if replaces:
            continue
        if state == COMPLETE or _has_rows(root, known, entry.run, held):
            raise refused(str(root), entry, state)
        void.add(entry.run)
    return sorted(void)


def entries(known: dict[str, Any]) -> list[Entry]:
    """The claims."""
    return [entry_of(kept, known["runs"][kept["run"]]) for kept in known["feeds"]]


def state_of(root: Path, known: dict[str, Any], run: str) -> str:
    """Running, complete or cut off."""
    if known["runs"][run]["complete"]:
        return COMPLETE
    return RUNNING if _lives(root, run) else CUT_OFF


def _lives(root: Path, run: str) -> bool:
    locks = [folder / "lock" for folder in writer_folders(root, run)]
    return any(_is_held(path) for path in [_alive(root, run), *locks])


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return not lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _has_rows(root: Path, known: dict[str, Any], run: str, held: Tally) -> bool:
    """Whether the run has left rows, in files or to be resumed."""
    if any(e["run"] == run and e["number"] in held for e in known["feeds"]):
        return True
    logs = [log for folder in writer_folders(root, run) for log in folder.glob("run-*/log-*")]
    return any(log.stat().st_size for log in logs)


def feed_tally(root: Path) -> Tally:
    """What the lake's files hold of each feed."""
    return tallies.merged(
        tally_of_file(path, table) for table in TABLES for path in list_files(root, table)
    )


def tally_of_file(path: Path, table: str) -> Tally:
    """What one file holds of each feed, by its footer; of a file of an earlier release, counted."""
    try:
        with pq.ParquetFile(path) as file:
            kept = (file.metadata.metadata or {}).get(TALLY.encode())
            if kept is not None:
                return tallies.from_json(json.loads(kept))
            time_field = TABLES[table].time_field
            rows = file.read(columns=["shard", time_field])
    except (OSError, pa.ArrowException) as error:
        failure = error if isinstance(error, OSError) else OSError(str(error))
        raise disk_failed("cannot read", path, failure) from error
    times = rows[time_field].cast(pa.int64())
    return tallies.of_rows(
        TABLES[table],
        rows["shard"].to_numpy(),
        times.fill_null(0).to_numpy(),
        times.is_valid().to_numpy(),
    )


def list_feeds(root: Path) -> list[dict[str, Any]]:
    """Every claim with what the lake holds of the feed, as sinks.lineage says."""
    if not is_lake(root):
        return []
    known = read_feeds(root)
    held = feed_tally(root)
    states = {run: state_of(root, known, run) for run in known["runs"]}
    found = []
    for entry in known["feeds"]:
        run = known["runs"][entry["run"]]
        of_feed = held.get(entry["number"], tallies.Held())
        found.append(
            {
                **entry,
                **{name: run[name] for name in ("flow", "release", "settings", "started", "ended")},
                "state": states[entry["run"]],
                "rows": dict(sorted(of_feed.rows.items())),
                "first": of_feed.first,
                "last": of_feed.last,
            }
        )
    return found
