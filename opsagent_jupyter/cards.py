"""What commands answer with: plain values that read well as text and, in a notebook, as static HTML.

Every text goes through ``html.escape``; there is no script, no link and no image in a card.
"""

from __future__ import annotations

import html
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from opsagent_jupyter.executor import told
from opsagent_jupyter.lifecycle import OPEN
from opsagent_jupyter.models import Approval, Health, Json, Origin, Plan, Result, Suggestion, Table, now
from opsagent_jupyter.origins import sentence

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent

#: How long the status waits for a database.
STATUS_SECONDS = 2.0
MARKS = {"low": "", "medium": "▲", "high": "▲▲", "critical": "▲▲▲"}
_ROW = "padding:2px 14px 2px 0;text-align:left;vertical-align:top"


#: Categories of characters that are not seen, or that move what is seen: controls, formats, strange line ends.
UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    """A text with its invisible and direction-changing characters spelled out, so that what is seen is what is there."""
    return "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in UNSEEN and char not in "\n\t" else char for char in text
    )


def one_line(text: str) -> str:
    """The same on one line: a name with a line break in it cannot pass for another row of a card."""
    return visible(text).replace("\n", "\\n")


def rows_html(title: str, rows: Sequence[tuple[str, str]], *, mono: Sequence[str] = ()) -> str:
    """A titled two-column table of escaped texts."""
    lines = [
        f"<tr><th scope='row' style='{_ROW};font-weight:500;opacity:.7'>{html.escape(name)}</th><td style='{_ROW}'>"
        + (f"<code style='white-space:pre-wrap'>{html.escape(visible(text))}</code>" if name in mono else _lines(text))
        + "</td></tr>"
        for name, text in rows
        if text
    ]
    return f"<div><strong>{html.escape(one_line(title))}</strong><table style='margin:4px 0'>{''.join(lines)}</table></div>"


def _lines(text: str) -> str:
    return html.escape(visible(text)).replace("\n", "<br>")


def rows_text(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """The same as plain text."""
    width = max((len(name) for name, text in rows if text), default=0)
    lines = [
        f"  {name:<{width}}  {visible(text)}".replace("\n", "\n" + " " * (width + 4)) for name, text in rows if text
    ]
    return "\n".join([one_line(title), *lines])


# -- what a result offers, and what a diagnosis found

#: Columns of a table of findings, as the diagnosis of any plugin gives them.
FINDINGS = {"severity", "finding", "evidence", "why", "advice", "fix"}


def is_findings(table: Table) -> bool:
    """Whether a table is a list of findings."""
    return set(table.columns) >= FINDINGS


def command_of(suggestion: Suggestion, on: str) -> str:
    """The line that asks for a suggested call; ``%opsagent`` and the command line both take it."""
    words = [f"--{name} {shlex.quote(_word(value))}" for name, value in suggestion.arguments.items()]
    return " ".join(["opsagent run", suggestion.tool, *([f"--on {shlex.quote(on)}"] if on else []), *words])


def _word(value: Json) -> str:
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def finding_lines(table: Table, suggestions: Sequence[Suggestion], on: str) -> list[str]:
    """A table of findings as a list for a terminal: what, why, figures, what to do and the ready call."""
    lines: list[str] = []
    for number, values in enumerate(table.rows, 1):
        row = dict(zip(table.columns, values, strict=True))
        fix = row["fix"]
        told = [
            f"{number:>3}. {str(row['severity']).upper()}: {row['finding']}",
            *(f"     {row[name]}" for name in ("why", "evidence") if row[name]),
            f"     → {row['advice']}",
            *([f"       {command_of(suggestions[fix - 1], on)}"] if isinstance(fix, int) else []),
        ]
        lines += map(one_line, told)
    left = table.total - len(table.rows)
    return [*lines, *([f"     … {left} more"] if left > 0 else [])]


def offers(result: Result, on: str) -> list[str]:
    """The ready calls of a result, each as a line that asks for it."""
    return [one_line(f"{command_of(each, on)}  ({each.why})") for each in result.suggestions]


@dataclass(frozen=True)
class Card:
    """A titled list of facts."""

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """Title and (name, text) rows."""
        return "", []

    def __str__(self) -> str:
        return rows_text(*self.content())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return rows_html(*self.content(), mono=("Statement", "Undo"))


@dataclass(frozen=True, repr=False)
class HealthCard(Card):
    """How the attached databases are."""

    healths: tuple[Health, ...]

    @property
    def ok(self) -> bool:
        """Whether all of them answer."""
        return all(health.ok for health in self.healths)

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """One row a database."""
        if not self.healths:
            return "No database is attached.", [("Next", "%opsagent attach postgresql|mongodb NAME --dsn-env VARIABLE")]
        return "Databases", [(health.instance, health_text(health)) for health in self.healths]


def health_text(health: Health) -> str:
    """One line, and a line for each warning."""
    mark = "✓" if health.ok else "✗"
    took = f" ({health.milliseconds:.0f} ms)" if health.ok else ""
    return "\n".join([f"{mark} {health.summary}{took}", *(f"! {warning}" for warning in health.warnings)])


@dataclass(frozen=True, repr=False)
class ApprovalCard(Card):
    """One approval request, whole."""

    approval: Approval
    claim: str = ""

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """What would run, what it does to others, how to take it back, and where it stands."""
        a, plan = self.approval, self.approval.plan
        target = f"{a.target.instance} on {a.target.server} ({a.target.environment})"
        rows = [
            ("Request", f"{a.id[:8]} · {told(a)}"),
            ("Target", target),
            ("Tool", a.tool),
            ("Risk", f"{MARKS[a.risk]} {a.risk}: {'; '.join(a.reasons) or 'changes the database'}".strip()),
            ("Statement", ";\n".join(plan.statements)),
            ("Not your words", "\n".join(origin_line(origin) for origin in a.origins)),
            ("Lock", plan.lock),
            ("Size", plan.size),
            ("Waits for", "\n".join(plan.waits)),
            ("Duration", plan.duration),
            ("Plan cost", _cost(plan)),
            ("Undo", plan.undo),
            ("", plan.undo_note),
            ("Cautions", "\n".join(plan.cautions)),
            ("Asked by", a.requester.name + (" (by the agent)" if a.requester.agent else "")),
            ("Decided by", _decision(a)),
            ("Expires", f"{a.expires_at:%Y-%m-%d %H:%M} UTC" if a.state == "pending" else ""),
            ("Outcome", _outcome(a)),
            ("Digest", a.digest[:16]),
            ("Set-up", f"{a.setup}: {self.claim}" if self.claim else a.setup),
        ]
        return plan.title, rows


def origin_line(origin: Origin, *, value: bool = True) -> str:
    """One argument that no person wrote, on a line; without its value for what is saved in a notebook."""
    mark = "▲ " if origin.kind == "database" else ""
    named = f"{origin.argument} = {origin.text}" if value else origin.argument
    return one_line(f"{mark}{named}: {sentence(origin)}")


def _cost(plan: Plan) -> str:
    compared = plan.comparison
    return f"{compared.before:g} → {compared.after:g}: {compared.note}" if compared else ""


def _decision(approval: Approval) -> str:
    if approval.decided_by is None or approval.decided_at is None:
        return ""
    reason = f": {approval.reason}" if approval.reason else ""
    return f"{approval.decided_by.name}, {approval.decided_at:%Y-%m-%d %H:%M:%S} UTC{reason}"


def _outcome(approval: Approval) -> str:
    effect = approval.effect
    if effect is None:
        return ""
    return "\n".join([effect.summary, *(f"left behind: {text}" for text in effect.residue)])


@dataclass(frozen=True, repr=False)
class StatusCard(Card):
    """Where things stand: set-up, store, model, databases, what waits, what to do next."""

    rows: list[tuple[str, str]] = field(default_factory=list)
    pending: int = 0

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """The facts in the order in which a person needs them."""
        return "OpsAgent", self.rows


def status_of(ops: OpsAgent) -> StatusCard:
    """Collect the status; the databases are asked at the same time, and not waited for long."""
    settings = ops.settings
    open_requests = ops.runtime.store.approvals(states=tuple(OPEN))
    healths = ops.health(seconds=STATUS_SECONDS) if ops.instances() else []
    rows = [
        ("Release", version("opsagent_jupyter")),
        ("Set-up", f"{settings.setup}: {ops.runtime.claim}"),
        ("Store", ops.runtime.store.url),
        ("Model", _model_text(settings.model)),
        *((health.instance, health_text(health)) for health in healths),
        ("Waiting", "\n".join(f"{a.id[:8]} {a.risk}: {told(a)}" for a in open_requests) or "no request waits"),
        ("Next", _next(bool(healths), [a.id[:8] for a in open_requests if a.expires_at > now()])),
    ]
    return StatusCard(rows, len(open_requests))


def _model_text(model: str) -> str:
    if model == "offline":
        return "offline: understands the requests of a DBA by rules; no language model, no network"
    return model


def _next(attached: bool, waiting: list[str]) -> str:  # noqa: FBT001  # one private call
    if not attached:
        return "%opsagent attach postgresql|mongodb NAME --dsn-env VARIABLE"
    if waiting:
        return f"%opsagent show {waiting[0]}, then approve or reject it"
    return "%opsagent ask what is slow?   ·   %opsagent chat   ·   %opsagent tools"
