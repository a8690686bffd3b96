"""Fills a tool's arguments from what a person wrote and from the names that exist; it never makes one up."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
        if values.get("mode") == "cancel":
            self._use("keep", "leave", "alive")  # "but keep its session": that is what the gentle way does
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
        if (shell := SHELL.fullmatch(word)) and "collection" in kinds:
            return Mention("collection", word, name) if (name := self.names.exact("collection", shell[1])) else None
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
        return _stems((*self.tool.phrases, *self.tool.keywords, self.tool.name.replace("_", " ")))

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
            case "columns" | "column":
                tables = [name for holder in TABLES for name in self._fitting(holder, mentions)]
                return self._columns(tables, schema)
            case "query_id":
                return self._query_id(schema)
            case "number":
                return self._number(argument)
        if read := self._readers.get(kind):
            return read()
        return self._untold(argument, schema)

    @cached_property
    def _readers(self) -> Mapping[str, Callable[[], Any]]:
        """What reads an argument of a kind that needs no more than the text."""
        return {
            "document": self._document,
            "sort": self._sort,
            "pid": self._pid,
            "seconds": self._seconds,
            "user": self._user,
            "roles": self._roles,
        }

    def _untold(self, argument: str, schema: Mapping[str, Any]) -> Any:
        """An argument whose kind is not declared: by its type and its name."""
        match schema.get("type"), argument:
            case "boolean", _:
                return self._yes_or_no(argument)
            case _, "where" | "include" | "name":
                return self._clause(argument)
        if _is_whole_number(schema):
            return self._beside(argument)
        return self._several_choices(schema) if _is_list(schema) else self._choice(schema)

    def _document(self) -> str | None:
        """A document or a list of them as it is written, from its first bracket to the one that closes it."""
        return self._bracketed(0)

    def _sort(self) -> str | None:
        """The order of a query in the shell's words: ``.sort({ts: -1})``."""
        found = re.search(r"\.\s*sort\s*\(", self.wording.text)
        return self._bracketed(found.end()) if found else None

    def _bracketed(self, begin: int) -> str | None:
        text = self.wording.text
        start = min((place for mark in "{[" if (place := text.find(mark, begin)) >= 0), default=-1)
        depth = 0
        for place in range(start, len(text)) if start >= 0 else ():
            depth += (text[place] in "{[") - (text[place] in "}]")
            if depth == 0:
                found = text[start : place + 1]
                self._use(*tokens(found.lower()))
                return found
        return None

    # -- accounts

    def _user(self) -> str | None:
        """A user as it is written, with its database: after "user", else after the "to" or "from" of a grant."""
        found = ACCOUNT.search(self.text) or (RECEIVER.search(self.text) if "roles" in self._schema else None)
        if not found or found[1] in STOP or found[1] in POLITE or found[1] in ANYBODY:
            return None
        self._use("user", "account", *re.split(r"[@.]", found[1]), found[1])
        return self._as_written(found[1])

    def _roles(self) -> list[str] | None:
        """The roles between the verb of a grant and its "to" or "from", or after "with": each in its own spelling."""
        found = GIVEN.search(self.text) or BELONGS.search(self.text)
        told = next((group for group in found.groups() if group), "") if found else ""
        words = re.split(r"\s*(?:,|\band\b)\s*|\s+", told.strip())
        roles = [word for word in words if word and word not in ROLE_WORDS]
        spoken = re.search(r"\broles?\b", self.text)
        if not roles or not all(
            _ROLE.fullmatch(role) and (spoken or role in _ROLE_NAMES or "@" in role) for role in roles
        ):
            return None
        self._use(*(part for role in roles for part in re.split("[@.]", role)), "access", "away")
        return [_ROLE_NAMES.get(role) or self._as_written(role) for role in roles]

    def _as_written(self, word: str) -> str:
        """A word in the letters in which the person wrote it."""
        found = re.search(rf"(?<![\w@]){re.escape(word)}(?![\w@])", self.wording.text, re.IGNORECASE)
        return found[0] if found else word

    # -- figures

    def _columns(self, tables: Sequence[str], schema: Mapping[str, Any]) -> Any:
        """Columns of the one table that is named, in the order in which they are written."""
        region = re.split(r"\b(?:where|include)\b", self.text)[0]
        if (keys := KEYS.search(region)) and "collection" in (arg.slot for arg in self.tool.slots.values()):
            return self._keys(keys[1])
        listed = re.search(r"\(([^()]+)\)", region)
        words = listed[1].split(",") if listed else tokens(region)
        known = self._lower(tables[0]) if len(tables) == 1 else {}
        found = list(dict.fromkeys(column for word in words if (column := self._column(word.strip(), known, listed))))
        if not found:
            return None
        many = schema.get("type") == "array" or "items" in str(schema)
        return found if many else found[0] if len(found) == 1 else None

    def _keys(self, text: str) -> list[str] | None:
        """The fields of an index in the shell's words: ``{cust: 1, ts: -1}``."""
        pairs = [KEY.fullmatch(part.strip()) for part in text.split(",") if part.strip()]
        if not pairs or not all(pairs):
            return None
        found = [(pair[1], pair[2].strip("\"'")) for pair in pairs if pair]
        self._use(*tokens(text), *(part for name, way in found for part in (name, way.lstrip("-"))))
        names = [self._as_written(name) for name, _way in found]
        return [
            name if way == "1" else f"-{name}" if way == "-1" else f"{name} {way}"
            for name, (_name, way) in zip(names, found, strict=True)
        ]

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
        if argument == "seconds" and (span := LASTS.search(self.text)):
            self._use(*tokens(span[0]))
            return int(re.sub(r"^an?$", "1", span[1])) * UNITS[span[2][0]]
        word = re.escape(argument.replace("_", " "))
        beside = rf"\b{word}\s*(?:(?:to|of|is)\s+|=\s*)?(\d{{1,6}})\b|\b(\d{{1,6}})\s*{word}\b"
        counted = argument in {"limit", "top", "count", "rows", "n"}
        found = (COUNT.search(self.text) if counted else None) or re.search(beside, self.text)
        if not found:
            return self._by_word(argument)
        self._use(number := found[1] or found[2])
        return int(number)

    def _by_word(self, argument: str) -> int | None:
        """A number that the argument's help gives a word for: "0 off, 1 slow operations"."""
        known = dict(re.findall(r"\b(\d+) (\w+)", self.tool.slots[argument].help)) if self.tool.changes else {}
        found = [n for n, word in known.items() if re.search(rf"\bto {word}\b|\boff\b(?<=\b{word})", self.text)]
        if len(found) != 1:
            return None
        self._use(known[found[0]])
        return int(found[0])

    def _beside(self, argument: str) -> int | None:
        """The number that stands beside the argument's own name: ``slowms 50``."""
        word = re.escape(argument.replace("_", " "))
        found = re.search(rf"\b{word}\s*(?:(?:to|of|is)\s+|=\s*|:\s*)?(\d{{1,9}})\s*(?:ms\b)?", self.text)
        if not found:
            return None
        self._use(*tokens(found[0]))
        return int(found[1])

    def _seconds(self) -> int | None:
        """A time after which something is over, in seconds: ``3600 seconds``, ``after 2 hours``."""
        named, spans = OVER.search(self.text), list(SPAN.finditer(KEYS.sub(" ", self.text)))
        if not named or len(spans) != 1:
            return None
        found = spans[0]
        self._use(*tokens(named[0]), *tokens(found[0]), "after", "ttl", "expire", "expires", "expiring")
        return int(found[1]) * UNITS[(found[2] or "s")[0]]

    def _several_choices(self, schema: Mapping[str, Any]) -> list[str] | None:
        """Those of a few values that are said, in order."""
        known = {str(choice) for choice in choices(_items(schema))}
        words = [READING.get(word, word) for word in self.tokens]
        found = [word for word in dict.fromkeys(words) if word in known]
        if ("all" in found and len(found) > 1) or EXCEPT.search(self.text):
            return None  # "select but not update", "select on all of it": the words are left over, and asked about
        self._use(*found, *(["read", "access", "reading"] if "select" in found else []))
        return found or None

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
#: A call of the shell: ``db.orders.find``.
SHELL = re.compile(
    r"db\.([\w$]+)\.(?:find|findone|aggregate|count|countdocuments|distinct|getindexes|stats|update\w*|delete\w*)"
)
KEYS = re.compile(r"\{([^{}]+)\}")
KEY = re.compile(r"[\"']?([a-z_][\w$.]*)[\"']?\s*:\s*(-?1|[\"'](?:text|hashed|2d|2dsphere)[\"'])")
ACCOUNT = re.compile(
    r"\b(?:user|account|login)\s+(?!named\b|called\b|the\b|with\b|from\b|to\b)([a-z_][\w$-]*(?:@[\w$-]+)?)"
)
RECEIVER = re.compile(r"\b(?:to|from)\s+(?:the\s+)?([a-z_][\w$-]*(?:@[\w$-]+)?)\W*$")
GIVEN = re.compile(r"^(?:grant|give|revoke|take|remove)\s+(.+?)\s+(?:away\s+)?(?:to|from)\b")
BELONGS = re.compile(r"\bwith\s+(?:the\s+)?(?:roles?\s+)?(.+?)(?:\s+roles?)?\W*$|\brole\s+([\w$@-]+)\W*$")
#: Words for people that name none.
ANYBODY = frozenset(
    {"everybody", "everyone", "anybody", "anyone", "somebody", "nobody", "all", "users", "public", "if", "when"}
)
ROLE_WORDS = frozenset({"the", "role", "roles", "user", "away", "rights", "right", "access"})
_ROLE = re.compile(r"[a-z_][\w$]*(?:@[\w$-]+)?")
#: MongoDB's own roles, whose letters count.
_ROLE_NAMES = {
    name.lower(): name
    for name in word_set(
        "read root backup restore readWrite dbAdmin dbOwner userAdmin clusterAdmin clusterManager clusterMonitor hostManager"
        " readAnyDatabase readWriteAnyDatabase userAdminAnyDatabase dbAdminAnyDatabase"
    )
}
#: Words by which the right to read is asked for.
EXCEPT = re.compile(r"\b(?:not|no|except|without|but|never|dont|instead)\b")
READING = {"read": "select", "reading": "select", "selects": "select"}
OVER = re.compile(r"\bttl\b|\bexpir\w*(?:\s+after)?\b|\bdelete[ds]?\s+after\b")
SPAN = re.compile(r"(?<![\w.-])(\d{1,9})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)?\b")
LASTS = re.compile(r"\b(\d{1,6}|an?)\s*(secs?|seconds?|mins?|minutes?|hours?|days?)\b")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
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
def _stems(texts: tuple[str, ...]) -> frozenset[str]:
    """The bare words of phrases, without their placeholders."""
    return frozenset(stem(word) for text in texts for word in tokens(re.sub(r"\{.*?\}", " ", text.lower())))


@lru_cache(maxsize=512)
def properties(arguments: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON schema of each argument."""
    found: Mapping[str, Any] = arguments.model_json_schema().get("properties", {})
    return found


def _is_whole_number(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "integer" or any(part.get("type") == "integer" for part in schema.get("anyOf", ()))


def _is_list(schema: Mapping[str, Any]) -> bool:
    return bool(_items(schema)) and bool(choices(_items(schema)))


def _items(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = (schema, *schema.get("anyOf", ()))
    return next((part["items"] for part in parts if part.get("type") == "array"), {})


def choices(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The few values that an argument can have; none when it can have others."""
    if "enum" in schema:
        return tuple(schema["enum"])
    return tuple(choice for part in schema.get("anyOf", ()) for choice in choices(part))
