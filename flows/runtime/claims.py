"""Claims of a run: made in its stores before the first row, kept in its recovery folder.

A start claims its feeds in every store that knows its feeds (sinks.lineage), and holds them until
it ends. A claim is pinned with the feed's number: a run that goes on claims what it claimed first,
with the files that its sources have by now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

from marketflow.flows.catalogue import FlowSpec
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.settings import Settings
from marketflow.sinks.config import SinkConfig
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lineage import Claim, Entry, FeedClaim, Lineage, check_apart
from marketflow.sources.config import SourceConfig
from marketflow.sources.errors import SourceError
from marketflow.sources.identity import Beginning, identity, parts, prefix


def feed_claim(
    flow: FlowSpec, config: SourceConfig, shards: int, beginning: Beginning | None = None
) -> FeedClaim:
    """The claim of a feed that begins now. SourceError where it cannot be told."""
    known = identity(config, shards, beginning)
    source = config.text
    if config.partition is not None:
        source = f"{source} [{config.partition}]"
    return FeedClaim(
        known.number,
        known.digest,
        known.text,
        source,
        flow.venue_of(config),
        tuple(parts(config, shards, beginning)),
        0 if beginning is None else beginning.offset,
        prefix,
    )


def refreshed(claim: FeedClaim, config: SourceConfig, shards: int) -> FeedClaim:
    """A pinned claim of a feed of files, with those that the source has by now."""
    return replace(claim, parts=tuple(parts(config, shards)), prefix=prefix)


def to_plain(claims: Sequence[FeedClaim]) -> list[dict[str, Any]]:
    """Claims as JSON can say them."""
    return [{k: v for k, v in asdict(claim).items() if k != "prefix"} for claim in claims]


def from_plain(values: Sequence[Mapping[str, Any]]) -> list[FeedClaim]:
    """Inverse of :func:`to_plain`."""
    return [
        FeedClaim(**{**value, "parts": tuple(value["parts"])}, prefix=prefix) for value in values
    ]


def claim_of(run: str, flow: FlowSpec, settings: Settings, feeds: Sequence[FeedClaim]) -> Claim:
    """The claim of a run."""
    return Claim(run, flow.name, version("marketflow"), settings.deciding_rows(), tuple(feeds))


@dataclass(slots=True)
class Claims:
    """The claim of a run that lives, in every store that knows its feeds."""

    claim: Claim
    stores: list[Lineage]

    def complete(self, reached: Mapping[int, int]) -> None:
        """The run has read its feeds to their end: by number, how far."""
        with failing():
            for store in self.stores:
                store.complete(self.claim.run, reached)


@contextmanager
def claimed(
    claim: Claim,
    sinks: Sequence[SinkConfig],
    *,
    replaces: bool = False,
    stop: threading.Event | None = None,
) -> Iterator[Claims]:
    """Claim the feeds of a run in its stores and hold them. UsageError with the remedies where a
    feed is another run's, RunFailed where a store cannot be asked, or was not until ``stop``."""
    held: list[Lineage] = []
    try:
        with failing():
            check_apart(claim.feeds)
            for sink in sinks:
                store = sink.lineage(stop)
                if store is not None:
                    held.append(store)
                    store.claim(claim, replaces=replaces)
        yield Claims(claim, held)
    finally:
        for store in held:
            store.release()


def known_entries(sink: SinkConfig) -> list[Entry]:
    """What was claimed in a store so far; nothing where it does not know its feeds."""
    store = sink.lineage()
    if store is None:
        return []
    try:
        return store.entries()
    finally:
        store.release()


@contextmanager
def failing() -> Iterator[None]:
    """What stores raise, as a person can use it."""
    try:
        yield
    except (SinkError, SourceError) as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise RunFailed(str(error)) from error
