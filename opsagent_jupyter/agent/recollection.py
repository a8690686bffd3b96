"""“What did you just do?”: the calls of this conversation and what became of each, in plain words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.agent.memory import Memory, is_open
from opsagent_jupyter.agent.world import Reply, short

ASKS = re.compile(
    r"\bwhat (?:(?:did|have|had) (?:you|we|i)|was|has been)\b.{0,20}\b(?:do|done|did|run|call|called|change|changed|try|tried)\b"
    r"|\bwhat happened\b|\bwhat was that\b|\b(?:summarize|summarise|recap|sum up)\b"
)
#: Calls that are told at most.
MOST = 10
ENDS = {
    "succeeded": "done", "failed": "failed", "refused": "not run", "unknown": "its outcome is unknown", "cancelled": "cancelled",
}  # fmt: skip


@dataclass(frozen=True)
class Recollection:
    """Tells what was called."""

    memory: Memory

    def reply(self, plain: str) -> Reply | None:
        """What was done, when that is asked; None when it is not, or when nothing was."""
        if not ASKS.search(plain) or not self.memory.calls:
            return None
        just = re.search(r"\b(?:just|last|now|that|happened)\b", plain)
        calls = self.memory.calls[-1:] if just else self.memory.calls[-MOST:]
        lines = [f"- {self._told(call)}" for call in calls]
        return Reply(
            "\n".join(["In this conversation:", *lines, "Everything else stands in the audit: %opsagent audit."])
        )

    def _told(self, call: Called) -> str:
        tool, place = self.memory.tool(call), self.memory.place(call)
        given = {name: value for name, value in call.arguments.items() if name != "on"}
        values = ", ".join(f"{name}={short(value)}" for name, value in given.items())
        name = tool.full_name if tool else call.name
        if is_open(call):
            end = "waits for a person's decision, nothing was run"
        elif call.answer is None:
            end = f"not run: {short(call.text)}"
        else:
            effect = call.answer.effect
            summary = short(effect.summary if effect else call.answer.summary)
            end = f"{ENDS.get(call.answer.status, call.answer.status)}: {summary}" if summary else call.answer.status
        return f"{name}({values}) on {place or 'no database'}: {end}"
