"""How dead letters tell of input that is too large to be kept whole."""

from __future__ import annotations

from typing import Final

#: Bytes of the input that a dead letter keeps in ``raw``.
RAW_BYTES: Final = 1 << 16


def cut_note(size: int, digest: str) -> str:
    """What ``detail`` says where ``raw`` is only the beginning: the length and SHA-256 of all."""
    return f"[{size} bytes, SHA-256 {digest}; raw holds the first {RAW_BYTES}]"
