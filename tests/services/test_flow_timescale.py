"""The whole flow into the database: killed and resumed, it ends as an undisturbed one in a lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.chance import chance
from tests.support.lake_model import LakeRows, lake_rows
from tests.support.states import assert_plain_folder
from tests.support.stored import stored_rows

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("kernels")]
_SOURCE = "sim:?events=20000&symbols=12&seed=5"
_ENVIRONMENT = {"MARKETFLOW_EPOCH_MS": "100", "MARKETFLOW_BATCH_ROWS": "400"}
_KILLS = 2


def command(*more: str) -> list[str]:
    start = [sys.executable, "-m", "marketflow", "run", "market_data", "--json"]
    return [*start, "--source", _SOURCE, *more]


def kill_all(child: subprocess.Popen) -> None:
    """The run and its worker processes, which have sessions of their own."""
    family = psutil.Process(child.pid).children(recursive=True)
    for process in (psutil.Process(child.pid), *family):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.communicate()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[LakeRows, dict[str, int]]:
    """Rows of an undisturbed run, and its summary's count of them."""
    lake = tmp_path_factory.mktemp("calm") / "lake"
    done = subprocess.run(
        command("--sink", f"parquet:{lake}"),
        capture_output=True, text=True, env={**os.environ, **_ENVIRONMENT}, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {
        name: {key: row[:-1] for key, row in found.items()}  # without the date it is filed under
        for name, found in lake_rows(lake).items()
    }
    return rows, json.loads(done.stdout)["tables"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_flow_ends_like_an_undisturbed_one(
    calm: tuple[LakeRows, dict[str, int]], database: str, tmp_path: Path, processes: int
) -> None:
    rough = command(
        "--sink", f"timescale:{database}?flush_rows=2000",
        "--recovery", str(tmp_path / "recovery"), "--processes", str(processes),
    )  # fmt: skip
    luck = chance()
    for kill in range(_KILLS + 1):
        child = subprocess.Popen(
            rough, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **_ENVIRONMENT},
        )  # fmt: skip
        if kill < _KILLS:
            with suppress(subprocess.TimeoutExpired):
                child.wait(luck.uniform(1.0, 4.0))
            if child.poll() is None:
                kill_all(child)
                continue
        out, errors = child.communicate(timeout=280)
        assert child.returncode == 0, errors
        break
    assert stored_rows(database) == calm[0]
    assert json.loads(out)["tables"] == calm[1]
    assert_plain_folder(tmp_path / "recovery", "sinks")
