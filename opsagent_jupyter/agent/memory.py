"""What a conversation remembers: its calls with their answers, the changes it led to, and the last diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from opsagent_jupyter.agent.exchange import Called, Exchange
from opsagent_jupyter.agent.world import Wanted, World
from opsagent_jupyter.models import Result, Suggestion, Table
from opsagent_jupyter.plugin import Tool

#: The table of a diagnosis, as every plugin tells it.
FINDINGS = "findings"
#: How the answer of a call begins that nobody has decided yet.
OPEN = ("waiting ", "no answer yet")


@dataclass(frozen=True)
class Memory:
    """The earlier exchanges of one conversation, read for what a follow-up can be about."""

    world: World
    earlier: Sequence[Exchange]

    @cached_property
    def calls(self) -> list[Called]:
        """Every call so far, in order; one whose outcome came late stands where the outcome came."""
        found: list[Called] = []
        for call in (call for exchange in self.earlier for call in exchange.calls):
            asked = self._asked(call, found)
            if asked:
                found.remove(asked)
            found.append(replace(call, name=asked.name, arguments=asked.arguments) if asked else call)
        return found

    def _asked(self, late: Called, before: Sequence[Called]) -> Called | None:
        """The open call that a late outcome belongs to: by its request, else the only one of its tool."""
        if late.id or late.answer is None:
            return None
        same = [call for call in before if is_open(call) and self.tool(call) is self.tool(late)]
        named = [call for call in same if late.answer.approval and f"request {late.answer.approval[:8]})" in call.text]
        return next(iter(named or (same if len(same) == 1 else [])), None)

    @property
    def last(self) -> Called | None:
        """The call that was made last."""
        return self.calls[-1] if self.calls else None

    @property
    def changes(self) -> list[Called]:
        """Calls that change something, in order, whatever became of them."""
        return [call for call in self.calls if (tool := self.tool(call)) is not None and tool.changes]

    def tool(self, call: Called) -> Tool | None:
        """The tool of a call, if there is still one of that name."""
        return self.world.tool(call.name)

    def place(self, call: Called) -> str:
        """The database that a call went to."""
        tool = self.tool(call)
        fitting = [each.name for each in self.world.instances if tool is None or each.plugin == tool.plugin]
        told = str(call.arguments.get("on") or (call.answer.instance if call.answer else ""))
        return told or (self.world.focus if self.world.focus in fitting else fitting[0] if len(fitting) == 1 else "")

    @property
    def looked(self) -> Called | None:
        """The last call, when it was a look that found something out."""
        return self.last if self.last and result_of(self.last) else None

    @property
    def diagnosed(self) -> Called | None:
        """The last diagnosis; None when there was none."""
        return next((call for call in reversed(self.calls) if findings_table(call)), None)

    def since(self, call: Called) -> list[str]:
        """What a person wrote after the exchange of a call."""
        place = next((n for n, exchange in enumerate(self.earlier) if call in exchange.calls), len(self.earlier))
        return [exchange.asked for exchange in self.earlier[place + 1 :]]

    def wanted(self, suggestion: Suggestion, on: str) -> Wanted | None:
        """A suggestion as a call that could be made; None when there is no such tool."""
        tool = self.world.tool(suggestion.tool, on)
        return Wanted(tool, suggestion.arguments, on, suggestion.why) if tool else None


def result_of(call: Called) -> Result | None:
    """What a look found; None for a change, and for a call without an answer."""
    return call.answer.result if call.answer and call.answer.status == "succeeded" else None


def findings_table(call: Called) -> Table | None:
    """The findings of a diagnosis; None for every other call."""
    result = result_of(call)
    return next((table for table in result.tables if table.name == FINDINGS), None) if result else None


def rows(table: Table) -> list[Mapping[str, Any]]:
    """The rows of a table by column."""
    return [dict(zip(table.columns, row, strict=False)) for row in table.rows]


def is_open(call: Called) -> bool:
    """Whether nobody has decided a call yet, or its outcome has not come."""
    return not call.text or call.text.startswith(OPEN)
