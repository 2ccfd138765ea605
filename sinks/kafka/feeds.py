"""The feeds of the topics below a prefix: ``PREFIX.feeds`` (schemas.messages.feeds).

Whoever changes claims does so with the transactional id ``marketflow.PREFIX.feeds``: it reads the
topic to its end, decides, writes and commits. Another one that comes meanwhile shuts it out, and it
starts over. So does a writer that begins: whoever takes a claim over knows every writer of it.

Whether a run lives cannot be known. A claim without counted rows is void: who takes it over shuts
the writers of that run out, alive or not. One with rows is refused. A deployment without the topic
works as before and knows no feeds.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from marketflow.schemas.kafka_address import KafkaAddress
from marketflow.schemas.messages.feeds import TOPIC
from marketflow.schemas.messages.kafka import Message
from marketflow.schemas.recovery import START_AGAIN
from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks import tally as tallies
from marketflow.sinks.errors import KafkaFailed
from marketflow.sinks.kafka.producer import Fenced, Link, Sent
from marketflow.sinks.kafka.scan import Scanner
from marketflow.sinks.lineage import (
    COMPLETE,
    CUT_OFF,
    Claim,
    Entry,
    FeedClaim,
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

log = logging.getLogger("marketflow.kafka")

_TRIES: Final = 40
_LONGEST_PAUSE_S: Final = 3.0
#: A writer of a run that lives has sent its first rows by then.
_FIRST_ROWS_S: Final = 5.0
_LOOK_S: Final = 0.2
_SCAN_S: Final = 30.0


@dataclass(slots=True)
class Known:
    """What the topic says: runs by their identity, claims by feed and run, counts by writer."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[tuple[int, str], dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, Tally] = field(default_factory=dict)

    def note(self, message: Any) -> None:
        """Take in a message of the topic, after those before it; one of strangers says nothing."""
        try:
            kind, _, name = (message.key() or b"").decode().partition("/")
            value = json.loads(message.value() or b"null")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            where = f"{message.topic()}, offset {message.offset()}"
            log.warning("kafka: %s is no message about feeds, and is left out", where)
            return
        if kind == "run":
            self.runs[name] = value
        elif kind == "claim":
            number, _, run = name.partition("/")
            self.claims[int(number), run] = value
        elif kind == "count":
            self.counts[name] = tallies.from_json(value)

    def entries(self) -> list[Entry]:
        """Claims that count."""
        return [
            entry_of(kept, self.runs[kept["run"]])
            for kept in self.claims.values()
            if not self.runs[kept["run"]]["superseded"]
        ]

    def writers(self, run: str) -> set[str]:
        """Writers of a run that have begun."""
        return {writer for writer in self.counts if writer.startswith(writers_of(run))}

    def has_rows(self, run: str) -> bool:
        """Whether the run has left rows."""
        return any(self.counts[writer] for writer in self.writers(run))

    def is_superseded(self, writer: str) -> bool:
        """Whether the run of a writer was superseded."""
        return any(
            about["superseded"] and writer.startswith(writers_of(run))
            for run, about in self.runs.items()
        )


#: Reads the topic, as often as it is called.
_Read = Callable[[], Known]


class FeedsTopic:
    """The topic of one prefix. Raises SinkError, KafkaFailed. ``given_up``: nobody waits."""

    def __init__(
        self, address: KafkaAddress, patience_s: float, given_up: threading.Event | None = None
    ) -> None:
        self._address, self._patience_s = address, patience_s
        self._given_up = given_up or threading.Event()
        self.name = f"{address.name}.{TOPIC}"
        self.store = f"kafka://{address.brokers}/{address.name}"

    def _link(self, name: str) -> Link:
        link = Link(self._address, f"marketflow.{self._address.name}.{name}", self._patience_s, 0)
        link.given_up = self._given_up
        return link

    def is_there(self) -> bool:
        """Whether the deployment has the topic."""
        return self.name in self._link(TOPIC).list_topics()

    def read(self, link: Link | None = None) -> Known:
        """What is committed."""
        link = link or self._link(TOPIC)
        known = Known()
        # A writer that was killed while it committed hides what is behind it until it times out.
        scanner = Scanner(link, link.transactional_id, "", link.transaction_s + _SCAN_S)
        scanner.read({(self.name, 0): 0}, known.note)
        return known

    def undo_open(self, run: str) -> None:
        """Shut out writers of a run that nobody else continues, and undo what they left open."""
        seen = Known()
        link = self._link(TOPIC)
        scanner = Scanner(link, link.transactional_id, "", _SCAN_S)
        if scanner.hidden((self.name, 0), seen.note):
            self.fence(seen.writers(run))

    def change(self, decide: Callable[[_Read], Iterable[Message]]) -> None:
        """Write what ``decide`` makes of the topic, with nobody else's change in between."""
        for attempt in range(_TRIES):
            link = self._link(TOPIC)
            try:
                link.open()
                for message in decide(lambda link=link: self.read(link)):  # type: ignore[misc]
                    link.send(self.name, 0, message)
                link.commit()
                return
            except Fenced:
                longest_s = min(_LONGEST_PAUSE_S, 0.1 * 2.0**attempt)
                self._given_up.wait(random.uniform(0.0, longest_s))
            except BaseException:
                link.drop()
                raise
        raise KafkaFailed(
            f"{self.store}: others claimed feeds there {_TRIES} times meanwhile; {START_AGAIN}"
        )

    def fence(self, writers: Iterable[str]) -> None:
        """Shut writers out; their open transactions are undone."""
        for writer in sorted(writers):
            self._link(writer).open()

    def begin_to_count(self, writer: str) -> Tally:
        """What a writer has sent so far, of which nobody else writes any more. SinkError if its
        run was superseded."""
        found: Tally = {}

        def decide(read: _Read) -> list[Message]:
            nonlocal found
            known = read()
            if known.is_superseded(writer):
                raise superseded(self.store)
            found = known.counts.get(writer, {})
            return [count_message(self._address.name, writer, found).message]

        self.change(decide)
        return found


class TopicLineage:
    """Feeds of the topics below one prefix, for one run."""

    def __init__(
        self, address: KafkaAddress, patience_s: float, stop: threading.Event | None = None
    ) -> None:
        self._address = address
        self._given_up = stop or threading.Event()
        self._topic = FeedsTopic(address, patience_s, self._given_up)
        self._is_there: bool | None = None

    def _knows(self) -> bool:
        if self._is_there is None:
            self._is_there = self._topic.is_there()
            if not self._is_there:
                log.warning(
                    "kafka at %s has no topic %s: which feeds were loaded is not known there, and "
                    "the same one can be loaded twice; create it with marketflow topics --brokers "
                    "%s --prefix %s",
                    self._address.brokers, self._topic.name, self._address.brokers,
                    self._address.name,
                )  # fmt: skip
        return self._is_there

    def entries(self) -> list[Entry]:
        """See :class:`sinks.lineage.Lineage`."""
        return self._topic.read().entries() if self._knows() else []

    def claim(self, claim: Claim, *, replaces: bool = False) -> None:
        """See :class:`sinks.lineage.Lineage`. A sink of topics replaces nothing."""
        if not self._knows():
            return
        self._topic.undo_open(claim.run)

        def decide(read: _Read) -> list[Message]:
            known, void = self._alone(claim, read)
            over = [_run_message(run, {**known.runs[run], "superseded": True}) for run in void]
            about = known.runs.get(claim.run) or plain_run(claim)
            ours = _run_message(claim.run, {**about, "complete": False, "ended": None})
            return [*over, ours, *(_claimed(known, claim.run, feed) for feed in claim.feeds)]

        self._topic.change(decide)

    def _alone(self, claim: Claim, read: _Read) -> tuple[Known, list[str]]:
        """What is known, and runs whose void claims are taken over: they can write no more."""
        shut_out: set[str] = set()
        due_s: float | None = None
        while True:
            known = read()
            if known.runs.get(claim.run, {}).get("superseded"):
                raise superseded(self._topic.store)
            void = self._void(known, claim)
            writers = {writer for run in void for writer in known.writers(run)} - shut_out
            if not writers:
                return known, void
            if due_s is None:
                due_s = time.monotonic() + _FIRST_ROWS_S
            if time.monotonic() >= due_s:
                self._topic.fence(writers)
                shut_out |= writers
            else:
                self._given_up.wait(_LOOK_S)

    def _void(self, known: Known, claim: Claim) -> list[str]:
        found = set()
        for entry in in_the_way(known.entries(), claim):
            state = COMPLETE if known.runs[entry.run]["complete"] else CUT_OFF
            if state == COMPLETE or known.has_rows(entry.run):
                raise refused(self._topic.store, entry, state, replaceable=False)
            found.add(entry.run)
        return sorted(found)

    def complete(self, run: str, reached: Mapping[int, int]) -> None:
        """See :class:`sinks.lineage.Lineage`."""
        if not self._knows():
            return

        def decide(read: _Read) -> list[Message]:
            known = read()
            if known.runs[run]["superseded"]:
                raise superseded(self._topic.store)
            about = {**known.runs[run], "complete": True, "ended": time.time_ns()}
            return [
                _run_message(run, about),
                *(
                    _claim_message(ended(claim, reached[number]))
                    for (number, owner), claim in known.claims.items()
                    if owner == run and number in reached
                ),
            ]

        self._topic.change(decide)

    def release(self) -> None:
        """See :class:`sinks.lineage.Lineage`. Nothing is held: clients are let go after each
        call."""


def count_message(prefix: str, writer: str, tally: Tally) -> Sent:
    """The record of a writer's rows."""
    return Sent(f"{prefix}.{TOPIC}", 0, _message(f"count/{writer}", tallies.to_json(tally)))


def _message(key: str, value: Mapping[str, Any]) -> Message:
    # The topic's segments are cut by the times of its messages.
    return Message(key.encode(), json.dumps(value).encode(), [], time.time_ns() // NS_PER_MS)


def _run_message(run: str, about: Mapping[str, Any]) -> Message:
    return _message(f"run/{run}", about)


def _claim_message(claim: Mapping[str, Any]) -> Message:
    return _message(f"claim/{claim['number']}/{claim['run']}", claim)


def _claimed(known: Known, run: str, feed: FeedClaim) -> Message:
    """A feed as the run claims it; again: its sources may have more files by now, and where it
    ends is open."""
    kept = plain_claim(run, feed)
    before = known.claims.get((feed.number, run))
    return _claim_message(kept if before is None else {**before, "parts": kept["parts"]})
