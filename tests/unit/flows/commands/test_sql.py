"""``marketflow sql`` as a command: where a query comes from, the prompt, Ctrl-C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.batches import Feed
from tests.support.patience import until

COMMAND = [sys.executable, "-m", "marketflow"]
#: Hours of work.
SLOW = "SELECT sum(a.range * b.range) FROM range(1000000000) a, range(100000) b"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("command") / "lake"
    writer = ParquetWriter(root)
    writer.write(Feed(np.random.default_rng(5)).item(0, {"trades": 42}))
    writer.close()
    return root


def sql(lake: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "sql", "--lake", str(lake), "--format", "csv", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)


def test_a_query_comes_from_a_file_a_pipe_or_the_line(lake: Path, tmp_path: Path) -> None:
    query = "--how many\nSELECT count(*) AS n FROM trades;\n"
    file = tmp_path / "q.sql"
    file.write_text(query)
    for done in (
        sql(lake, "-f", str(file)),
        sql(lake, "--file", "-", stdin=query),
        sql(lake, stdin=query),
        sql(lake, "-", stdin=query),
        sql(lake, query),
        sql(lake, f"/* {query} */ {query}"),
    ):
        assert (done.returncode, done.stdout) == (0, "n\n42\n"), done.stderr


def test_mistakes_about_the_query_name_the_fix(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes.sql").write_bytes(b"\xff\xfe")
    for done, fix in (
        (sql(lake, "-f", str(tmp_path / "none.sql")), "cannot read the query in"),
        (sql(lake, "-f", str(tmp_path / "bytes.sql")), "no UTF-8 text"),
        (sql(lake, "-f", str(tmp_path / "x"), "SELECT 1"), "not both"),
        (sql(lake), "no query in stdin"),
    ):
        assert done.returncode == 2
        assert fix in " ".join(done.stderr.split())


def test_version() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()[0]) == (0, "marketflow")


def test_ctrl_c_ends_a_query(lake: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "sql", "--lake", str(lake), SLOW], stderr=subprocess.PIPE, text=True
    )
    until(lambda: _seconds(process.pid) > 4)  # the start takes less
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, "interrupted")


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Terminal:
    """A prompt on a terminal of its own."""

    def __init__(self, lake: Path, home: Path) -> None:
        self._main, side = pty.openpty()
        self._process = subprocess.Popen(
            [*COMMAND, "sql", "--lake", str(lake)],
            stdin=side, stdout=side, stderr=side, start_new_session=True,
            env={**os.environ, "XDG_STATE_HOME": str(home), "TERM": "dumb", "COLUMNS": "80"},
        )  # fmt: skip
        os.close(side)
        self._seen = ""

    def until(self, text: str) -> str:
        """What is shown up to ``text``."""
        deadline = time.monotonic() + 90
        while text not in self._seen:
            assert time.monotonic() < deadline, self._seen
            if select.select([self._main], [], [], 0.2)[0]:
                self._seen += os.read(self._main, 65536).decode()
        shown, _, self._seen = self._seen.partition(text)
        return shown

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def seconds(self) -> float:
        """What it has used of a core."""
        return _seconds(self._process.pid)

    def interrupt(self) -> None:
        os.kill(self._process.pid, signal.SIGINT)

    def leave(self) -> int:
        self.type("\x04")
        return self._process.wait(timeout=60)


def test_the_prompt_answers_goes_on_and_remembers(lake: Path, tmp_path: Path) -> None:
    terminal = Terminal(lake, tmp_path)
    terminal.until("market> ")
    terminal.type("SELECT count(*) AS n\n")
    terminal.until("......> ")
    terminal.type("FROM trades;\n")
    assert " 42 " in terminal.until("market> ")
    terminal.type("DROP VIEW trades;\n")
    assert "DROP is not allowed" in terminal.until("market> ")
    before = terminal.seconds()
    terminal.type(f"{SLOW};\n")
    until(lambda: terminal.seconds() > before + 1)
    terminal.interrupt()
    assert "interrupted" in terminal.until("market> ")
    terminal.type("\\rows 2\n")
    terminal.until("market> ")
    terminal.type("SELECT * FROM range(9);\n")
    assert "the first 2 rows" in terminal.until("market> ")
    assert terminal.leave() == 0
    history = tmp_path / "marketflow" / "sql_history"
    assert "SELECT count(*) AS n FROM trades;" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    again = Terminal(lake, tmp_path)
    again.until("market> ")
    again.type("\x10\n")  # the line before, again
    assert "the first" not in again.until("market> ")
    assert again.leave() == 0
