"""Signatures of runbooks in the store: kept with their audit event, and believed only with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from opsagent_jupyter.audit import chain
from opsagent_jupyter.errors import AuditTampered, StoreCorrupt, VettingUnknown, VettingVoid
from opsagent_jupyter.models import AuditEvent, AuditRow
from opsagent_jupyter.stores.documents import document
from opsagent_jupyter.stores.ledger import ROW, Change
from opsagent_jupyter.stores.prefixes import matches
from opsagent_jupyter.stores.tables import holds, plugin_audit_log, runbook_vettings
from opsagent_jupyter.vetting import Vetting

T = runbook_vettings

#: The audit's words for the beginning and the end of a signature.
SIGNED, REVOKED = "runbook.signed", "runbook.revoked"


def add(change: Change, vetting: Vetting, event: AuditEvent) -> None:
    """Keep a new signature."""
    change.connection.execute(insert(T).values(_columns(vetting)))
    change.audit(_about(event, vetting, SIGNED, "signed"))
    change.announce("audit", str(change.seq), SIGNED)


def find(connection: Connection, id: str) -> Vetting:
    """Return a signature by id or unique prefix."""
    found = matches(connection, T.c.id, id)
    if len(found) != 1:
        text = f"{id!r} is short for several signatures." if found else f"There is no signature {id!r} in this store."
        raise VettingUnknown(text)
    return _vetting_of(connection.execute(select(T).where(T.c.id == found[0])).one())


def witnessed(connection: Connection, id: str) -> Vetting:
    """Return a signature that the audit agrees with: a row is easily edited or set back, the chained audit is not."""
    row = connection.execute(select(T).where(T.c.id == id)).one_or_none()
    if row is None:
        raise VettingVoid(f"this store has no signature {id[:8]}")
    vetting, log = _vetting_of(row), plugin_audit_log.c
    about = ROW.where(holds("approval", id), log.type.in_([SIGNED, REVOKED])).order_by(log.seq.desc()).limit(1)
    found = connection.execute(about).one_or_none()
    if found is None:
        raise VettingVoid("the audit knows nothing of the signature")
    said = _said(connection, AuditRow._make(found))
    if said["type"] == REVOKED:
        raise VettingVoid(f"{said['actor']['name']} took the signature back")
    same = (vetting.id, vetting.digest, vetting.signer.model_dump(mode="json"))
    if same != (id, said["digest"], said["actor"]):
        raise VettingVoid("the signature in the store is not the one that the audit knows")
    return vetting


def _said(connection: Connection, row: AuditRow) -> dict[str, Any]:
    """An audit row's event, when the row stands in the chain as it should: with its hash, and after its predecessor."""
    before = connection.execute(ROW.where(plugin_audit_log.c.seq == row.seq - 1)).one_or_none()
    try:
        chain.verify([row], row.seq - 1, before.hash if before else row.prev_hash)
        said: dict[str, Any] = json.loads(row.body)
    except (AuditTampered, ValueError):
        raise VettingVoid("the audit's row about the signature was edited") from None
    return said


def page(connection: Connection, runbook: str, limit: int) -> Sequence[Vetting]:
    """Signatures, newest first."""
    found = select(T).order_by(T.c.signed_at.desc(), T.c.id).limit(limit)
    if runbook:
        found = found.where(T.c.runbook == runbook)
    return [_vetting_of(row) for row in connection.execute(found)]


def revoke(change: Change, id: str, event: AuditEvent) -> Vetting:
    """Take a signature back, for good."""
    row = change.connection.execute(select(T).where(T.c.id == id).with_for_update()).one_or_none()
    if row is None:
        raise VettingUnknown(f"There is no signature {id!r} in this store.")
    vetting = _vetting_of(row)
    if vetting.revoked_at is not None:
        raise VettingVoid(f"This signature was taken back already, at {vetting.revoked_at:%Y-%m-%d %H:%M} UTC.")
    ended = {"revoked_by": event.actor, "revoked_at": event.at, "revoked_for": event.reason}
    vetting = vetting.model_copy(update=ended)
    change.connection.execute(update(T).where(T.c.id == id).values(_columns(vetting)))
    change.audit(_about(event, vetting, REVOKED, "revoked"))
    change.announce("audit", str(change.seq), REVOKED)
    return vetting


def _about(event: AuditEvent, vetting: Vetting, type: str, status: str) -> AuditEvent:
    """The event with the signature's id where requests have theirs, so that both are found alike."""
    return event.model_copy(
        update={
            "type": type,
            "status": status,
            "approval": vetting.id,
            "digest": vetting.digest,
            "summary": vetting.title,
        }
    )


def _columns(vetting: Vetting) -> dict[str, Any]:
    names = ("id", "runbook", "signed_at", "revoked_at")
    return {**{name: getattr(vetting, name) for name in names}, "body": document(vetting)}


def _vetting_of(row: Any) -> Vetting:
    try:
        return Vetting.model_validate_json(row.body)
    except ValueError as error:
        raise StoreCorrupt(f"The signature {row.id} cannot be read: {type(error).__name__}.") from None
