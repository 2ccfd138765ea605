"""Nothing is dropped unasked: what would go is shown first, and what the law wants kept stays."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from marketflow.flows.commands import retention, services
from marketflow.flows.commands.maintenance import compact_lake
from marketflow.flows.commands.retention import Wanted, forget
from marketflow.flows.errors import UsageError
from marketflow.infra.retention import LEGAL_DAYS, LEGAL_TABLES, lawful_day
from marketflow.schemas.tables import TABLES
from tests.support.lake_model import lake_rows
from tests.support.many_files import written_lake

QUIET = Console(quiet=True)


def test_nothing_goes_without_yes(tmp_path: Path) -> None:
    root = written_lake(tmp_path)
    before = lake_rows(root)
    with pytest.raises(UsageError, match=r"trades [1-9]\d*.*--yes"):
        compact_lake(root, "2030-01-01", False, LEGAL_DAYS, QUIET)
    would = forget(root, None, Wanted(["trades=1"], "2030-01-01", dry_run=True), QUIET)
    assert would["tables"]["trades"]["dropped"] > 0
    assert lake_rows(root) == before
    done = compact_lake(root, "2030-01-01", True, LEGAL_DAYS, QUIET)
    assert done["files_dropped"]["trades"] == would["tables"]["trades"]["dropped"]
    assert not any(lake_rows(root).values())


def test_days_count_from_the_newest_row_where_asked(tmp_path: Path) -> None:
    """The rows are of 2026-01-01 and 02; today all of them are old, from the newest one day is."""
    root = written_lake(tmp_path)
    forget(root, None, Wanted(["trades=1", "bars=1"], "newest"), QUIET)
    assert {row[-1] for row in lake_rows(root)["trades"].values()} == {
        date(2026, 1, 1), date(2026, 1, 2),
    }  # fmt: skip
    forget(root, None, Wanted(["trades=1", "bars=1"], "2026-01-03"), QUIET)
    assert {row[-1] for row in lake_rows(root)["trades"].values()} == {date(2026, 1, 2)}


def test_the_legal_period_holds_whatever_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.now(UTC).date()
    for table in LEGAL_TABLES:
        assert lawful_day(table, today, today) == today - timedelta(LEGAL_DAYS)
        assert lawful_day(table, today, today, 10) == today - timedelta(10)
        old = today - timedelta(LEGAL_DAYS + 1)
        assert lawful_day(table, old, today) == old
    assert lawful_day("quotes", today, today) == today
    # A table of trades' shape under the name of one that the law wants kept.
    monkeypatch.setitem(TABLES, "executions", TABLES["trades"])
    monkeypatch.setitem(retention.KEEP_DAYS, "executions", None)
    root = written_lake(tmp_path)
    (root / "trades").rename(root / "executions")
    with pytest.raises(UsageError, match="by law"):
        forget(root, None, Wanted(["executions=30"]), QUIET)
    with pytest.raises(UsageError, match=r"these files: (?!.*executions)"):
        compact_lake(root, "2035-01-01", False, LEGAL_DAYS, QUIET)
    kept = forget(root, None, Wanted(["executions=30"], "2035-01-01", legal_days=20), QUIET)
    days = (today - date(2026, 1, 2)).days
    assert (kept["tables"]["executions"]["dropped"] > 0) == (days > 20)


def test_a_reset_says_what_would_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARKETFLOW_SERVICES", str(tmp_path))
    monkeypatch.setenv("MARKETFLOW_DOCKER", "0")
    data = tmp_path / "kafka" / "data"
    data.mkdir(parents=True)
    with pytest.raises(UsageError, match="--yes") as refused:
        services.run_action("reset", "kafka", False, QUIET)
    assert str(data) in str(refused.value)
    assert data.is_dir()
    services.run_action("reset", "kafka", True, QUIET)
    assert not data.exists()


def test_addresses_are_handed_on_as_lines_of_the_shell() -> None:
    states = {
        "kafka": {"state": "up", "url": "127.0.0.1:9", "detail": ""},
        "timescale": {
            "state": "up", "url": "postgresql://a:b c@h/d", "detail": "", "reader": "postgresql://r",
        },
        "prometheus": {"state": "up", "url": "http://127.0.0.1:1", "detail": ""},
    }  # fmt: skip
    assert services.exports(states) == [
        "export MARKETFLOW_BROKERS=127.0.0.1:9",
        "export MARKETFLOW_DSN='postgresql://a:b c@h/d'",
        "export MARKETFLOW_READER_DSN=postgresql://r",
    ]
