"""A local service: a folder, a process of ours, a port on loopback, and an honest status.

Invariants: only processes this module started are ever signalled (pid and kernel start time must
both match); everything a service writes is below its folder; ``up`` is idempotent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

_POLL_S = 0.05


class ServiceError(RuntimeError):
    """A service cannot be had or started; the text names the fix."""


@dataclass(frozen=True, slots=True)
class State:
    """``state``: up, starting (process without an answer), down, or not installed."""

    state: str
    url: str
    detail: str = ""
    #: Address of a login that only reads, where the service has one.
    reader: str = ""


def program(name: str, fix: str) -> str:
    """Path of a program on this machine, or ServiceError saying what installs it."""
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"{name} is not on this machine: {fix}")
    return found


def run_tool(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run an installation tool to its end; ServiceError with the tail of its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = (done.stdout + done.stderr).strip()[-800:]
        raise ServiceError(f"{Path(command[0]).name} failed ({done.returncode}): {tail}")
    return done.stdout


def port_open(port: int) -> bool:
    """Whether something on loopback accepts connections on ``port``."""
    with socket.socket() as probe:
        probe.settimeout(0.3)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(ready: Callable[[], bool], timeout_s: float) -> bool:
    """Poll ``ready`` until it holds or the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(_POLL_S)
    return ready()


def _start_ticks(pid: int) -> str | None:
    """Kernel start time of a process: with the pid, its identity. None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


class Service(ABC):
    """One service below ``home / name``: ``files`` (installed once), ``data``, ``log``."""

    name: ClassVar[str]
    default_port: ClassVar[int]
    start_timeout_s: ClassVar[float] = 180.0
    stop_timeout_s: ClassVar[float] = 30.0

    def __init__(self, home: Path, port: int) -> None:
        self.folder = home / self.name
        self.port = port

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log" / f"{self.name}.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client connects to (no secret that is not on loopback only)."""

    @property
    def reader_url(self) -> str:
        """The same for a login that only reads, where the service has one."""
        return ""

    @property
    @abstractmethod
    def version(self) -> str:
        """Pinned version; a change installs anew."""

    @abstractmethod
    def install(self) -> None:
        """Fill ``files`` from packages; ServiceError naming what is missing."""

    @abstractmethod
    def command(self) -> list[str]:
        """Prepare data and configuration; the command that runs in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the service really serves (not only listens)."""

    def after_start(self) -> None:  # noqa: B027 - most services need none
        """Set-up that needs the running service; repeated by each ``up``."""

    def environment(self) -> dict[str, str]:
        """Added to the environment of the process."""
        return {}

    def user(self) -> int | None:
        """Numeric user to run as, where the service refuses root."""
        return None

    @property
    def installed(self) -> bool:
        marker = self.files / ".version"
        return marker.is_file() and marker.read_text() == self.version

    def up(self, say: Callable[[str], None]) -> State:
        """Install if needed, start if needed, wait until it answers."""
        if self._alive() and self.answers():
            self.after_start()
            return self.state()
        self.ensure_installed(say)
        if not self._alive():
            if port_open(self.port):
                raise ServiceError(
                    f"port {self.port} is taken by another program: choose another with "
                    f"MARKETFLOW_{self.name.upper()}_PORT"
                )
            say(f"{self.name}: starting")
            self._spawn(self.command())
        if not wait_until(lambda: not self._alive() or self.answers(), self.start_timeout_s):
            raise ServiceError(
                f"{self.name} did not answer in {self.start_timeout_s:.0f} s: {self.log}"
            )
        if not self._alive():
            raise ServiceError(f"{self.name} ended at once; its log says: {self._log_tail()}")
        self.after_start()
        return self.state()

    def ensure_installed(self, say: Callable[[str], None]) -> None:
        """Install unless this version is there; ServiceError naming what is missing."""
        if self.installed:
            return
        say(f"{self.name}: installing {self.version} (once)")
        shutil.rmtree(self.files, ignore_errors=True)
        self.files.mkdir(parents=True)
        self.install()
        (self.files / ".version").write_text(self.version)

    def down(self) -> None:
        """Stop our process gracefully, then by force; nothing is left running."""
        pid = self._pid()
        if pid is None:
            return
        # A frozen process must wake up to hear the signal.
        for number in (signal.SIGCONT, self.stop_signal):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not wait_until(lambda: not self._alive(), self.stop_timeout_s):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            wait_until(lambda: not self._alive(), 5.0)
        self._pid_file.unlink(missing_ok=True)

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def reset(self) -> None:
        """Down, and all data gone; what was installed stays."""
        self.down()
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.log.parent, ignore_errors=True)

    def state(self) -> State:
        """What is true now."""
        if self._alive():
            if self.answers():
                return State("up", self.url, reader=self.reader_url)
            return State("starting", self.url, f"the process runs but does not answer: {self.log}")
        if not self.installed:
            return State("not installed", self.url, "marketflow services up installs it")
        return State("down", self.url)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._pid()

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def _pid(self) -> int | None:
        try:
            pid_text, ticks = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid_text) if _start_ticks(int(pid_text)) == ticks else None

    def _alive(self) -> bool:
        return self._pid() is not None

    def _spawn(self, command: list[str]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user(),
                extra_groups=[] if self.user() is not None else None,
            )
        self._pid_file.write_text(f"{child.pid} {_start_ticks(child.pid) or '-'}")

    def _log_tail(self) -> str:
        if not self.log.is_file():
            return "(no log)"
        return self.log.read_text(errors="replace").strip()[-600:]
