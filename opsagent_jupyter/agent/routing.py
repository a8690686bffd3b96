"""Finds the tool that a request asks for: by what it commands, or by how much of it the tool's own words explain.

A tool that changes something is only ever found by a command: its verb at the head of a clause, aimed at its object. No
likeness, however great, leads to one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rapidfuzz import fuzz

from opsagent_jupyter.agent.slots import TABLES, Filler, Filling, Names, choices, properties
from opsagent_jupyter.agent.wording import (
    CHANGING,
    IDIOMS,
    POLITE,
    SAME,
    Wording,
    meaning,
    means_verb,
    mended,
    stem,
    tokens,
    word_set,
)
from opsagent_jupyter.plugin import Tool

#: Below this score nothing was understood.
THRESHOLD = 0.36
#: From this score on a request to look at something is clear.
CLEAR = 0.6
#: Verbs by which a phrase may command its tool, beside the tool's own.
COMMANDING = CHANGING | word_set(
    "add build make remove run end disconnect clean free reclaim freeze gather collect renew recompute shrink compact index"
    " defragment rebuild unlock allow deny give take turn switch"
)
#: Verbs that say too little without their object.
GENERAL = word_set("create drop get list show explain analyze check set add grant revoke")


@dataclass(frozen=True)
class Candidate:
    """A tool that may be meant, with what the request says about its arguments."""

    tool: Tool
    score: float
    filling: Filling
    command: str = ""
    """The clause that commands it; only tools that change something have one."""


@dataclass(frozen=True)
class Profile:
    """The words that a tool is asked with."""

    tool: Tool

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """The declared phrases without their placeholders, idioms made plain."""
        return tuple(" ".join(meaning(tokens(_plain(phrase)))) for phrase in self.tool.phrases)

    @cached_property
    def weights(self) -> Counter[str]:
        """How much each word speaks for this tool."""
        found: Counter[str] = Counter()
        for phrase in self.phrases:
            found.update(set(phrase.split()))
        for word in meaning(tokens(_plain(" ".join(self.tool.keywords)))):
            found[word] += 2
        for word in meaning(self.tool.name.split("_")):
            found[word] += 2
        return found

    @cached_property
    def orders(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """Other verbs that command this tool, each with the words that must all be there too.

        "remove dead rows of {table}" makes "remove" a verb of its tool for dead rows, and for nothing else.
        """
        split = [tokens(_plain(phrase)) or [""] for phrase in self.tool.phrases]
        verb = self.tool.name.split("_")[0]
        return tuple(
            (first, frozenset(meaning(others)))
            for first, *others in split
            if first in COMMANDING and not means_verb(first, verb)
        )


def _plain(phrase: str) -> str:
    text = re.sub(r"\{.*?\}", " ", phrase.lower())
    for idiom, plain in IDIOMS:
        text = re.sub(idiom, plain, text)
    return text


def _spellings(tools: Sequence[Tool]) -> set[str]:
    return {
        word
        for tool in tools
        for text in (*tool.phrases, *tool.keywords, tool.name.replace("_", " "))
        for word in tokens(_plain(text))
        if word.isalpha()
    }


class Router:
    """Knows the tools of one plugin by their words."""

    def __init__(self, tools: Sequence[Tool], others: Sequence[Tool] = ()) -> None:
        """``others`` are the tools of the other plugins: their words are no slips of the fingers."""
        self.tools = tuple(tools)
        self._profiles = [Profile(tool) for tool in tools]
        spread = Counter(word for profile in self._profiles for word in profile.weights)
        self._rarity = {word: math.log((len(tools) + 1) / (count + 0.5)) + 0.3 for word, count in spread.items()}
        self.language = frozenset(self._rarity) | frozenset(SAME)
        self._spellings = _spellings(tools) | set(SAME)
        self._foreign = _spellings(others) - self._spellings

    def find(self, wording: Wording, names: Names) -> list[Candidate]:
        """The tools that may be meant, the likeliest first; a command stands before everything else."""
        commanded = [found for profile in self._profiles if (found := self._commanded(profile, wording, names))]
        words = self._words(wording, names)
        reading = [
            self._likely(profile, words, wording, names)
            for profile in self._profiles
            if _can_read(profile.tool, wording)
        ]
        reading.sort(key=lambda candidate: -candidate.score)
        commanded.sort(key=lambda candidate: -candidate.score)
        unclear = not self.wants_change(wording) and all(
            found.filling.unread and not found.filling.missing for found in commanded
        )
        return reading if not commanded or (unclear and reading and reading[0].score > CLEAR) else commanded

    def wants_change(self, wording: Wording) -> str:
        """The verb by which the request commands a change of any kind; empty when it does not."""
        verbs = (SAME.get(head, head) for head, _ in wording.commands())
        return next((verb for verb in verbs if verb in CHANGING), "")

    # -- tools that change something

    def _commanded(self, profile: Profile, wording: Wording, names: Names) -> Candidate | None:
        tool = profile.tool
        if not tool.changes or wording.wonders:
            return None
        for head, command in _commands(tool, wording):
            pattern = _pattern(tool, command)
            known = tokens(pattern or head)
            filling = Filler(tool, wording, names, command=command, language=self.language, known=known).fill()
            strength = 2.0 if pattern else self._strength(profile, head, command, filling, wording)
            if strength > 0:
                return Candidate(tool, strength + 0.1 * len(filling.values), filling, command)
        return None

    def _strength(self, profile: Profile, head: str, command: str, filling: Filling, wording: Wording) -> float:
        tool = profile.tool
        if wording.sql:
            return 0.0
        said = set(meaning(tokens(command)))
        verb, *noun = tool.name.split("_")
        named = _names_object(tool, filling)
        if means_verb(head, verb):
            aimed = named or bool(said & set(meaning(noun)))
            return 1.5 if aimed else 1.0 * (verb not in GENERAL)
        if _ordered(profile, head, said, named=named) or (named and head in _modes(tool)):
            return 1.2
        if verb == "create" and head in _traits(tool) and named and not filling.missing and set(meaning(noun)) <= said:
            return 1.1  # "unique index on customers email": the trait of what is to be made stands for the verb
        # "index orders by region": what is to be made stands for the verb.
        return 1.1 if verb == "create" and stem(head) in map(stem, noun) and named and not filling.missing else 0.0

    # -- tools that read

    def _likely(self, profile: Profile, words: Sequence[str], wording: Wording, names: Names) -> Candidate:
        filling = Filler(profile.tool, wording, names, language=self.language).fill()
        score = self._score(profile, words, filling, wording, names)
        return Candidate(profile.tool, score, filling)

    def _words(self, wording: Wording, names: Names) -> list[str]:
        """What the request says, names and numbers left out, slips of the fingers mended."""
        kinds = ("table", "index", "role")
        said = [word for word in wording.tokens if not re.fullmatch(r"[\d.]+", word) and word not in POLITE]
        meant = [word for word in said if not any(names.exact(kind, word) for kind in kinds)]
        words = [word if word in self._foreign else mended(word, self._spellings) for word in meant]
        named = ["index"] if any(names.exact("index", word) for word in said) else []
        return meaning([*words, *named])

    def _score(self, profile: Profile, words: Sequence[str], filling: Filling, wording: Wording, names: Names) -> float:
        known = [word for word in words if word in profile.weights]
        matched = sum(self._weight(profile, word) for word in known)
        total = sum(self._rarity.get(word, 1.5) for word in words) or 1.0
        alike = max((fuzz.token_set_ratio(" ".join(words), phrase) for phrase in profile.phrases), default=0) / 100
        score = 0.5 * min(1.0, matched / total) + 0.25 * alike * bool(known) + 0.15 * min(1.0, matched / 3)
        score += 0.3 * any(set(words) == set(phrase.split()) for phrase in profile.phrases)
        return (
            score
            + self._by_slots(profile.tool, filling, wording, names)
            + 0.35 * self._by_pattern(profile.tool, wording)
        )

    def _weight(self, profile: Profile, word: str) -> float:
        """A word counts by its rarity among the tools, and a little more the oftener this tool says it."""
        return self._rarity[word] * min(1.3, 0.7 + 0.15 * profile.weights[word])

    def _named(self, wording: Wording, names: Names) -> list[str]:
        """The tables or collections that a request names."""
        return [name for word in wording.tokens if (name := names.exact("table", word))]

    def _by_slots(self, tool: Tool, filling: Filling, wording: Wording, names: Names) -> float:
        kinds = {arg.slot for arg in tool.slots.values()}
        required = [name for name in tool.slots if tool.arguments.model_fields[name].is_required()]
        found = 0.05 * bool(filling.values or filling.several[0])
        found -= 0.2 * (bool(self._named(wording, names)) and not kinds & set(TABLES))
        if required:
            share = len(filling.missing) / len(required)
            found += 0.22 * (1 - share) - 0.12 * share
        if wording.sql:
            found += 0.4 * ("sql" in kinds)
        return found

    def _by_pattern(self, tool: Tool, wording: Wording) -> bool:
        return any(re.search(pattern, wording.text, re.IGNORECASE) for pattern in tool.patterns)


def _can_read(tool: Tool, wording: Wording) -> bool:
    """Whether a tool reads, and can take the statement that the request holds."""
    return not tool.changes and (not wording.sql or any(arg.slot == "sql" for arg in tool.slots.values()))


def _pattern(tool: Tool, text: str) -> str:
    """The declared pattern that a text begins with; empty when it begins with none."""
    found = (re.match(rf"(?:select\s+)?(?:{pattern})", text.strip(), re.IGNORECASE) for pattern in tool.patterns)
    return next((match[0].lower() for match in found if match), "")


def _commands(tool: Tool, wording: Wording) -> list[tuple[str, str]]:
    """The commanding clauses; a statement that is nothing but this tool's own function is one: ``select pg_..(5)``."""
    whole = [("select", wording.sql)] if wording.sql and not wording.rest.strip(" ;\n") else []
    return [*wording.commands(), *(pair for pair in whole if _pattern(tool, pair[1]))]


def _ordered(profile: Profile, head: str, said: set[str], *, named: bool) -> bool:
    """Whether one of the tool's own phrases commands it like this, word for word but for the names in it."""
    spare = {"pid", "table", "column", "collection", "field"} if named else set()
    return any(means_verb(head, verb) and words - spare <= said and (words or named) for verb, words in profile.orders)


def _traits(tool: Tool) -> set[str]:
    """Words that say how a thing is to be, and so that it is to be made: "unique", "sparse", "ttl"."""
    flags = {name for name, part in properties(tool.arguments).items() if part.get("type") == "boolean"}
    return flags | ({"ttl"} if any(arg.slot == "seconds" for arg in tool.slots.values()) else set())


def _modes(tool: Tool) -> set[str]:
    """Ways in which a tool can act, by which it can be commanded too: "cancel" of terminate and cancel."""
    parts = properties(tool.arguments).values()
    return {str(choice) for part in parts for choice in choices(part)} & CHANGING


def _names_object(tool: Tool, filling: Filling) -> bool:
    """Whether the request names what the tool works on: its index, table or process; to create one, its columns."""
    kinds = (
        {"column", "columns"}
        if tool.name.startswith("create_")
        else {"table", "collection", "index", "pid", "role", "user"}
    )
    there = {*filling.values, filling.several[0]}
    return any(arg.slot in kinds and name in there for name, arg in tool.slots.items())
