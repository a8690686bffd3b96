"""drop_user: removes a user for good, never our own and never the last one who could make another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.changes import accounts, preflight
from opsagent_jupyter.plugins.mongodb.changes.accounts import User
from opsagent_jupyter.plugins.mongodb.changes.create_user import command_for
from opsagent_jupyter.plugins.mongodb.changes.execution import (
    QUICK_MS,
    Node,
    Reader,
    carry_out,
    code_of,
    found_out,
    node,
    reported,
    unacknowledged,
)
from opsagent_jupyter.plugins.mongodb.changes.rights import rights
from opsagent_jupyter.plugins.mongodb.connection import Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import listing, plural
from opsagent_jupyter.redaction import Redactor


@tools.change(
    Risk.CRITICAL,
    phrases=(
        "drop user reporting",
        "drop the user bob",
        "remove the user bob",
        "delete the database user bob",
    ),
    keywords=("drop", "remove", "delete", "user", "account"),
    patterns=(r"(drop|remove|delete)\s+(the\s+|database\s+)*user\b",),
)
async def drop_user(
    db: Database,
    user: accounts.Named,
    database: Annotated[str, Arg("the database it belongs to, when it is not the connection's", slot="database")] = "",
) -> Plan:
    """Drop a user: its connections lose all rights at once."""
    at = await node(db)
    await preflight.must_be_primary(at)
    held = await rights(db)
    found = await accounts.user(db, at, user, database)
    accounts.refuse_own(held, found, "it is not dropped from here")
    held.require("dropUser", found.database)
    await accounts.must_leave_an_administrator(at, held, found, accounts.scopes(found.all_roles))
    live = await _live(at, found)
    again, struck = _again(found)
    return Plan(
        title=f"Drop the user {found.written}",
        statements=(statements.written(found.database, {"dropUser": found.name, "maxTimeMS": QUICK_MS}),),
        risk=Risk.CRITICAL,
        reasons=("a user is removed for good, and with it its password", *_in_use(live)),
        lock="none that others wait for: it removes one document of admin.system.users",
        size=f"roles: {accounts.written(found.roles)}; {_connections(live)}",
        duration="at once",
        undo=statements.written(found.database, again),
        undo_note="*** stands for a new password; the old one cannot be brought back, and open connections stay without rights.",
        cautions=tuple(_cautions(live, struck=struck)),
        preconditions=found.bound,
        before={"member": "", "user": found.name, "database": found.database, "user_id": found.id},
        execution="probeable",
    )


@drop_user.assesses
def _(arguments: Any) -> Assessment:  # noqa: ARG001  # every user counts the same
    return Assessment(risk=Risk.CRITICAL, reasons=("a user is removed for good",))


@drop_user.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@drop_user.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


async def _live(at: Node, found: User) -> list[str] | None:
    """The clients that are logged in as this user now; None when they cannot be seen."""
    who = {"$elemMatch": {"user": found.name, "db": found.database}}
    look: list[Document] = [
        {"$currentOp": {"allUsers": True, "idleConnections": True}},
        {"$match": {"effectiveUsers": who}},
        {"$limit": 100},
        {"$project": {"appName": 1, "client": 1}},
    ]
    command = {"aggregate": 1, "pipeline": look, "cursor": {}}
    rows = await preflight.seen(at.batch("admin", command))
    return None if rows is None else [str(row.get("appName") or row.get("client") or "a client") for row in rows]


def _in_use(live: list[str] | None) -> tuple[str, ...]:
    if live is None:
        return ("whether it is logged in cannot be seen",)
    return (f"it is logged in now ({plural(len(live), 'connection')})",) if live else ()


def _connections(live: list[str] | None) -> str:
    if live is None:
        return "its connections cannot be seen with these rights (grant clusterMonitor on admin)"
    names = sorted(set(live))
    return f"{plural(len(live), 'connection')}{f': {listing(names)}' if names else ''}"


def _again(found: User) -> tuple[Document, bool]:
    """The command createUser for the same user, and whether something that looked like a secret was struck out of it."""
    document = found.document
    custom = preflight.jsonable(document.get("customData") or {})
    kept = Redactor().redact_json(custom)
    more = {
        **({"customData": kept} if custom else {}),
        **(
            {"authenticationRestrictions": document["authenticationRestrictions"]}
            if document.get("authenticationRestrictions")
            else {}
        ),
    }
    mechanisms = tuple(document.get("mechanisms", ())) or ("SCRAM-SHA-256",)
    return command_for(found.name, sorted(found.roles), mechanisms, **more), kept != custom


def _cautions(live: list[str] | None, *, struck: bool) -> list[str]:
    cautions = ["Rights end at once, also of connections that are open; a query that runs fails with its next batch."]
    if live:
        cautions.append(f"Whoever uses it stops working: {listing(sorted(set(live)), 6)}.")
    if struck:
        cautions.append("Its custom data holds what looks like a secret: that is not saved.")
    return cautions


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """A user is dropped when the server knows none of that name and id, whatever the driver saw."""
    before: Any = plan.before
    shown = f"{before['user']}@{before['database']}"
    found = await accounts.looked_up(reader, before["user"], before["database"])
    if found is None:
        return Effect(
            state="succeeded",
            summary=f"The user {shown} is dropped.{unacknowledged(ending)}",
            figures={"seconds": round(ending.seconds, 3)},
        )
    if found.id != before["user_id"]:
        return Effect(
            state="succeeded", summary=f"The user {shown} is dropped; somebody has made another of that name."
        )
    return Effect(
        state="failed",
        summary=f"The user {shown} is still there: {reported(ending)}.",
        error_code=code_of(ending, EffectMissing.code),
    )
