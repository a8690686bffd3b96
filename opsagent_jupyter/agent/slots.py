"""Fills a tool's arguments from what a person wrote and from the names that exist; it never makes one up."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from pydantic import BaseModel
from rapidfuzz import fuzz, process

from opsagent_jupyter.agent.wording import POLITE, STOP, Wording, means_verb, stem, tokens, word_set
from opsagent_jupyter.models import Catalog
from opsagent_jupyter.plugin import Tool

#: What holds documents or rows: a request for the one is asked for as the other.
TABLES = ("table", "collection")
#: Slots whose value is a name that exists.
NAMED = (*TABLES, "index", "role", "database")
#: Words around a name that add nothing to a command.
AROUND = word_set(
    "column columns table tables collection collections index indexes field fields using over by named called quickly asap new"
    " planner optimizer"
)


@dataclass(frozen=True)
class Names:
    """The names of one database, found by how a person writes them."""

    catalog: Catalog

    @cached_property
    def _written(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for kind, names in self.catalog.names.items():
            spelled = found.setdefault("table" if kind in TABLES else kind, {})
            for name in names:
                spelled[name.lower()] = name
                spelled.setdefault(name.lower().rpartition(".")[2], name)
        return found

    def _spelled(self, kind: str) -> dict[str, str]:
        return self._written.get("table" if kind in TABLES else kind, {})

    @cached_property
    def known(self) -> bool:
        """Whether the database told its names."""
        return any(self.catalog.names.values())

    def exact(self, kind: str, word: str) -> str:
        """The name of that kind that is written so; empty when there is none."""
        return self._spelled(kind).get(word.lower(), "")

    def near(self, kind: str, word: str, limit: int = 3, cutoff: float = 60) -> list[str]:
        """Names of that kind that look like the word, the nearest first."""
        spelled = self._spelled(kind)
        found = process.extract(word.lower(), spelled.keys(), scorer=fuzz.ratio, limit=limit * 2, score_cutoff=cutoff)
        return list(dict.fromkeys(spelled[name] for name, _, _ in found))[:limit]

    @cached_property
    def _meant(self) -> dict[tuple[str, str], str]:
        return {}

    def meant(self, kind: str, word: str) -> str:
        """The one name that a mistyped word must mean; empty when it is not certain enough to read with."""
        if (kind, word) not in self._meant:
            near = self.near(kind, word, 1, 88) if len(word) > 4 and word not in STOP else []
            self._meant[kind, word] = near[0] if near else ""
        return self._meant[kind, word]

    def columns(self, table: str) -> tuple[str, ...]:
        """The columns of a table, however it is qualified."""
        held = self.catalog.columns
        short = table.rpartition(".")[2]
        return (
            held.get(table)
            or held.get(short)
            or next((c for t, c in held.items() if t.rpartition(".")[2] == short), ())
        )


@dataclass(frozen=True)
class Mention:
    """A name in a request: what kind it is, how it is written there, and what it stands for."""

    kind: str
    word: str
    name: str
    exact: bool = True


@dataclass(frozen=True)
class Filling:
    """The arguments found for a tool. Several values of one name mean several calls."""

    values: dict[str, Any] = field(default_factory=dict)
    several: tuple[str, tuple[str, ...]] = ("", ())
    """An argument with all its values, when the request names more than one."""
    missing: tuple[str, ...] = ()
    guessed: tuple[Mention, ...] = ()
    """Names that were mistyped and are only probably meant."""
    unknown: tuple[tuple[str, str], ...] = ()
    """(kind, word): names that do not exist."""
    unread: tuple[str, ...] = ()
    """Words of a command that no argument takes up."""

    def calls(self) -> Iterator[dict[str, Any]]:
        """The arguments of each call."""
        argument, values = self.several
        for value in values or ("",):
            yield {**self.values, argument: value} if argument else dict(self.values)


class Filler:
    """Reads one request for one tool against one database's names.

    For a command only its clause counts, and what the person added when they were asked: a name in another sentence is
    no argument of a change.
    """

    def __init__(
        self,
        tool: Tool,
        wording: Wording,
        names: Names,
        *,
        command: str = "",
        known: Collection[str] = (),
        language: Collection[str] = (),
    ) -> None:
        self.tool = tool
        self.wording = wording
        self.names = names
        self.text = "\n".join([command, *wording.answers]) if command else wording.rest
        self.tokens = tuple(tokens(self.text))
        self._language = language
        self._used: set[str] = set()
        self._known = frozenset(known)
        self._schema = properties(tool.arguments)

    def fill(self) -> Filling:
        """Find what the request says about each argument."""
        mentions = list(self._mentions())
        values: dict[str, Any] = {}
        several: tuple[str, tuple[str, ...]] = ("", ())
        for argument, arg in self.tool.slots.items():
            if arg.slot in NAMED:
                found = self._fitting(arg.slot, mentions)
                if len(found) > 1 and not several[0]:
                    several = (argument, found)
                elif found:
                    values[argument] = found[0]
            elif (value := self._value(argument, arg.slot, mentions)) is not None:
                values[argument] = value
        return Filling(
            values=values,
            several=several,
            missing=tuple(self._missing({*values, several[0]})),
            guessed=tuple(mention for mention in mentions if not mention.exact),
            unknown=tuple(self._unknown(mentions)),
            unread=tuple(self._unread()),
        )

    def _missing(self, found: Collection[str]) -> Iterator[str]:
        fields = self.tool.arguments.model_fields
        return (name for name in self.tool.slots if fields[name].is_required() and name not in found)

    def _use(self, *words: str) -> None:
        """Take words as read."""
        self._used.update(words)

    # -- names

    def _mentions(self) -> Iterator[Mention]:
        kinds = [arg.slot for arg in self.tool.slots.values() if arg.slot in NAMED]
        for word in dict.fromkeys(self.tokens):
            if mention := self._mention(word, kinds):
                self._use(word)
                yield mention

    def _mention(self, word: str, kinds: Sequence[str]) -> Mention | None:
        for kind in kinds:
            if name := self.names.exact(kind, word):
                return Mention(kind, word, name)
        head, _, column = word.rpartition(".")
        holder = next((kind for kind in kinds if kind in TABLES), "")
        if head and holder and (name := self.names.exact(holder, head)) and column in self._lower(name):
            return Mention(holder, word, name)
        if stem(word) in self._vocabulary or word in POLITE:
            return None
        meant = ((kind, self.names.meant(kind, word)) for kind in kinds)
        return next((Mention(kind, word, name, exact=False) for kind, name in meant if name), None)

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        """Words that this tool is asked with: they name nothing in the database unless it has exactly that name."""
        texts = (*self.tool.phrases, *self.tool.keywords, self.tool.name.replace("_", " "))
        return frozenset(stem(word) for text in texts for word in tokens(re.sub(r"\{.*?\}", " ", text.lower())))

    def _fitting(self, kind: str, mentions: Iterable[Mention]) -> tuple[str, ...]:
        found = [mention for mention in mentions if mention.kind == kind]
        exact = [mention for mention in found if mention.exact] or found
        return tuple(dict.fromkeys(mention.name for mention in exact))

    def _unknown(self, mentions: Sequence[Mention]) -> Iterator[tuple[str, str]]:
        """Words that stand where a name of a table or an index stands, and name nothing."""
        seen = {mention.word for mention in mentions}
        kinds = {arg.slot for arg in self.tool.slots.values()} if self.names.known else set()
        there = {mention.kind for mention in mentions if mention.exact}
        for kind, place in PLACES:
            for found in place.finditer(self.text) if kind in kinds - there else ():
                word = found[1].rstrip(".")
                if word not in seen and self._is_name(word) and not self._column_of(word, mentions):
                    seen.add(word)
                    yield kind, word

    def _is_name(self, word: str) -> bool:
        plain = word in STOP or word in POLITE or word in AROUND or stem(word) in self._vocabulary
        return (
            not plain and stem(word) not in self._language and ("_" in word or len(word) > 3) and word not in self._used
        )

    def _column_of(self, word: str, mentions: Sequence[Mention]) -> bool:
        tables = [mention.name for mention in mentions if mention.kind in TABLES]
        return any(word in self._lower(table) for table in tables or self.names.catalog.columns)

    def _lower(self, table: str) -> dict[str, str]:
        return {column.lower(): column for column in self.names.columns(table)}

    # -- values

    def _value(self, argument: str, kind: str, mentions: Sequence[Mention]) -> Any:
        schema = self._schema.get(argument, {})
        match kind:
            case "sql":
                return self.wording.sql or None
            case "document":
                return self._document()
            case "columns" | "column":
                tables = [name for holder in TABLES for name in self._fitting(holder, mentions)]
                return self._columns(tables, schema)
            case "pid":
                return self._pid()
            case "query_id":
                return self._query_id(schema)
            case "number":
                return self._number(argument)
        match schema.get("type"), argument:
            case "boolean", _:
                return self._yes_or_no(argument)
            case _, "where" | "include" | "name":
                return self._clause(argument)
        return self._choice(schema)

    def _document(self) -> str | None:
        """A document or a list of them as it is written, from its first bracket to the one that closes it."""
        text = self.wording.text
        start = min((place for mark in "{[" if (place := text.find(mark)) >= 0), default=-1)
        depth = 0
        for place in range(start, len(text)) if start >= 0 else ():
            depth += (text[place] in "{[") - (text[place] in "}]")
            if depth == 0:
                found = text[start : place + 1]
                self._use(*tokens(found.lower()))
                return found
        return None

    def _columns(self, tables: Sequence[str], schema: Mapping[str, Any]) -> Any:
        """Columns of the one table that is named, in the order in which they are written."""
        region = re.split(r"\b(?:where|include)\b", self.text)[0]
        listed = re.search(r"\(([^()]+)\)", region)
        words = listed[1].split(",") if listed else tokens(region)
        known = self._lower(tables[0]) if len(tables) == 1 else {}
        found = list(dict.fromkeys(column for word in words if (column := self._column(word.strip(), known, listed))))
        if not found:
            return None
        many = schema.get("type") == "array" or "items" in str(schema)
        return found if many else found[0] if len(found) == 1 else None

    def _column(self, word: str, known: Mapping[str, str], listed: Any) -> str:
        """A column as the tool takes it, with its order when the person wrote one in a list: ``created_at DESC``."""
        said = re.fullmatch(r"([\w.$\"]+)((?:\s+(?:asc|desc))?(?:\s+nulls\s+(?:first|last))?)", word)
        if not said:
            return ""
        short = said[1].rpartition(".")[2].strip('"')
        blind = short if listed and not self.names.known and short.isidentifier() else ""
        if not (column := known.get(short) or blind):
            return ""
        self._use(said[1], short, *said[2].split())
        return f"{column}{said[2].upper()}"

    def _pid(self) -> int | None:
        marked = re.findall(r"(?:pid|process|backend|session|connection|#)\D{0,12}(\d{2,7})\b", self.text)
        found = set(marked or re.findall(r"(?<![\w.-])\d{2,7}(?![\w.])", self.text))
        if len(found) != 1:
            return None
        self._use(*found)
        return int(found.pop())

    def _query_id(self, schema: Mapping[str, Any]) -> Any:
        found = re.search(r"(?<![\w.])(-?\d{8,20})(?![\w.])|\bquery[ _]?(?:id)?[ #:=]*(-?\d{5,20})\b", self.text)
        if not found:
            return None
        text = found[1] or found[2]
        self._use(text.lstrip("-"))
        return text if "string" in str(schema) else int(text)

    def _number(self, argument: str) -> int | None:
        """A count of what is listed, or the number that stands beside the argument's own name: ``level 1``."""
        word = re.escape(argument.replace("_", " "))
        beside = rf"\b{word}\s*(?:(?:to|of|is)\s+|=\s*)?(\d{{1,6}})\b|\b(\d{{1,6}})\s*{word}\b"
        counted = argument in {"limit", "top", "count", "rows", "n"}
        found = (COUNT.search(self.text) if counted else None) or re.search(beside, self.text)
        if not found:
            return None
        self._use(number := found[1] or found[2])
        return int(number)

    def _clause(self, argument: str) -> Any:
        """A part of a CREATE INDEX statement that was written out, word for word; nothing is read out of prose."""
        if argument == "name":
            alone = ROLE_ALONE.fullmatch(self.text.strip()) if self.tool.name.endswith("_user") else None
            found = alone or NAMED_SO.search(self.text)
        else:
            found = CLAUSES[argument].search(self.wording.text) if CREATE_INDEX.search(self.wording.text) else None
        if not found:
            return None
        text = next(group for group in found.groups() if group).strip()
        self._use(argument, *tokens(text.lower()))
        return [part.strip() for part in text.split(",")] if argument == "include" else text

    def _choice(self, schema: Mapping[str, Any]) -> str | None:
        """The one of a few values whose words are all there."""
        said = {stem(part) for word in (*self.tokens, *self._known) for part in (word, *word.split("_"))}
        parts = {
            str(choice): {stem(word) for word in tokens(str(choice).replace("_", " "))} for choice in choices(schema)
        }
        fitting = [choice for choice, words in parts.items() if words and words <= said]
        if not fitting:
            return None
        chosen = max(fitting, key=len)
        self._use(*(word for word in self.tokens if stem(word) in parts[chosen]))
        return chosen

    def _yes_or_no(self, argument: str) -> bool | None:
        word = argument.replace("_", " ")
        if means_verb(word, self.tool.name.split("_")[0]) or not re.search(
            rf"\b(?:non)?{re.escape(word)}\b", self.text
        ):
            return None
        if not self.tool.changes and word in (head for head, _ in self.wording.commands()):
            return None  # the verb of the request is no option of it: "analyze this statement"
        denied = re.search(rf"\b(no|not|without|non|dont)[\s-]*{re.escape(word)}\b", self.text)
        self._use(*word.split(), f"non{word}", *(denied.groups() if denied else ()))
        return denied is None

    # -- what is left

    def _unread(self) -> Iterator[str]:
        """Words of a command that say something no argument says; a change is never asked for without them."""
        other = MADE.search(self.text)
        if (
            other
            and other[1] not in {arg.slot.removesuffix("s") for arg in self.tool.slots.values()} | self._vocabulary
        ):
            yield other[1]
        for word in dict.fromkeys(self.tokens):
            plain = word in STOP or word in POLITE or word in AROUND or word in self._used or word in self._known
            if not plain and stem(word) not in self._vocabulary and not self.names.exact("table", word):
                yield word


#: A request about one role and nothing else, which needs no "named": "drop user bob".
ROLE_ALONE = re.compile(
    r"(?:(?:create|add|make|drop|delete)\s+(?:(?:a|an|the|new)\s+)*(?:database\s+)?(?:user|role|login|account)\s+(?:for\s+)?)"
    r"(?!named\b|called\b|for\b|with\b|who\b|that\b)([a-z_][\w$]*)[.!]?"
)
#: What is to be made or unmade: a tool that knows no such thing is not what is asked for.
MADE = re.compile(
    r"\b(?:create|add|make|drop|remove|delete)\s+(?:(?:a|an|the|new|another)\s+)*"
    r"(table|column|index|collection|field|view|schema|database|sequence|trigger|function|constraint)\b"
)
#: Where the name of a table or an index stands in a request.
PLACES = (
    ("index", re.compile(r"\bindex\s+([a-z_][\w$.]*)(?!\s*\()")),
    ("table", re.compile(r"\btable\s+([a-z_][\w$.]*)")),
    ("collection", re.compile(r"\bcollection\s+([a-z_][\w$.]*)")),
    ("database", re.compile(r"\bdatabase\s+([a-z_][\w$.]*)")),
    ("table", re.compile(r"\b(?:on|of|for|in)\s+(?:the\s+|table\s+)*([a-z_][\w$.]*)")),
    ("collection", re.compile(r"\b(?:on|of|for|in)\s+(?:the\s+|collection\s+)*([a-z_][\w$.]*)")),
)
COUNT = re.compile(
    r"\b(?:top|first|last|worst|limit)\s*=?\s*(\d{1,6})\b"
    r"|\b(\d{1,4})\s+(?:\w+\s+){0,2}?(?:slow\w*|worst|big\w*|larg\w*|top|quer\w+|tables?|statements?|longest)\b"
)
NAMED_SO = re.compile(
    r"\b(?:named|called)\s+([a-z_][\w$]*)|\bindex\s+(?:concurrently\s+)?(?!on\b)([a-z_][\w$]*)\s+on\b"
)
CREATE_INDEX = re.compile(r"^\s*create\s+(?:unique\s+)?index\b", re.IGNORECASE)
CLAUSES = {
    "where": re.compile(r"\bwhere\s+(.+?)\s*;?\s*$", re.IGNORECASE | re.DOTALL),
    "include": re.compile(r"\binclude\s*\(([^()]*)\)", re.IGNORECASE),
}


@lru_cache(maxsize=512)
def properties(arguments: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of each argument."""
    found: Mapping[str, Any] = arguments.model_json_schema().get("properties", {})
    return found


def choices(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The few values that an argument can have; none when it can have others."""
    if "enum" in schema:
        return tuple(schema["enum"])
    return tuple(choice for part in schema.get("anyOf", ()) for choice in choices(part))
