"""Flows by name, and what is said of one that cannot be had or is not what its spec says."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bytewax.dataflow import Dataflow

from marketflow.flows.catalogue import FLOWS, every, find
from marketflow.flows.errors import UsageError
from marketflow.flows.runtime.engine import check_steps
from marketflow.flows.settings import Settings, load, settings_of
from marketflow.flows.variables import COMMON_SETTINGS
from tests.support.counting import COUNTING, FLOW, Config, build
from tests.support.root import ROOT


def test_every_entry_is_found_and_lists_its_settings() -> None:
    assert [flow.name for flow in every()] == list(FLOWS)
    for flow in every():
        own = settings_of(flow).model_fields.keys() - set(COMMON_SETTINGS)
        assert own == set(FLOWS[flow.name].settings)
        assert load(flow).tables == tuple(flow.tables)


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ("markt_data", "no flow 'markt_data': did you mean market_data?; known: market_data, or"),
        ("trading", "no flow 'trading'; known: market_data, or package.module:NAME"),
        ("nowhere.flows:SPEC", "No module named 'nowhere'; the module must be installed, or"),
        ("tests.support.counting:NONE", "module tests.support.counting has no NONE"),
        ("tests.support.counting:FLOW", "is a str, no FlowSpec of"),
    ],
)
def test_a_flow_that_is_none_is_refused_with_the_fix(flow: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        find(flow)
    assert said in str(refused.value)


def test_a_flow_has_its_own_settings_and_tables() -> None:
    settings = load(COUNTING, weight=3)
    assert settings.deciding_rows() == {"shards": 16, "tables": ["statistics"], "weight": 3}
    with pytest.raises(UsageError, match="no table 'trades'; known: statistics"):
        load(COUNTING, tables="trades")
    with pytest.raises(UsageError, match=r"weight: .*greater than or equal to 1"):
        load(COUNTING, weight=0)


def _dataflow() -> Dataflow:
    from bytewax.testing import TestingSink, TestingSource

    return build(TestingSource([]), TestingSink([]), Config(lambda _: None, lambda _: None))


def test_a_spec_names_the_steps_that_keep_state() -> None:
    check_steps(COUNTING, _dataflow())
    for wrong in ({"by_shard": ()}, {"by_feed": ("sort", "more")}, {"output": "out"}):
        with pytest.raises(UsageError, match="its FlowSpec says"):
            check_steps(dataclasses.replace(COUNTING, **wrong), _dataflow())


def test_another_flow_does_not_mind_variables_but_flags_of_the_first(tmp_path: Path) -> None:
    line = [
        sys.executable, "-m", "marketflow", "run", FLOW, "--sink", "null:",
        "--source", "sim:?events=2000&symbols=2",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MARKETFLOW_INTERVALS": "1m"}
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line += ["--intervals", "1m"]
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert "--intervals is no setting of counting; its settings: shards" in done.stderr


def test_the_settings_of_every_flow_know_no_flow() -> None:
    assert set(Settings.model_fields) == set(COMMON_SETTINGS)
