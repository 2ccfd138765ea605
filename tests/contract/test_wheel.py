"""The built wheel works where there is no checkout: another folder, another environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.root import ROOT

#: Every kernel is compiled anew in the fresh environment: a minute of a core that may be busy.
pytestmark = pytest.mark.timeout(1200)
#: Ours: what the fresh environment must find in the wheel alone.
_EDITABLE = ("marketflow", "__editable__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves folders beside its sources."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", str(target), str(source)],
        check=True, timeout=200,
    )  # fmt: skip
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment elsewhere: the wheel, and the libraries that are installed here."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    libraries = folder / "libraries"
    libraries.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not any(word in path.name.lower() for word in _EDITABLE):
            (libraries / path.name).symlink_to(path)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (site / "libraries.pth").write_text(f"{libraries}\n")
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index",
         "--disable-pip-version-check", wheel],
        check=True, timeout=200, env=_environment(folder),
    )  # fmt: skip
    return folder


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MARKETFLOW_"))}
    kept.pop("NUMBA_CACHE_DIR", None)
    return {**kept, "HOME": str(home), "COLUMNS": "80"}


def _marketflow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [home / "venv" / "bin" / "marketflow", *arguments],
        capture_output=True, text=True, timeout=1000, cwd=home, env=_environment(home),
    )  # fmt: skip


def test_what_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("compose.yaml", "prometheus.yml"):
        assert any(name.endswith(needed) for name in names), needed
    migrations = {Path(n).name for n in names if "migrations/" in n}
    assert migrations == {path.name for path in (ROOT / "infra" / "migrations").glob("*.sql")}
    assert not [name for name in names if "tests" in Path(name).parts]
    tops = {Path(name).parts[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"marketflow"}
    rooms = ("flows", "infra", "operators", "schemas", "sinks", "sources")
    ours = {str(path.relative_to(ROOT)) for room in rooms for path in (ROOT / room).rglob("*.py")}
    assert ours <= {name.removeprefix("marketflow/") for name in names}


def test_a_flow_runs_where_only_the_wheel_is(home: Path) -> None:
    """Nothing of the checkout is imported, kernels are kept in the user's folder."""
    where = subprocess.run(
        [home / "venv" / "bin" / "python", "-c",
         "import marketflow.infra.migrate as m; print(m.__file__); print(len(m.read()))"],
        capture_output=True, text=True, cwd=home, env=_environment(home),
    )  # fmt: skip
    assert where.returncode == 0, where.stderr
    place, migrations = where.stdout.split()
    assert str(home) in place
    assert int(migrations) >= 5
    done = _marketflow(
        home, "run", "market_data", "--source", "sim:?events=3000&symbols=3", "--sink",
        "parquet:lake", "--tables", "trades", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (home / ".cache" / "marketflow" / "numba").is_dir()
    count = json.loads(done.stdout)["tables"]["trades"]
    asked = _marketflow(home, "sql", "--format", "csv", "SELECT count(*) AS n FROM trades")
    assert (asked.returncode, asked.stdout) == (0, f"n\n{count}\n"), asked.stderr


def test_doctor_and_services_know_their_files(home: Path) -> None:
    done = _marketflow(home, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, checks
    assert checks["packages"]["state"] == "ok"
    status = _marketflow(home, "services", "status", "--json")
    assert json.loads(status.stdout).keys() == {"kafka", "timescale", "prometheus"}
