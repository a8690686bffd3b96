"""Findings of any plugin: one order, each once, fixes in the same order, and areas that fail as notes."""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest

from opsagent_jupyter.errors import MissingRight, TargetUnreachable
from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugins import findings
from opsagent_jupyter.plugins.findings import Area, Confidence, Finding, Severity, Survey, ranked, surveyed, told

KINDS = ("lock", "index")


def finding(
    subject: str,
    severity: Severity = Severity.MEDIUM,
    *,
    kind: str = "index",
    confidence: Confidence = "certain",
    impact: float = 0.0,
    fix: Suggestion | None = None,
) -> Finding:
    return Finding(
        kind=kind, severity=severity, confidence=confidence, subject=subject, title=f"{subject} is wrong",
        evidence=(f"figure of {subject}",), why="It hurts.", advice="Cure it.", fix=fix, impact=impact,
    )  # fmt: skip


def drop(index: str, why: str = "double") -> Suggestion:
    return Suggestion(tool="p.drop_index", arguments={"index": index}, why=why)


def area(*found: Finding) -> Area:
    async def look() -> Survey:
        return Survey(found)

    return look


def failing(error: Exception) -> Area:
    async def look() -> Survey:
        raise error

    return look


def answer(*found: Finding, rows: int = 200) -> Result:
    return told(Survey(found, ("a note",)), KINDS, place="database x", areas=3, rows=rows)


def test_the_order_is_severity_then_confidence_then_kind_then_impact_whatever_came_first() -> None:
    """The same findings in any order are ranked alike."""
    wanted = [
        finding("a", Severity.CRITICAL, confidence="possible"),
        finding("b", Severity.HIGH),
        finding("c", kind="lock"),
        finding("d", impact=9),
        finding("e", impact=3),
        finding("f", impact=3),
        finding("g", kind="of no place", impact=99),
        finding("h", confidence="likely", impact=99),
        finding("i", Severity.INFO, kind="lock"),
    ]
    for shuffled in list(permutations(wanted))[::5000]:
        assert ranked(shuffled, KINDS) == wanted


def test_one_thing_that_two_areas_found_is_one_finding_with_the_evidence_of_both() -> None:
    """The graver one stays, with its fix."""
    [only] = ranked([finding("a"), finding("a", Severity.HIGH, fix=drop("a"))], KINDS)
    assert only.severity is Severity.HIGH
    assert only.fix == drop("a")
    assert only.evidence == ("figure of a", "a is wrong")


def test_the_answer_counts_by_severity_and_names_the_first() -> None:
    """And the points name what is above info, the worst first."""
    result = answer(finding("a"), finding("b", Severity.CRITICAL), finding("c", Severity.INFO))
    assert (
        result.summary == "2 problems in database x: 1 critical, 1 medium. 1 remark for information. First: b is wrong."
    )
    assert result.highlights == ("CRITICAL: b is wrong. It hurts.", "MEDIUM: a is wrong. It hurts.")
    assert result.figures["critical"] == result.figures["medium"] == result.figures["info"] == 1
    assert "a note" in result.notes
    assert findings.ORDER in result.notes


def test_nothing_above_info_is_a_clean_bill_that_says_how_much_was_looked_at() -> None:
    """Remarks are counted, not raised."""
    result = answer(finding("a", Severity.INFO))
    assert (
        result.summary
        == "Nothing is wrong with database x as far as I can see. 3 areas were looked at. 1 remark for information."
    )
    assert result.highlights == ()
    assert answer().tables == ()


def test_fixes_stand_once_in_the_order_of_the_findings_and_rows_name_them_by_number() -> None:
    """Two findings with the same cure share one call."""
    result = answer(
        finding("a", fix=drop("a")),
        finding("b", Severity.HIGH, fix=drop("b")),
        finding("c", Severity.INFO, fix=drop("b", "other words")),
        finding("d", Severity.CRITICAL),
    )
    assert [each.arguments["index"] for each in result.suggestions] == ["b", "a"]
    column = result.tables[0].columns.index("fix")
    assert [row[column] for row in result.tables[0].rows] == [None, 1, 2, 1]


def test_more_of_a_kind_than_can_be_told_are_counted() -> None:
    """Figures and total count them all."""
    result = answer(*(finding(f"i{number:02}") for number in range(14)))
    assert len(result.tables[0].rows) == findings.OF_A_KIND
    assert result.tables[0].total == result.figures["findings"] == 14
    assert "4 more of the kind index are counted, not shown." in result.notes
    assert len(answer(*(finding(f"i{number}") for number in range(9)), rows=5).tables[0].rows) == 5


def test_an_area_that_fails_is_a_note_and_the_others_go_on() -> None:
    """With the error's own words, which say what to do."""
    error = MissingRight("Role r lacks a right.", hint="GRANT it.", right="x")
    survey = asyncio.run(surveyed({"locks": failing(error), "indexes": area(finding("a"))}))
    assert [each.subject for each in survey.findings] == ["a"]
    assert survey.notes == ("Could not look at locks: Role r lacks a right. GRANT it.",)


def test_what_was_not_looked_at_is_in_the_first_sentence() -> None:
    """Nothing found in half of the areas is no clean bill."""
    survey = asyncio.run(surveyed({"locks": failing(MissingRight("No.")), "indexes": area()}))
    result = told(survey, KINDS, place="database x", areas=2, rows=200)
    assert (
        result.summary == "Nothing is wrong with database x as far as I can see. Only 1 of 2 areas could be looked at."
    )
    assert result.figures["unseen"] == ["locks"]


def test_when_every_area_fails_it_is_an_error() -> None:
    """A server that is gone is not a healthy one."""
    gone = TargetUnreachable("It is gone.")
    with pytest.raises(TargetUnreachable, match=r"It is gone\."):
        asyncio.run(surveyed({"locks": failing(gone), "indexes": failing(gone)}))


def test_an_area_that_does_not_come_to_an_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled, and said to be unfinished; once the time is up no further area is begun."""
    cancelled = []

    async def endless() -> Survey:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return Survey()

    monkeypatch.setattr(findings, "AREA_SECONDS", 0.05)
    monkeypatch.setattr(findings, "ALL_SECONDS", 0.04)
    survey = asyncio.run(surveyed({"locks": endless, "indexes": area(finding("a"))}))
    assert cancelled == [True]
    assert survey.findings == ()
    assert survey.notes[0].startswith("Not looked at to the end: locks")
    assert survey.notes[1] == "Not looked at, because the time was up: indexes."


def test_a_mistake_in_an_area_is_not_hidden() -> None:
    """Only errors that say what to do become notes."""
    with pytest.raises(KeyError):
        asyncio.run(surveyed({"locks": failing(KeyError("bug")), "indexes": area()}))
