"""The README pages: their blocks of code, how a block is marked, and running its examples.

A comment right before a block says what a test does with it:

    <!-- not run: REASON -->            shown only
    <!-- needs: kafka, timescale -->    run in tests/services, with these servers
    <!-- ports: 26400, 26401 -->        run with free ports in place of these

A block of ``sh`` or ``python`` without a mark is run as it stands. Blocks of a page with the same
needs run in their order in one folder. A block of ``text`` right behind one that is run is what it
prints: each of its lines is a line of the output, in this order; ``…`` stands for any text.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.patience import PATIENCE_S
from tests.support.ports import free_port
from tests.support.root import ROOT

MARKS: Final = ("not run", "needs", "ports")
SERVERS: Final = ("kafka", "timescale")
RUN: Final = ("sh", "python")
LANGUAGES: Final = (*RUN, "sql", "text")
_MARK: Final = re.compile(r"<!-- (?:(?P<name>[a-z ]+): (?P<value>.+)|(?P<other>.*)) -->")
_FENCE: Final = re.compile(r"```(\w*)")


@dataclass(frozen=True)
class Block:
    """A block of code: ``marks`` by name, ``prints`` the lines that it is said to print."""

    page: str
    line: int
    language: str
    text: str
    marks: Mapping[str, str]
    prints: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The servers that it needs, in the order of :data:`SERVERS`."""
        named = self.marks.get("needs", "").split(", ")
        return tuple(server for server in SERVERS if server in named)

    @property
    def runs(self) -> bool:
        return self.language in RUN and "not run" not in self.marks


def files(pattern: str) -> list[Path]:
    """The project's files of that name, from its root."""
    rooms = [place for place in ROOT.iterdir() if place.is_dir() and place.name[0] != "."]
    found = [*ROOT.glob(pattern), *(path for room in rooms for path in room.rglob(pattern))]
    return sorted(path.relative_to(ROOT) for path in found)


def pages() -> list[str]:
    """Every Markdown page."""
    return [str(path) for path in files("*.md")]


def blocks(page: str) -> list[Block]:
    """The blocks of a page in their order."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = iter(enumerate((ROOT / page).read_text().splitlines(), 1))
    follows = False
    for number, line in lines:
        if mark := _MARK.fullmatch(line):
            marks[mark["name"] or mark["other"]] = mark["value"] or ""
        elif fence := _FENCE.fullmatch(line):
            text = []
            for _, line in lines:
                if line == "```":
                    break
                text.append(line)
            if fence[1] == "text" and follows:
                last = found.pop()
                found.append(Block(**{**vars(last), "prints": tuple(text)}))
                follows = False
            else:
                found.append(Block(page, number, fence[1], "\n".join(text), marks))
                follows = found[-1].runs
            marks = {}
        elif line:
            marks, follows = {}, False
    return found


def run(chosen: Sequence[Block], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run the blocks in ``folder``, as a reader does who has the command in PATH and the tests at
    hand; AssertionError where one fails or does not print what the page shows."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MARKETFLOW_", "COV_"))}
    environment = {
        **kept, **(variables or {}), "COLUMNS": "80", "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    for block in chosen:
        text = block.text
        for port in filter(None, block.marks.get("ports", "").split(", ")):
            text = text.replace(port, str(free_port()))
        code, said = _run(block.language, text, folder, environment)
        place = f"{block.page}:{block.line}"
        assert code == 0, f"{place} ends with {code}:\n{said}"
        missing = missing_line(block.prints, said)
        assert missing is None, f"{place} does not print {missing!r}:\n{said}"


def _run(language: str, text: str, folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """(exit code, output) of a block; nothing of it stays behind."""
    command = ["sh", "-eu", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    output = folder / "output.txt"
    with output.open("w") as file:
        started = subprocess.Popen(
            command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            code = started.wait(2 * PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    return code, output.read_text()


def missing_line(prints: Sequence[str], said: str) -> str | None:
    """The first line of ``prints`` that the output lacks, behind the ones before it."""
    lines = iter(said.splitlines())
    for line in prints:
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.fullmatch(found.rstrip()) for found in lines):
            return line
    return None
