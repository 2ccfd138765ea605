"""Base of the readers of bytes: buffers that start at a message, paths one after the other.

A subclass takes whole messages from a buffer, and says what the rest of a file means. A path that
is damaged, or ends with bytes left over, gives one TRUNCATED or BROKEN frame with those bytes and
the reason after its last message; then the next path is read. No message spans two paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.schemas.dead_letters import RAW_BYTES
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.files.bytes import ByteFile, Damage, Place, size_read
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

_EMPTY: Final = np.zeros(0, np.uint8)


class Blocks:
    """A window on the feed: ``data[start:stop]`` is what was read and not yet taken.

    ``whole``: nothing of this path follows ``stop``. ``finished``: all paths are done.
    """

    def __init__(
        self, paths: Sequence[Path], place: Place, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._paths = tuple(paths)
        self._limits = limits
        self._path = place.path
        self._before = place.before
        self._buffer_at = place.offset  # offset in the path of data[0]
        self._file: ByteFile | None = None
        self.buffer: pa.Buffer = pa.py_buffer(b"")
        self.data: NDArray[np.uint8] = _EMPTY
        self.start = self.stop = 0
        self.whole = False
        self._enter(place.offset)

    @property
    def finished(self) -> bool:
        return self._path >= len(self._paths)

    @property
    def path(self) -> Path:
        """The file being read; not to be asked when finished."""
        return self._paths[self._path]

    @property
    def damage(self) -> Damage | None:
        return self._file.damage if self._file is not None else None

    def progress(self) -> tuple[int, int]:
        """See sources.reader.MeasuredReader."""
        index, file = self._path, self._file
        done, whole = size_read(self._paths, index, 0.0)
        return done + (file.read_bytes if file is not None else 0), whole

    @property
    def place(self) -> Place:
        """Place of ``data[start]``."""
        return Place(self._path, self._buffer_at + self.start, self._before)

    @property
    def base(self) -> int:
        """Feed offset of ``data[0]``."""
        return self._before + self._buffer_at

    def _enter(self, offset: int) -> None:
        self.close()
        self.buffer, self.data = pa.py_buffer(b""), _EMPTY
        self.start = self.stop = 0
        self._buffer_at = offset
        self.whole = self.finished
        if not self.finished:
            self._file = ByteFile(self.path, offset)

    def refill(self) -> bool:
        """Read on, keeping what was not taken; False if that would pass max_message_bytes."""
        assert self._file is not None and not self.whole
        kept = self.stop - self.start
        size = self._limits.max_bytes
        if kept >= size // 2:
            if kept > self._limits.max_message_bytes:
                return False
            size = min(2 * kept, self._limits.max_message_bytes) + 1
        buffer = pa.allocate_buffer(size)
        view = memoryview(buffer).cast("B")
        view[:kept] = memoryview(self.buffer).cast("B")[self.start : self.stop]
        got = self._file.readinto(view[kept:])
        self.whole = kept + got < size
        self._buffer_at += self.start
        self.buffer, self.data = buffer, np.frombuffer(buffer, np.uint8)
        self.start, self.stop = 0, kept + got
        return True

    def peek(self, most: int) -> bytes:
        """The first ``most`` bytes of what was read and not yet taken."""
        return self.data[self.start : min(self.stop, self.start + most)].tobytes()

    def rest(self, most: int | None = None) -> bytes:
        """Take everything that was read and not yet taken, or the first ``most`` bytes of it."""
        stop = self.stop if most is None else min(self.stop, self.start + most)
        rest = self.data[self.start : stop].tobytes()
        self.start = stop
        return rest

    def next_path(self) -> None:
        """Go to the next file; what is left of this one must have been taken."""
        assert self.start == self.stop
        self._before += self._buffer_at + self.stop
        self._path += 1
        self._enter(0)

    def abandon(self) -> None:
        """Go to the next file although this one has not been read to its end."""
        self.stop = self.start
        self.next_path()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class BlockReader:
    """Base of the readers of files: a :class:`sources.reader.Reader`.

    A subclass implements :meth:`_take`. Position: the :class:`Place` of the next message as a plain
    tuple; a path index beyond the last path says that END was given.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        place = Place(*(position or ()))
        self._limits = limits
        self._ended = place.path > len(paths)
        self._paths = len(paths)
        self._blocks = Blocks(paths, place, limits)

    def _take(self, blocks: Blocks) -> pa.RecordBatch | None:
        """Frames of the next whole messages of the window, moving its start; None: there is none.

        Where ``blocks.whole`` is set, no bytes of this path will follow.
        """
        raise NotImplementedError

    def _describe(self, rest: bytes) -> str:
        """Why ``rest``, the end of a file, is no message."""
        return f"the file ends inside a message: {len(rest)} bytes are left over"

    def read(self) -> pa.RecordBatch | None:
        blocks = self._blocks
        while not blocks.finished:
            batch = self._take(blocks)
            if batch is not None:
                return batch
            if not blocks.whole:
                if not blocks.refill():
                    return self._too_long(blocks)
                continue
            batch = self._tail(blocks)
            blocks.next_path()
            if batch is not None:
                return batch
        if self._ended:
            return None
        self._ended = True
        return framing.single(FrameKind.END, blocks.place.in_feed)

    def _tail(self, blocks: Blocks) -> pa.RecordBatch | None:
        """The one frame about a file that does not end with a whole message."""
        offset, rest, damage = blocks.place.in_feed, blocks.rest(), blocks.damage
        if damage is not None:
            return framing.single(damage.kind, offset, rest, damage.reason)
        if rest:
            return framing.single(FrameKind.TRUNCATED, offset, rest, self._describe(rest))
        return None

    def _too_long(self, blocks: Blocks) -> pa.RecordBatch:
        """Give up a message that is longer than allowed, and with it the file: nothing says where
        the next one would start."""
        reason = f"a message of more than {self._limits.max_message_bytes} bytes"
        return self._give_up(blocks, RAW_BYTES, reason)

    def _give_up(self, blocks: Blocks, most: int, reason: str) -> pa.RecordBatch:
        """The frame about a file that cannot be read on; the next file comes after it."""
        name, offset, rest = blocks.path.name, blocks.place.in_feed, blocks.rest(most)
        blocks.abandon()
        return framing.single(
            FrameKind.BROKEN, offset, rest, f"{name}: {reason}; the rest is not read"
        )

    def progress(self) -> tuple[int, int]:
        return self._blocks.progress()

    def position(self) -> tuple[int, int, int]:
        place = self._blocks.place
        return (self._paths + 1, 0, place.in_feed) if self._ended else (*place,)

    def close(self) -> None:
        self._blocks.close()
