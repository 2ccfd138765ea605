"""How a run in several processes goes (``pytest -n 2 --dist loadfile``): a pytest plugin.

Kernels are compiled once, before the processes start. A file's tests stay together in one process,
which keeps what the file's fixtures made; servers are started once per process that needs them, so
a test that kills or freezes one disturbs no other. Rooms with long files are dealt out first: what
is left for the end is short.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.once import compile_kernels

#: Longest files first; a room that is not listed comes last.
_ROOMS: Final = (
    "tests/contract/test_wheel.py",
    "tests/services/",
    "tests/recovery/",
    "tests/live/",
    "tests/contract/",
    "tests/golden/",
)


def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: one more than cores, for tests with servers wait most of their time."""
    return min(4, len(os.sched_getaffinity(0)) + 1)


def _rank(item: pytest.Item) -> int:
    for rank, room in enumerate(_ROOMS):
        if item.nodeid.startswith(room):
            return rank
    return len(_ROOMS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the rooms, in processes of xdist only: by hand, tests run as they are listed."""
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before xdist starts processes: compile for all of them."""
    options = session.config.option
    if getattr(options, "numprocesses", None) and not options.collectonly:
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.write_line("compiling what kernels are not cached: minutes, once")
        try:
            compile_kernels()
        except AssertionError as error:
            pytest.exit(f"kernels do not compile: {error}", 1)
