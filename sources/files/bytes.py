"""Bytes of one feed that lies in one or several files, plain or compressed.

A file's first bytes decide how it is compressed (gzip, zstd), never its name. A :class:`Place` in a
feed is exact to the byte. Resuming at a place seeks in a plain file; in a compressed one everything
before it in that file is decompressed again (measured: 0.4 GB/s gzip, 1 GB/s zstd). Earlier files
are not touched.

Damage never raises: a compressed file that ends early or does not decompress gives every byte
that its decompressor still yields, then a :class:`Damage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.recovery import START_ANEW
from marketflow.sources.errors import SourceError

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIP_BYTES: Final = 1 << 20


class Place(NamedTuple):
    """Where the next byte is: ``path`` index, bytes into it, bytes of the feed before the path."""

    path: int = 0
    offset: int = 0
    before: int = 0

    @property
    def in_feed(self) -> int:
        """Bytes into the uncompressed feed, counted over all paths."""
        return self.before + self.offset


class Damage(NamedTuple):
    """Why a file ended before its time: TRUNCATED or BROKEN, and the words for people."""

    kind: FrameKind
    reason: str


def compression(path: Path) -> str | None:
    """``gzip``, ``zstd`` or None, by the first four bytes. SourceError if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    # 50..5F 2A 4D 18: a skippable zstd frame may stand first.
    skippable = head[1:] == b"\x2a\x4d\x18" and b"\x50" <= head[:1] <= b"\x5f"
    if head.startswith(_ZSTD) or skippable:
        return "zstd"
    return "gzip" if head.startswith(_GZIP) else None


def size_read(paths: Sequence[Path], index: int, share: float) -> tuple[int, int]:
    """Bytes read and bytes of all ``paths``, where the file of ``index`` is read to ``share``."""
    sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
    here = sizes[index] if index < len(sizes) else 0
    return sum(sizes[:index]) + int(here * min(share, 1.0)), sum(sizes)


class ByteFile:
    """One file as a stream of uncompressed bytes, from ``offset`` on.

    ``damage`` is set once reading came to the point where the file is broken. SourceError if the
    file is gone or too short to hold ``offset``.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.damage: Damage | None = None
        #: Bytes of the file as it lies on disk that have been read.
        self.read_bytes = 0
        self._at = offset
        self._codec = compression(path)
        self._stream = self._open(offset)
        self._singly = False

    def _open(self, offset: int) -> pa.NativeFile:
        self._raw = raw = pa.OSFile(str(self.path), "rb")
        if self._codec is None:
            if offset > raw.size():
                raise self._changed()
            raw.seek(offset)
            return raw
        stream = pa.CompressedInputStream(raw, self._codec)
        scratch = memoryview(bytearray(min(offset, _SKIP_BYTES)))
        while offset > 0:
            try:
                got = stream.readinto(scratch[: min(offset, len(scratch))])
            except OSError:
                raise self._changed() from None
            if got == 0:
                raise self._changed()
            offset -= got
        return stream

    def _changed(self) -> SourceError:
        return SourceError(
            f"{self.path} ends before byte {self._at}, where reading was to go on: the file was "
            f"changed since; put the old one back, or {START_ANEW}"
        )

    def readinto(self, view: memoryview) -> int:
        """Fill ``view``; fewer bytes than its length only at the end of the file."""
        done = 0
        while done < len(view) and self.damage is None:
            try:
                got = self._stream.readinto(view[done : done + 1] if self._singly else view[done:])
            except OSError as error:
                self._failed(error)
                continue
            if got == 0:
                break
            done += got
            self._at += got
        self.read_bytes = self._raw.tell()
        return done

    def _failed(self, error: OSError) -> None:
        """A failing read takes bytes with it that are good: go back and fetch them one by one.

        The second failure is then the damage itself.
        """
        if self._codec is None:
            raise SourceError(f"{self.path} cannot be read: {error}") from error
        if not self._singly:
            self._stream.close()
            self._stream = self._open(self._at)
            self._singly = True
            return
        text = str(error)
        kind = FrameKind.TRUNCATED if "Truncated" in text else FrameKind.BROKEN
        self.damage = Damage(kind, f"{self.path.name}: {text[:1].lower()}{text[1:]}")

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._stream.close()


def head(path: Path, size: int) -> bytes:
    """The first uncompressed bytes of a file, at most ``size``; fewer if it is short or broken."""
    file = ByteFile(path)
    try:
        buffer = bytearray(size)
        return bytes(buffer[: file.readinto(memoryview(buffer))])
    finally:
        file.close()
