"""Cards read well as text and as HTML, and what a database says in them is only ever text."""

from __future__ import annotations

import json
import re
import shlex
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.cards import (
    ApprovalCard,
    Card,
    HealthCard,
    StatusCard,
    command_of,
    finding_lines,
    one_line,
    rows_html,
    rows_text,
    status_of,
    visible,
)
from opsagent_jupyter.cli.render import as_json, as_text, result_lines, table_text
from opsagent_jupyter.doctor import Finding, Report
from opsagent_jupyter.models import Comparison, Health, Result, Suggestion
from opsagent_jupyter.notebook.display import Answer, result_html
from opsagent_jupyter.plugins.findings import Finding as Found
from opsagent_jupyter.plugins.findings import Severity, Survey, told

#: Texts that try to be something else than text.
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</table></div><a href='javascript:x'>ok</a>",
    "x' onmouseover='y",
    "a\nRisk low",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.exe",
    "a\u200bb",
    "\u2028Risk low",
    "\r  Risk   low",
)


class Tags(HTMLParser):
    """Which tags and attributes a text of HTML holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


def requested(ops: OpsAgent, text: str = "one") -> ApprovalCard:
    approval = ops.run("add_mark", text=text).approval
    assert approval is not None
    return ApprovalCard(approval, ops.runtime.claim)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """As title and as value: no tag, no attribute, no control character, no line of its own."""
    title = f"Create an index on {text}"
    page = rows_html(title, [("Risk", "high"), ("Statement", text), ("Reason", text)], mono=("Statement",))
    found = Tags(page)
    assert found.tags <= {"div", "strong", "table", "tr", "th", "td", "code", "br"}
    assert found.attributes <= {"style", "scope"}
    plain = rows_text(title, [("Risk", "high"), ("Statement", text)])
    for shown in (page, plain):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u2028\u2029\u202e]", shown)
    assert [line for line in plain.splitlines() if re.match(r"  Risk ", line)] == ["  Risk       high"]


def test_invisible_characters_are_spelled_out() -> None:
    """What a person approves is what they see."""
    assert visible("a\u202eb\x00c\ud800\tdö漢🙂") == "a\\u202eb\\u0000c\\ud800\tdö漢🙂"
    assert one_line("a\nb") == "a\\nb"


def test_long_values_keep_their_place_in_a_text_card() -> None:
    """The lines of a value stand below each other, right of all names."""
    text = rows_text("Title", [("Statement", "SELECT 1\nFROM t"), ("Undo", ""), ("Risk", "low")])
    assert text == "Title\n  Statement  SELECT 1\n             FROM t\n  Risk       low"


def test_a_request_shows_what_a_person_needs_to_decide(ops: OpsAgent) -> None:
    """Target with environment, risk with reasons, the exact statement, lock, undo, requester, expiry, set-up."""
    text = str(requested(ops))
    for needed in (
        "Add the mark one: waiting for a decision",
        "books on desk (development)",
        "ledger.add_mark",
        "▲ medium: it writes",
        "INSERT INTO mark (text) VALUES ('one')",
        "the file, for a moment",
        "DELETE FROM mark WHERE text = 'one'",
        ops.actor.name,
        "Expires",
        "a guard rail against the model and against mistakes, not against your own code",
    ):
        assert needed in text


def test_a_request_says_how_it_ended_and_who_decided(ops: OpsAgent) -> None:
    """After the decision the card tells reason, person and outcome, and no expiry."""
    card = requested(ops)
    ops.reject(card.approval.id, reason="not <b>today</b>")
    after = ApprovalCard(ops.approval(card.approval.id))
    assert f"rejected by {ops.actor.name} (not <b>today</b>). Nothing was run." in str(after)
    assert "Expires" not in str(after)
    assert "<b>" not in after._repr_html_()


def test_a_failed_call_shows_what_is_left_behind(ops: OpsAgent) -> None:
    """The outcome and its residue stand on the card."""
    card = requested(ops)
    ops.approve(card.approval.id)
    for _ in range(100):
        approval = ops.approval(card.approval.id)
        if approval.effect is not None:
            break
        time.sleep(0.1)
    assert approval.effect is not None
    shown = approval.model_copy(
        update={"effect": approval.effect.model_copy(update={"residue": ("an invalid index",)})}
    )
    assert "the mark one is there\n" in str(ApprovalCard(shown))
    assert "left behind: an invalid index" in str(ApprovalCard(shown))


def test_a_card_compares_the_plans_before_and_after(ops: OpsAgent) -> None:
    """The planner's cost without and with a hypothetical index, and what that is worth."""
    approval = requested(ops).approval
    compared = Comparison(before=1834.5, after=8.4, note="by HypoPG, for query 42")
    plan = approval.plan.model_copy(update={"comparison": compared})
    card = ApprovalCard(approval.model_copy(update={"plan": plan}))
    assert "1834.5 → 8.4: by HypoPG, for query 42" in str(card)


def test_health_says_what_is_wrong_and_what_to_do_when_there_is_nothing(ops: OpsAgent) -> None:
    """A tick or a cross, the time it took, a line for each warning."""
    down = Health(instance="shop", ok=False, summary="The database server does not answer.")
    warned = Health(instance="wide", ok=True, milliseconds=1.6, summary="PostgreSQL 18", warnings=("a superuser",))
    text = str(HealthCard((down, warned)))
    assert "shop  ✗ The database server does not answer." in text
    assert "wide  ✓ PostgreSQL 18 (2 ms)\n        ! a superuser" in text
    assert not HealthCard((down, warned)).ok
    assert "%opsagent attach" in str(HealthCard(()))


def test_the_status_names_what_waits_and_the_next_step(ops: OpsAgent) -> None:
    """Set-up, store, model, databases, requests and one command to go on with."""
    quiet = status_of(ops)
    assert "no request waits" in str(quiet)
    assert "%opsagent ask" in str(quiet)
    card = requested(ops)
    busy = status_of(ops)
    assert busy.pending == 1
    assert f"%opsagent show {card.approval.id[:8]}" in str(busy)
    for word in ("offline", "books", "✓ the ledger opens", "personal", str(ops.runtime.store.url)):
        assert word in str(busy)


def test_the_status_without_databases_says_how_to_attach_one(store_url: str) -> None:
    """The first step of a new user."""
    with OpsAgent(store_url) as ops:
        assert "%opsagent attach postgresql|mongodb NAME --dsn-env VARIABLE" in str(status_of(ops))


def test_a_report_shows_the_fix_only_where_something_is_wrong() -> None:
    """Findings that are well need no advice."""
    report = Report((Finding("store", True, "fine", "nothing"), Finding("key", False, "wrong", "set the right one")))
    assert not report.ok
    assert str(report) == "Something needs a fix.\n  store  ✓ fine\n  key    ✗ wrong\n         → set the right one"
    assert str(Report((Finding("store", True, "fine"),))).startswith("All is well.")


@pytest.mark.parametrize("text", HOSTILE)
def test_an_answer_in_a_notebook_holds_no_markup_of_the_database(ops: OpsAgent, ledger_file: Path, text: str) -> None:
    """The rows are not in it at all, and its texts are escaped; the same for the terminal."""
    call = ops.run("add_mark", text=text)
    shown = Answer(call)
    assert Tags(shown._repr_html_()).tags <= {
        "div",
        "strong",
        "table",
        "tr",
        "th",
        "td",
        "code",
        "br",
        "ul",
        "li",
        "pre",
    }
    for plain in (repr(shown), as_text(call)):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u200b\u2028\u202e]", plain)


def test_rows_of_an_answer_are_counted_but_not_saved(ops: OpsAgent) -> None:
    """The notebook says where they are; the terminal, which saves nothing, prints them."""
    approval = ops.approve(ops.run("add_mark", text="keepsake").record.approval)
    for _ in range(100):
        if ops.approval(approval.id).effect is not None:
            break
        time.sleep(0.1)
    call = ops.run("list_marks")
    for shown in (repr(Answer(call)), Answer(call)._repr_html_()):
        assert "keepsake" not in shown
        assert "1 row of marks: call.frame has them" in shown
    assert "keepsake" in as_text(call)
    assert "keepsake" in as_json(call)


def test_a_table_in_a_terminal_stands_in_columns() -> None:
    """Numbers to the right, texts to the left, what is missing is empty, long and hostile texts keep to their line."""
    rows = [["a", 5, None], ["b\n c\x1b[2J", 1200, "x" * 100], ["", float("nan"), "z"]]
    assert table_text(["name", "size (bytes)", "note"], rows).splitlines() == [
        f"{'name':<14}  size (bytes)  note",
        f"{'a':<14}  {5:>12}",
        f"b\\n c\\u001b[2J  {1200:>12}  {'x' * 79}…",
        f"{'':<14}  {'':>12}  z",
    ]
    assert table_text(["name"], []) == "nothing (name)"


def test_the_audit_in_a_terminal_fits_it(ops: OpsAgent) -> None:
    """The columns that are read; JSON has all of them."""
    head = as_text(ops.audit()).splitlines()[0].split()
    assert head == ["seq", "time", "type", "status", "risk", "tool", "instance", "actor_name", "summary"]
    assert {"digest", "hash"} < set(json.loads(as_json(ops.audit()))[0])


def test_every_card_is_text_and_html(ops: OpsAgent) -> None:
    """One content, two forms."""
    cards: list[Card] = [requested(ops), status_of(ops), HealthCard(tuple(ops.health())), StatusCard(), Report(())]
    for card in cards:
        assert repr(card) == str(card)
        assert card._repr_html_().startswith("<div><strong>")


# -- a diagnosis


def diagnosis(subject: str = "orders_dup") -> Result:
    """Two findings, one with a ready call."""
    fix = Suggestion(tool="postgresql.drop_index", arguments={"index": subject, "concurrently": True}, why="duplicate")
    twin = Found(
        kind="duplicate_index", severity=Severity.MEDIUM, confidence="certain", subject=subject,
        title=f"Index {subject} is a duplicate", evidence=("4 MB",), why="Writes cost twice.", advice="Drop it.", fix=fix,
    )  # fmt: skip
    off = Found(
        kind="dangerous_setting", severity=Severity.CRITICAL, confidence="certain", subject="fsync", title="fsync is off",
        evidence=(), why="A crash destroys it.", advice="Switch it on.",
    )  # fmt: skip
    return told(Survey((twin, off), ("no bloat estimate",)), (), place="database x", areas=2, rows=200)


def test_findings_are_a_list_in_a_terminal_each_with_its_command() -> None:
    """No wide table, and the points are not said twice."""
    assert result_lines(diagnosis(), "shop")[1:9] == [
        "  1. CRITICAL: fsync is off",
        "     A crash destroys it.",
        "     → Switch it on.",
        "  2. MEDIUM: Index orders_dup is a duplicate",
        "     Writes cost twice.",
        "     4 MB",
        "     → Drop it.",
        "       opsagent run postgresql.drop_index --on shop --index orders_dup --concurrently true",
    ]
    assert "  (no bloat estimate)" in result_lines(diagnosis(), "shop")


def test_a_saved_notebook_names_findings_and_ready_calls_as_text() -> None:
    """The rows themselves stay out of it, as those of any result."""
    text = result_html(diagnosis(), "shop")
    assert "CRITICAL: fsync is off. A crash destroys it." in text
    assert "<code>%opsagent run postgresql.drop_index --on shop --index orders_dup --concurrently true" in text
    assert "2 rows of findings" in text
    assert "4 MB" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_finding_is_only_ever_text(name: str) -> None:
    """Not another line of a terminal, not a tag of a notebook, not another word of a command."""
    result = diagnosis(name)
    assert Tags(result_html(result, "shop")).tags <= {"ul", "li", "div", "code"}
    assert len(finding_lines(result.tables[0], result.suggestions, "shop")) == 8
    assert all(visible(line) == line for line in finding_lines(result.tables[0], result.suggestions, "shop"))
    assert shlex.split(command_of(result.suggestions[0], "shop"))[5:7] == ["--index", name]
