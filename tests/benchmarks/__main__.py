"""Run one benchmark in this process and print its results as JSON (the parent collects them)."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil

import tests.benchmarks
from marketflow.flows.runtime.memory import keep_memory
from tests.benchmarks.harness import REGISTRY, pinned


def load() -> None:
    """Import every bench_* module, which registers its benchmarks."""
    for module in pkgutil.iter_modules(tests.benchmarks.__path__):
        if module.name.startswith("bench_"):
            importlib.import_module(f"tests.benchmarks.{module.name}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    load()
    if arguments.list:
        print(json.dumps(list(REGISTRY)))
        return 0
    bench = REGISTRY[arguments.name]
    context = pinned() if bench.pinned else contextlib.nullcontext()
    # Only the figures go to stdout, whatever servers and peers have to say.
    keep_memory()  # as the command line does
    told = os.dup(1)
    os.dup2(2, 1)
    with context:
        results = [result.as_json() for result in bench.run(arguments.quick)]
    with os.fdopen(told, "w") as out:
        json.dump(results, out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
