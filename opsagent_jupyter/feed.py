"""What a change in the store looks like on a screen: one entry of the feed becomes the events that tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from opsagent_jupyter import protocol
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import UnknownInstance
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Approval, FeedEntry, Instance

#: States in which an approved call has ended, as far as anybody saw.
ENDED = (ApprovalState.SUCCEEDED, ApprovalState.FAILED, ApprovalState.UNKNOWN)


def feed_events(store: Store, entry: FeedEntry) -> Sequence[protocol.Event]:
    """The events of a change, as things stand now. Of several, the last carries the feed's seq: a screen that was cut off
    between them is told all of them again."""
    match entry.topic:
        case "approval":
            return approval_events(store.approval(entry.key), entry)
        case "message":
            session, _, seq = entry.key.partition(":")
            found = store.messages(session, int(seq) - 1, 1)
            return [protocol.Appended(message=message, seq=entry.seq) for message in found]
        case "session":
            return [protocol.SessionChanged(session=store.session(entry.key), seq=entry.seq)]
        case "instance":
            return [instance_event(store, entry)]
        case "server":
            return [protocol.PluginStatus(server=entry.key, name="", status="attached", seq=entry.seq)]
        case "audit":
            return call_events(store, entry)
    return []


def approval_events(approval: Approval, entry: FeedEntry) -> Sequence[protocol.Event]:
    """A request as it stands; when its call has ended, the call too."""
    if entry.kind == ApprovalState.PENDING:
        return [protocol.ApprovalRequested(approval=approval, seq=entry.seq)]
    changed = protocol.ApprovalChanged(approval=approval, seq=entry.seq)
    return [executed(approval), changed] if entry.kind in ENDED else [changed]


def executed(approval: Approval) -> protocol.ToolExecuted:
    """The end of an approved call."""
    return protocol.ToolExecuted(
        server=approval.target.server,
        instance=approval.target.instance,
        tool=approval.tool,
        call=approval.call,
        session=approval.session,
        approval=approval.id,
        risk=str(approval.risk),
        status=str(approval.state),
        summary=approval.effect.summary if approval.effect else "",
        actor=approval.requester.name,
    )


def instance_event(store: Store, entry: FeedEntry) -> protocol.PluginStatus:
    """An attached database as it stands; what is gone has only its name left."""
    known: Instance | None
    try:
        known = store.instance(entry.key)
    except UnknownInstance:
        known = None
    return protocol.PluginStatus(
        server=known.server if known else "",
        name=entry.key,
        status="detached" if known is None else "attached" if entry.kind == "attached" else "changed",
        instance=known,
        seq=entry.seq,
    )


def call_events(store: Store, entry: FeedEntry) -> Sequence[protocol.Event]:
    """The end of a call that needed nobody, as the audit has it; other records are nobody's news."""
    for row in store.audit_rows(int(entry.key) - 1, 1):
        said = json.loads(row.body)
        # the row after it, when retention has removed this one
        if row.seq == int(entry.key) and said["type"] in ("call.outcome", "call.refused"):
            names = ("server", "instance", "tool", "call", "session", "approval", "status", "summary")
            facts = {name: said[name] for name in names}
            risk, took = said.get("risk") or "", said.get("milliseconds")
            actor = said["actor"]["name"]
            return [protocol.ToolExecuted(**facts, risk=risk, actor=actor, milliseconds=took, seq=entry.seq)]
    return []
