"""The command line as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.patience import PATIENCE_S


def marketflow(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "marketflow", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S,
        env={**os.environ, "COLUMNS": "200", **env},
    )  # fmt: skip
