"""“And for orders?”, “same in mongo”, “the other one”: the last request again, about something else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.agent.memory import Memory
from opsagent_jupyter.agent.requests import AT_ONCE, Requests
from opsagent_jupyter.agent.slots import NAMED, TABLES, Filler, Filling
from opsagent_jupyter.agent.wording import Wording
from opsagent_jupyter.agent.world import WAITS, Reply, Wanted
from opsagent_jupyter.models import Instance
from opsagent_jupyter.plugin import Tool

VARIES = re.compile(
    r"^\W*(?:(?:ok|okay|please|now|then|so)\W+)*(?:and|what about|how about|same|likewise|also|now|the other)\b"
    r"|^\W*(?:do|show|check|run|give me)\s+(?:me\s+)?the same\b|^\W*repeat (?:that|it|this)\b"
)
#: What says plainly that the very same is wanted once more: only that repeats a change.
SAME = re.compile(r"\b(?:same|likewise|too|as well|also|repeat (?:that|it))\b")
OTHER = re.compile(r"\bthe other (?:one|database|db|instance|server)\b|^\W*(?:and\s+)?the other\W*$")
WHOLE = "I do not repeat a change from half a sentence: say it whole, please."
#: Words of such a request that name nothing.
AROUND = re.compile(
    r"\b(?:ok|okay|please|pls|and|what|how|about|same|thing|again|there|here|likewise|also|too|now|then|so|do|show|check|run|give"
    r"|me|the|that|it|for|on|in|of|at|to|with|other|one|database|db|instance|server|repeat|this|as|well)\b|\W"
)


@dataclass(frozen=True)
class Variations:
    """Repeats the last request of one conversation with what a half sentence changes."""

    memory: Memory
    requests: Requests

    def reply(self, text: str, plain: str, *, answers: bool = False) -> Reply | None:
        """The request again; None when the sentence stands for itself, or is the answer to a question."""
        last = self.memory.last
        tool = self.memory.tool(last) if last else None
        if last is None or tool is None:
            return None
        if not answers and (moved := self._elsewhere(text, plain, last, tool)):
            return moved
        return self._changed(text, plain, last, tool) if VARIES.match(plain) else None

    # -- the same in another database

    def _elsewhere(self, text: str, plain: str, last: Called, tool: Tool) -> Reply | None:
        place = self._other(text, plain, self.memory.place(last))
        if place is None:
            return None
        if tool.changes:
            return Reply("I do not repeat a change in another database from half a sentence: say it whole, please.")
        asked = next((one.asked for one in reversed(self.memory.earlier) if last in one.calls), "")
        return self.requests.decided(self.requests.without_places(asked), place)

    def _other(self, text: str, plain: str, here: str) -> Instance | None:
        """The database that a half sentence names and nothing else; the one beside ours when it says “the other”."""
        others = [each for each in self.memory.world.instances if each.name != here]
        if OTHER.search(plain):
            return others[0] if len(others) == 1 and not AROUND.sub("", OTHER.sub("", plain)) else None
        named = self.requests.named(Wording(text))
        rest = AROUND.sub("", self.requests.without_places(plain))
        return named[0] if len(named) == 1 and not rest and named[0].name != here else None

    # -- the same about something else

    def _changed(self, text: str, plain: str, last: Called, tool: Tool) -> Reply | None:
        on = self.memory.place(last)
        same = bool(SAME.search(plain))
        alone = self.requests.decided(text)
        filling = Filler(tool, Wording(text), self.memory.world.names(on)).fill()
        strange = plain.lstrip().startswith(("same", "do the same", "likewise", "the other"))
        if alone.sure and alone.calls and not strange:
            return None
        if not (filling.values or filling.several[0]):
            return Reply(WHOLE) if strange and tool.changes else None
        if tool.changes:
            return self._repeated(last, tool, on, filling, same=same)
        old = {name: value for name, value in last.arguments.items() if name not in {"on", filling.several[0]}}
        return Reply(calls=tuple(Wanted(tool, {**old, **new}, on) for new in filling.calls())[:AT_ONCE])

    def _repeated(self, last: Called, tool: Tool, on: str, filling: Filling, *, same: bool) -> Reply:
        """A change once more, of one other thing that is named exactly, and only in so many words."""
        names = self.memory.world.names(on)
        new = dict(filling.values)
        old = {name: value for name, value in last.arguments.items() if name not in {"on", "name"}}
        moved = [name for name in new if tool.slots[name].slot in TABLES]
        bound = [name for name in old if tool.slots.get(name) and tool.slots[name].slot == "index" and name not in new]
        table = str(new[moved[0]]) if moved else ""
        columns = [
            _bare(value)
            for name, arg in tool.slots.items()
            if arg.slot in {"columns", "column"}
            for value in _listed(old.get(name))
        ]
        fitting = not table or set(columns) <= set(names.columns(table))
        named = [name for name in new if tool.slots[name].slot in NAMED or tool.slots[name].slot in {"pid", "user"}]
        if (
            not same
            or filling.several[0]
            or filling.guessed
            or filling.unknown
            or (moved and bound)
            or not fitting
            or len(named) != len(new)
            or len(named) != 1
        ):
            return Reply(WHOLE)
        return Reply(f"{WAITS}\n\n", (Wanted(tool, {**old, **new}, on),))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _bare(column: Any) -> str:
    return str(column).split()[0].lstrip("-")
