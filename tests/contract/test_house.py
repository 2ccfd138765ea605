"""House rules that a machine can check."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S
from tests.support.root import ROOT

PACKAGES = ("schemas", "operators", "sources", "sinks", "flows", "infra", "tests")
MAX_LINES = 400
#: Files that are longer, and how long they may be: they may only shrink.
LONGER = {
    "operators/books/kernels/sync.py": 450,
    "operators/formats/dbn/decoder.py": 450,
    "operators/formats/tables/decoder.py": 450,
    "operators/normalise/event_builder.py": 450,
    "operators/venues/binance/kernels/scan.py": 450,
    "tests/unit/operators/venues/test_bitget.py": 450,
    "tests/unit/sinks/lake/test_writer.py": 450,
}


def _bin(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.mark.parametrize(
    "command",
    [
        [_bin("ruff"), "check", "."],
        [_bin("ruff"), "format", "--check", "."],
        [_bin("mypy")],
        [_bin("lint-imports")],
    ],
    ids=["ruff", "format", "mypy", "layers"],
)
def test_linters_are_clean(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_no_file_outgrows_its_reader() -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in _sources()}
    assert not {name: n for name, n in lengths.items() if n > LONGER.get(name, MAX_LINES)}
    assert not [name for name in LONGER if lengths[name] <= MAX_LINES], "take them off the list"


def test_helpers_of_tests_live_in_support() -> None:
    """Elsewhere are tests, fixtures, commands and slow twins; no test imports from another."""
    rooms = ("unit", "golden", "contract", "recovery", "services", "live")
    files = [path for room in rooms for path in (ROOT / "tests" / room).rglob("*.py")]
    helpers = [
        str(path.relative_to(ROOT))
        for path in files
        if not path.name.startswith("test_")
        and path.name != "conftest.py"
        and 'if __name__ == "__main__":' not in path.read_text()
    ]
    assert not helpers
    borrowed = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in files
        for line in path.read_text().splitlines()
        if re.match(r"(from|import) tests\S*\.test_", line)
    ]
    assert not borrowed


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in _sources()
        if path.read_text().strip() and not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert not silent


def test_no_leftovers() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|print\(.*debug)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _sources()
        if path.name != "test_house.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_the_core_is_pure() -> None:
    """schemas and operators read no clock, environment, chance, network or disk."""
    banned = re.compile(
        r"^\s*(?:import|from) (time|os|socket|random|secrets|subprocess|tempfile)\b"
        r"|datetime\.now\(|time\.time|np\.random|(?<![\w.])open\(",
        re.MULTILINE,
    )
    impure = [
        f"{path.relative_to(ROOT)}: {match.group().strip()}"
        for package in ("schemas", "operators")
        for path in sorted((ROOT / package).rglob("*.py"))
        for match in banned.finditer(path.read_text())
    ]
    assert not impure


def test_bytewax_stays_at_the_edge() -> None:
    """Only files called engine.py and flow.py know the engine."""
    users = {
        path
        for path in _sources()
        if re.search(r"^\s*(?:from|import) bytewax\b", path.read_text(), re.MULTILINE)
        and path.relative_to(ROOT).parts[0] != "tests"
    }
    assert {path.name for path in users} == {"engine.py", "flow.py"}, sorted(users)


def test_flow_files_read_like_the_picture() -> None:
    flows = {path: path.read_text().count("\n") for path in (ROOT / "flows").rglob("flow.py")}
    assert flows
    assert max(flows.values()) < 100, flows


_LOCKS = ("requirements.lock", "requirements-dev.lock", "infra/setup.lock")


def _locked(name: str) -> dict[str, str]:
    """Version by package."""
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", _LOCKS)
def test_locks_are_hashed_and_name_no_index(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    for requirement in re.split(r"\n(?=\S)", lock):
        if "==" in requirement:
            assert "--hash=sha256:" in requirement, requirement


def test_what_only_tests_need_is_not_installed_for_a_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run, dev, setup = map(_locked, _LOCKS)
    for text in project["dependency-groups"]["dev"]:
        assert text in dev
        assert text not in run
    assert {"setuptools", "uv"} == set(setup)
    for lock in (dev, setup):
        shared = lock.keys() & run.keys()
        assert {name: lock[name] for name in shared} == {name: run[name] for name in shared}
