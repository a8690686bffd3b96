"""Where the arguments of a language model's call come from: a person's words, a database's answers, or nowhere.

It is found in the stored transcript by code; the model is not asked. A value is a person's only when it stands in one of
their messages as it is, word by word. Everything else gets an origin: the answer of a tool in which it, or most of it, is
found however it was disguised, else the model itself. What is in doubt is not the person's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from opsagent_jupyter.models import Effect, Json, Message, Origin, Result, Suggestion, Table

#: Origins of one value, and of one call; the last of a call stands for those that are left.
PARTS, MOST = 3, 60
#: Characters of a value that an origin repeats.
SHOWN = 200
#: Words in a row that make a part of a longer text a person's.
ROW = 3
#: Letters without which being inside a longer text says nothing.
SHORTEST = 4
#: Levels of lists and objects in an argument.
NESTED = 20

#: Names in an answer that are ours, not the database's.
_OWN = {*Result.model_fields, *Effect.model_fields, *Table.model_fields, *Suggestion.model_fields}
#: Characters that are not seen, which can cut a word into two that look like one.
_UNSEEN = "\u00ad\u034f\u061c\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
_WORD = rf"[\w{_UNSEEN}]+"
#: A word as a person writes it; ``orders-old`` is one, so that it is no leave to touch ``orders``.
_TOKEN = re.compile(rf"{_WORD}(?:-{_WORD})*|[^\w\s]")
_WORDS = re.compile(_WORD)
_HIDDEN = re.compile(f"[{_UNSEEN}]")
_APART = re.compile(r"[\W_]+")
#: Letters of other scripts that look like an ASCII one, each followed by it.
_PAIRS = (
    "аa іi јj еe оo рp сc уy хx ѕs ԁd һh ԛq ԝw ӏl ьb кk "  # noqa: RUF001  # Cyrillic
    "АA ВB ЕE КK МM НH ОO РP СC ТT УY ХX ЅS ІI ЈJ ԌG ԚQ ԜW ӀI "  # noqa: RUF001
    "αa ιi νv οo ρp υu χx ϲc ϳj κk τt "  # noqa: RUF001  # Greek
    "ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX "  # noqa: RUF001
    "օo սu ոn հh ցg զq յj ԼL ՍU ՏS ՕO "  # noqa: RUF001  # Armenian
    "ıi ɑa ɡg ɩi ʏy ɪi ʀr ʟl "  # noqa: RUF001  # Latin that is not ASCII
)
_LOOKALIKES = {ord(pair[0]): pair[1] for pair in _PAIRS.split()}


@dataclass(frozen=True)
class Source:
    """One answer that a model has read."""

    text: str
    tool: str = ""
    call: str = ""
    instance: str = ""
    at: datetime | None = None

    @cached_property
    def words(self) -> frozenset[str]:
        """The words in it, however they were written."""
        return frozenset(map(folded, _WORDS.findall(self.text)))

    @cached_property
    def squeezed(self) -> str:
        """Its letters and digits alone, so that no space, quote or line break hides a name."""
        return squeezed(self.text)


@dataclass(frozen=True)
class Token:
    """A word or a sign of a value, and where it stands."""

    text: str
    start: int
    end: int

    @cached_property
    def words(self) -> list[str]:
        """The words in it as they are compared with a database's."""
        return [folded(word) for word in _WORDS.findall(self.text)]


@dataclass(frozen=True)
class Leaf:
    """One text, number or switch in the arguments of a call, or a name in an object among them."""

    path: str
    text: str
    """What is looked for; for a switch its name."""
    shown: str = ""
    is_name: bool = False


def folded(word: str) -> str:
    """A word without case, unseen characters, compatibility forms, accents and letters that look like others."""
    if word.isascii():  # nearly all, and there are many
        return word.lower()
    plain = unicodedata.normalize("NFKD", _HIDDEN.sub("", word)).translate(_LOOKALIKES).casefold()
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def squeezed(text: str) -> str:
    """The letters and digits of a text alone, folded."""
    return _APART.sub("", folded(text))


def tokens(text: str) -> list[Token]:
    """The words and signs of a text, exactly as written."""
    return [Token(match[0], *match.span()) for match in _TOKEN.finditer(text)]


class Words:
    """What people wrote in a conversation. It is compared strictly: what only looks alike is not theirs."""

    def __init__(self, messages: Iterable[str]) -> None:
        self._rows: set[tuple[str, ...]] = set()
        self._texts: list[str] = []
        self.said: set[str] = set()
        for message in messages:
            written = [token.text for token in tokens(message)]
            # Who writes ORDERS may mean orders, as SQL does; who writes orders does not mean ORDERS.
            for spelling in (written, [word.lower() for word in written]):
                self.said.update(spelling)
                self._texts.append(_joined(spelling))
                self._rows.update(zip(*(spelling[at:] for at in range(ROW)), strict=False))

    def hold(self, value: Sequence[Token]) -> bool:
        """Whether one message holds all of it in a row."""
        wanted = _joined([token.text for token in value])
        return any(wanted in text for text in self._texts)

    def covered(self, value: Sequence[Token]) -> list[bool]:
        """Which words and signs of a longer text stand in a row that a person wrote."""
        found = [False] * len(value)
        for at in range(len(value) - ROW + 1):
            if tuple(token.text for token in value[at : at + ROW]) in self._rows:
                found[at : at + ROW] = [True] * ROW
        return found


def _joined(words: Sequence[str]) -> str:
    return f"\0{chr(0).join(words)}\0"


# -- what was read


class Answers:
    """What a model has read in a conversation, the newest first, and what databases said of themselves before it."""

    def __init__(self, transcript: Iterable[Message], told: Mapping[str, str]) -> None:
        answers = [_source(message) for message in transcript if message.role == "tool"]
        self.sources = [*reversed(answers), *(Source(text, instance=name) for name, text in told.items())]

    @cached_property
    def _halves(self) -> dict[str, Source]:
        """Every word, with the newest answer that has it."""
        found: dict[str, Source] = {}
        for source in self.sources:
            for word in source.words:
                found.setdefault(word.replace("_", ""), source)
        return found

    def disguised(self, value: str) -> list[tuple[str, Source]]:
        """A value that stands in an answer once spaces and signs are left out, or in two halves in whatever answers."""
        bare = squeezed(value)
        if len(bare) < SHORTEST:
            return []
        within = next((source for source in self.sources if bare in source.squeezed), None) or self._halved(bare)
        return [(value, within)] if within else []

    def _halved(self, bare: str) -> Source | None:
        for cut in range(2, min(len(bare), SHOWN) - 1):
            if bare[:cut] in self._halves and bare[cut:] in self._halves:
                return self._halves[bare[:cut]]
        return None


def _source(message: Message) -> Source:
    record = message.calls[0] if message.calls else None
    parts = [_fenced(message.text)]
    for call in message.calls:  # with what was left out for the model: rather too much is taken for read
        parts += _texts(call.model_dump(mode="json", include={"summary", "result", "effect"}))
    tool, instance = (record.tool, record.instance) if record else ("", "")
    return Source("\n".join(parts), tool, message.call, instance, message.created_at)


def _fenced(text: str) -> str:
    """What stands between the marked lines of an answer; all of it when it has none."""
    head, mark, rest = text.partition("\n<<< ")
    return rest if mark and head.count("\n") == 1 else text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in _OWN:
                yield str(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


# -- where a call's arguments come from


def origins(
    arguments: Mapping[str, Json],
    transcript: Sequence[Message],
    *,
    told: Mapping[str, str] | None = None,
    servers: Mapping[str, str] | None = None,
) -> tuple[Origin, ...]:
    """The origins of what no person wrote among the arguments; ``servers`` has the server of each instance."""
    words = Words(message.text for message in transcript if message.role == "user")
    read = Answers(transcript, told or {})
    known = servers or {}
    found = [
        origin.model_copy(update={"server": known.get(origin.instance, "")})
        for leaf in _leaves(dict(arguments))
        for origin in _traced(leaf, words, read)
    ]
    if len(found) <= MOST:
        return tuple(found)
    left = found[MOST - 1 :]
    kind: Any = "database" if any(origin.kind == "database" for origin in left) else "model"
    return (*found[: MOST - 1], Origin(argument="…", kind=kind, text=f"{len(left)} more values"))


def _leaves(value: Json, path: str = "", depth: int = 0) -> Iterator[Leaf]:
    if depth > NESTED:
        yield Leaf(path, "(nested too deep)")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            place = f"{path}.{name}" if path else name
            if path:  # the outermost names are the tool's own
                yield Leaf(place, name, is_name=True)
            yield from _leaves(item, place, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, bool):
        yield Leaf(path, path.rpartition(".")[2].replace("_", " "), str(value).lower())
    elif value is not None and value != "":
        yield Leaf(path, str(value))


def _traced(leaf: Leaf, words: Words, read: Answers) -> list[Origin]:
    parts = _unquoted(tokens(leaf.text))
    if parts and words.hold(parts):
        return []
    found = _runs(leaf.text, parts, words, read.sources) or read.disguised(leaf.text)
    if not found and not leaf.is_name:  # a name of the tool's own, in an object, is nobody's
        return [Origin(argument=leaf.path, kind="model", text=_cut(leaf.shown or leaf.text))]
    return [_origin(leaf.path, leaf.shown or text, source) for text, source in found]


def _unquoted(parts: list[Token]) -> list[Token]:
    """A value without the quotation marks around it, which a person need not write."""
    while len(parts) > 2 and parts[0].text == parts[-1].text and parts[0].text in "\"'`":
        parts = parts[1:-1]
    return parts


def _origin(path: str, text: str, source: Source) -> Origin:
    return Origin(
        argument=path,
        kind="database",
        text=_cut(text),
        tool=source.tool,
        call=source.call,
        instance=source.instance,
        at=source.at,
    )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _runs(value: str, parts: Sequence[Token], words: Words, read: Sequence[Source]) -> list[tuple[str, Source]]:
    """The longest stretches of a value that stand in an answer and not in a person's words, each with its answer."""
    theirs = words.covered(parts)
    found: dict[tuple[int, int], Source] = {}
    for source in read:
        for first, last in _stretches(parts, theirs, source.words):
            if last > first or parts[first].text not in words.said:
                found.setdefault((parts[first].start, parts[last].end), source)
    longest = sorted(found, key=lambda span: (span[0] - span[1], span))
    kept: list[tuple[int, int]] = []
    for start, end in longest:
        if all(end <= other or start >= until for other, until in kept):
            kept.append((start, end))
    worded = [part for part in parts if part.words]
    whole = (worded[0].start, worded[-1].end) if worded else ()
    return [(value if span == whole else value[slice(*span)], found[span]) for span in sorted(kept[:PARTS])]


def _stretches(parts: Sequence[Token], theirs: Sequence[bool], known: frozenset[str]) -> Iterator[tuple[int, int]]:
    """First and last place of words in a row that an answer holds; signs between them do not end a stretch."""
    held = [
        place
        for place, part in enumerate(parts)
        if not theirs[place] and part.words and all(word in known for word in part.words)
    ]
    if not held:
        return
    first = held[0]
    for place, following in pairwise([*held, len(parts) + 1]):
        if following > len(parts) or any(parts[between].words for between in range(place + 1, following)):
            yield first, place
            first = following


# -- in words


def sentence(origin: Origin) -> str:
    """Where it comes from, for a person."""
    if origin.kind == "model":
        return "the model's own: neither your words nor a database's answer has it"
    place = f" on {origin.instance}" if origin.instance else ""
    if not origin.tool:
        return f"from what the database{place} says of itself, not from your words"
    when = f" ({origin.at:%Y-%m-%d %H:%M:%S} UTC)" if origin.at else ""
    return f"from the result of {origin.tool.rpartition('.')[2]}{place}{when}, not from your words"
