"""States are plain data: nothing in a pickled one names a class or a module of ours."""

from __future__ import annotations

import io
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from marketflow.flows.runtime import aside


class _Plain(pickle.Unpickler):
    """Finds builtins and what numpy makes its arrays of; an AssertionError for all else."""

    def find_class(self, module: str, name: str) -> Any:
        assert module.partition(".")[0] in ("builtins", "numpy"), f"a state holds a {module}.{name}"
        return super().find_class(module, name)


def plain(state: Any) -> Any:
    """The state as a recovery store gives it back. AssertionError unless it is plain data."""
    return _Plain(io.BytesIO(pickle.dumps(state, pickle.HIGHEST_PROTOCOL))).load()


def assert_plain_folder(recovery: Path, *steps: str) -> None:
    """Every state of a recovery folder is plain, and there are some of each of these steps."""
    found = set()
    for store in recovery.glob("*process-*"):
        with closing(sqlite3.connect(store / "part-0.sqlite3")) as database:
            kept = database.execute("SELECT step_id, ser_change FROM snaps").fetchall()
        for step, state in kept:
            if state is not None:
                _Plain(io.BytesIO(state)).load()
                found.add(step.rpartition(".")[2])
        for path in (store / aside.FOLDER).glob("*.state"):
            for part in aside.parts(path.read_bytes()):
                plain(part)
    assert found >= set(steps), found
