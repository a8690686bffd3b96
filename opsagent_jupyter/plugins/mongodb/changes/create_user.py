"""create_user: a user with a password that is made when it runs, is in no text, and is shown once to one person."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from opsagent_jupyter.credentials import Secret
from opsagent_jupyter.errors import EffectMissing, InvalidArguments, PluginError, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.changes import accounts
from opsagent_jupyter.plugins.mongodb.changes.accounts import Role
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
from opsagent_jupyter.plugins.mongodb.changes.preflight import must_be_primary
from opsagent_jupyter.plugins.mongodb.changes.rights import rights
from opsagent_jupyter.plugins.mongodb.connection import Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import listing

#: Stands in the approved command where the password comes; nothing else of it is replaced.
PLACEHOLDER = "***"
MECHANISMS = ("SCRAM-SHA-256",)
#: Letters and digits that nobody takes for another one; 32 of them are 186 bits.
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LENGTH = 32
USER_EXISTS = 51003
SHOWN_ONCE = (
    "*** stands for a password that is made when it runs; whoever asked or approved can see it once, within 7 days: on the "
    "card, or with `opsagent reveal`."
)
#: MongoDB keeps passwords out of its log and profiler, but not out of $currentOp while createUser itself runs.
IN_SIGHT = (
    "MongoDB has to be sent the password itself. While the command runs, usually some milliseconds, whoever may see "
    "everybody's operations (clusterMonitor) could read it in $currentOp."
)


def split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Roles = Annotated[list[str], BeforeValidator(split)]


@tools.change(
    Risk.HIGH,
    phrases=(
        "create a user named reporting",
        "create a user reporting with role read",
        "add a user called bob",
        "add a login for bob",
        "make a database user named reporting",
    ),
    keywords=("user", "users", "login", "account", "password"),
    patterns=(r"(create|add|make)\s+(an?\s+|new\s+|database\s+)*(user|login|account)\b",),
)
async def create_user(
    db: Database,
    name: Annotated[str, Arg("the name of the new user; say: named reporting", example="reporting")],
    roles: Annotated[
        Roles,
        Arg(
            "its roles: readWrite of its own database, or read@reports", slot="roles", example="read, readWrite@reports"
        ),
    ] = [],  # noqa: B006  # never changed
    database: Annotated[
        str, Arg("the database it logs in to (authSource); by default the connection's", slot="database")
    ] = "",
) -> Plan:
    """Create a user with a generated password, which is shown once to the person who asks or approves."""
    user, place = await _placed(db, name, database)
    held = await rights(db)
    held.require("createUser", place)
    at = await node(db)
    await must_be_primary(at)
    wanted = {accounts.parsed(role, place) for role in roles}
    for role in wanted:
        held.require("grantRole", role.database)
    known = await accounts.known(at, wanted)
    await _refuse_existing(at, user, place)
    grave = known.grave(wanted)
    return Plan(
        title=f"Create the user {user}@{place}",
        statements=(statements.written(place, command_for(user, sorted(wanted))),),
        risk=Risk.CRITICAL if grave else Risk.HIGH,
        reasons=(*grave, "somebody can log in from then on"),
        lock="none that others wait for: it writes one document of admin.system.users",
        size=f"roles: {accounts.written(wanted)}",
        duration="at once",
        undo=statements.written(place, {"dropUser": user}),
        cautions=tuple(_cautions(user, place, wanted)),
        preconditions={
            "free_user": f"{user}@{place}",
            "roles": {role.written: known.gravity(role) for role in sorted(wanted)},
        },
        before={"member": "", "user": user, "database": place, "roles": [role.document for role in sorted(wanted)]},
        execution="probeable",
    )


@create_user.assesses
def _(arguments: Any) -> Assessment:
    return accounts.assessed(arguments.roles)


@create_user.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    password = Secret("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
    return await carry_out(
        db, plan, note, _judge, fill=lambda command: filled(command, password), secret=password.reveal
    )


@create_user.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


def filled(command: Document, password: Secret) -> Document:
    """The approved command with the password in its one open place; all else is to the letter."""
    if command.get("pwd") != PLACEHOLDER:
        raise PluginError("The approved command has no place for a password, so nothing was sent.")
    return {**command, "pwd": password.reveal()}


def command_for(name: str, roles: list[Role], mechanisms: tuple[str, ...] = MECHANISMS, **more: Any) -> Document:
    """The command createUser with the place for the password."""
    return {
        "createUser": name,
        "pwd": PLACEHOLDER,
        "roles": [role.document for role in roles],
        "mechanisms": [*mechanisms],
        **more,
        "maxTimeMS": QUICK_MS,
    }


async def _placed(db: Database, text: str, database: str) -> tuple[str, str]:
    """(name, database) of the new user; the database has to exist, or to be admin."""
    name, where = await accounts.place(db, text, database, "name")
    if any(unicodedata.category(char)[0] == "C" for char in name) or name.startswith("$"):
        raise InvalidArguments("The name begins with $ or holds a character that is not seen.", path="name")
    return name, await accounts.database_of_users(db, where)


async def _refuse_existing(at: Node, name: str, database: str) -> None:
    if await accounts.looked_up(at, name, database):
        raise PreconditionFailed(
            f"There is a user {name}@{database} already.",
            hint="Choose another name, or grant_roles to the one that is there.",
        )


def _cautions(name: str, place: str, wanted: set[Role]) -> list[str]:
    cautions = [SHOWN_ONCE, IN_SIGHT, f"It logs in as {name} with authSource={place}."]
    if "@" in name:
        cautions.append(f"The name itself holds an @: {name}.")
    if not wanted:
        cautions.append("Without a role it may log in, and nothing else.")
    if elsewhere := sorted(role.written for role in wanted if role.database != place):
        cautions.append(f"It also reaches other databases: {listing(elsewhere)}.")
    return cautions


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read the user back and compare it with what was approved."""
    before: Any = plan.before
    shown = f"{before['user']}@{before['database']}"
    found = await accounts.looked_up(reader, before["user"], before["database"])
    if found is None:
        why = "although the server reported success" if ending.clean else reported(ending)
        return Effect(
            state="failed", summary=f"There is no user {shown}: {why}.", error_code=code_of(ending, EffectMissing.code)
        )
    if ending.code == USER_EXISTS:
        summary = f"Somebody else has made a user {shown} meanwhile; it was not touched."
        return Effect(state="failed", summary=summary, error_code=str(USER_EXISTS))
    wanted = {Role.of(each) for each in before["roles"]}
    if found.roles != wanted or tuple(found.document.get("mechanisms", MECHANISMS)) != MECHANISMS:
        return Effect(
            state="failed",
            summary=f"The user {shown} is there, but not as approved: its roles are {accounts.written(found.roles)}.",
            error_code=EffectMissing.code,
            residue=(f"user {shown} (id {found.id})",),
        )
    if not ending.clean and not ending.lost:
        summary = (
            f"The user {shown} is there, but the server reported: {reported(ending)}. Its password may be another."
        )
        return Effect(state="unknown", summary=summary, error_code=code_of(ending))
    return Effect(
        state="succeeded",
        summary=f"The user {shown} can log in; its password waits to be shown once.{unacknowledged(ending)}",
        figures={"user_id": found.id, "seconds": round(ending.seconds, 3)},
    )
