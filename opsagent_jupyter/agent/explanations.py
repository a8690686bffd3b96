"""Explains what a diagnosis found: what it means, what shows it, why it matters, what its fix locks, how to take it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.agent.consequences import consequence
from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.agent.memory import Memory, findings_table, result_of, rows
from opsagent_jupyter.agent.wording import ordinal, stem, tokens
from opsagent_jupyter.agent.world import Reply, Wanted

Row = Mapping[str, Any]

#: Which part of an explanation a question is after, the first that fits; the whole when it asks to explain.
PARTS = (
    ("evidence", re.compile(
        r"\bevidence\b|\bhow (?:do|did|can|would) (?:you|we|i) (?:know|tell|see|find)\b|\bproof\b|\bprove\b|\bhow sure\b"
        r"|\bwhat (?:shows|makes you|tells you)\b|\bbased on what\b|\bwhere (?:do|did) you (?:get|see)\b"
    )),
    ("lock", re.compile(
        r"\bwhat (?:does|would|will|do)\b.*\b(?:lock|block)\b|\b(?:take|takes|need|needs) (?:a |any )?locks?\b"
        r"|\bfix\b.*\b(?:lock|block)\b|\bdowntime\b"
    )),
    ("undo", re.compile(
        r"\b(?:undo|undone|roll(?:ed)?(?: (?:it|that|this))? ?back|rollback|revert(?:ed)?|reverse[d]?"
        r"|(?:take|taken|took|put)(?: (?:it|that|this))? back)\b"
    )),
    ("why", re.compile(
        r"\b(?:why|how|does|is|so)\b.*\b(?:matter|important|bad|problem|care|relevant|worry|concern|serious|hurt|harm)\b"
        r"|^\W*so what\b|^\W*why\W*$"
    )),
    ("fix", re.compile(r"\bhow (?:do|can|would|should) (?:i|we|you) (?:fix|solve|repair)\b|\bwhat (?:should|can) (?:i|we) do\b")),
    ("", re.compile(
        r"\b(?:explain|elaborate|clarify|details?|meaning)\b|\btell me (?:more|about)\b|\bmore about\b"
        r"|\bwhat (?:does|do|is|are)\b.*\b(?:mean|meant|about)\b|\bwhat is (?:the )?(?:finding|problem|issue)\b"
    )),
)  # fmt: skip
#: Words that say that a finding is spoken of.
FINDING = re.compile(r"\b(?:finding|findings|problem|problems|issue|issues|fix|point|item|one)\b")
POINTS_BACK = re.compile(
    r"\b(?:evidence|proof|it|that|this|these|those|you|fix|one)\b|^\W*(?:why|explain|so what|details?|more details?)\W*$"
)
FIXES = re.compile(
    r"^\W*(?:(?:please|pls|ok|okay|yes|then|now|just|(?:can|could) you)\W+)*"
    r"(?:fix|solve|repair|resolve|take care of|deal with)\s+"
    r"(?:the\s+|number\s+|nr\s+|no\s+)*(?P<finding>(?:finding|problem|issue)\W*)?#?\s*(?:[a-z]+|\d+(?:st|nd|rd|th)?)"
    r"(?:\W+(?P<noun>finding|problem|issue|one))?"
    r"(?:\W+(?:please|pls|then|now|first))*\W*$"
)
SURE = {
    "certain": "certain: read from the server's state",
    "likely": "likely: by its statistics",
    "possible": "possible: by an estimate or young statistics",
}


@dataclass(frozen=True)
class Explanations:
    """What can be told of the findings of one conversation."""

    memory: Memory
    spoken: Callable[[Wanted], str]
    """Says a call in words."""

    def reply(self, plain: str) -> Reply | None:
        """An explanation, when the request asks for one."""
        part = next((name for name, pattern in PARTS if pattern.search(plain)), None)
        call = self.memory.diagnosed
        if part and (call is None or call is not self.memory.last) and (offered := self._of_offers(plain, part)):
            return offered
        if part is None or call is None or not self._is_meant(plain, call):
            return None
        found = self.rows(call)
        number = self._number(plain, found) or self.focus() or 1
        if not 1 <= number <= len(found):
            return Reply(_not_here(number, len(found), call), asks=bool(found))
        return Reply("\n".join(self._told(number, found, call, part)))

    def rows(self, call: Called) -> list[Row]:
        """The findings of a diagnosis, ranked."""
        table = findings_table(call)
        return rows(table) if table else []

    def focus(self) -> int:
        """The number of the finding that was spoken of last, from 1; 0 when none was."""
        call, number = self.memory.diagnosed, 0
        for asked in self.memory.since(call) if call else ():
            plain = asked.lower()
            if call and any(pattern.search(plain) for _, pattern in PARTS) and self._is_meant(plain, call):
                number = self._number(plain, self.rows(call)) or number or 1
        return number

    def fix(self) -> Wanted | None:
        """The ready call of the finding that was spoken of last; None when nothing was spoken of, or it has none."""
        call, number = self.memory.diagnosed, self.focus()
        found = self.rows(call) if call else []
        return self._fix(found[number - 1], call) if call and 1 <= number <= len(found) else None

    def fixing(self, plain: str) -> Wanted | Reply | None:
        """“Fix the second one”: the ready call of that finding; where the offers have another call in that place, a question."""
        call, said = self.memory.diagnosed, FIXES.match(plain)
        if said is None or call is None or call is not self.memory.last:
            return None
        number, found = self._number(plain, self.rows(call)), self.rows(call)
        if not 1 <= number <= len(found):
            return None
        fix = self._fix(found[number - 1], call)
        if fix is None:
            return self.reply(f"how do i fix finding {number}")
        result, meant = result_of(call), said["finding"] or said["noun"] in {"finding", "problem", "issue"}
        offers = result.suggestions if result else ()
        other = self.memory.wanted(offers[number - 1], fix.on) if number <= len(offers) else None
        if meant or other is None or other.key == fix.key:
            return fix
        return Reply(
            f"Do you mean finding {number} ({self.spoken(fix)}) or offer {number} ({self.spoken(other)})? "
            f"Say “fix finding {number}”, or the number alone for the offer.",
            asks=True,
        )

    # -- which one

    def _is_meant(self, plain: str, call: Called) -> bool:
        if call is not self.memory.last:
            return bool(re.search(r"\bfindings?\b", plain))
        spoken = ordinal(plain) and FINDING.search(plain)
        return bool(spoken or POINTS_BACK.search(plain) or self._named(plain, self.rows(call)) or ordinal(plain))

    def _number(self, plain: str, found: Sequence[Row]) -> int:
        number = ordinal(plain)
        return len(found) if number < 0 else number or self._named(plain, found)

    def _named(self, plain: str, found: Sequence[Row]) -> int:
        """The number of the one finding whose subject or kind is named; 0 when none is, or several are."""
        said = {stem(word) for word in tokens(plain)} - {"index", "table", "collection", "finding"}
        subjects = [n for n, row in enumerate(found, 1) if str(row.get("subject", "")).lower() in plain]
        kinds = [n for n, row in enumerate(found, 1) if _kind(row) and _kind(row) <= said]
        near = subjects if len(subjects) == 1 else kinds
        return near[0] if len(near) == 1 else 0

    # -- what is told

    def _told(self, number: int, found: Sequence[Row], call: Called, part: str) -> Iterator[str]:
        row = found[number - 1]
        fix = self._fix(row, call)
        yield f"Finding {number} of {len(found)}, {row.get('severity')}, about {row.get('subject')}: {row.get('finding')}."
        if part in {"", "evidence"}:
            yield f"Evidence: {row.get('evidence') or 'the figures above'} ({SURE.get(str(row.get('confidence')), '')})."
        if part in {"", "why"}:
            yield f"Why it matters: {row.get('why')}"
        if part in {"", "why", "fix"}:
            yield f"What to do: {row.get('advice')}"
        yield from self._of_fix(fix, part)

    def _of_fix(self, fix: Wanted | None, part: str) -> Iterator[str]:
        if fix is None:
            yield "There is no ready call for it, so there is nothing to lock or to take back."
            return
        told = consequence(fix.tool, fix.arguments)
        yield f"The fix: {self.spoken(fix)}, risk {fix.tool.risk}."
        if part in {"", "lock", "fix"}:
            yield f"What it locks: {told.lock}"
        if part in {"", "undo", "fix"}:
            yield f"How to take it back: {told.undo}"
        yield "Say “do it” and I ask for approval; nothing runs before a person decides."

    def _of_offers(self, plain: str, part: str) -> Reply | None:
        """Why the changes that the last answer suggests matter, what they lock, how they are taken back."""
        last = self.memory.looked
        result = result_of(last) if last else None
        if last is None or result is None or part == "evidence" or not POINTS_BACK.search(plain):
            return None
        found = (self.memory.wanted(each, self.memory.place(last)) for each in result.suggestions)
        fixes = [fix for fix in found if fix and fix.tool.changes]
        if not fixes:
            return None
        lines = [line for fix in fixes[:3] for line in self._of_offer(fix, part)]
        return Reply("\n".join([*lines, "Nothing runs before a person decides."]))

    def _of_offer(self, fix: Wanted, part: str) -> Iterator[str]:
        told = consequence(fix.tool, fix.arguments)
        yield f"{self.spoken(fix)}, risk {fix.tool.risk}, because {fix.why or 'the last answer suggests it'}."
        if part in {"lock", "fix"}:
            yield f"What it locks: {told.lock}"
        if part in {"undo", "fix"}:
            yield f"How to take it back: {told.undo}"

    def _fix(self, row: Row, call: Called) -> Wanted | None:
        result, number = result_of(call), row.get("fix")
        if result is None or not isinstance(number, int) or not 1 <= number <= len(result.suggestions):
            return None
        return self.memory.wanted(result.suggestions[number - 1], self.memory.place(call))


def _not_here(number: int, known: int, call: Called) -> str:
    """Rows may be kept from models, or be too many for one answer."""
    table = findings_table(call)
    total = table.total if table else known
    if number <= total:
        return f"{known} of {total} findings have reached me, not number {number}: look at them in the result itself."
    return f"There are {total} findings; there is no number {number}. Which one?"


def _kind(row: Row) -> set[str]:
    words = str(row.get("kind", "")).split("_")
    return {stem(word) for word in words} - {"index", "table", "collection"}
