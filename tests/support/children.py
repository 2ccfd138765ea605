"""What child processes and services said, shown with the test that failed.

A pytest plugin (``tests/conftest.py`` loads it). Every process that is started through
``subprocess`` while a test runs is remembered, with what was read from its pipes; a stream that is
not piped goes to pytest's capture anyway. A file that a child or a service writes its log to is
named by ``keep_log`` of tests/support/logs.py. The report of a failed test ends with the tails of
all of these.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Generator, Iterator
from typing import IO, Any, Final

import pytest

from tests.support.logs import KEPT

_TAIL: Final = 4000
_COMMAND: Final = 200


class Child(subprocess.Popen[Any]):
    """A process that remembers what :meth:`communicate` read of it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.said: list[str] = []
        # Who is remembered is not collected, and so not reaped either: a killed server would look
        # alive to the next one that wants its socket.
        for child in _children:
            child.poll()
        super().__init__(*arguments, **options)
        _children.append(self)

    def communicate(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        try:
            read = super().communicate(*arguments, **options)
        except subprocess.TimeoutExpired as error:
            self.said = [_text(error.stdout), _text(error.stderr)]
            raise
        self.said = [_text(stream) for stream in read]
        return read

    def tails(self) -> str:
        """The end of both streams: what was read of them, else what waits in their pipes."""
        said = self.said or [_waiting(self.stdout), _waiting(self.stderr)]
        return "\n".join(text[-_TAIL:] for text in said if text)

    def title(self) -> str:
        """Its command line and how it ended."""
        words = [self.args] if isinstance(self.args, (str, bytes, os.PathLike)) else self.args
        line = shlex.join(os.fsdecode(word) for word in words)
        code = self.poll()
        ended = "still running" if code is None else f"exit code {code}"
        return f"child {line[:_COMMAND]} ({ended})"


_children: list[Child] = []


def _text(read: str | bytes | None) -> str:
    return read.decode(errors="replace") if isinstance(read, bytes) else read or ""


def _waiting(stream: IO[Any] | None) -> str:
    """What a pipe holds now."""
    if stream is None or stream.closed or not stream.readable():
        return ""
    os.set_blocking(stream.fileno(), False)
    try:
        return os.read(stream.fileno(), 1 << 16).decode(errors="replace")
    except BlockingIOError:
        return ""
    finally:
        os.set_blocking(stream.fileno(), True)


def _sections() -> Iterator[tuple[str, str]]:
    for child in _children:
        if tails := child.tails():
            yield child.title(), tails
    for log in KEPT:
        if log.is_file() and (text := log.read_text(errors="replace")):
            yield f"log {log}", text[-_TAIL:]


def pytest_configure() -> None:
    """Have ``subprocess`` make processes that remember."""
    subprocess.Popen = Child  # type: ignore[misc]


def pytest_runtest_logstart() -> None:
    """Forget the children of tests before this one, and logs that are gone."""
    _children[:] = [child for child in _children if child.returncode is None]
    KEPT[:] = [log for log in KEPT if log.parent.is_dir()]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failure what children and services said."""
    report = yield
    if report.failed:
        report.sections += list(_sections())
    return report
