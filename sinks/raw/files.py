"""Raw frames to a folder of Parquet files: ``DIR/frames/venue=VENUE/<time>-<number>.parquet``.

A file is written aside, made durable and only then given its name: what has a name is whole and
stays. Names sort by the arrival of their first frame, so the files of a venue in order are one
feed, which ``parquet:DIR?table=frames&venue=VENUE`` reads back.

- Unit of parallelism: a process; two recorders may write to one folder.
- Delivery: what is sealed is durable. Frames wait for it in memory, ``seal_after_s`` or
  ``seal_bytes`` at most: a live feed has no position to go back to, and these are lost by a kill.
- A slow disk blocks ``write``.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.messages.frames import FRAMES
from marketflow.sinks.config import Count, Options, Seconds
from marketflow.sinks.durable import replacing, sweep
from marketflow.sinks.errors import RECORD_AGAIN, SinkError, disk_failed

FOLDER: Final = "frames"


class RawFileOptions(Options):
    """When waiting frames become a file: whichever comes first."""

    seal_bytes: Count = 64 << 20
    seal_after_s: Seconds = 10.0


class RawFileWriter:
    """Writer of one venue's frames. Raises LakeFailed where the disk refuses."""

    def __init__(self, folder: Path, venue: str, options: RawFileOptions | None = None) -> None:
        self._folder = folder / FOLDER / f"venue={venue}"
        self._options = options or RawFileOptions()
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self._oldest_s = 0.0
        #: Tells apart what two recorders write at the same moment, be it in two containers.
        self._name = secrets.token_hex(4)
        self._number = 0
        self._named_ns = 0
        self.files = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            sweep(self._folder)
        except OSError as error:
            raise SinkError(
                f"cannot record into {folder}: {error.strerror}; choose a folder that can be "
                "written to"
            ) from None

    def write(self, frames: pa.RecordBatch) -> None:
        """Keep frames for the next file, and seal it when it is time."""
        if not frames.num_rows:
            return
        if not self._waiting:
            self._oldest_s = time.monotonic()
        self._waiting.append(frames)
        self._bytes += frames.nbytes
        self.idle()

    def idle(self) -> None:
        """Seal what has waited for long enough."""
        if not self._waiting:
            return
        waited_s = time.monotonic() - self._oldest_s
        if self._bytes >= self._options.seal_bytes or waited_s >= self._options.seal_after_s:
            self.flush()

    def flush(self) -> None:
        """Seal what waits: when this returns it is durable."""
        if not self._waiting:
            return
        frames = pa.Table.from_batches(self._waiting, FRAMES).unify_dictionaries()
        # What waited for a missing message is older than what was sealed before it.
        first = self._named_ns = max(frames.column("ts_recv")[0].as_py(), self._named_ns)
        path = self._folder / f"{first:020d}-{self._name}-{self._number:06d}.parquet"
        try:
            with replacing(path) as file:
                pq.write_table(frames, file, compression="zstd", row_group_size=1 << 16)
        except OSError as error:
            raise disk_failed("cannot write", path, error, RECORD_AGAIN) from error
        self._number += 1
        self.files += 1
        self._waiting.clear()
        self._bytes = 0

    def close(self) -> None:
        """Seal the rest."""
        self.flush()
