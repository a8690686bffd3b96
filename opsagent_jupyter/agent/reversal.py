"""“Undo that”: the last change of the conversation taken back by a request of its own, or the reason why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.agent.inverses import Done, inverse
from opsagent_jupyter.agent.memory import Memory, is_open
from opsagent_jupyter.agent.wording import DOES, means_verb
from opsagent_jupyter.agent.world import WAITS, Reply, Wanted
from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.models import Suggestion

_WHAT = (
    r"(?:it|that|this|the|my|our|your|last|latest|previous|recent|change|changes|one|thing|what|we|you|i|just|did|have|done"
    r"|again|all|of)"
)
UNDO = re.compile(
    r"^\W*(?:(?:please|pls|plz|ok|okay|no|oops|ouch|damn|wait|sorry|hm+|now|so|then|well|lets|just|and|(?:can|could|would) you"
    r"|i (?:want|need|would like) (?:you )?to|actually)\W+)*"
    rf"(?:(?:undo|revert|reverse|rollback|un-?do)(?:\W+{_WHAT})*"
    rf"|(?:roll|take|put|bring|change|turn|set)(?:\W+{_WHAT})*\W+back)"
    r"(?:\W+(?:please|pls|plz|now|again|then|quickly|asap|thanks|right away|for me|as it was|(?:the )?way it was))*\W*$"
)


@dataclass(frozen=True)
class Reversal:
    """Takes changes of one conversation back."""

    memory: Memory
    spoken: Callable[[Wanted], str]

    def reply(self, plain: str) -> Reply | None:
        """The request that takes the last change back, or why there is none; None when nothing is to be undone."""
        changes = self.memory.changes
        if not UNDO.match(plain):
            return self._by_verb(plain, changes[-1]) if changes and changes[-1] is self.memory.last else None
        if not changes:
            return Reply("Nothing was changed in this conversation, so there is nothing to undo.")
        last = changes[-1]
        text = self._not_done(last)
        return Reply(text) if text else self._undone(last)

    def _by_verb(self, plain: str, change: Called) -> Reply | None:
        """“Drop it again”, “unhide it”: what takes the last change back, said by its own verb."""
        said = DOES.match(plain)
        if said is None or self._not_done(change):
            return None
        reply = self._undone(change)
        fits = any(
            call.arguments.get(said[1]) is True or means_verb(said[1], call.tool.name.split("_")[0])
            for call in reply.calls
        )
        return reply if fits else None

    def how(self, plain: str) -> Reply | None:
        """How the last change would be taken back, when that is asked."""
        if not re.search(
            r"\b(?:how|can|could|is)\b.*\b(?:undo|undone|roll\w*(?: \w+)? back|revert\w*|reverse\w*|taken? (?:\w+ )?back)\b",
            plain,
        ):
            return None
        changes = self.memory.changes
        if not changes:
            return None
        reply = self._undone(changes[-1])
        if not reply.calls:
            return reply
        words = " and ".join(self.spoken(call) for call in reply.calls)
        return Reply(f"By {words}. Say “undo that” and I ask for approval.")

    def _undone(self, change: Called) -> Reply:
        tool, answer = self.memory.tool(change), change.answer
        if tool is None or answer is None or answer.effect is None:
            return Reply("What became of the last change is not in this conversation, so I do not take it back.")
        place = self.memory.place(change)
        arguments = {name: value for name, value in change.arguments.items() if name != "on"}
        try:
            tool.parse(arguments)
        except InvalidArguments:  # an outcome that came late, of one of several requests
            return Reply(
                "With what the last change was made is not clear to me, so I do not take it back; say what to change."
            )
        found = inverse(Done(tool, arguments, answer.effect, self.memory.world.names(place)))
        wanted = self.memory.wanted(found, place) if isinstance(found, Suggestion) else None
        did = self.spoken(Wanted(tool, arguments, place))
        if wanted is None:
            return Reply(f"The last change was {did}. I cannot undo it: {found}")
        return Reply(f"The last change was {did}. Taken back by {self.spoken(wanted)}. {WAITS}\n\n", (wanted,))

    def _not_done(self, change: Called) -> str:
        """Why a change needs no undoing, or must not get it."""
        if is_open(change):
            return (
                "The last change still waits for a person's decision: nothing was run, so there is nothing to undo. "
                "Withdraw its request: %opsagent withdraw ID."
            )
        status = change.answer.status if change.answer else "refused"
        if status == "succeeded":
            return ""
        if status in {"unknown", "running", "cancelled"}:
            return "How the last change ended is not known: look at the target first, then say what to change."
        return "The last change was not made, so there is nothing to undo."
