"""Evidence: what an executed runbook carries so that anyone can check, offline, which steps ran as approved.

Each step's cell holds a *receipt* in its metadata: the request with its digest and the digest's input, who approved, how it
ended, and the rows of the audit that say so. The notebook's metadata holds those rows, and the rows between them, just as
the store's chain has them (``audit/chain.py`` says what is hashed), and one hash over all receipts and cells.

No row of a table and no secret is in any of it: the audit has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.audit import chain
from opsagent_jupyter.cards import Card
from opsagent_jupyter.errors import AuditTampered, EvidenceTampered, RunbookError
from opsagent_jupyter.models import AuditRow, canonical, sha256
from opsagent_jupyter.runbooks.cells import OURS, Cell, Notebook, ours, source, steps
from opsagent_jupyter.runbooks.steps import Place, request_id
from opsagent_jupyter.vetting import RULE

#: Rows that are embedded at most; beyond that only the run's own rows are, and that is said.
MOST_ROWS = 5000
#: Calls of one run that are looked at.
MOST_STEPS = 10_000
#: Requests of one step that are looked through to find whose id a request has.
MOST_ATTEMPTS = 1000
ENDS = (
    "succeeded",
    "failed",
    "refused",
    "unknown",
    "cancelled",
    "stale",
    "rejected",
    "expired",
    "withdrawn",
    "revoked",
)
RECEIPT = ("v", "runbook", "run", "step", "key", "call", "tool", "instance", "server", "approval", "digest", "bound",
           "approved_by", "outcome", "source", "audit")  # fmt: skip


#: What reading raises when something else stands where evidence should.
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


# -- making it


def seal(ops: OpsAgent, book: Notebook, run: str) -> None:
    """Write receipts and evidence of a run into a notebook, from the audit."""
    runbook = ours(book)["runbook"]
    found = _events(ops, runbook, run)
    if not found:
        return
    rows = _segment(ops, [row.seq for rows in found.values() for row in rows])
    for _, cell in steps(book):
        own = found.get(ours(cell)["step"])
        cell["metadata"][OURS].pop("receipt", None)
        if own:
            cell["metadata"][OURS]["receipt"] = _receipt(ops, cell, Place(runbook, run, ours(cell)["step"]), own)
    evidence = {"v": 1, "runbook": runbook, "run": run, "rows": [list(row) for row in rows]}
    book["metadata"][OURS] |= {"run": run, "evidence": evidence | {"seal": _seal(book, evidence)}}


def _events(ops: OpsAgent, runbook: str, run: str) -> dict[str, list[AuditRow]]:
    """The rows about the newest call of each step of a run."""
    place = Place.parse(f"{runbook}/{run}/step")
    newest = {step.step: step.call for step in ops.runtime.store.runbook_steps(place.runbook, place.run, MOST_STEPS)}
    named = {call: step for step, call in newest.items() if re.fullmatch(r"[0-9a-f]{32}", call)}
    if not named:
        return {}
    calls = ", ".join(f"'{call}'" for call in named)
    query = (
        "SELECT call, seq, event_id, body, prev_hash, hash FROM audit "  # noqa: S608  # only hexadecimal digits
        f"WHERE call IN ({calls}) AND type <> 'approval.denied' ORDER BY seq"
    )
    found: dict[str, list[AuditRow]] = {}
    for call, seq, *rest in ops.audit_sql(query).itertuples(index=False):
        found.setdefault(named[str(call)], []).append(AuditRow(int(seq), *map(str, rest)))
    return {step: _last_time(rows) for step, rows in found.items()}


def _last_time(rows: list[AuditRow]) -> list[AuditRow]:
    """Of a call that no person was asked about, and that ran several times, the rows of its last time."""
    events = [json.loads(row.body) for row in rows]
    starts = [n for n, event in enumerate(events) if event["type"] in ("call.intent", "call.requested")]
    return rows[starts[-1] :] if starts and not any(event["approval"] for event in events) else rows


def _segment(ops: OpsAgent, seqs: Sequence[int]) -> list[AuditRow]:
    first, last = min(seqs), max(seqs)
    wanted = range(first, last + 1) if last - first < MOST_ROWS else sorted(set(seqs))
    if len(wanted) == last - first + 1:
        rows = [*ops.runtime.store.audit_rows(first - 1, len(wanted))]
    else:
        rows = [row for seq in wanted for row in ops.runtime.store.audit_rows(seq - 1, 1)]
    if [row.seq for row in rows] != [*wanted]:
        raise RunbookError(
            "The store no longer has all audit rows of this run: retention has archived and removed some.",
            hint="Seal runbooks before their rows are pruned; `opsagent audit --verify --archives FOLDER` still proves them.",
        )
    return rows


def _receipt(ops: OpsAgent, cell: Cell, place: Place, rows: Sequence[AuditRow]) -> dict[str, Any]:
    events = [json.loads(row.body) for row in rows]
    request = next((event["approval"] for event in events if event["approval"]), "")
    approval = ops.approval(request) if request else None
    first = events[0]
    return {
        "v": 1,
        "runbook": place.runbook,
        "run": place.run,
        "step": place.step,
        "key": first["details"].get("key", ""),
        "call": first["call"],
        "tool": first["tool"],
        "instance": first["instance"],
        "server": first["server"],
        "approval": request,
        "digest": approval.digest if approval else "",
        "bound": approval.bound() if approval else "",
        "approved_by": approver(events),
        "outcome": outcome(events),
        "source": sha256(source(cell)),
        "audit": [[row.seq, row.hash] for row in rows],
    }


def outcome(events: Sequence[Mapping[str, Any]]) -> str:
    """How a call stands by its audit events, those of its request when it has one: its end, or what is known last."""
    asked = [event for event in events if event["approval"]]
    known = [str(event["status"]) for event in asked or events]
    return next((status for status in reversed(known) if status in ENDS), known[-1])


def approver(events: Sequence[Mapping[str, Any]]) -> str:
    """Who said yes, by the audit; empty when nobody did."""
    return next((str(event["actor"]["id"]) for event in events if event["type"] == "approval.approved"), "")


def _seal(book: Notebook, evidence: Mapping[str, Any]) -> str:
    """One hash over what the evidence is about: every cell's id, source and part in the runbook, and the rows."""
    cells = [[cell.get("id"), cell.get("cell_type"), source(cell), ours(cell)] for cell in book["cells"]]
    kept = {name: value for name, value in evidence.items() if name != "seal"}
    head = {name: value for name, value in ours(book).items() if name != "evidence"}
    try:
        return sha256(canonical([cells, kept, head | {"run": evidence.get("run")}]))
    except (ValueError, TypeError, UnicodeError):
        raise EvidenceTampered("The evidence holds what no evidence holds.") from None


# -- checking it


@dataclass(frozen=True, repr=False)
class Proof(Card):
    """What the evidence of a notebook proves, and what it does not."""

    title: str
    run: str
    proven: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unproven: tuple[str, ...]
    head: tuple[int, str] = field(default=(0, ""))

    ok = True

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """Steps first, then the limits."""
        rows = [("Run", self.run), *self.proven]
        rows += [("Not run", ", ".join(self.missing))] if self.missing else []
        rows += [("Last row", f"{self.head[0]}, hash {self.head[1]}"), ("Not proven", "\n".join(self.unproven))]
        return f"The evidence of {self.title} verifies.", rows


def verify(book: Notebook, checkpoint: Mapping[str, Any] | None = None) -> Proof:
    """Check the evidence with nothing but the notebook; ``EvidenceTampered`` names the first bad step."""
    evidence = ours(book).get("evidence")
    if evidence is None:
        raise RunbookError(
            "This notebook carries no evidence.",
            hint="`opsagent runbook run` writes it; so does `opsagent runbook seal`.",
        )
    try:
        rows = [AuditRow(int(seq), *map(str, rest)) for seq, *rest in evidence["rows"]]
        return _checked(book, evidence, rows, checkpoint)
    except EvidenceTampered:
        raise
    except (*UNREADABLE, RunbookError) as error:
        raise EvidenceTampered(f"The evidence is not written as evidence is ({type(error).__name__}).") from None


def _checked(
    book: Notebook, evidence: Mapping[str, Any], rows: list[AuditRow], checkpoint: Mapping[str, Any] | None
) -> Proof:
    whole = _require_chain(book, rows)
    place = Place.parse(f"{ours(book)['runbook']}/{evidence['run']}/step")
    by_seq = {row.seq: row for row in rows}
    proven, missing = [], []
    for _, cell in steps(book):
        receipt, step = ours(cell).get("receipt"), str(ours(cell)["step"])
        if receipt is None:
            missing.append(step)
            continue
        proven.append((step, _examined(cell, receipt, Place(place.runbook, place.run, step), by_seq)))
    if evidence.get("seal") != _seal(book, evidence) or evidence.get("runbook") != place.runbook:
        raise EvidenceTampered(
            "A cell, a receipt or the evidence was changed, added or taken away after it was sealed."
        )
    head = (rows[-1].seq, rows[-1].hash)
    unproven = _limits(rows, checkpoint, whole=whole)
    return Proof(str(ours(book).get("title", "")), place.run, tuple(proven), tuple(missing), tuple(unproven), head)


def _examined(cell: Cell, receipt: Any, place: Place, rows: Mapping[int, AuditRow]) -> str:
    try:
        return Examination(cell, receipt, place, rows).told()
    except UNREADABLE as error:
        raise _bad(place.step, f"its receipt cannot be read ({type(error).__name__})") from None


def _require_chain(book: Notebook, rows: Sequence[AuditRow]) -> bool:
    """Check each row's hash, and its link where its predecessor is here; whether the rows are without a gap."""
    if not rows:
        raise EvidenceTampered("The evidence has no rows.")
    whole, before = True, None
    for row in rows:
        joined = before is not None and row.seq == before.seq + 1
        whole = whole and (joined or before is None)
        if before is not None and row.seq <= before.seq:
            raise _bad_row(book, row.seq)
        try:
            chain.verify([row], row.seq - 1, before.hash if joined and before is not None else row.prev_hash)
        except AuditTampered:
            raise _bad_row(book, row.seq) from None
        if f'"event_id":"{row.event_id}"' not in row.body:
            raise _bad_row(book, row.seq)
        before = row
    return whole


def _bad_row(book: Notebook, seq: int) -> EvidenceTampered:
    for _, cell in steps(book):
        receipt = ours(cell).get("receipt")
        listed = receipt.get("audit") if isinstance(receipt, dict) else None
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, list) and entry and isinstance(entry[0], int) and entry[0] >= seq:
                return _bad(str(ours(cell).get("step")), f"row {seq} of the audit was edited or moved")
    return EvidenceTampered(f"Row {seq} of the audit was edited or moved; no step rests on it.", step="")


def _bad(step: str, why: str) -> EvidenceTampered:
    return EvidenceTampered(f"The evidence is refused at the step {step}: {why}.", step=step)


def _limits(rows: Sequence[AuditRow], checkpoint: Mapping[str, Any] | None, *, whole: bool) -> list[str]:
    said = ["What the outputs of the cells show: only receipts are checked, not cards or text."]
    if not whole:
        said.append(
            "That nothing was taken out between the rows: only the run's own rows are embedded, not those between."
        )
    anchor = None if checkpoint is None else next((row for row in rows if row.seq == checkpoint["count"]), None)
    if anchor is not None and checkpoint is not None and anchor.hash != checkpoint["head"]:
        raise EvidenceTampered(f"Row {anchor.seq} is not the one of the checkpoint: this log was rewritten.", step="")
    if anchor is None:
        beside = (
            "" if checkpoint is None else f" The checkpoint counts {checkpoint['count']} rows, which is none of these."
        )
        said.append(
            "That these rows are those of the store: somebody could have made all of them anew. Compare the last row with "
            f"the store's audit, or give a checkpoint that was kept elsewhere (--checkpoint).{beside}"
        )
    elif not whole or anchor.seq != rows[-1].seq:
        said.append(f"That the rows after {anchor.seq}, which the checkpoint names, are those of the store.")
    return said


def _runs(text: str, step: str) -> bool:
    """Whether a cell is about the step that its metadata names: a reader believes what the cell says."""
    return re.search(rf"--step=\S*/{re.escape(step)}(?!\S)", text) is not None


class Examination:
    """The check of one step's receipt against the rows."""

    def __init__(self, cell: Cell, receipt: dict[str, Any], place: Place, rows: Mapping[int, AuditRow]) -> None:
        self._cell, self._receipt, self._place = cell, receipt, place
        self._require(
            sorted(receipt) == sorted(RECEIPT) and receipt["v"] == 1, "its receipt is not written as receipts are"
        )
        said = (receipt["runbook"], receipt["run"], receipt["step"])
        self._require(said == (place.runbook, place.run, place.step), "its receipt is of another step")
        self._require(receipt["source"] == sha256(source(cell)), "its cell was edited after it was sealed")
        self._require(_runs(source(cell), place.step), "its cell runs another step")
        self._require(bool(receipt["audit"]), "its receipt names no row")
        self._events = [self._event(rows, seq, link) for seq, link in receipt["audit"]]

    def told(self) -> str:
        """Check everything; one line on what is proven."""
        receipt, events = self._receipt, self._events
        for name in ("call", "tool", "instance", "server"):
            self._require(all(event[name] == receipt[name] for event in events), f"its {name} is not what was recorded")
        marks = self._place.details(receipt["key"])
        noted = [event["details"] for event in events if event["details"]]
        self._require(marks in noted and events[0]["details"] == marks, "the audit knows the call from elsewhere")
        self._require(outcome(events) == receipt["outcome"], "its outcome is not what was recorded")
        self._require(approver(events) == receipt["approved_by"], "its approver is not who was recorded")
        self._require(self._own_call(receipt["key"]), "its key is another")
        if not receipt["approval"]:
            self._require(
                not (receipt["digest"] or receipt["bound"] or receipt["approved_by"]), "it claims an approval"
            )
            self._require(not any(event["approval"] for event in events), "its request is left out")
            return f"{receipt['outcome']}; it needed no approval"
        return self._approved()

    def _event(self, rows: Mapping[int, AuditRow], seq: Any, link: Any) -> dict[str, Any]:
        row = rows.get(seq)
        self._require(row is not None and row.hash == link, f"its row {seq} is not in the evidence")
        event = json.loads(row.body) if row else {}
        return event if isinstance(event, dict) else {}

    def _own_call(self, key: str) -> bool:
        return any(request_id(key, number) == self._receipt["call"] for number in range(1, MOST_ATTEMPTS))

    def _approved(self) -> str:
        receipt = self._receipt
        bound = json.loads(receipt["bound"])
        asked = [event for event in self._events if event["approval"]]
        self._require(sha256(receipt["bound"]) == receipt["digest"], "what was approved is not what the digest says")
        self._require(
            all((event["approval"], event["digest"]) == (receipt["approval"], receipt["digest"]) for event in asked),
            "its rows are of another request",
        )
        self._require(receipt["approval"] == receipt["call"] == bound["call"], "its request is of another call")
        key = self._place.key(bound["tool"], bound["arguments"], bound["target"]["instance_id"])
        self._require(key == receipt["key"], "its arguments are not those of the step")
        self._require(
            all(event["statements"] == bound["plan"]["statements"] for event in asked), "its statements are others"
        )
        self._require_order([event["type"] for event in asked])
        if not receipt["approved_by"]:
            return f"{receipt['outcome']}; nobody approved it"
        return f"{receipt['outcome']}; {self._how()} by {self._who()}; ran as approved, digest {receipt['digest'][:16]}"

    def _require_order(self, types: list[str]) -> None:
        """What ran was approved first, was approved once, and ran once."""
        first = {name: types.index(name) for name in types}
        ran = first.get("approval.executing")
        self._require(types.count("approval.pending") == 1, "it was not asked for once")
        self._require(types.count("approval.executing") < 2, "it ran twice")
        if ran is not None:
            self._require(first.get("approval.approved", ran) < ran, "it ran without an approval")
        elif any(name in ("approval.succeeded", "approval.unknown") for name in types):
            self._require(False, "it ended without having begun")  # noqa: FBT003  # there is nothing to ask

    def _how(self) -> str:
        """Whether a person was asked, or had signed the runbook before; the audit's row says by which signature."""
        details = self._decision()["details"]
        return f"pre-approved through signature {details['vetting'][:8]}" if details.get("rule") == RULE else "approved"

    def _decision(self) -> Any:
        return next(event for event in self._events if event["type"] == "approval.approved")

    def _who(self) -> str:
        event = self._decision()
        self._require(event["actor"]["agent"] is False, "a language model approved it")
        return str(event["actor"]["name"])

    def _require(self, holds: bool, why: str) -> None:  # noqa: FBT001  # a condition is what it takes
        if not holds:
            raise _bad(self._place.step, why)
