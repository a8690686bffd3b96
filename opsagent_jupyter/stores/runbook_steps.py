"""Which call is which step of which run of a runbook, kept as the audit is written, and read with the requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, insert, select, update

from opsagent_jupyter.models import AuditEvent
from opsagent_jupyter.stores.tables import approval_requests, runbook_steps
from opsagent_jupyter.vetting import RULE, StepRecord

T, A = runbook_steps, approval_requests

#: What an event about a step says of where it belongs.
PLACE = ("runbook", "run", "step")
#: What begins a call: a step that only reads can be called again, and then stands as the last time.
BEGINNINGS = ("call.intent", "call.requested", "call.refused")
#: What every event about a step says of it, and what its beginning says besides.
FACTS = ("tool", "server", "instance", "approval", "status", "summary")
_TOLD, _BEGINNING = (*FACTS, "risk", "ended_at"), ("asked_at", "actor_name")
_KNOWN = update(T).where(T.c.call == bindparam("known"))
_GONE_ON = _KNOWN.values({name: bindparam(name) for name in _TOLD})
_BEGUN_AGAIN = _KNOWN.values({name: bindparam(name) for name in (*_TOLD, *_BEGINNING)})
_BEGUN = insert(T)


class Driver(Protocol):
    """What sends a statement with values and says how many rows it changed."""

    def run(self, statement: Any, *rows: Mapping[str, Any]) -> int: ...


def note(driver: Driver, event: AuditEvent, seq: int) -> None:
    """Take down what an event says of a step; nothing when it is about none."""
    place = {name: event.details.get(name) for name in PLACE}
    if not event.call or not all(isinstance(part, str) and part for part in place.values()):
        return
    facts: dict[str, Any] = {name: getattr(event, name) for name in FACTS}
    facts |= {"risk": str(event.risk or ""), "ended_at": event.at if event.milliseconds is not None else None}
    begun = {"asked_at": event.at, "actor_name": event.actor.name}
    again = event.type in BEGINNINGS
    changed = driver.run(
        _BEGUN_AGAIN if again else _GONE_ON, {"known": event.call, **facts, **(begun if again else {})}
    )
    if not changed:
        driver.run(_BEGUN, {"call": event.call, "seq": seq, **place, **begun, **facts})


def page(connection: Connection, runbook: str, run: str, limit: int) -> Sequence[StepRecord]:
    """The newest steps, each as its request stands where it has one, in the order in which they were asked for."""
    found = select(T, A.c.state, A.c.body).join_from(T, A, A.c.id == T.c.approval, isouter=True)
    if runbook:
        found = found.where(T.c.runbook == runbook)
    if run:
        found = found.where(T.c.run == run)
    rows = connection.execute(found.order_by(T.c.seq.desc()).limit(limit)).all()
    return [_record_of(row) for row in reversed(rows)]


def _record_of(row: Any) -> StepRecord:
    facts = {name: getattr(row, name) for name in ("call", *PLACE, "tool", "server", "instance", "approval")}
    if row.body is None:
        read = {"risk": row.risk, "state": row.status, "summary": row.summary, "began_at": row.asked_at}
        return StepRecord(**facts, **read, asked_by=row.actor_name, asked_at=row.asked_at, ended_at=row.ended_at)
    asked = json.loads(row.body)
    decided, effect = asked["decided_by"], asked["effect"]
    vetting = asked["evidence"].get(RULE)
    return StepRecord(
        **facts,
        risk=asked["risk"],
        state=row.state,
        summary=effect["summary"] if effect else asked["plan"]["title"],
        asked_by=asked["requester"]["name"],
        asked_at=asked["created_at"],
        decided_by=decided["name"] if decided else "",
        decided_at=_time(asked["decided_at"]),
        began_at=_time(asked["claimed_at"]),
        ended_at=_time(asked["ended_at"]),
        vetting=vetting["id"] if isinstance(vetting, dict) else "",
        arguments=asked["arguments"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
