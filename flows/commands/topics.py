"""``marketflow topics``: create the topics that are missing, show those that differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marketflow.flows import catalogue
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.infra import topics
from marketflow.schemas.kafka_address import KafkaAddressError, parse_address
from marketflow.schemas.messages.kafka import FORMATS
from marketflow.sources.errors import SourceError


def run_topics(
    brokers: str, prefix: str, partitions: int, raw: Sequence[str], output: str, security: str
) -> list[dict[str, Any]]:
    """Bring the topics about; one entry per topic: name, state, partitions, holds, differences.

    Raises UsageError, or RunFailed where the cluster refuses.
    """
    if output not in FORMATS:
        raise UsageError(f"--format {output} is none of {', '.join(FORMATS)}")
    params = {"security": security} if security else {}
    try:
        address = parse_address(f"//{brokers}/{prefix}", params, os.environ, _secret_of)
        for venue in raw:
            _check_venue(venue.upper())
    except (KafkaAddressError, SourceError, OSError) as error:
        raise UsageError(str(error)) from None
    wanted = topics.declared(
        catalogue.all_tables(), prefix, partitions, raw, rows_as_messages=output != "arrow"
    )
    try:
        return [asdict(outcome) for outcome in topics.apply(address, wanted)]
    except topics.TopicsError as error:
        raise RunFailed(str(error)) from None


def _check_venue(venue: str) -> None:
    """SourceError unless a flow can read raw frames of the venue."""
    refused: SourceError | None = None
    for flow in catalogue.every():
        try:
            return flow.check_venue(venue)
        except SourceError as error:
            refused = refused or error
    assert refused is not None, "the catalogue has a flow"
    raise refused


def _secret_of(path: str) -> str:
    return Path(path).expanduser().read_text()


def print_topics(outcomes: Sequence[dict[str, Any]], console: Console) -> None:
    """The topics as a table, and below it what differs."""
    colours = {"created": "green", "same": "dim", "differs": "yellow"}
    table = Table(title="topics", title_justify="left")
    for column in ("topic", "state", "partitions", "holds"):
        table.add_column(column, overflow="fold")
    for outcome in outcomes:
        state = outcome["state"]
        shown = f"[{colours[state]}]{state}[/{colours[state]}]"
        table.add_row(outcome["name"], shown, str(outcome["partitions"]), outcome["holds"])
    console.print(table)
    for outcome in outcomes:
        for difference in outcome["differences"]:
            console.print(f"{outcome['name']}: {difference}", style="yellow", markup=False)
