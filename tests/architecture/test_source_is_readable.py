"""Functions stay short, and modules and classes are named by what they are."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = sorted([*(ROOT / "opsagent_jupyter").rglob("*.py"), *(ROOT / "js").glob("*.py")])
LONGEST_FUNCTION = 60
BANNED = {
    "base",
    "common",
    "core",
    "data",
    "handler",
    "handlers",
    "helper",
    "helpers",
    "impl",
    "info",
    "manager",
    "managers",
    "misc",
    "service",
    "services",
    "util",
    "utils",
    "wrapper",
}


def nodes(*kinds):
    """Every definition of these kinds, with its place as `file:line name`."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, kinds):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_there_is_something_to_read():
    """The tests below look at the real package."""
    assert ROOT / "opsagent_jupyter" / "errors.py" in FILES


def test_no_function_is_longer_than_a_screen():
    """A function has at most 60 lines, its decorators not counted."""
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    assert [place for place, node in functions if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION] == []


def test_modules_are_named_by_nouns_of_the_domain():
    """A module or package with a name like utils has no owner yet."""
    names = {part for file in FILES for part in file.relative_to(ROOT).with_suffix("").parts}
    assert [name for name in names if BANNED & set(name.lower().split("_"))] == []


def test_classes_are_named_by_nouns_of_the_domain():
    """A class with a name like ToolManager has no owner yet."""
    places = [place for place, node in nodes(ast.ClassDef) if BANNED & words(node.name)]
    assert places == []


def words(name):
    """The words of a CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}
