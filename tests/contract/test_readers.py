"""Every source passes the contract of readers: see tests/support/reader_contract.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from marketflow.sources.registry import SCHEMES, open_reader
from tests.support import reader_contract as contract
from tests.support.reader_cases import CASES, NEVER_EMPTY, WITH_SERVER
from tests.support.reader_contract import CUTS, Case, Opener
from tests.support.root import ROOT

MESSAGES = 60
FILES = [name for name, case in CASES.items() if case.is_file]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def opener_of(case: Case, folder: Path, messages: int) -> Opener:
    return partial(open_reader, case.fresh(folder, messages))


def test_every_scheme_has_a_case() -> None:
    assert {case.scheme for case in CASES.values()} | WITH_SERVER == set(SCHEMES)


def test_every_scheme_is_on_the_page_and_in_the_help() -> None:
    page = (ROOT / "sources/README.md").read_text()
    help_text = (ROOT / "flows/commands/app.py").read_text()
    for scheme in SCHEMES:
        assert f"| `{scheme}:" in page
        assert f"{scheme}:" in help_text


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_cuts_change_nothing(case: Case, tmp_path: Path) -> None:
    contract.check_cuts(opener_of(case, tmp_path, MESSAGES), case.shape)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_stop_anywhere_loses_nothing(case: Case, tmp_path: Path) -> None:
    contract.check_stops(opener_of(case, tmp_path, MESSAGES), case.shape, CUTS[1])


@pytest.mark.parametrize("case", sorted(set(CASES) - NEVER_EMPTY), indirect=True)
def test_an_empty_input_ends_cleanly(case: Case, tmp_path: Path) -> None:
    contract.check_empty(opener_of(case, tmp_path, 0))


@pytest.mark.parametrize("case", FILES, indirect=True)
def test_a_missing_file_is_named(case: Case, tmp_path: Path) -> None:
    for which, paths in enumerate(case.fresh(tmp_path, MESSAGES).files):
        if paths:
            config = case.fresh(tmp_path, MESSAGES)
            opener = partial(open_reader, config)
            contract.check_missing(opener, config.files[which][0])


@pytest.mark.parametrize("case", FILES, indirect=True)
def test_garbage_becomes_dead_letters(case: Case, tmp_path: Path) -> None:
    config = case.fresh(tmp_path, MESSAGES)
    for paths in config.files:
        for path in paths[:1]:
            contract.check_garbage(partial(open_reader, config), path)
