"""Randomness of tests that differ from run to run: its seed is printed, and may be named."""

from __future__ import annotations

import os
import random
import sys


def chance() -> random.Random:
    """A source of its own. ``TEST_SEED=N`` in the environment repeats one that was printed."""
    seed = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(1 << 30))
    print(f"seed {seed} (TEST_SEED={seed} does it again)", file=sys.stderr, flush=True)
    return random.Random(seed)
