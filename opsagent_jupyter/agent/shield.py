"""What of a database's answers stays away from every model: masked columns, and all rows where an instance says so.

This is the one place where it is enforced: every answer of a tool becomes a text for a model in ``transcript.tool_text``,
which passes it here first. The notebook and the store keep the answer whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from opsagent_jupyter.models import CallRecord, Effect, Instance, Json, Result, Table
from opsagent_jupyter.redaction import STRUCK, Redactor, struck_out

M = TypeVar("M", Result, Effect, CallRecord)
#: Keys in an instance's settings.
MASKED, WITHHELD = "masked", "rows_to_model"
#: Values that a column can hold without telling anything.
PLAIN = ("", "true", "false", "null", "none", STRUCK)

_FIGURE = re.compile(r"[\d.,:%-]{1,6}")
_STATEMENT = re.compile(
    r"\b(?:select|insert|update|delete|values|where|merge|copy|set|key|filter|cond)\b", re.IGNORECASE
)
#: Literals of statements; a text that was cut may lack the end. They are atomic: no text can make them slow.
_ESCAPED = r"""(?>\be'(?:[^'\\]|\\.|'')*(?:'|\Z))"""
_PLAIN = r"(?>'(?:[^']|'')*(?:'|\Z))"
_DOLLARS = r"\$(\w*)\$.*?(?:\$\1\$|\Z)"
#: As SQL reads a text, and as English does, where the apostrophe of "doesn't" begins nothing: what either finds is struck.
_LITERALS = tuple(
    re.compile(f"{_ESCAPED}|{begins}{_PLAIN}|{_DOLLARS}", re.DOTALL | re.IGNORECASE) for begins in ("", r"(?<!\w)")
)
_LIST = rf"(?>\((?:[^()']|{_PLAIN})*(?:\)|\Z))"
_VALUE = rf"""(?:{_ESCAPED}|{_PLAIN}|{_LIST}|(?>"(?:[^"\\]|\\.)*(?:"|\Z))|[^\s,;)}}\]]+)"""
_NAMED = r"""\bCOLUMN\b["'`]?\)?(?:::[\w ]+?)?\s*"""
#: Where a value stands that is compared with a column, kept in it, or put into it.
_PLACES = (
    rf"{_NAMED}(?:=|<>|!=|<=?|>=?|!?~~?\*?|:|\b(?:in|like|ilike|any)\b)[\s=]*({_VALUE})",
    rf"{_NAMED}\b(?:not\s+)?between\s+({_VALUE}\s+and\s+{_VALUE})",
    r"""(?<![^\s,;(){}\[\]=<>!])([^\s,;(){}\[\]=<>!]+)\s*(?:=|<>|!=|<=?|>=?)\s*["`]?(?:\w+["`]?\.["`]?)*COLUMN\b""",
    rf"\([^()]*\bCOLUMN\b[^()]*\)\s*=\s*({_LIST})",
    rf"\bCOLUMN\b.*?\bvalues\s*({_LIST}(?:\s*,\s*{_LIST})*)",
)


@dataclass(frozen=True)
class Shield:
    """Keeps values of some columns, or all rows, from a model."""

    columns: frozenset[str] = frozenset()
    """Names of masked columns, in lower case. A result does not say which table a column is of, so the name decides."""
    rows: bool = True

    @classmethod
    def of(cls, instance: Instance | None) -> Shield:
        """The shield that was set when the instance was attached."""
        settings = instance.settings if instance is not None else {}
        masked = settings.get(MASKED)
        names = [str(name) for name in masked] if isinstance(masked, list) else []
        return cls(frozenset(_column(name) for name in names), settings.get(WITHHELD, True) is not False)

    @classmethod
    def named(cls, name: str, instances: Sequence[Instance]) -> Shield:
        """The shield of the instance of that name; one that is not attached any more has none left to ask for."""
        return cls.of(next((instance for instance in instances if instance.name == name), None))

    def __bool__(self) -> bool:
        return bool(self.columns) or not self.rows

    def over(self, record: CallRecord) -> CallRecord:
        """The call without what a model may not read."""
        if not self:
            return record
        struck = Redactor()
        struck.add(*self._secrets(record))
        effect = self._effect(record.effect, struck) if record.effect else None
        changes = {"result": self._result(record.result, struck), "effect": effect}
        return record.model_copy(update={**changes, "summary": self._said(record.summary, struck)})

    def text(self, text: str) -> str:
        """A text without the literals of statements, and without what is compared with a masked column."""
        if not self:
            return text
        spans = [span for column in self.columns for span in _kept_in(column, text)]
        mentions = any(re.search(rf"\b{re.escape(column)}\b", text, re.IGNORECASE) for column in self.columns)
        if mentions or _STATEMENT.search(text):
            spans += [match.span() for literal in _LITERALS for match in literal.finditer(text)]
        return struck_out(text, spans) if spans else text

    # -- what is secret

    def _secrets(self, record: CallRecord) -> Iterator[str]:
        results = [record.result, record.effect.result if record.effect else None]
        for table in (table for result in results if result for table in result.tables):
            for row in table.rows:
                yield from self._of_row(table, row)
        for figures in [
            *(result.figures for result in results if result),
            *([record.effect.figures] if record.effect else []),
        ]:
            yield from self._nested(figures)

    def _of_row(self, table: Table, row: Sequence[Json]) -> Iterator[str]:
        for column, value in zip(table.columns, row, strict=False):
            if _column(column) in self.columns:
                yield from _told(value)
            elif not self.rows:
                yield from (text for text in _told(value) if len(text) > 2 and not _FIGURE.fullmatch(text))
            else:
                yield from self._nested(value)

    def _nested(self, value: Json) -> Iterator[str]:
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield from _told(item) if _column(name) in self.columns else self._nested(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._nested(item)

    # -- striking it

    def _said(self, text: str, struck: Redactor) -> str:
        return self.text(struck.redact(text))

    def _json(self, value: Json, struck: Redactor, name: str = "") -> Json:
        if name and _column(name) in self.columns:
            return None if value is None else STRUCK
        if isinstance(value, Mapping):
            return {key: self._json(item, struck, key) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._json(item, struck) for item in value]
        return self._said(value, struck) if isinstance(value, str) else value

    def _result(self, result: Result | None, struck: Redactor) -> Result | None:
        if result is None:
            return None
        changes = {
            "summary": self._said(result.summary, struck),
            "highlights": tuple(self._said(text, struck) for text in result.highlights),
            "notes": tuple(self._said(text, struck) for text in result.notes),
            "tree": self._said(result.tree, struck) if self.rows else "",
            "figures": self._json(result.figures, struck),
            "tables": tuple(self._table(table, struck) for table in result.tables),
        }
        return self._offers(result.model_copy(update=changes), struck)

    def _effect(self, effect: Effect, struck: Redactor) -> Effect:
        changes = {
            "summary": self._said(effect.summary, struck),
            "residue": tuple(self._said(text, struck) for text in effect.residue),
            "figures": self._json(effect.figures, struck),
            "result": self._result(effect.result, struck),
        }
        return self._offers(effect.model_copy(update=changes), struck)

    def _offers(self, value: M, struck: Redactor) -> M:
        """Keep the suggestions that hold nothing of what was struck: one with a hole in it cannot be called."""
        suggestions = getattr(value, "suggestions", ())
        kept = [
            one for one in suggestions if self._json(one.model_dump(mode="json"), struck) == one.model_dump(mode="json")
        ]
        return value.model_copy(update={"suggestions": tuple(kept)})

    def _table(self, table: Table, struck: Redactor) -> Table:
        rows = [
            tuple(self._json(value, struck, name) for name, value in zip(table.columns, row, strict=False))
            for row in table.rows
        ]
        return table.model_copy(update={"rows": tuple(rows) if self.rows else ()})


def _column(name: str) -> str:
    """The last part of ``schema.table.column``, in lower case and without quotes."""
    return name.rpartition(".")[2].strip('"').lower()


def _kept_in(column: str, text: str) -> Iterator[tuple[int, int]]:
    """Where values of a column stand in a statement, a plan, a document or a message."""
    for place in _PLACES:
        pattern = place.replace("COLUMN", re.escape(column))
        yield from (match.span(1) for match in re.finditer(pattern, text, re.IGNORECASE | re.DOTALL))


def _told(value: Json) -> Iterator[str]:
    """A value, and what is inside it, as it could stand in a text."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _told(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _told(item)
    elif value is not None and str(value).lower() not in PLAIN:
        yield str(value)


__all__ = ["MASKED", "WITHHELD", "Shield"]
