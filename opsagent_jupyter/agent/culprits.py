"""“Kill the blocker”, “kill it”: who is meant, by the latest look at sessions or operations, and by a fresh one before asking.

A person's words decide that something is ended and how; a look only says what the words point to. Where it points to
several, or to another than before, the person is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opsagent_jupyter.agent.exchange import Called, Exchange
from opsagent_jupyter.agent.memory import Memory, findings_table, result_of, rows
from opsagent_jupyter.agent.requests import Requests
from opsagent_jupyter.agent.slots import choices, properties
from opsagent_jupyter.agent.wording import Wording
from opsagent_jupyter.agent.world import WAITS, Reply, Wanted
from opsagent_jupyter.plugin import Tool

KILLS = re.compile(
    r"""(?x)^\W*(?:(?:please|pls|plz|ok|okay|yes|now|so|then|just|and|well|lets|go\ ahead|(?:can|could|would)\ you)\W+)*
    (?:(?P<verb>kill|terminate|end|stop|cancel|abort|disconnect)\W+(?:just\W+)?
        (?: (?:(?:the|that|this|its)\s+)?(?:(?:root|main|worst)\s+)?
            (?P<blocker>blockers?|culprit|blocking\s+(?:session|query|statement|process|connection|transaction|operation|op|one|pid))
          | (?:its|that|this|the)\s+(?:running\s+|long\s+)?
            (?P<thing>query|statement|session|connection|process|backend|operation|op)(?:\s+of\s+the\s+(?P<of>blocker))?)
      | (?:kill|terminate)\W+(?P<it>it|that|this|that\ one|this\ one|that\ thing|them|those|him))
    (?:\W+(?:then|now|please|pls|plz|instead|for\ me|too|already|asap|thanks|dont\ terminate|only))*\W*$"""
)
#: What is asked for to learn who blocks.
LOOKS = ("who is blocking whom", "is anything waiting for a lock")
#: Columns by which a session is the same as before, and ages that only grow.
TRAITS, AGES = ("role", "application", "user", "client", "namespace", "command"), ("transaction", "running")


@dataclass(frozen=True)
class Suspect:
    """A session or an operation that may be meant."""

    id: str
    row: dict[str, Any] = field(default_factory=dict)

    def is_same(self, other: Suspect) -> bool:
        """Whether it is the very one of an earlier look: the number alone may have been given to another since."""
        both = [name for name in (*TRAITS, *AGES) if name in self.row and name in other.row]
        return self.id == other.id and all(
            float(self.row[name] or 0) >= float(other.row[name] or 0)
            if name in AGES
            else self.row[name] == other.row[name]
            for name in both
        )

    def __str__(self) -> str:
        told = [
            f"{name} {self.row[name]}" for name in ("role", "application", "state", "namespace") if self.row.get(name)
        ]
        return f"{self.id} ({', '.join(told)})" if told else self.id


@dataclass(frozen=True)
class Culprits:
    """Finds out who is meant by words that name nobody."""

    memory: Memory
    requests: Requests

    def reply(self, plain: str) -> Reply | None:
        """A fresh look before a session is ended, or a question; None when the request is about something else."""
        said = KILLS.match(plain)
        if said is None or Wording(plain).wonders:
            return None
        seen = self._seen(said)
        tool = self._killer(seen) if seen else None
        if seen is None or tool is None:
            return self._first_look() if said["blocker"] or said["of"] else None
        suspects = self._suspects(seen, tool, blocker=bool(said["blocker"] or said["of"]))
        if len(suspects) != 1 or said["it"] in {"them", "those"}:
            return _which(suspects, tool)
        again = self.memory.tool(seen)
        arguments = {name: value for name, value in seen.arguments.items() if name != "on"}
        look = (Wanted(again, arguments, self.memory.place(seen)),) if again else ()
        return Reply("Looking once more before I ask for it, because sessions come and go.\n\n", look)

    def after(self, current: Exchange) -> Reply | None:
        """The request, when the fresh look shows the same one as before; None when this was no such look."""
        plain = Wording(current.asked).rest.strip()
        said, seen = KILLS.match(plain), self.memory.calls
        fresh = current.calls[0] if len(current.calls) == 1 else None
        before = self._seen(said) if said and seen else None
        tool = self._killer(before) if before else None
        if (
            said is None
            or fresh is None
            or before is None
            or tool is None
            or self.memory.tool(fresh) is not self.memory.tool(before)
        ):
            return None
        blocker = bool(said["blocker"] or said["of"])
        old, new = (self._suspects(call, tool, blocker=blocker) for call in (before, fresh))
        if len(old) != 1:
            return None
        if len(new) != 1 or not new[0].is_same(old[0]):
            now = f" Now it is {new[0]}." if len(new) == 1 else ""
            return Reply(f"It is not {old[0]} any more.{now} Nothing was asked for: which one do you mean?", asks=True)
        return Reply(f"Still there: {new[0]}. {WAITS}\n\n", (self._request(tool, new[0], said, before),))

    def _request(self, tool: Tool, suspect: Suspect, said: re.Match[str], seen: Called) -> Wanted:
        slot = _slot(tool)
        number: Any = int(suspect.id) if suspect.id.isdigit() else suspect.id
        arguments: dict[str, Any] = {slot: number}
        schema = properties(tool.arguments)
        gentle = said["verb"] in {"cancel", "abort"} or said["thing"] in {"query", "statement"}
        if gentle and "cancel" in choices(schema.get("mode", {})):
            arguments["mode"] = "cancel"
        if "member" in schema and ":" in str(suspect.row.get("member", "")):
            arguments["member"] = suspect.row["member"]
        return Wanted(tool, arguments, self.memory.place(seen))

    # -- who is meant

    def _seen(self, said: re.Match[str]) -> Called | None:
        """The look that the words point back to: for a blocker the latest that tells blockers, else the last call."""
        looks = [call for call in self.memory.calls if (tool := self._killer(call)) and _tells(call, tool)]
        if said["blocker"] or said["of"]:
            return looks[-1] if looks else None
        return looks[-1] if looks and looks[-1] is self.memory.last else None

    def _killer(self, call: Called) -> Tool | None:
        """The tool that ends what a look shows: the plugin's change that takes a process or an operation."""
        own = self.memory.tool(call)
        return next(
            (
                tool
                for tool in self.memory.world.tools
                if own and tool.plugin == own.plugin and tool.changes and _slot(tool)
            ),
            None,
        )

    def _suspects(self, call: Called, tool: Tool, *, blocker: bool) -> list[Suspect]:
        result = result_of(call)
        if result is None:
            return []
        listed = [dict(row) for table in result.tables for row in rows(table)]
        by_number = {str(row[_slot(tool)]): row for row in listed if row.get(_slot(tool)) is not None}
        if "roots" in result.figures:
            roots = result.figures["roots"]
            found = [str(pid) for pid in roots] if isinstance(roots, list) else []
        elif findings_table(call):
            fixes = [fix for fix in result.suggestions if fix.tool == tool.full_name]
            blocking = self._blocking(call)
            found = [str(fix.arguments.get(_slot(tool))) for fix in fixes if not blocker or fix in blocking]
        else:
            whole = all(table.total == len(table.rows) for table in result.tables)
            found = [] if blocker else [*by_number, *([] if whole else ["one that was cut off"])]
        return [Suspect(number, by_number.get(number, {})) for number in dict.fromkeys(found)]

    def _blocking(self, call: Called) -> list[Any]:
        result, table = result_of(call), findings_table(call)
        numbers = (
            [row.get("fix") for row in rows(table) if str(row.get("kind", "")).startswith("block")] if table else []
        )
        return [
            result.suggestions[n - 1] for n in numbers if result and isinstance(n, int) and n <= len(result.suggestions)
        ]

    def _first_look(self) -> Reply:
        for look in LOOKS:
            found = self.requests.decided(look)
            if found.calls:
                return Reply("First I look who blocks whom.\n\n", found.calls)
            if found.asks:
                return found
        return Reply("I cannot see who blocks whom here. Whom do you mean, by number?", asks=True)


def _slot(tool: Tool) -> str:
    return next((name for name, arg in tool.slots.items() if arg.slot == "pid"), "")


def _tells(call: Called, tool: Tool) -> bool:
    """Whether a look shows sessions or operations by their numbers."""
    result = result_of(call)
    if result is None:
        return False
    listed = any(_slot(tool) in table.columns for table in result.tables)
    return listed or "roots" in result.figures or any(fix.tool == tool.full_name for fix in result.suggestions)


def _which(suspects: Sequence[Suspect], tool: Tool) -> Reply:
    verb = tool.name.split("_")[0]
    if not suspects:
        text = f"What I saw names nobody who blocks. Which {_slot(tool)} do you mean?"
    else:
        text = f"That could be {' or '.join(map(str, suspects[:5]))}. Which {_slot(tool)}? I do not choose."
    return Reply(f"{text} Say “{verb} {_slot(tool)} …”.", asks=True, tool=tool.full_name)
