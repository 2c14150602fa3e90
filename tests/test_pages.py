"""Every entry of an axis has a page; its Python runs, and its training commands are valid configurations."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from methods import METHODS

from nelbo import cli
from nelbo.core.registry import lookup, names

ROOT = Path(__file__).parent.parent
AXES = ("objective", "posterior", "prior", "sampler", "model")
PAGES = sorted(page for axis in AXES for page in (ROOT / "docs" / f"{axis}s").glob("*.md"))


def blocks(page: Path, *languages: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return [body for name, body in fences if name in languages]


def commands(page: Path) -> list[tuple[list[str], int]]:
    """Every `nelbo train ...` in a block of the page, and its exit code: 2 where the page shows a refusal below it."""
    text = "\n".join(blocks(page, "bash", "console", "sh", "")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    found = []
    for line, below in zip(lines, [*lines, ""][1:], strict=True):
        if line.startswith("nelbo train "):
            found.append((shlex.split(line, comments=True)[1:], 2 if below.startswith("nelbo:") else 0))
    return found


@pytest.mark.parametrize(("axis", "name"), [(axis, name) for axis in AXES for name in names(axis)])
def test_every_entry_has_a_page_with_its_paper_and_a_way_to_use_it(axis, name):
    if not lookup(axis, name).__module__.startswith("nelbo."):
        pytest.skip("registered by another test")
    text = (ROOT / "docs" / f"{axis}s" / f"{name}.md").read_text(encoding="utf-8")
    assert re.search(r"\b(19|20)\d\d\b", text), "the paper and its year"
    assert "nelbo " in text
    overview = (ROOT / "docs" / f"{axis}s" / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"`{name}`|\[{name}\]", overview), "in the overview"


def test_there_is_no_page_of_nothing():
    for axis in AXES:
        pages = {page.stem for page in (ROOT / "docs" / f"{axis}s").glob("*.md")} - {"README"}
        assert pages <= set(names(axis)), axis


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent.name != "samplers"],  # tests/test_sampling.py runs those
    ids=lambda page: f"{page.parent.name}/{page.stem}",
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_the_training_commands_of_a_page_are_valid(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, code in commands(page):
        if not any(word.isupper() for word in words):  # NAME stands for one
            assert cli.main([*words, "--dry-run"]) == code, f"{words}\n{capsys.readouterr().err}"


def test_the_methods_that_pages_train_are_rows_of_the_table():
    """`python benchmarks/methods.py --only NAME`, in any page of the documentation."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"benchmarks/methods\.py --only ([\w-]+)", text))
    assert len(named) > 20
    assert named <= set(METHODS)
