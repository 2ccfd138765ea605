"""Rows in place of others: written beside the stores first, then put in at once.

Each part can be killed and is done again: what is left of it is done at the next start with the
same recovery folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

from marketflow.flows.errors import UsageError
from marketflow.flows.runtime import recovery as recovery_folder
from marketflow.flows.runtime.claims import failing
from marketflow.sinks import durable
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.registry import parse_sink

#: What the run that wrote the rows told at its end.
_RAN: Final = "replacing.json"


def check_replaces(sinks: Sequence[str], folder: Path | None) -> None:
    """UsageError where rows cannot be replaced."""
    if folder is None:
        raise UsageError(
            "--replace needs --recovery DIR, an empty or new folder: a replacement that is killed "
            "goes on there"
        )
    for text in sinks:
        if not parse_sink(text).can_replace:
            raise UsageError(
                f"--replace: rows of {text.partition(':')[0]}: cannot be replaced, only those of "
                "parquet: and timescale: can; name another place"
            )


def put_in_place(
    folder: Path,
    stores: Sequence[SinkConfig],
    key: str,
    numbers: Collection[int],
    read: Callable[[], tuple[dict[str, Any], dict[int, int]]],
    put_in: Callable[[SinkConfig, dict[int, int]], dict[str, int]],
) -> dict[str, Any]:
    """The summary of a run whose rows replace others, with ``rows_replaced``, ``rows_written``.

    ``key``: of the rows that are beside the stores.
    ``numbers``: feeds that nobody may write meanwhile.
    ``read``: runs to the end; gives the summary, and by feed how far it was read.
    ``put_in``: puts the rows of one store in.
    Raises UsageError, RunFailed.
    """
    ran = folder / _RAN
    with failing():
        if not ran.is_file():
            for store in stores:
                store.prepare_back_fill(key, numbers)
            summary, reached = read()
            if summary["stopped"]:
                return {**summary, "rows_replaced": 0, "rows_written": 0}
            with recovery_folder.failing(folder):
                durable.replace(ran, json.dumps([summary, reached]).encode())
        summary, reached = json.loads(ran.read_text())
        ends = {int(number): position for number, position in reached.items()}
        reports = [put_in(store, ends) for store in stores]
    totals = {name: sum(report[name] for report in reports) for name in reports[0]}
    return {**summary, **totals}
