"""Log files of child processes and services, shown with the test that failed."""

from __future__ import annotations

from pathlib import Path

KEPT: list[Path] = []


def keep_log(path: Path) -> Path:
    """Show the end of this file with tests that fail from now on; returns ``path``."""
    if path not in KEPT:
        KEPT.append(path)
    return path
