"""The stand-in for PostgreSQL's parser on machines that have no build of it: stricter, because it knows less.

It accepts one plain query in ASCII without comments, escapes or dollar quotes, and takes every word in it for the name
of a function, a type and a relation alike, so that the catalog check looks at all of them. sqlglot has to agree that
the text is one query. Writes are not explained at all, not even without ANALYZE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from opsagent_jupyter.errors import StatementRefused

Tree = dict[str, Any]

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")+")
    |\$(?P<parameter>\d+)
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>[A-Za-z_][A-Za-z0-9_$]*)
    |(?P<operator>[~!@\#^&|?+\-*/%<>=]+)
    |(?P<mark>::|[()\[\],.;:])""",
    re.VERBOSE,
)

_OPENING = ("select", "with", "values", "table")

_FORBIDDEN = frozenset(
    # Words that begin or hide anything but a plain read.
    """
    alter analyze begin call cluster comment commit copy create deallocate declare delete discard do drop execute
    explain fetch for grant import insert into json_table listen load lock merge move notify operator prepare refresh
    reindex release reset returning revoke rollback savepoint security set share show start tablesample truncate
    unlisten update vacuum xmltable
    """.split()  # noqa: SIM905 - a list of strings is no easier to read
)


def read_tokens(text: str) -> list[tuple[str, Tree]]:
    """Read one plain query into the shape of a parse tree that names everything its words could mean."""
    if not text.isascii() or "\\" in text or re.search(r"(?i)u&['\"]", text):
        raise _refused("It holds escapes or characters beyond ASCII.")
    tokens = [token for token in _tokens(text) if token[0] != "space"]
    while tokens and tokens[-1] == ("mark", ";"):
        tokens.pop()
    if not tokens:
        return []
    _refuse_shape(text, tokens)
    return [
        ("SelectStmt", {"words": list(_words(tokens)), "operators": list(_operators(tokens)), **_parameters(tokens)})
    ]


def _refused(what: str) -> StatementRefused:
    return StatementRefused(
        f"PostgreSQL's parser is not installed here, and without it this statement cannot be checked. {what}",
        hint="Install the package postgast, or give a plain SELECT without comments.",
        reason="unknown_syntax",
    )


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _refused(f"The character at position {at + 1} is not understood.")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


def _refuse_shape(text: str, tokens: list[tuple[str, str]]) -> None:
    spoken = [value.lower() for kind, value in tokens if kind == "word"]
    first = next((value.lower() for kind, value in tokens if (kind, value) != ("mark", "(")), "")
    if ("mark", ";") in tokens:
        raise StatementRefused("The text holds several statements.", hint="Give one.", reason="several_statements")
    if first not in _OPENING:
        raise _refused("It is not a SELECT.")
    if forbidden := sorted(_FORBIDDEN.intersection(spoken)):
        raise _refused(f"It holds the word {forbidden[0]}.")
    if any("--" in value or "/*" in value for kind, value in tokens if kind == "operator"):
        raise _refused("It holds a comment.")
    _agree(text)


def _agree(text: str) -> None:
    import sqlglot
    from sqlglot import errors, exp

    try:
        trees = [tree for tree in sqlglot.parse(text, dialect="postgres") if tree is not None]
    except (errors.ParseError, errors.TokenError, RecursionError) as error:
        raise _refused("sqlglot cannot read it either.") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query | exp.Values):
        raise _refused("sqlglot does not take it for one query.")
    if trees[0].find(exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command, exp.Placeholder):
        raise _refused("sqlglot sees more than a query in it.")


def _words(tokens: list[tuple[str, str]]) -> Iterator[Tree]:
    before: list[tuple[str, str]] = [("", ""), ("", "")]
    for kind, value in tokens:
        if kind in {"word", "quoted"}:
            yield {"Word": {"sval": _folded(kind, value)}}
            if before[1] == ("mark", ".") and before[0][0] in {"word", "quoted"}:
                yield {"Word": {"sval": _folded(kind, value), "schema": _folded(*before[0])}}
        before = [before[1], (kind, value)]


def _folded(kind: str, value: str) -> str:
    return value[1:-1].replace('""', '"')[:63] if kind == "quoted" else value.lower()[:63]


def _operators(tokens: list[tuple[str, str]]) -> Iterator[Tree]:
    """Every operator that a run of operator characters could be split into."""
    for kind, value in tokens:
        if kind == "operator":
            for start in range(len(value)):
                for end in range(start + 1, len(value) + 1):
                    yield {"A_Expr": {"name": [{"String": {"sval": value[start:end]}}]}}


def _parameters(tokens: list[tuple[str, str]]) -> Tree:
    return {"parameters": [{"ParamRef": {"number": int(value)}} for kind, value in tokens if kind == "parameter"]}
