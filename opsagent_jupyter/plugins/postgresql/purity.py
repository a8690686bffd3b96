"""The second guard of EXPLAIN: what the names of a statement reach in the catalog, and whether that may run.

A parser sees `v_orders` and `~~~`; only the catalog knows the function below them. `reach` follows every name to the
functions and relations behind it (see purity_reach.sql) and refuses whatever is not known to compute or read only.
It asks anew each time, so nothing cached can go stale; where all names are the server's own or plain tables, one
question is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

from opsagent_jupyter.errors import StatementRefused
from opsagent_jupyter.plugins.postgresql.queries import tagged
from opsagent_jupyter.plugins.postgresql.statement import (
    Names,
    calls_with_constants,
    examine_body,
    refused,
    secret,
)
from opsagent_jupyter.plugins.postgresql.statement_rules import (
    EXTENSION_READERS,
    READERS,
    SECRET_RELATIONS,
    UNTRUSTED_LIBRARIES,
    rule_for,
)

DEEPEST = 20
"""SQL functions that call SQL functions; deeper nesting is refused."""

_PLANNER = "The planner itself may run functions labelled immutable or stable, so plain EXPLAIN needs them pure too."
_PLAIN = "EXPLAIN without ANALYZE may still show the plan."


class Reached(NamedTuple):
    """A function or relation that the statement leads to."""

    what: str
    """function, relation, stored (a function in an index or constraint) or object (there is more to follow)."""
    schema: str
    name: str
    runs: bool
    """It is executed, or the planner may execute it."""
    trusted: bool
    """Only views of the server itself lead to it."""
    direct: bool
    own: bool
    """It belongs to the server, not to a user or an extension."""
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" + ("" if self.what == "relation" else "()")


async def reach(
    conn: psycopg.AsyncConnection[Any], names: Names, *, analyze: bool, schemas: Sequence[str]
) -> list[Reached]:
    """Return the relations behind the names; raise StatementRefused for what may not run.

    ``schemas``: the effective search path of the statement, in order. The session's own must be pg_catalog.
    """
    first = await _found(conn, "seed", names, runs=analyze, schemas=schemas)
    if all(map(_ends_here, first)):
        list(_judged(first, schemas, analyze=analyze))
        return [each for each in first if each.what == "relation"]
    return await _followed(conn, (names, analyze, tuple(schemas)), analyze=analyze)


_Question = tuple[Names, bool, tuple[str, ...] | None]
"""Names, whether they run, and where they are looked up."""


async def _followed(conn: psycopg.AsyncConnection[Any], question: _Question, *, analyze: bool) -> list[Reached]:
    relations: list[Reached] = []
    asked, questions = {question}, [question]
    for _ in range(DEEPEST):
        following: list[_Question] = []
        for names, runs, schemas in questions:
            found = await _found(conn, "reach", names, runs=runs, schemas=schemas)
            relations += [each for each in found if each.what == "relation"]
            following += [each for each in _judged(found, schemas, analyze=analyze) if each not in asked]
        questions = list(dict.fromkeys(following))
        asked.update(questions)
        if not questions:
            return relations
    raise refused("too_deep", "SQL functions call each other too deeply to be checked.", _PLAIN)


def _ends_here(each: Reached) -> bool:
    """Nothing lies behind it: a function of the server, or a relation of its types without views, rules or children."""
    return bool(each.own if each.what == "function" else each.facts.get("plain"))


async def _found(
    conn: psycopg.AsyncConnection[Any], source: str, names: Names, *, runs: bool, schemas: Sequence[str] | None
) -> list[Reached]:
    async with conn.cursor(row_factory=namedtuple_row) as cursor:
        question = _question_json(names, runs=runs, schemas=schemas)
        await cursor.execute(_query(source), {"question": question}, prepare=True)
        return [Reached(*row) for row in await cursor.fetchall()]


def _question_json(names: Names, *, runs: bool, schemas: Sequence[str] | None) -> str:
    """The question of purity_seeds.sql; one parameter, so that the server prepares the query once."""
    question = {
        "runs": runs,
        "writes": bool(names.targets),
        "schemas": schemas,
        "untrusted": rf"(^|[/\\])({'|'.join(sorted(UNTRUSTED_LIBRARIES))})(\.\w+)?$",
        "calls": [{"nsp": each.schema, "name": each.name, "arguments": each.arguments} for each in names.calls],
        "fields": [
            {
                "name": each.name,
                "nsp": each.relation and each.relation.schema,
                "relation": each.relation and each.relation.name,
            }
            for each in names.fields
        ],
        "operators": [{"nsp": each.schema, "name": each.name} for each in names.operators],
        "types": [{"nsp": each.schema, "name": each.name} for each in names.types],
        "relations": [{"nsp": each.schema, "name": each.name} for each in names.relations],
    }
    return json.dumps(question)


@cache
def _query(source: str) -> LiteralString:
    parts = ["purity_seeds.sql", *(["purity_reach.sql"] if source == "reach" else []), "purity_found.sql"]
    texts = [files(__package__).joinpath(part).read_text(encoding="utf-8") for part in parts]
    return tagged("WITH RECURSIVE\n" + ",\n".join(texts).replace("{source}", source))


def _judged(found: Iterable[Reached], schemas: Sequence[str] | None, *, analyze: bool) -> Iterator[_Question]:
    """Refuse what may not run; return the names in bodies that still have to be looked up."""
    for each in found:
        if each.what in {"relation", "object"}:
            _judge_relation(each)
            continue
        if each.what == "stored" and each.facts["language"] != "sql" and not _constant_call(each):
            continue
        why = _own_refusal(each) if each.own else _added_refusal(each)
        if why:
            raise why
        if each.facts["language"] == "sql" and not each.own and not each.facts["parsed"]:
            yield _body(each, schemas, analyze=analyze)


def _body(function: Reached, schemas: Sequence[str] | None, *, analyze: bool) -> _Question:
    """Names in the text of an SQL function; with a path of its own they are looked up everywhere."""
    runs = _executed(function)
    path = None if schemas is None or function.facts["settings"] else tuple(schemas)
    if not runs and _opaque(function):
        return Names(), analyze, path
    try:
        return examine_body(function.facts["source"], runs=runs), runs, path
    except StatementRefused as inner:
        raise refused(
            inner.facts["reason"], f"The body of {function} is refused: {inner.message}", inner.hint
        ) from inner


def _judge_relation(relation: Reached) -> None:
    kind = relation.facts.get("kind")
    if relation.own and relation.name in SECRET_RELATIONS and not relation.trusted:
        raise secret(str(relation))
    if kind == "t":
        raise refused("secret_relation", f"{relation} is internal storage.", "Name the table it belongs to.")
    if kind == "f" and relation.runs:
        raise refused("foreign_table", f"{relation} is a foreign table: reading it acts on another system.", _PLAIN)
    if kind == "f" and (
        relation.facts["remote_estimate"] or relation.facts["wrapper"] not in {"postgres_fdw", "file_fdw"}
    ):
        raise refused("foreign_table", f"Planning {relation} asks another system.", "Explain it there.")


def _own_refusal(function: Reached) -> StatementRefused | None:
    rule = rule_for(function.name)
    if rule and (function.runs or rule.planned):
        return refused(rule.reason, f"{function} is not run: it {rule.does}.", rule.instead)
    if _executed(function) and (
        function.facts["language"] not in {"internal", "c", "sql"} or function.facts["definer"]
    ):
        return refused("function", f"{function} was replaced: it is no longer the server's own code.", _PLAIN)
    if function.runs and function.facts["label"] == "v" and function.name not in READERS:
        return refused("function", f"{function} is volatile and not known to read only.", _PLAIN)
    return None


def _constant_call(function: Reached) -> bool:
    """An expression of an index or constraint calls it without a column, so the planner would run it."""
    return function.facts["expression"] is None or calls_with_constants(function.facts["expression"], function.name)


def _executed(function: Reached) -> bool:
    return function.runs or bool(function.facts["label"] != "v")


def _opaque(function: Reached) -> bool:
    """The planner does not inline it, so it does not look into its body."""
    return bool(function.facts["definer"] or function.facts["settings"])


def _added_refusal(function: Reached) -> StatementRefused | None:
    """Why a function of a user or an extension may not run; None for one that only computes or reads."""
    if not _executed(function):
        return None  # planners run no volatile function
    rule = rule_for(function.name)
    why = (rule and f"it {rule.does}") or _impurity(function)
    if not why:
        return None
    hint = _PLAIN if function.facts["label"] == "v" else _PLANNER
    return refused(rule.reason if rule else "function", f"{function} is not run: {why}.", hint)


def _impurity(function: Reached) -> str:
    facts = function.facts
    if facts["definer"]:
        return "it runs with the rights of its owner"
    if any(not setting.startswith("search_path=") for setting in facts["settings"] or ()):
        return "it changes settings"
    if facts["aggregate"]:
        return ""  # the functions below it are judged themselves
    if facts["language"] == "internal":
        return _alias_impurity(function)
    if facts["language"] == "c":
        return _library_impurity(function)
    if facts["language"] != "sql":
        return f"it is written in {facts['language']}, which cannot be looked into"
    return "it writes or locks rows" if facts["writes"] else ""


def _alias_impurity(function: Reached) -> str:
    """Why a function of the server may not run under another name, whatever label that carries."""
    for name, label in function.facts["inside"] or [["", "v"]]:
        its = function._replace(name=name, runs=True, facts={**function.facts, "label": label})
        if _own_refusal(its):
            return f"it is {name or 'nothing known'}() under another name"
    return ""


def _library_impurity(function: Reached) -> str:
    facts = function.facts
    library = PurePosixPath((facts["library"] or "").replace("\\x", "")).name
    if facts["extension"] is None or library.split(".")[0] in UNTRUSTED_LIBRARIES:
        return "it is C code that is not known to be harmless"
    if facts["label"] == "i" or (facts["extension"], function.name) in EXTENSION_READERS:
        return ""
    return f"extension {facts['extension']} does not declare it free of effects"
