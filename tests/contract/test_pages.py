"""The README pages say what is so: their examples run, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from marketflow.flows.commands.app import app
from marketflow.flows.variables import check_variables
from marketflow.schemas.codes import QualityKind, words
from marketflow.sinks.registry import SCHEMES as SINKS
from marketflow.sources.registry import SCHEMES as SOURCES
from marketflow.sources.websocket.config import _VENUES
from tests.support.pages import LANGUAGES, MARKS, SERVERS, blocks, files, missing_line, pages, run
from tests.support.root import ROOT

PAGES = pages()
EACH = pytest.mark.parametrize("page", PAGES)
LOCAL = [page for page in PAGES if any(b.runs and not b.needs for b in blocks(page))]
_OURS = re.compile(
    r"(?:docs|flows|infra|operators|schemas|sinks|sources|tests)/[\w./-]*|[\w-]+\.(?:py|md)"
)
_MODULE = re.compile(r"python -m (tests\.[\w.]+)")
_LINK = re.compile(r"\]\(([^)]+)\)")
_VARIABLE = re.compile(r"MARKETFLOW_[A-Z]+(?:_[A-Z]+)*(?![A-Z_*])")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("page", LOCAL)
def test_examples_run(page: str, tmp_path: Path) -> None:
    run([block for block in blocks(page) if block.runs and not block.needs], tmp_path)


def test_most_pages_have_examples() -> None:
    rooms = ("", "sources/", "sinks/", "flows/", "flows/queries/")
    assert {f"{room}README.md" for room in rooms} <= set(LOCAL)


def wrong_marks(page: str) -> list[str]:
    """What no test knows how to treat."""
    wrong = []
    for block in blocks(page):
        needs = filter(None, block.marks.get("needs", "").split(", "))
        ports = filter(None, block.marks.get("ports", "").split(", "))
        unknown = [
            *(name for name in block.marks if name not in MARKS),
            *(server for server in needs if server not in SERVERS),
            *(port for port in ports if port not in block.text),
            *([] if block.language in LANGUAGES else [f"language {block.language!r}"]),
        ]
        wrong += [f"{page}:{block.line}: {name}" for name in unknown]
    return wrong


@EACH
def test_every_block_is_marked_with_what_is_known(page: str) -> None:
    assert wrong_marks(page) == []


def test_a_mark_that_is_not_known_is_found(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    marks = ("not run: it is long", "slow", "needs: kafka, redis", "ports: 9", "needs: kafka")
    page.write_text("".join(f"<!-- {mark} -->\n```sh\ntrue\n```\n\n" for mark in marks))
    assert [wrong.rpartition(": ")[2] for wrong in wrong_marks(str(page))] == ["slow", "redis", "9"]
    assert [block.runs for block in blocks(str(page))] == [False, True, True, True, True]
    page.write_text("```sh\ntrue\n```\n\n```text\nsaid\n```\n\n```text\npicture\n```\n")
    assert [block.prints for block in blocks(str(page))] == [("said",), ()]


@EACH
def test_files_and_modules_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    names = {path.name for path in files("*.*")}
    missing = []
    for name in re.findall(r"`([^`\n]+)`", text):
        if not _OURS.fullmatch(name):
            continue
        there = (ROOT / name).exists() if "/" in name else name in names
        if not there and "NNNN" not in name:
            missing.append(name)
    for module in _MODULE.findall(text):
        path = ROOT / module.rstrip(".").replace(".", "/")
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            missing.append(module)
    assert not missing


@EACH
def test_links_lead_somewhere(page: str) -> None:
    for target in _LINK.findall((ROOT / page).read_text()):
        if not target.startswith("https://"):
            assert_leads_somewhere((ROOT / page).parent, target)


def assert_leads_somewhere(folder: Path, link: str) -> None:
    """A page of the project, and one of its headings where the link names one."""
    target, _, heading = link.partition("#")
    assert (folder / target).is_file(), link
    titles = re.findall(r"^#+ (.+)$", (folder / target).read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert not heading or heading in anchors, link


@EACH
def test_variables_that_are_named_set_something(page: str) -> None:
    check_variables(dict.fromkeys(_VARIABLE.findall((ROOT / page).read_text()), "1"))


@EACH
def test_commands_have_the_options_that_examples_use(page: str) -> None:
    """Those that are only shown, too."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for block in blocks(page):
        if block.language != "sh":
            continue
        text = re.sub(r"""(["']).*?\1""", "X", block.text.replace("\\\n", " "), flags=re.DOTALL)
        for line in re.findall(r"^marketflow (.*?)(?: #.*)?$", text, re.MULTILINE):
            name, *given = line.split()
            known = {o for p in commands[name].params for o in (*p.opts, *p.secondary_opts)}
            options = {word.partition("=")[0] for word in given if word[0] == "-"}
            assert options <= known, f"{page}: {line}"


def test_help_names_a_page_that_is_there() -> None:
    group = typer.main.get_command(app)
    context = group.make_context("marketflow", ["run", "--help"], resilient_parsing=True)
    named = {}
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        epilog = group.get_command(context, name).epilog or ""  # type: ignore[attr-defined]
        found = re.search(r"Read on: (.+)", epilog)
        if found:
            named[name] = found[1]
    assert {"run", "replay", "record", "sql", "services"} <= named.keys()
    for target in named.values():
        assert_leads_somewhere(ROOT, target)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("sources/README.md", [f"{name}:" for name in SOURCES]),
        ("sources/README.md", list(_VENUES)),
        ("sinks/README.md", [f"{name}:" for name in SINKS]),
    ],
    ids=["sources", "venues", "sinks"],
)
def test_every_scheme_is_on_its_page(page: str, names: list[str]) -> None:
    text = (ROOT / page).read_text()
    assert [name for name in names if f"`{name}" not in text] == []


def test_every_check_is_on_the_page_of_the_operators() -> None:
    text = (ROOT / "operators" / "README.md").read_text()
    assert [word for word in words(QualityKind) if f"`{word}`" not in text] == []


def test_output_is_compared_line_by_line_in_order() -> None:
    said = "one\ntwo 2.5 s\nthree\n"
    assert missing_line(["one", "two … s", "three"], said) is None
    assert missing_line(["…ee"], said) is None
    assert missing_line(["three", "one"], said) == "one"
    assert missing_line(["tw"], said) == "tw"
