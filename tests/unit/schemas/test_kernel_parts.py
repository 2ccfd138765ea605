"""Parts of kernels have no code of their own: what calls them brings it, from the cache too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_KERNELS: Final = """
import numpy as np
from numba.core import event

from marketflow.schemas.kernel import bare_kernel, kernel, kernel_part


@kernel_part
def deepest(values, i):
    if i < 0:
        raise IndexError("before the first")
    return values[i] * 3


@kernel_part
def middle(values, i):
    return deepest(values, i) + deepest(values, i + 1)


@bare_kernel
def summed(values):
    total = 0
    for i in range(len(values) - 1):
        total += middle(values, i)
    return total


@kernel
def copied(values):
    found = np.zeros(len(values) - 1, np.int64)
    for i in range(len(found)):
        found[i] = middle(values, i)
    return found


class Compiled(event.Listener):
    names = []

    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event):
        pass


event.register("numba:compile", Compiled())
values = np.arange(5, dtype=np.int64)
"""


def _run(folder: Path, calls: str) -> str:
    # "impl": functions of numba itself.
    script = (
        f"from parts_of_mine import *\n{calls}\nprint(sorted({{*Compiled.names}} - {{'impl'}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_parts_come_with_what_calls_them(tmp_path: Path) -> None:
    (tmp_path / "parts_of_mine.py").write_text(_KERNELS)
    summed = "print(int(summed(values)))"
    copied = "print(copied(values).tolist())"
    assert _run(tmp_path, summed) == "48\n['deepest', 'middle', 'summed']\n"
    # A kernel from the cache, a new one over cached parts, both from the cache.
    assert _run(tmp_path, summed) == "48\n[]\n"
    assert _run(tmp_path, copied) == "[3, 9, 15, 21]\n['copied']\n"
    assert _run(tmp_path, f"{copied}\n{summed}") == "[3, 9, 15, 21]\n48\n[]\n"


def test_an_error_of_a_part_is_raised_by_the_kernel(tmp_path: Path) -> None:
    text = _KERNELS.replace("= middle(values, i)", "= middle(values, i - 1)")
    (tmp_path / "parts_of_mine.py").write_text(text)
    call = "try:\n    copied(values)\nexcept IndexError as error:\n    print(error)"
    for compiled in ("['copied', 'deepest', 'middle']", "[]"):
        assert _run(tmp_path, call) == f"before the first\n{compiled}\n"
