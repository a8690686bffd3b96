"""Values for tests of a store, and the work that several processes do on one at the same time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import AlreadyDecided
from opsagent_jupyter.lifecycle import TRANSITIONS, ApprovalState
from opsagent_jupyter.models import (
    Actor,
    Approval,
    AuditEvent,
    Host,
    Instance,
    Message,
    Origin,
    Plan,
    Risk,
    Session,
    Target,
    new_id,
    now,
)
from opsagent_jupyter.vetting import Vetting

ALICE = Actor(id="os:alice", name="Alice", via="kernel")
BOB = Actor(id="os:bob", name="Bob", via="cli")


@dataclass(frozen=True)
class Opening:
    """How the store under test is opened: by any process, any number of times."""

    open: Callable[[str], Store]
    url: str

    def __call__(self) -> Store:
        return self.open(self.url)


def event(type: str = "call.intent", **fields: Any) -> AuditEvent:
    return AuditEvent(**{"type": type, "actor": ALICE, **fields})


def instance(name: str = "shop", **fields: Any) -> Instance:
    return Instance(**{"name": name, "server": "prod-1", "plugin": "postgresql", **fields})


def session(**fields: Any) -> Session:
    return Session(**{"title": "slow queries", "instance": "shop", "created_by": "os:alice", **fields})


def message(session_id: str, text: str = "hello") -> Message:
    return Message(session=session_id, seq=0, role="user", text=text)


def host(name: str = "host-1", **fields: Any) -> Host:
    at = now()
    given = {"id": name, "kind": "kernel", "pid": 4711, "machine": "here", "started_at": at, "seen_at": at}
    return Host(**{**given, **fields})


def request(**fields: Any) -> Approval:
    """A pending request that may be decided for an hour."""
    statement = 'CREATE INDEX CONCURRENTLY "orders_customer_id_idx" ON "public"."orders" ("customer_id")'
    plan = Plan(title="Create an index", statements=(statement,), risk=Risk.MEDIUM, reasons=("it writes",), lock="none")
    target = Target(server="prod-1", instance="shop", instance_id="i1", plugin="postgresql", environment="production")
    given: dict[str, Any] = {
        "id": new_id(),
        "digest": "",
        "tool": "postgresql.create_index",
        "tool_version": "1",
        "arguments": {"table": "orders", "columns": ["customer_id"]},
        "target": target,
        "plan": plan,
        "risk": Risk.MEDIUM,
        "reasons": ("it writes",),
        "requester": ALICE,
        "origins": (Origin(argument="table", kind="database", text="orders", tool="postgresql.list_indexes"),),
        "policy": "none",
        "setup": "personal",
        "created_at": now(),
        "expires_at": now() + timedelta(hours=1),
        "nonce": new_id(),
    }
    asked = Approval(**{**given, **fields})
    return asked.model_copy(update={"digest": asked.computed_digest()})


def vetting(**fields: Any) -> Vetting:
    """A signature of a runbook, with its digest; sealed with nothing."""
    at = now() - timedelta(minutes=1)
    base: dict[str, Any] = {
        "id": new_id(),
        "runbook": "r1",
        "title": "Marks",
        "cells": (("title", "0" * 64),),
        "steps": (),
        "targets": (),
        "signer": ALICE,
        "reason": "the nightly mark is harmless",
        "policy": "p",
        "setup": "personal",
        "signed_at": at,
        "expires_at": at + timedelta(days=30),
        "nonce": new_id(),
    }
    made = Vetting(**{**base, **fields})
    return made.model_copy(update={"digest": made.computed_digest()})


def added(store: Store, *path: ApprovalState, **fields: Any) -> Approval:
    """Keep a new request and lead it along a path of states."""
    approval = request(**fields)
    store.add_approval(approval, event("approval.requested"))
    for state in path:
        approval = store.move(approval.id, state, event(f"approval.{state}", actor=BOB))
    return approval


def path_to(state: ApprovalState) -> list[ApprovalState]:
    """The arrows from a new request to a state."""
    if state is ApprovalState.PENDING:
        return []
    before = next(start for start, ends in TRANSITIONS.items() if state in ends)
    return [*path_to(before), state]


def wait_until(moment: float) -> None:
    """Let all processes of a race start at once."""
    time.sleep(max(0.0, moment - time.time()))


def open_and_tell(opening: Opening, start: float) -> tuple[int, str]:
    """Open the store when all others do, and return what its audit begins with."""
    wait_until(start)
    store = opening()
    try:
        return store.audit_head()
    finally:
        store.close()


def claim_all(opening: Opening, ids: Sequence[str], start: float) -> list[str]:
    """Try to claim every request, and return those that were got."""
    store = opening()
    try:
        wait_until(start)
        me = f"host-{os.getpid()}"
        return [each for each in ids if store.claim(each, me, event("call.intent")) is not None]
    finally:
        store.close()


def decide_all(opening: Opening, ids: Sequence[str], state: ApprovalState, start: float) -> list[str]:
    """Try one decision on every request, and return those where it was the first."""
    store = opening()
    first = []
    try:
        wait_until(start)
        for each in ids:
            try:
                store.move(each, state, event(f"approval.{state}", actor=BOB))
            except AlreadyDecided:
                continue
            first.append(each)
        return first
    finally:
        store.close()


def write_everything(opening: Opening, session_id: str, rounds: int, start: float) -> int:
    """Write in all ways that make audit rows or feed entries; return how many entries that were."""
    store = opening()
    try:
        wait_until(start)
        for number in range(rounds):
            store.record(event(summary=f"{number}"), event("call.outcome"))
            store.append(message(session_id, f"{os.getpid()} {number}"))
            added(store, ApprovalState.REJECTED)
        return rounds * 4
    finally:
        store.close()
