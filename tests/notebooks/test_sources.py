"""The notebooks as they are kept: valid, without outputs, with nothing of any machine, and each run by a test."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import nbformat
import pytest

from tests.kernels import ROOT
from tests.notebooks.pages import FOLDER

NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
#: What the wheel itself and Python bring.
AT_HAND = {"opsagent_jupyter", "IPython"}


def required() -> set[str]:
    """The distributions that ``opsagent_jupyter[demo]`` names, those of the extras in it included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["demo"], *extras["mongodb"], *extras["postgresql"], *extras["runbooks"]]
    return {re.split(r"[\[<>=; ]", line)[0].lower().replace("_", "-") for line in named}


def imported(path: Path) -> Iterator[str]:
    """The packages that the cells of a notebook import."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        plain = re.sub(r"^(\s*)(?:\w+ = )?[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)
        for node in ast.walk(compile(plain, path.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield str(node.module).partition(".")[0]


def test_there_is_a_notebook_for_each_thing_to_learn_and_a_test_that_runs_it() -> None:
    """Tour, both databases, audit, runbook, plugin; a test names each."""
    assert NOTEBOOKS == [
        "01-tour.ipynb", "02-mongodb.ipynb", "02-postgresql.ipynb", "03-audit.ipynb", "04-runbook.ipynb", "05-plugin.ipynb",
    ]  # fmt: skip
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in NOTEBOOKS if f'executed("{name}"' not in tests] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    """Valid, no outputs, no counts, no tags of an editor, a kernel that everybody has, and a title first."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "password" not in cell.source or cell.cell_type == "markdown"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_comes_with_the_demo(name: str) -> None:
    """Whoever installed ``opsagent_jupyter[demo]`` can run it: no import needs another package."""
    owners = packages_distributions()
    foreign = {package for package in imported(FOLDER / name) if package in owners and package not in AT_HAND}
    missing = {package for package in foreign if not {owner.lower() for owner in owners[package]} & required()}
    assert missing == set()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_links_of_a_notebook_lead_to_its_neighbours(name: str) -> None:
    """A relative link in the prose names a notebook that is there."""
    prose = "".join(c.source for c in nbformat.read(FOLDER / name, as_version=4).cells if c.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+\.ipynb)\)", prose)
    assert [link for link in links if link not in NOTEBOOKS] == []
