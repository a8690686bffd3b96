"""What a diagnosis found, as every plugin tells it: findings, their order, and the result that a person reads.

A plugin looks at its database area by area. An area that fails, or lacks a right, becomes a note; the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Json, Result, Suggestion, Table

#: Seconds that one area may take, and after which no further one is begun.
AREA_SECONDS, ALL_SECONDS = 5.0, 20.0
#: Findings of one kind that are told one by one; points of the answer; ready calls.
OF_A_KIND, POINTS, FIXES = 10, 8, 20
#: The table of a diagnosis. Screens that know it by this name and these columns show it as a list that unfolds.
FINDINGS = "findings"
COLUMNS = (
    "rank", "severity", "finding", "evidence", "why", "advice", "fix", "confidence", "kind", "subject",
)  # fmt: skip
ORDER = (
    "Ranked by severity, then by how sure the finding is, then by what hurts first, then by size. Critical threatens data"
    " or stops the service; high harms it now or soon; medium costs time or space; info is worth knowing."
)

#: How a person asks for a diagnosis, whatever the database is.
PHRASES = (
    "what is wrong with this database", "diagnose this database", "run a health check", "is my database healthy",
    "give me a checkup", "find all problems", "what should I fix first",
)  # fmt: skip
KEYWORDS = (
    "diagnose", "diagnosis", "diagnostics", "wrong", "health", "healthy", "problem", "problems", "sick", "checkup",
)  # fmt: skip
PATTERNS = (r"\bdiagnos(e|is|tics?)\b", r"\bhealth[ -]?check\b", r"\b(what|anything|something)('?s| is)? wrong\b")

Confidence = Literal["certain", "likely", "possible"]
"""certain: read from the server's state; likely: by its statistics; possible: by an estimate or young statistics."""
_CONFIDENCES: tuple[Confidence, ...] = ("certain", "likely", "possible")


class Severity(StrEnum):
    """How bad it is. A healthy database has nothing above ``info``."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for critical up to 3 for info."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, with what shows it and what to do."""

    kind: str
    """A word of the plugin's vocabulary, such as ``duplicate_index``."""
    severity: Severity
    confidence: Confidence
    subject: str
    """What it is about; kind and subject together name a finding."""
    title: str
    """A sentence without its full stop: what is wrong, with the figure that says so."""
    evidence: tuple[str, ...]
    """Further figures, each readable alone."""
    why: str
    """Why it matters: a sentence."""
    advice: str
    """What to do: a sentence. With ``fix`` it says what the call does, else what to do instead."""
    fix: Suggestion | None = None
    """A ready call, offered and never run by itself."""
    impact: float = 0.0
    """Bytes, milliseconds or whatever ranks findings of one kind."""


@dataclass(frozen=True)
class Survey:
    """What one area found, and what it could not look at."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    """Areas that were not looked at, or not to the end."""


Area = Callable[[], Awaitable[Survey]]


async def surveyed(areas: Mapping[str, Area]) -> Survey:
    """Look at every area in turn; one that fails becomes a note. Raises only when all of them failed."""
    started = time.monotonic()
    found: list[Survey] = []
    failures: list[OpsAgentError] = []
    for name, area in areas.items():
        if time.monotonic() - started > ALL_SECONDS:
            found.append(_unseen(name, f"Not looked at, because the time was up: {name}."))
            continue
        try:
            found.append(await asyncio.wait_for(area(), AREA_SECONDS))
        except TimeoutError:
            found.append(_unseen(name, f"Not looked at to the end: {name} took over {AREA_SECONDS:g} s."))
        except OpsAgentError as error:
            failures.append(error)
            found.append(_unseen(name, f"Could not look at {name}: {error}"))
    if failures and len(failures) == len(areas):
        raise failures[0]
    return Survey(
        findings=tuple(finding for survey in found for finding in survey.findings),
        notes=tuple(dict.fromkeys(note for survey in found for note in survey.notes)),
        unseen=tuple(name for survey in found for name in survey.unseen),
    )


def _unseen(name: str, note: str) -> Survey:
    return Survey(notes=(note,), unseen=(name,))


def ranked(findings: Sequence[Finding], kinds: Sequence[str]) -> list[Finding]:
    """The findings, each once, in the order that ``ORDER`` explains; ``kinds`` says what hurts first."""
    places = {kind: place for place, kind in enumerate(kinds)}
    return sorted(
        _merged(findings),
        key=lambda finding: (
            finding.severity.rank,
            _CONFIDENCES.index(finding.confidence),
            places.get(finding.kind, len(places)),
            -finding.impact,
            finding.subject,
        ),
    )


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for each kind and subject: the gravest, with the evidence of all."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in sorted(findings, key=lambda each: (each.severity.rank, _CONFIDENCES.index(each.confidence))):
        key = (finding.kind, finding.subject)
        first = found.get(key)
        found[key] = replace(first, evidence=_together(first, finding)) if first else finding
    return list(found.values())


def _together(first: Finding, other: Finding) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first.evidence, other.title, *other.evidence)))


def told(survey: Survey, kinds: Sequence[str], *, place: str, areas: int, rows: int) -> Result:
    """The answer to "what is wrong?": findings in order, fixes in the same order, and what could not be seen."""
    everything = ranked(survey.findings, kinds)
    shown, more = _capped(everything)
    fixes = _fixes(shown)
    sick = [finding for finding in shown if finding.severity is not Severity.INFO]
    return Result(
        summary=_summary(everything, place, areas, len(survey.unseen)),
        highlights=tuple(_point(finding) for finding in sick[:POINTS]),
        tables=(_table(shown, fixes, len(everything), rows),) if shown else (),
        figures={**_figures(everything), "areas": areas, "unseen": [*survey.unseen]},
        notes=(*more, *survey.notes, *((ORDER,) if sick else ())),
        suggestions=tuple(fixes),
    )


def _capped(findings: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    counts: Counter[str] = Counter()
    shown = []
    for finding in findings:
        counts[finding.kind] += 1
        if counts[finding.kind] <= OF_A_KIND:
            shown.append(finding)
    over = {kind: count - OF_A_KIND for kind, count in counts.items() if count > OF_A_KIND}
    return shown, [f"{count} more of the kind {_words(kind)} are counted, not shown." for kind, count in over.items()]


def _fixes(findings: Sequence[Finding]) -> list[Suggestion]:
    """The ready calls in the order of the findings, each once."""
    found: dict[str, Suggestion] = {}
    for finding in findings:
        if finding.fix:
            found.setdefault(finding.fix.model_dump_json(exclude={"why"}), finding.fix)
    return list(found.values())[:FIXES]


def _table(findings: Sequence[Finding], fixes: Sequence[Suggestion], total: int, rows: int) -> Table:
    numbers = {fix.model_dump_json(exclude={"why"}): number for number, fix in enumerate(fixes, 1)}
    lines = tuple(_row(rank, finding, numbers) for rank, finding in enumerate(findings, 1))
    return Table(name=FINDINGS, columns=COLUMNS, rows=lines[:rows], total=total)


def _row(rank: int, finding: Finding, numbers: Mapping[str, int]) -> tuple[Json, ...]:
    """One finding as a row; ``fix`` is the number of its ready call among the suggestions, from 1."""
    fix = numbers.get(finding.fix.model_dump_json(exclude={"why"})) if finding.fix else None
    return (
        rank, str(finding.severity), finding.title, "; ".join(finding.evidence), finding.why, finding.advice, fix,
        finding.confidence, finding.kind, finding.subject,
    )  # fmt: skip


def _figures(findings: Sequence[Finding]) -> dict[str, Json]:
    severities = Counter(finding.severity for finding in findings)
    kinds = sorted({finding.kind for finding in findings})
    return {"findings": len(findings), **{str(each): severities[each] for each in Severity}, "kinds": [*kinds]}


def _summary(findings: Sequence[Finding], place: str, areas: int, unseen: int) -> str:
    sick = [finding for finding in findings if finding.severity is not Severity.INFO]
    remarks = len(findings) - len(sick)
    beside = f" {_counted(remarks, 'remark')} for information." if remarks else ""
    blind = f" Only {areas - unseen} of {areas} areas could be looked at." if unseen else ""
    if not sick:
        seen = blind or f" {areas} areas were looked at."
        return f"Nothing is wrong with {place} as far as I can see.{seen}{beside}"
    head = f"{_counted(len(sick), 'problem')} in {place}: {', '.join(_by_severity(sick))}."
    return f"{head}{beside}{blind} First: {sick[0].title}."


def _by_severity(findings: Sequence[Finding]) -> Iterator[str]:
    for severity in Severity:
        if number := sum(finding.severity is severity for finding in findings):
            yield f"{number} {severity}"


def _point(finding: Finding) -> str:
    return f"{finding.severity.upper()}: {finding.title}. {finding.why}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")
