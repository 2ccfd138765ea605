"""``marketflow record`` killed and started again: nothing that was sealed is lost, and the books
are right again from the second start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from marketflow.schemas.messages.frames import FrameKind
from tests.support.patience import PATIENCE_S, until
from tests.support.recordings import CASES, capture_of, recorded, source_of, tables, venue_of


def _command(source: str, folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "marketflow", "record", "--json",
        "--source", source, "--sink", f"parquet:{folder}?seal_after_s=0.1",
    ]  # fmt: skip


def test_killed_and_started_again(data: Path, tmp_path: Path) -> None:
    case = CASES["bybit"]
    venue = venue_of(case, data, speed=10.0)
    folder = tmp_path / "raw"
    line = _command(source_of(case, venue), folder)
    sealed_in = folder / "frames" / "venue=BYBIT"
    first = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: len(list(sealed_in.glob("*.parquet"))) >= 3 or first.poll() is not None)
    first.kill()
    _, errors = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == -9, errors
    sealed = {path: path.read_bytes() for path in sealed_in.glob("*.parquet")}
    before = recorded(folder, "BYBIT")
    assert [f.kind for f in before].count(FrameKind.CONNECT) == 1
    second = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: venue.finished.is_set() or second.poll() is not None)
    second.terminate()
    out, errors = second.communicate(timeout=PATIENCE_S)
    venue.stop()
    assert second.returncode == 0, errors
    assert json.loads(out)["stopped"]
    assert {path: path.read_bytes() for path in sealed} == sealed, "sealed files are never touched"
    assert not [
        path for path in sealed_in.iterdir() if path.suffix != ".parquet" and path in sealed
    ]
    frames = recorded(folder, "BYBIT")
    assert frames[: len(before)] == before
    assert len(frames) - len(before) == json.loads(out)["frames"]
    done, rows = tables(f"parquet:{folder}?table=frames&venue=bybit", tmp_path / "lake")
    assert done["dead_letters"] == {}
    kinds = [r["kind"] for r in rows["quality_events"] if r["symbol"] == "BTCUSDT"]
    # Nobody could say that the first connection was lost: the second one's opening does.
    assert kinds == ["disconnect", "stale", "valid", "disconnect", "stale"]
    path, _ = capture_of(case, data, tmp_path)
    _, direct = tables(f"capture:{path}", tmp_path / "direct")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ours, theirs = (
            [
                (r["bid_prices"], r["bid_sizes"], r["ask_prices"], r["ask_sizes"])
                for r in found["depth"]
                if r["symbol"] == symbol and r["book_state"] == "valid"
            ]
            for found in (rows, direct)
        )
        assert ours[-1] == theirs[-1]
