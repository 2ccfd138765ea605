"""What a failing test shows: what its children said, its seed, and why others were skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.patience import PATIENCE_S
from tests.support.root import ROOT

_TESTS = """
import select, subprocess, sys
import pytest
from tests.support.chance import chance
from tests.support.logs import keep_log

SAYING = "import sys; print('to stdout', flush=True); sys.exit('to stderr')"

def test_passes():
    subprocess.run([sys.executable, "-c", "print('said before')"], capture_output=True)

def test_a_child_fails():
    chance()
    assert subprocess.run([sys.executable, "-c", SAYING], capture_output=True).returncode == 0

def test_a_child_hangs():
    code = "import time; print('still here', flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        select.select([child.stdout], [], [])
        try:
            child.communicate(timeout=0.1)
        finally:
            child.kill()

def test_a_child_is_left():
    child = subprocess.Popen([sys.executable, "-c", SAYING], stdout=subprocess.PIPE)
    child.wait()
    assert False

def test_a_service_logs(tmp_path):
    keep_log(tmp_path / "service.log").write_text("of the service")
    assert False

def test_cannot_run():
    pytest.skip("no such server")
"""


def _report(folder: Path, *options: str) -> dict[str, str]:
    """What a run of the tests above says of each test that failed, and "end" for its last part."""
    (folder / "test_sample.py").write_text(_TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.support.children", "-rfEs", *options,
         "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    told, end = done.stdout.split("short test summary info")
    found = {}
    for part in told.split("\n____")[1:]:
        name, _, text = part.lstrip("_ ").partition(" ")
        found[name] = text
    return {**found, "end": end}


def test_a_failure_shows_its_children_and_its_seed(tmp_path: Path) -> None:
    report = _report(tmp_path)
    failed = report["test_a_child_fails"]
    assert "to stdout" in failed and "to stderr" in failed and "exit code 1" in failed
    assert "TEST_SEED=" in failed
    assert "said before" not in failed
    assert "still here" in report["test_a_child_hangs"]
    assert "to stdout" in report["test_a_child_is_left"]
    assert "of the service" in report["test_a_service_logs"]
    assert "no such server" in report["end"]
    assert report["end"].count("FAILED") == 4


def test_in_several_processes_too(tmp_path: Path) -> None:
    report = _report(tmp_path, "-n", "2", "-k", "fails or run")
    assert "to stderr" in report["test_a_child_fails"]
    assert "no such server" in report["end"]
