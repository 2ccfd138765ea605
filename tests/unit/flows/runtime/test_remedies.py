"""What an error message advises is done here, word for word, and the rows are there once."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from marketflow.flows.catalogue import DEFAULT_FLOW, every, find
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import checkpoints, recovery
from marketflow.flows.settings import FREE, load, settings_of
from marketflow.operators.bars import core as bars
from marketflow.schemas.recovery import START_AGAIN, START_ANEW
from marketflow.sinks.lake.run import WriterFolder
from tests.support.halfway import Halfway, stopped_halfway, write_feed
from tests.support.root import ROOT

Do = Callable[[Halfway], None]


@dataclass(frozen=True)
class Case:
    """``spoil`` makes the next start fail with ``says``; each of ``remedies`` is one of those that
    the message names, besides starting anew where it names that."""

    name: str
    spoil: Do
    says: str
    remedies: tuple[Do, ...]
    anew: bool = True
    settings: dict[str, object] = field(default_factory=dict)


def _set(**settings: object) -> Do:
    return lambda run: run.settings.update(settings)


def _as_it_says(run: Halfway) -> None:
    """Resume with what the message of the other settings names."""
    with pytest.raises(UsageError) as caught:
        run.start()
    match = re.search(r"resume with (.+) \(by flag, (.+) or marketflow.toml\)", str(caught.value))
    assert match is not None
    for item, variable in zip(match[1].split(", "), match[2].split(", "), strict=True):
        name, _, value = item.partition(" = ")
        assert variable == f"MARKETFLOW_{name.upper()}"
        run.settings[name] = value


def _assign(run: Halfway, **fields: object) -> None:
    for name, value in fields.items():
        setattr(run, name, value)


def _move(name: str, to: str) -> Do:
    return lambda run: (run.folder / name).rename(run.folder / to) and None


def _replace_feed(seed: int, keep: slice | None = None) -> Do:
    def do(run: Halfway) -> None:
        old = run.feed.read_bytes()
        run.feed.rename(run.folder / "old.itch")
        write_feed(run.feed, seed)
        if keep is not None:
            run.feed.write_bytes(old[keep])

    return do


def _change_byte(at: int) -> Do:
    def do(run: Halfway) -> None:
        _copy_feed(run)
        data = bytearray(run.feed.read_bytes())
        data[at] ^= 1
        run.feed.write_bytes(data)

    return do


def _copy_feed(run: Halfway) -> None:
    shutil.copy(run.feed, run.folder / "old.itch")


def _old_feed_back(run: Halfway) -> None:
    (run.folder / "old.itch").replace(run.feed)


def _note(run: Halfway, **values: object) -> None:
    path = run.recovery / "run.json"
    shutil.copy(path, run.folder / "run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _other_feed(run: Halfway) -> None:
    write_feed(run.folder / "other.itch", 4)
    run.source = f"itch:{run.folder / 'other.itch'}?date=2026-03-02"


def _same_source(run: Halfway) -> None:
    run.source = f"itch:{run.feed}?date=2026-03-02"


def _put_lake_back(run: Halfway) -> None:
    shutil.rmtree(run.lake, ignore_errors=True)
    _move("lake-elsewhere", "lake")(run)


def _older(name: str) -> Do:
    """The run ends; then one of lake and recovery folder is put back to an older copy."""

    def do(run: Halfway) -> None:
        shutil.copytree(run.folder / name, run.folder / "older")
        run.start()
        _move(name, "newer")(run)
        _move("older", name)(run)

    return do


def _newer_back(name: str) -> Do:
    def do(run: Halfway) -> None:
        shutil.rmtree(run.folder / name)
        _move("newer", name)(run)

    return do


CASES = [
    *(
        Case(
            name,
            _set(**{name: value}),
            f"belongs to a run with {name} = .*, this one has {name} = ",
            (_as_it_says,),
        )
        for name, value in (
            ("depth_interval_ms", 50),
            ("late_ms", 5),
            ("clock_skew_ms", 5),
            ("shards", 3),
            ("intervals", "1s"),
            ("tables", "trades,quotes,bars"),
        )
    ),
    Case("two settings", _set(late_ms=5, shards=3), "shards = 16, late_ms = 1000", (_as_it_says,)),
    Case("sources", _other_feed, "resume with the same sources", (_same_source,)),
    Case(
        "sinks",
        lambda run: _assign(run, sinks=[f"parquet:{run.folder / 'other'}"]),
        "resume with the same sinks",
        (lambda run: _assign(run, sinks=[f"parquet:{run.lake}"]),),
    ),
    Case(
        "processes",
        lambda run: _assign(run, processes=2),
        "resume with --processes 1",
        (lambda run: _assign(run, processes=1),),
    ),
    Case("another feed", _replace_feed(4), "is another; put the old one back", (_old_feed_back,)),
    Case("cut feed", _replace_feed(3, slice(0, -500)), "its size is another", (_old_feed_back,)),
    Case("its beginning", _change_byte(40), "its beginning is another", (_old_feed_back,)),
    Case("its end", _change_byte(-1), "its end is another", (_old_feed_back,)),
    Case("lake moved", _move("lake", "lake-elsewhere"), "put it back", (_put_lake_back,)),
    Case("older lake", _older("lake"), "put back the one that fits", (_newer_back("lake"),)),
    Case(
        "older state",
        _older("state"),
        "use the recovery folder of that run",
        (_newer_back("state"),),
    ),
    Case("newer format", lambda run: _note(run, format=99), "written in recovery format 99", ()),
    # States of format 2 held classes by the module they were in, and it has been moved since.
    Case("older format", lambda run: _note(run, format=2), "written in recovery format 2, ", ()),
    Case("note", lambda run: _note(run, settings="?"), "run.json cannot be read", ()),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_remedy_works(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stopped_halfway(tmp_path, monkeypatch)
    case.spoil(run)
    with pytest.raises(UsageError, match=case.says) as caught:
        run.start()
    assert (START_ANEW in str(caught.value)) == case.anew
    if case.anew:
        run.is_right(run.anew())
    for remedy in case.remedies:
        remedy(run)
        run.start()
        run.is_right()


def test_a_file_of_lines_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tmp_path / "rows.jsonl"
    run = stopped_halfway(tmp_path, monkeypatch, more_sinks=[f"jsonl:{lines}"])
    lines.rename(tmp_path / "elsewhere.jsonl")
    with pytest.raises(UsageError, match=r"is not the file.*put it back, or start anew"):
        run.start()
    (tmp_path / "elsewhere.jsonl").rename(lines)
    summary = run.start()
    run.is_right()
    rows = lines.read_text().splitlines()
    assert len(rows) == len(set(rows)) == sum(summary["tables"].values())


def test_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    damaged = tmp_path / "0000000000001-p0.checkpoint"
    damaged.write_bytes(b"?")
    with pytest.raises(UsageError, match=r"cannot be read \(.*\): remove it"):
        checkpoints.find(tmp_path)
    damaged.unlink()
    assert checkpoints.find(tmp_path) == []


def test_a_feed_that_grew_at_its_end_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped_halfway(tmp_path, monkeypatch)
    whole = run.feed.read_bytes()
    last = whole[: 2 + int.from_bytes(whole[:2], "big")]
    with run.feed.open("ab") as file:
        file.write(last)
    run.start()
    run.is_right()
    # And what it was at the last start is what it must be at the next.
    run.feed.write_bytes(whole)
    with pytest.raises(UsageError, match="its size is another"):
        run.start()


@pytest.mark.parametrize("change", ["symlink", "relative", "options", "dots"])
def test_the_same_lake_by_another_path_is_the_same_sink(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped_halfway(tmp_path, monkeypatch)
    if change == "symlink":
        (tmp_path / "link").symlink_to(run.lake)
        run.sinks = [f"parquet:{tmp_path / 'link'}"]
    elif change == "relative":
        monkeypatch.chdir(tmp_path)
        run.sinks = ["parquet:lake"]
    elif change == "options":
        run.sinks = [f"parquet:{run.lake}?seal_rows=1000"]
    else:
        run.sinks = [f"parquet:{tmp_path}/state/../lake"]
    run.start()
    run.is_right()
    run.sinks.append(f"parquet:{run.lake}")
    with pytest.raises(UsageError, match="is named twice: leave one of them out"):
        run.start()


@contextmanager
def _other_release(run: Halfway) -> Iterator[None]:
    before, bars.SNAPSHOT_VERSION = bars.SNAPSHOT_VERSION, 99
    yield
    bars.SNAPSHOT_VERSION = before


@contextmanager
def _being_written(run: Halfway) -> Iterator[None]:
    folder = WriterFolder.acquire(run.lake, recovery.writer_id(run.recovery, 0))
    yield
    folder.release()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (_other_release, "finish the run with the release that wrote it, or start anew"),
        (_being_written, "wait for it or stop it"),
    ],
)
def test_what_passes(
    state: Callable[[Halfway], AbstractContextManager[None]],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = stopped_halfway(tmp_path, monkeypatch)
    with state(run), pytest.raises(UsageError, match=says):
        run.start()
    run.start()
    run.is_right()


def test_a_mended_first_start_may_have_its_folder(tmp_path: Path) -> None:
    """What was refused has begun nothing."""
    write_feed(tmp_path / "feed.itch")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").touch()
    run = Halfway(
        tmp_path,
        f"itch:{tmp_path / 'feed.itch'}?date=2026-03-02",
        [f"parquet:{tmp_path / 'mine'}"],
        tmp_path / "mine",
    )
    with pytest.raises(UsageError, match=r"no marketflow lake.*name an empty or new folder"):
        run.start()
    run.sinks = [f"parquet:{run.lake}"]
    with pytest.raises(UsageError, match="to begin a run name an empty or new one"):
        run.start()
    run.recovery = tmp_path / "state"
    run.start()
    run.is_right()
    assert run.recovery.stat().st_mode & 0o777 == 0o700


def test_every_setting_decides_rows_or_is_free() -> None:
    """A new setting is compared on resume unless it is said to be free of that."""
    decides = {"shards", "tables", "intervals", "late_ms", "depth_interval_ms", "clock_skew_ms"}
    for flow in every():
        fields = settings_of(flow).model_fields.keys()
        assert load(flow).deciding_rows().keys() == fields - FREE
    assert settings_of(find(DEFAULT_FLOW)).model_fields.keys() >= FREE | decides


def test_the_words_are_in_one_place() -> None:
    """Nobody else advises another recovery folder, or to start again."""
    advice = re.compile(r"(empty|fresh|new|another) --recovery|start the same command again")
    allowed = {
        # Rows that a back-fill has put in are replaced by the next one.
        "flows/replay/run.py": 1,
        # A recording adds to what is there.
        "sinks/errors.py": 1,
        # Says itself when.
        "sinks/kafka/producer.py": 1,
    }
    found: dict[str, int] = {}
    for package in ("schemas", "operators", "sources", "sinks", "flows", "infra"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
                if is_text and advice.search(node.value) and name != "schemas/recovery.py":
                    found[name] = found.get(name, 0) + 1
    assert found == allowed
    assert START_AGAIN.startswith("start the same command again")
