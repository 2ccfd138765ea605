"""``sim:?events=N&seed=S&symbols=K&format=itch|binance&date=YYYY-MM-DD``: a seeded market.

The same parameters give the same bytes on every machine and with every release of numpy. Memory
does not grow with ``events``. About 95 % of the simulated Nasdaq orders are cancelled, executions
take the oldest order at the best price, and no book is ever crossed.

Position: a copy of the simulator's whole state, 11 kB per symbol (itch) or 2.5 kB (binance), so
that going on costs nothing however far the feed had come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import DEFAULT_LIMITS, Limits, Reader
from marketflow.sources.simulator.config import SimulatorConfig

SNAPSHOT_VERSION: Final = 2
_WRITE_MESSAGES: Final = 65_536


class _SimulatorReader:
    """Base of the readers of both formats: the resume position and the END frame."""

    def __init__(self, config: SimulatorConfig, session: Any, position: Any) -> None:
        self._config = config
        self._session = session
        self._offset = 0
        self._ended = False
        if position is None:
            return
        version, made_with, offset, ended, state = position
        if version != SNAPSHOT_VERSION:
            raise SourceError(
                f"the resume position of sim: has format {version}, this release reads "
                f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        if made_with != config.made_with:
            raise SourceError(
                "the resume position is of a simulated feed with other parameters: give those of "
                f"the first run, or {START_ANEW}"
            )
        self._offset, self._ended = offset, ended
        session.restore(state)

    def read(self) -> pa.RecordBatch | None:
        """The next frames; None after the END frame."""
        if self._ended:
            return None
        batch = self._next()
        if batch is None:
            self._ended = True
            return framing.single(FrameKind.END, self._offset)
        return batch

    def _next(self) -> pa.RecordBatch | None:
        raise NotImplementedError

    def position(self) -> Any:
        """Where the next frame starts."""
        state = self._session.snapshot()
        return (SNAPSHOT_VERSION, self._config.made_with, self._offset, self._ended, state)

    def progress(self) -> tuple[int, int]:
        """Messages given, of all."""
        return self._config.events - self._session.left, self._config.events

    def close(self) -> None:
        """Nothing to release."""


class ItchSimulator(_SimulatorReader):
    """Blocks of ITCH messages as of a file: no arrival times."""

    def __init__(self, config: SimulatorConfig, position: Any, limits: Limits) -> None:
        from marketflow.sources.simulator.itch import ItchSession

        self._most = limits.max_rows
        super().__init__(config, ItchSession(config.events, config.seed, config.symbols), position)

    def _next(self) -> pa.RecordBatch | None:
        data, count = self._session.emit(self._most)
        if count == 0:
            return None
        payload = framing.payloads(pa.py_buffer(data), np.array([0, len(data)], np.int64))
        batch = framing.batch(np.array([self._offset], np.int64), payload)
        self._offset += len(data)
        return batch


class BinanceSimulator(_SimulatorReader):
    """A frame per message, received 2.5 ms after its event."""

    def __init__(self, config: SimulatorConfig, position: Any, limits: Limits) -> None:
        from marketflow.sources.simulator.binance import BinanceSession

        self._most = limits.max_rows
        super().__init__(
            config,
            BinanceSession(config.events, config.seed, config.symbols, config.date),
            position,
        )

    def _next(self) -> pa.RecordBatch | None:
        block, count = self._session.emit(self._most)
        if count == 0:
            return None
        bounds = block.bounds[: count + 1]
        kinds = block.kinds[:count]
        rest = np.flatnonzero(kinds == FrameKind.HTTP).tolist()
        notes = framing.noted(count, [(i, self._session.url(int(block.about[i]))) for i in rest])
        batch = framing.batch(
            self._offset + bounds[:-1],
            framing.payloads(pa.py_buffer(block.out[: bounds[-1]]), bounds),
            ts_recv=block.received[:count],
            kinds=kinds,
            notes=notes,
        )
        self._offset += int(bounds[-1])
        return batch


def open_simulator(
    config: SimulatorConfig, position: Any = None, limits: Limits = DEFAULT_LIMITS
) -> Reader:
    """Reader of a ``sim:`` source, from its start or from the position of an earlier one."""
    if config.format == "itch":
        return ItchSimulator(config, position, limits)
    return BinanceSimulator(config, position, limits)


def write_itch(path: Path, events: int, seed: int = 1, symbols: int = 100) -> None:
    """Write a simulated day as an ITCH 5.0 file, readable as ``itch:PATH?date=...``."""
    from marketflow.sources.simulator.itch import ItchSession

    session = ItchSession(events, seed, symbols)
    with path.open("wb") as file:
        while True:
            data, count = session.emit(_WRITE_MESSAGES)
            if count == 0:
                return
            file.write(data.data)
