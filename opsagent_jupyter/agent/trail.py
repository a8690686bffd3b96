"""What follows from an answer: the next look of a short trail, the fix that was wanted, or what can be offered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opsagent_jupyter.agent import answers
from opsagent_jupyter.agent.exchange import Called, Exchange
from opsagent_jupyter.agent.requests import DIAGNOSIS, Requests
from opsagent_jupyter.agent.wording import Wording
from opsagent_jupyter.agent.world import WAITS, Reply, Wanted, World, call_key, short
from opsagent_jupyter.models import Risk

#: Messages that one question may lead to before the model stops by itself.
DEPTH = 6
#: Suggestions that are offered at once.
OFFERS = 6
WHY = re.compile(r"\b(?:why|causes?|reason|whats wrong|what is wrong|root|diagnose|investigate|find out)\b")
FIXING = frozenset({"fix", "solve", "repair", "resolve", "optimize", "optimise", "tune", "speed", "cure", "improve"})


@dataclass(frozen=True)
class Goal:
    """What a question is after, beyond its first answer."""

    why: bool = False
    fix: bool = False

    @classmethod
    def of(cls, text: str) -> Goal:
        """Read it from a person's words."""
        wording = Wording(text)
        return cls(bool(WHY.search(wording.rest)), any(head in FIXING for head, _ in wording.commands()))


@dataclass(frozen=True)
class Trail:
    """Goes on from answers."""

    world: World
    requests: Requests

    def report(self, exchange: Exchange, earlier: Sequence[Exchange] = ()) -> Reply:
        """Tell what came back, and go on or offer to."""
        calls = exchange.answered
        trail = self._led_by(exchange, earlier)
        asked = exchange.steps[-1].calls
        if calls and all(call.text.startswith(("waiting ", "no answer yet")) for call in asked):
            return Reply("This still waits for a person's decision; nothing was run.")
        following = self._look_again(trail, calls) or self._next(exchange, calls)
        briefly = len(calls) > 2 or following is not None
        told = [answers.described(call, briefly=briefly) for call in calls]
        text = "\n\n".join(part for part in (*told, _compared(trail, calls)) if part)
        if following:
            return replace(following, text=f"{text}\n\n{following.text}\n\n")
        return Reply(f"{text}{self._offered(exchange)}")

    # -- the next step

    def _next(self, exchange: Exchange, calls: Sequence[Called]) -> Reply | None:
        goal = Goal.of(exchange.asked)
        if len(exchange.steps) >= DEPTH or len(calls) > 1:
            return None
        ready = [wanted for wanted in self.suggested(exchange) if self._touches(wanted, calls, exchange.asked)]
        looks = [wanted for wanted in ready if not wanted.tool.changes]
        fixes = [wanted for wanted in ready if wanted.tool.changes]
        if looks and (goal.why or goal.fix) and not _is_diagnosis(calls):
            return Reply(f"Looking closer: {looks[0].why or self.said(looks[0])}.", (looks[0],))
        # A trail asks for a gentle fix by itself; what is high or critical is offered, never chosen.
        if goal.fix and len(fixes) == 1 and fixes[0].tool.risk.rank <= Risk.MEDIUM.rank:
            return self.asking(fixes, f"You asked for a fix: {self.said(fixes[0])}.")
        return None

    def asking(self, wanted: Sequence[Wanted], text: str = "") -> Reply:
        """Make the calls; say that a change waits for a person."""
        waits = f" {WAITS}" if any(call.tool.changes for call in wanted) else ""
        return Reply(f"{text}{waits}".strip(), tuple(wanted))

    def _led_by(self, exchange: Exchange, earlier: Sequence[Exchange]) -> list[Called]:
        """All calls of the exchange, after those of the one before whose suggestion it took up."""
        before = next((one for one in reversed(earlier) if one.calls), None)
        offered = {wanted.key for wanted in self.suggested(before)} if before else set()
        taken = any(call_key(call.name, call.arguments) in offered for call in exchange.calls)
        return [*(before.calls if before and taken else ()), *exchange.calls]

    def _look_again(self, trail: Sequence[Called], calls: Sequence[Called]) -> Reply | None:
        """After a change took effect, the plan that led to it once more, so that before and after can be compared."""
        changed = any(call.answer and call.answer.effect and call.answer.status == "succeeded" for call in calls)
        looks = [call for call in trail if self._is_plan(call) and call.answer and call.answer.result]
        if not changed or not looks or looks[-1].answer is None:
            return None
        tool = self.world.tool(looks[-1].name)
        arguments = {name: value for name, value in looks[-1].arguments.items() if name != "on"}
        wanted = (Wanted(tool, arguments, looks[-1].answer.instance),) if tool else ()
        return Reply("The same statement again:", wanted) if wanted else None

    def _is_plan(self, call: Called) -> bool:
        tool = self.world.tool(call.name)
        return tool is not None and not tool.changes and any(arg.slot == "sql" for arg in tool.slots.values())

    def _touches(self, wanted: Wanted, calls: Sequence[Called], asked: str) -> bool:
        """Whether a suggestion is about a table that the person named, if they named one."""
        names = self.world.names(wanted.on)
        tables = {table for word in Wording(asked).tokens if (table := names.exact("table", word))}
        around = " ".join([wanted.why, *map(str, wanted.arguments.values()), *_rows_with(wanted, calls)]).lower()
        short_names = (table.rpartition(".")[2].lower() for table in tables)
        return not tables or any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", around) for name in short_names)

    # -- what can be offered

    def suggested(self, exchange: Exchange) -> list[Wanted]:
        """What the last answers suggest and was not done in this exchange, the gentlest first; a diagnosis is ranked."""
        made = {call_key(call.name, call.arguments) for call in exchange.calls}
        found = [
            Wanted(tool, suggestion.arguments, on, suggestion.why)
            for suggestion, on in answers.suggestions(exchange.answered)
            if (tool := self.world.tool(suggestion.tool, on)) is not None
        ]
        new = [wanted for wanted in found if wanted.key not in made]
        return new if _is_diagnosis(exchange.answered) else sorted(new, key=lambda wanted: wanted.tool.risk.rank)

    def _offered(self, exchange: Exchange) -> str:
        offers = self.suggested(exchange)[:OFFERS]
        if not offers:
            wanted = Goal.of(exchange.asked).fix and not any(
                call.answer and call.answer.effect for call in exchange.calls
            )
            return "\n\nFrom this I have no fix to propose." if wanted else ""
        after = (
            " A change runs only after a person approved it." if any(wanted.tool.changes for wanted in offers) else ""
        )
        if len(offers) > 1:
            return f"\n\nI can go on with one of these; say its number.{after}\n{self.listed(offers)}"
        why = f" ({offers[0].why})" if offers[0].why else ""
        return f"\n\nI can go on with this: {self.said(offers[0])}{why}. Say “yes”.{after}"

    def listed(self, offers: Sequence[Wanted]) -> str:
        """Offers by number, each with its reason."""
        lines = [f"{number}. {self.said(offer)}" for number, offer in enumerate(offers[:OFFERS], 1)]
        return "\n".join(
            f"{line} ({offer.why})" if offer.why else line for line, offer in zip(lines, offers, strict=False)
        )

    def said(self, wanted: Wanted) -> str:
        """A call in words that lead to exactly this call, checked by reading them back; else its name and arguments."""
        for words in answers.in_words(wanted.tool, wanted.arguments):
            calls = self.requests.decided(words).calls
            if len(calls) == 1 and self.world.same(calls[0], wanted):
                return f"“{words}”"
        values = ", ".join(f"{name}={short(value)}" for name, value in wanted.arguments.items())
        return f"{wanted.tool.full_name}({values})"


def _is_diagnosis(calls: Sequence[Called]) -> bool:
    """Whether these calls are one diagnosis, which has looked closely already and says itself what comes first."""
    return len(calls) == 1 and calls[0].name.endswith(f"_{DIAGNOSIS}")


def _rows_with(wanted: Wanted, calls: Sequence[Called]) -> list[str]:
    """Rows of the answers in which a value of the call stands."""
    values = {str(value) for value in wanted.arguments.values()}
    tables = [table for call in calls if call.answer and call.answer.result for table in call.answer.result.tables]
    return [str(row) for table in tables for row in table.rows if values & {str(cell) for cell in row}]


def _compared(trail: Sequence[Called], calls: Sequence[Called]) -> str:
    """The figures of the same question asked twice on one trail."""
    key = call_key(calls[0].name, calls[0].arguments) if calls else ""
    same = [call for call in trail if call_key(call.name, call.arguments) == key]
    return answers.comparison(same[0], same[-1]) if len(same) > 1 else ""
