"""grant_roles and revoke_roles: what a user may, before and after, with exactly that difference as the way back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.changes import accounts
from opsagent_jupyter.plugins.mongodb.changes.accounts import Known, Role, User
from opsagent_jupyter.plugins.mongodb.changes.create_user import Roles
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
from opsagent_jupyter.plugins.mongodb.changes.rights import Rights, rights
from opsagent_jupyter.plugins.mongodb.connection import Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools

Asked = Annotated[
    Roles, Arg("the roles: readWrite of the user's own database, or read@reports", slot="roles", example="read@reports")
]
Place = Annotated[str, Arg("the database of the user, when it is not the connection's", slot="database")]
Way = Literal["grantRolesToUser", "revokeRolesFromUser"]


@dataclass(frozen=True)
class Case:
    """One request about the roles of one user, as it stands before."""

    at: Node
    held: Rights
    user: User
    roles: frozenset[Role]
    known: Known


@tools.change(
    Risk.HIGH,
    phrases=(
        "grant role readWrite to user bob",
        "grant the role read@reports to reporting",
        "give the user bob the role read",
        "grant {roles} to {user}",
        "give {roles} to {user}",
    ),
    keywords=("grant", "give", "role", "roles", "user"),
    patterns=(r"grant\s+(the\s+)?roles?\b",),
)
async def grant_roles(
    db: Database,
    user: accounts.Named,
    roles: Asked,
    database: Place = "",
) -> Plan:
    """Grant roles to a user; they count at once, also on open connections."""
    case = await _case(db, user, roles, database, "grantRole")
    new = case.roles - case.user.roles
    if not new:
        raise PreconditionFailed(
            f"{case.user.written} has {accounts.written(case.roles)} already: nothing would change."
        )
    after = case.user.roles | new
    grave = list(case.known.grave(new))
    if case.user.written in case.held.users:
        grave.insert(0, "it is the user that OpsAgent itself is logged in as")
    return _plan(
        case,
        "grantRolesToUser",
        new,
        after,
        title=f"Grant {accounts.written(new)} to {case.user.written}",
        risk=Risk.CRITICAL if grave else Risk.HIGH,
        reasons=(*grave, f"{case.user.written} may do more from then on, at once"),
        cautions=_more_cautions(case, new),
    )


@tools.change(
    Risk.HIGH,
    phrases=(
        "revoke role readWrite from user bob",
        "revoke the role read@reports from reporting",
        "take the role read from the user bob",
        "revoke {roles} from {user}",
        "take {roles} away from {user}",
    ),
    keywords=("revoke", "take", "role", "roles", "user"),
    patterns=(r"revoke\s+(the\s+)?roles?\b",),
)
async def revoke_roles(
    db: Database,
    user: accounts.Named,
    roles: Asked,
    database: Place = "",
) -> Plan:
    """Revoke roles from a user; its open connections lose them at once."""
    case = await _case(db, user, roles, database, "revokeRole")
    accounts.refuse_own(case.held, case.user, "its roles are not revoked from here")
    _refuse_not_held(case)
    after = case.user.roles - case.roles
    everything = await accounts.known(case.at, case.user.roles)
    lost = everything.scopes(case.user.roles) - everything.scopes(after)
    await accounts.must_leave_an_administrator(case.at, case.held, case.user, lost)
    grave = case.known.grave(case.roles)
    return _plan(
        case,
        "revokeRolesFromUser",
        case.roles,
        after,
        title=f"Revoke {accounts.written(case.roles)} from {case.user.written}",
        risk=Risk.CRITICAL if grave else Risk.HIGH,
        reasons=(*grave, f"{case.user.written} may do less from then on, at once, and what uses it may stop working"),
        cautions=_less_cautions(everything, case.roles, after),
    )


@grant_roles.assesses
@revoke_roles.assesses
def _(arguments: Any) -> Assessment:
    return accounts.assessed(arguments.roles)


@grant_roles.performs
@revoke_roles.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@grant_roles.probes
@revoke_roles.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


async def _case(db: Database, user: str, roles: Collection[str], database: str, action: str) -> Case:
    if not roles:
        raise InvalidArguments("Name at least one role.", path="roles")
    at = await node(db)
    await must_be_primary(at)
    held = await rights(db)
    found = await accounts.user(db, at, user, database)
    wanted = frozenset(accounts.parsed(role, found.database) for role in roles)
    for role in wanted:
        held.require(action, role.database)
    return Case(at, held, found, wanted, await accounts.known(at, wanted))


def _plan(
    case: Case,
    way: Way,
    roles: Collection[Role],
    after: Collection[Role],
    *,
    title: str,
    risk: Risk,
    reasons: tuple[str, ...],
    cautions: list[str],
) -> Plan:
    back: Way = "revokeRolesFromUser" if way == "grantRolesToUser" else "grantRolesToUser"
    user = case.user
    return Plan(
        title=title,
        statements=(statements.written(user.database, _command(way, user, roles)),),
        risk=risk,
        reasons=reasons,
        lock="none that others wait for: it writes one document of admin.system.users",
        size=f"roles before: {accounts.written(user.roles)}; after: {accounts.written(after)}",
        duration="at once",
        undo=statements.written(user.database, _command(back, user, roles)),
        cautions=tuple(cautions),
        preconditions={**user.bound, "allows": {role.written: case.known.gravity(role) for role in sorted(case.roles)}},
        before={
            "member": "",
            "user": user.name,
            "database": user.database,
            "user_id": user.id,
            "roles": [role.document for role in sorted(user.roles)],
            "changed": [role.document for role in sorted(roles)],
            "way": way,
        },
        execution="probeable",
    )


def _command(way: Way, user: User, roles: Collection[Role]) -> Document:
    return {way: user.name, "roles": [role.document for role in sorted(roles)], "maxTimeMS": QUICK_MS}


def _refuse_not_held(case: Case) -> None:
    missing = case.roles - case.user.roles
    if not missing:
        return
    through = missing & case.user.all_roles
    hint = f"It has {accounts.written(through)} only through another role." if through else None
    raise PreconditionFailed(
        f"{case.user.written} was not granted {accounts.written(missing)}: its roles are "
        f"{accounts.written(case.user.roles)}.",
        hint=hint,
    )


def _more_cautions(case: Case, new: Collection[Role]) -> list[str]:
    cautions = []
    if kept := case.roles - frozenset(new):
        cautions.append(f"It has {accounts.written(kept)} already.")
    gained, had = case.known.privileges(new), case.user.document.get("inheritedPrivileges")
    if gained is not None and had is not None and accounts.covered(gained, had):
        cautions.append("It may do all of that already, through its other roles.")
    return cautions


def _less_cautions(known: Known, revoked: Collection[Role], after: Collection[Role]) -> list[str]:
    lost, left = known.privileges(revoked), known.privileges(after)
    if lost is None or left is None:
        return ["Whether it keeps these rights through other roles cannot be seen."]
    if accounts.covered(lost, left):
        return [f"It keeps all of these rights through {accounts.written(after)}: nothing changes in effect."]
    return [] if after else ["It may do nothing any more, only log in."]


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read the roles back: the difference is what counts, whatever the driver saw."""
    before: Any = plan.before
    shown = f"{before['user']}@{before['database']}"
    granted = before["way"] == "grantRolesToUser"
    changed = {Role.of(each) for each in before["changed"]}
    found = await accounts.looked_up(reader, before["user"], before["database"])
    if found is None or found.id != before["user_id"]:
        gone = "is gone" if found is None else "is another one now"
        summary = f"The user {shown} {gone}: {reported(ending)}."
        return Effect(state="failed", summary=summary, error_code=code_of(ending, EffectMissing.code))
    done = changed <= found.roles if granted else not changed & found.roles
    if not done:
        return Effect(
            state="failed",
            summary=f"The roles of {shown} are {accounts.written(found.roles)}: {reported(ending)}.",
            error_code=code_of(ending, EffectMissing.code),
        )
    return Effect(
        state="succeeded",
        summary=f"{shown} {'has' if granted else 'no longer has'} {accounts.written(changed)}; its roles are "
        f"{accounts.written(found.roles)}.{unacknowledged(ending)}",
        figures={"roles": [role.written for role in sorted(found.roles)]},
    )
