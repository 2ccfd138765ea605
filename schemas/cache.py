"""The folder of what is made once and kept: compiled kernels, unpacked services."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[1]


def cache_folder() -> Path:
    """``.cache`` of a checkout; ``~/.cache/marketflow`` where the package is installed."""
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / ".cache"
    return Path("~/.cache/marketflow").expanduser()
