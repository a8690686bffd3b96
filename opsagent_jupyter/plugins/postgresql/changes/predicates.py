"""The condition of a partial index, in a closed grammar: comparisons of columns with values, joined by AND."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from opsagent_jupyter.errors import InvalidArguments

Value = str | int | Decimal | bool

_HINT = "Write column = 'value', column > 5, column IN (1, 2), column IS NULL, or a boolean column; join them by AND."
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | (?P<number>-?\d+(?:\.\d+)?)(?![\w.])
    | (?P<quoted>"(?:[^"]|"")+")
    | (?P<word>[A-Za-z_\x80-\uffff][\w$\x80-\uffff]*)
    | (?P<operator><=|>=|<>|!=|=|<|>)
    | (?P<mark>[(),])
    )""",
    re.VERBOSE,
)
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Term:
    """One comparison. ``operator`` is one of = <> < <= > >= IN, IS NULL, IS NOT NULL, IS TRUE, NOT."""

    column: str
    """As it was written; as the catalog quotes it once it is resolved."""
    operator: str
    values: tuple[Value, ...] = ()


def parse(text: str) -> tuple[Term, ...]:
    """Read a condition; ``InvalidArguments`` for anything outside the grammar."""
    tokens = list(_tokens(text))
    terms = [_term(tokens)]
    while tokens:
        if _word(tokens.pop(0)) != "and":
            raise _refused(text)
        terms.append(_term(tokens))
    return tuple(terms)


def _refused(text: str) -> InvalidArguments:
    return InvalidArguments(f"The condition {text[:80]!r} is not one that is offered.", hint=_HINT, path="where")


def _tokens(text: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _refused(text)
        yield match
        position = match.end()


def _word(token: re.Match[str] | None) -> str:
    return token["word"].lower() if token and token["word"] else ""


def _take(tokens: list[re.Match[str]]) -> re.Match[str]:
    if not tokens:
        raise InvalidArguments("The condition ends too early.", hint=_HINT, path="where")
    return tokens.pop(0)


def _name(token: re.Match[str]) -> str:
    if not (token["word"] or token["quoted"]) or _word(token) in {"and", "or", "not", "in", "is", "null", *_TRUTH}:
        raise _refused(token.string)
    return str(token["word"] or token["quoted"])


def _term(tokens: list[re.Match[str]]) -> Term:
    token = _take(tokens)
    if _word(token) == "not":
        return Term(_name(_take(tokens)), "NOT")
    column = _name(token)
    if not tokens or _word(tokens[0]) == "and":
        return Term(column, "IS TRUE")
    token = _take(tokens)
    if _word(token) == "is":
        return Term(column, _null(tokens))
    if _word(token) == "in":
        return Term(column, "IN", _list(tokens))
    if not token["operator"]:
        raise _refused(token.string)
    return Term(column, "<>" if token["operator"] == "!=" else token["operator"], (_value(_take(tokens)),))


def _null(tokens: list[re.Match[str]]) -> str:
    token = _take(tokens)
    negated = _word(token) == "not"
    token = _take(tokens) if negated else token
    if _word(token) != "null":
        raise _refused(token.string)
    return "IS NOT NULL" if negated else "IS NULL"


def _list(tokens: list[re.Match[str]]) -> tuple[Value, ...]:
    token = _take(tokens)
    if token["mark"] != "(":
        raise _refused(token.string)
    values = [_value(_take(tokens))]
    while (token := _take(tokens))["mark"] == ",":
        values.append(_value(_take(tokens)))
    if token["mark"] != ")":
        raise _refused(token.string)
    return tuple(values)


def _value(token: re.Match[str]) -> Value:
    if token["string"]:
        return str(token["string"][1:-1].replace("''", "'"))
    if token["number"]:
        return Decimal(token["number"]) if "." in token["number"] else int(token["number"])
    if _word(token) in _TRUTH:
        return _TRUTH[_word(token)]
    raise _refused(token.string)


def written(terms: tuple[Term, ...]) -> str:
    """Write a condition whose columns are quoted names of the catalog already."""
    return " AND ".join(_written(term) for term in terms)


def _written(term: Term) -> str:
    if term.operator == "NOT":
        return f"NOT {term.column}"
    if term.operator == "IS TRUE":
        return term.column
    if term.operator == "IN":
        return f"{term.column} IN ({', '.join(map(_literal, term.values))})"
    return " ".join([term.column, term.operator, *map(_literal, term.values)])


def _literal(value: Value) -> str:
    from psycopg.sql import Literal

    return Literal(value).as_string(None).strip()
