"""Redundant lines: datagrams of two lines to one stream of frames, with and without losses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.arbitration.lines import Arbiter, ArbiterConfig
from marketflow.operators.arbitration.mold import MoldDecoder, datagram
from tests.benchmarks.harness import Result, benchmark, rate
from tests.support.fake_lines import SESSION, itch_messages, packed

#: Memory of all lines, and (begins, sizes, stamps) of each line's datagrams in it.
_Round = tuple[
    NDArray[np.uint8], list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]
]

#: Datagrams that one system call brings.
_AT_ONCE = 256
_STEP_NS = 10_000


def _rounds(datagrams: list[bytes], drop: int) -> list[_Round]:
    """Memory of each round, and (begins, sizes, stamps) of each line in it; ``drop``: every
    so many datagrams line A loses one, and B another (0: none)."""
    rounds = []
    for at in range(0, len(datagrams), _AT_ONCE):
        parts, lines = [], []
        base = 0
        for line in range(2):
            kept = [
                (k, data)
                for k, data in enumerate(datagrams[at : at + _AT_ONCE], at)
                if not drop or k % drop != line * (drop // 2)
            ]
            sizes = np.array([len(data) for _, data in kept], np.int64)
            begins = base + np.cumsum(sizes) - sizes
            stamps = np.array([1 + k * _STEP_NS + line * 3_000 for k, _ in kept], np.int64)
            parts += [data for _, data in kept]
            base += int(sizes.sum())
            lines.append((begins, sizes, stamps))
        rounds.append((np.frombuffer(b"".join(parts), np.uint8).copy(), lines))
    return rounds


@benchmark("line arbiter")
def line_arbiter(quick: bool) -> Iterator[Result]:
    """MoldUDP64 datagrams in memory to arbitrated frames."""
    messages = itch_messages(f"sim:?events={100_000 if quick else 1_000_000}&seed=1&symbols=100")
    datagrams = [datagram(SESSION, first, block) for first, block in packed(messages)]
    for drop, words in (
        (0, "two equal lines"),
        (10, "each of two lines loses every tenth datagram"),
    ):
        rounds = _rounds(datagrams, drop)

        def run(rounds: list[_Round] = rounds) -> int:
            decoder, arbiter = MoldDecoder(), Arbiter(ArbiterConfig(("A", "B")))
            for memory, lines in rounds:
                packets = np.concatenate(
                    [decoder.apply(memory, *line, k) for k, line in enumerate(lines)]
                )
                order = np.argsort(packets["ts_recv"], kind="stable")
                arbiter.apply(memory, packets[order])
            assert arbiter.stats()["messages"] == len(messages)
            return len(messages)

        conditions = (
            f"{len(messages):,} simulated ITCH messages in {len(datagrams):,} datagrams per line, "
            f"{words}, 256 datagrams a call, in memory, 1 core; messages of one line are counted"
        )
        name = "MoldUDP64 lines to frames" + (", with losses" if drop else "")
        yield Result(name, rate(run), "messages/s", None, conditions)
