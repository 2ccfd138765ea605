"""Disks that are full or read-only: the cause and the remedy, and after the repair all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marketflow.schemas.recovery import START_AGAIN
from tests.support.disks import remount, small_disk
from tests.support.lakes import assert_same_lakes

_SIM = "sim:?events=30000&symbols=20&seed=3"
_ENVIRONMENT = {"MARKETFLOW_BATCH_ROWS": "300", "MARKETFLOW_EPOCH_MS": "20"}


def _marketflow(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketflow", *map(str, arguments)],
        capture_output=True, text=True, timeout=550,
        env={**os.environ, **_ENVIRONMENT, "COLUMNS": "1000"},
    )  # fmt: skip


def _run(lake: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return _marketflow("run", "market_data", "--source", _SIM, "--sink", f"parquet:{lake}", *more)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of an undisturbed run."""
    lake = tmp_path_factory.mktemp("calm") / "lake"
    done = _run(lake)
    assert done.returncode == 0, done.stderr
    return lake


@pytest.mark.parametrize("size", ["16k", "700k"])
def test_a_full_recovery_disk(size: str, calm: Path, tmp_path: Path) -> None:
    """When the folder is made, and in the middle of the run."""
    with small_disk(tmp_path / "disk", size) as disk:
        run = (tmp_path / "lake", "--recovery", disk / "state")
        failed = _run(*run)
        assert failed.returncode == 1
        assert f"the recovery folder {disk / 'state'} cannot be written: " in failed.stderr
        assert f"mend that (free space, permissions, mount) and {START_AGAIN}" in failed.stderr
        for noise in ("Traceback", "panicked", "Sqlite", "unwrap"):
            assert noise not in failed.stderr
        remount(disk, "size=64m")
        done = _run(*run)
        assert done.returncode == 0, done.stderr
        assert_same_lakes(calm, tmp_path / "lake")
        remount(disk, "ro")
        refused = _run(*run)
        assert refused.returncode == 1
        assert f"the recovery folder {disk / 'state'} cannot be written: " in refused.stderr
        assert START_AGAIN in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("compact",),
        ("compact", "--before", "2030-01-01", "--yes"),
        ("retention", "--keep", "trades=1", "--as-of", "2030-01-01", "--yes"),
    ],
    ids=["compact", "drop", "retention"],
)
def test_a_read_only_lake(command: tuple[str, ...], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64m") as disk:
        lake = disk / "lake"
        assert _run(lake).returncode == 0
        remount(disk, "ro")
        line = (command[0], "--lake", lake, *command[1:])
        failed = _marketflow(*line)
        assert failed.returncode == 1
        assert f"cannot change {lake}/" in failed.stderr
        assert "Read-only file system; mend that (free space, permissions, mount)" in failed.stderr
        assert "and run it again: the lake is whole" in failed.stderr
        assert "Errno" not in failed.stderr
        assert "--recovery" not in failed.stderr
        remount(disk, "rw")
        done = _marketflow(*line)
        assert done.returncode == 0, done.stderr
