"""“Show me its plan”, “explain the second one”, “how big is it?”: words that point into the last answer, put in full."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.agent.memory import Memory, result_of, rows
from opsagent_jupyter.agent.requests import Requests
from opsagent_jupyter.agent.slots import TABLES
from opsagent_jupyter.agent.wording import Wording, ordinal
from opsagent_jupyter.agent.world import Reply, Wanted
from opsagent_jupyter.plugin import Tool

BACK = re.compile(r"\b(?:it|its|that|this|that one|this one)\b")
#: Words that may be followed by a name: where the pronoun stands for the thing itself.
STANDS = re.compile(
    r"\b(?:it|(?:that|this|the same)(?:\s+(?:table|collection|one))?)(?=\W*(?:$|please|pls|then|now|too|instead|again))"
    r"|(?<=\bis )it\b|(?<=\bdoes )it\b|(?<=\bhas )it\b|\bits(?=\s)"
)


@dataclass(frozen=True)
class References:
    """Reads pronouns and places in a list by the last answer."""

    memory: Memory
    requests: Requests

    def reply(self, text: str, plain: str) -> Reply | None:
        """A look at what is pointed to, or the question whether a change means it; None when nothing is."""
        last = self.memory.last
        if last is None or Wording(text).sql or not (BACK.search(plain) or ordinal(plain)):
            return None
        found = self.requests.decided(text)
        return self._row(plain, found, last) or self._thing(text, plain, last)

    # -- a row of the last answer

    def _row(self, plain: str, found: Reply, last: Called) -> Reply | None:
        """A look at one row, by the value that a tool takes from it: the id of a statement, most of all."""
        tool = self.memory.world.tool(found.tool) if found.tool and not found.calls else None
        number = ordinal(plain) or (1 if BACK.search(plain) else 0)
        if tool is None or tool.changes or not number:
            return None
        values = self._values(tool, last)
        if not values:
            return None
        if number > len(values):
            return Reply(f"There are {len(values)}; there is no number {number}. Which one?", asks=True)
        on = self.memory.place(last)
        return Reply(calls=(Wanted(tool, values[number - 1 if number > 0 else -1], on),))

    def _values(self, tool: Tool, last: Called) -> list[dict[str, Any]]:
        """What a tool could be called with, row by row; else what the answer suggests for it."""
        result = result_of(last)
        if result is None or (own := self.memory.tool(last)) is None or own.plugin != tool.plugin:
            return []
        slots = [name for name, arg in tool.slots.items() if arg.slot == "query_id"]
        listed = [
            {name: str(row[column])}
            for table in result.tables
            for row in rows(table)
            for name in slots
            for column in table.columns
            if column.replace(" ", "_") == name and row.get(column)
        ]
        return listed or [dict(each.arguments) for each in result.suggestions if each.tool == tool.full_name]

    # -- the thing that the last call was about

    def _thing(self, text: str, plain: str, last: Called) -> Reply | None:
        """The request with the name in the place of the pronoun; of a change it is asked first."""
        own, here = self.memory.tool(last), STANDS.search(text.lower())
        names = [str(last.arguments[name]) for name, arg in (own.slots if own else {}).items()
                 if arg.slot in TABLES and last.arguments.get(name)]  # fmt: skip
        if here is None or len(names) != 1:
            return self._unclear(plain)
        whole = f"{text[: here.start()]}{names[0]}{text[here.end() :]}"
        said = self.requests.decided(whole)
        if not said.calls or self._elsewhere(said, last):
            return self._unclear(plain)
        if not any(call.tool.changes for call in said.calls):
            return said
        return Reply(f"Do you mean {names[0]}? Say “{whole.strip(' ?!.')}”.", asks=True, tool=said.tool)

    def _elsewhere(self, said: Reply, last: Called) -> bool:
        return any(call.on != self.memory.place(last) for call in said.calls)

    def _unclear(self, plain: str) -> Reply | None:
        """A change of “it” names nothing: which one, it is asked."""
        verb = self.requests.changing(plain)
        if not verb or not STANDS.search(plain):
            return None
        return Reply(
            f"What do you mean? Say it with its name, for example “{verb} … NAME”. Nothing was run.", asks=True
        )
