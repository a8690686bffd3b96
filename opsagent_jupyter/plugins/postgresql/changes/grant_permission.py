"""grant_permission: gives a role a right, and says what it can do before and after, and what it still lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from opsagent_jupyter.errors import PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion, highest
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql.changes import grants
from opsagent_jupyter.plugins.postgresql.changes.access import Entries, Entry, revoke
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, unfinished
from opsagent_jupyter.plugins.postgresql.changes.grants import Case
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import listing, sentence

DONE = "it gives a role rights that it may use at once"


@tools.change(
    Risk.HIGH,
    phrases=(
        "grant a privilege on {table} to {role}",
        "grant permission on {table} to {role}",
        "give {role} permission on {table}",
        "give {role} read access to {table}",
        "allow {role} to read {table}",
    ),
    keywords=("grant", "permission", "privilege", "right", "role"),
)
async def grant_permission(
    db: Database,
    role: Annotated[str, Arg("the role that gets it, or public for everybody", slot="role", example="app")],
    object: grants.Named,
    privileges: grants.Asked = [],  # noqa: B006
    kind: grants.Sort = "table",
    columns: grants.Columns = [],  # noqa: B006
    *,
    grantable: Annotated[bool, Arg("let the role pass it on (WITH GRANT OPTION, WITH ADMIN OPTION)")] = False,
    made_by: grants.Maker = "",
) -> Plan:
    """Grant a role privileges on an object, or membership in another role."""
    found = await grants.case(db, role, kind, object, privileges, columns, made_by)
    _refuse_circle(found)
    givers = grants.grantors(db, found, "grant")
    wanted = _wanted(found, givers, grantable=grantable)
    after = found.entries.granted(wanted)
    _refuse_nothing(found, after)
    risk, reasons = _risk(found, grantable=grantable)
    needs = await _needs(db, found)
    return Plan(
        title=f"Grant {_what(found)} to {found.role.name}",
        statements=(_statement(found, grantable=grantable),),
        risk=risk,
        reasons=reasons,
        lock=grants.lock(db, found),
        waits=await grants.waits(db, found),
        size=grants.SIZE.format(
            now=grants.spoken(found, found.held), then=grants.spoken(found, found.predicted(after))
        ),
        duration="at once",
        undo=";\n".join(_undo(found, after)),
        undo_note="It takes back only what is new; rights that were there before stay."
        + (" What was passed on by then goes only with CASCADE." if grantable else ""),
        cautions=await _cautions(db, found, needs),
        preconditions=grants.bound(found, after),
        before={
            **grants.kept(db, found, after),
            "needs": [[need.kind, need.object, need.why] for need in needs],
        },
        execution="probeable",
    )


@grant_permission.assesses
def _(arguments: Any) -> Assessment:
    return grants.assessed(arguments, DONE)


@grant_permission.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@grant_permission.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    unseen = Ending(message="its end was not seen", sqlstate="08006")
    return await unfinished(db, plan, evidence) or await _judge(db, plan, unseen)


def _refuse_circle(found: Case) -> None:
    granted = found.subject.granted
    if granted is None:
        return
    if granted.oid == found.role.oid or found.role.name in granted.member_of:
        raise PreconditionFailed(
            f"{granted.name} is {found.role.name}, or a member of it already: that would be a circle."
        )


def _wanted(found: Case, givers: Mapping[int, int], *, grantable: bool) -> list[Entry]:
    """The entries that GRANT would make."""
    columns = {column.number: column.written for column in found.subject.columns}
    wanted = []
    for oid, sub, privilege in found.rights:
        entry = Entry(oid, sub, privilege, found.role.oid, givers[oid], grantable, column=columns.get(sub, ""))
        wanted.append(entry)
    return wanted


def _refuse_nothing(found: Case, after: Entries) -> None:
    """Nobody should have to approve a statement that changes nothing."""
    if any(found.entries.difference(after).values()):
        return
    raise PreconditionFailed(
        f"Nothing to do: {found.role.name} was granted {_what(found)} already.",
        hint="If it does not work all the same, look at USAGE on the schema, row security, and the role of the session.",
    )


def _what(found: Case) -> str:
    if found.subject.klass == "role":
        return f"membership in {found.subject.shown}"
    return f"{listing(found.subject.privileges, 9)} on {found.subject.shown}"


def _statement(found: Case, *, grantable: bool) -> str:
    about, to = found.subject, found.role.written
    if about.granted is not None:
        return f"GRANT {about.granted.written} TO {to}{' WITH ADMIN OPTION' if grantable else ''}"
    text = f"GRANT {about.clause} ON {about.on} TO {to}{' WITH GRANT OPTION' if grantable else ''}"
    if about.maker is not None and about.schema is not None:
        return f"ALTER DEFAULT PRIVILEGES FOR ROLE {about.maker.written} IN SCHEMA {about.schema['written']} {text}"
    return text


def _undo(found: Case, after: Entries) -> list[str]:
    """The inverse of the difference: what is new goes, what only became grantable stays without that."""
    added, gained = after.lost(found.entries), after.freed(found.entries)
    fresh = revoke(found.subject, added, found.reach)
    return [*fresh, *revoke(found.subject, gained, found.reach, option_only=True)]


def _risk(found: Case, *, grantable: bool) -> tuple[Risk, tuple[str, ...]]:
    grave = grants.gravity(found)
    if grantable:
        grave.append("who gets it can pass it on to others")
    if found.role.is_public:
        grave.append("it is granted to PUBLIC: everybody who can connect")
    if found.subject.kind == "all_tables":
        grave.append(f"it opens {found.subject.shown}")
    return highest(Risk.HIGH, Risk.CRITICAL if grave else Risk.HIGH), (*grave, DONE)


@dataclass(frozen=True)
class Need:
    """A right without which the granted one is of no use: ready to be asked for."""

    kind: str
    object: str
    why: str


async def _needs(db: Database, found: Case) -> list[Need]:
    """USAGE on the schema, and on the sequences that an INSERT draws from."""
    about, name = found.subject, found.role.name
    needs: list[Need] = []
    if found.role.is_public:
        return needs
    if about.schema is not None:
        entry = await db.one(query("schema_entry"), {"schema": about.schema["oid"], "role": name})
        needs += [] if entry["enters"] else [_entry(name, entry["schema"])]
    if about.table:
        context = await db.one(query("grant_context"), {"table": about.table, "role": name})
        needs += [] if context["enters"] else [_entry(name, context["schema"])]
        if "INSERT" in about.privileges:
            needs += [
                Need("sequence", each, f"INSERT draws from {each}: {name} lacks USAGE on it")
                for each in context["sequences"]
            ]
    return needs


def _entry(name: str, schema: str) -> Need:
    return Need("schema", schema, f"{name} lacks USAGE on schema {schema}: without it the right is of no use")


async def _cautions(db: Database, found: Case, needs: Sequence[Need]) -> tuple[str, ...]:
    about = found.subject
    cautions = [*_use(found), *(sentence(need.why) for need in needs)]
    if about.table and not found.role.is_public:
        context = await db.one(query("grant_context"), {"table": about.table, "role": found.role.name})
        if context["row_security"]:
            cautions.append("Row security is on: policies decide which rows it sees.")
    if about.kind == "view":
        cautions.append("A view reads with the rights of its owner, unless it is a security_invoker view.")
    if about.klass == "function" and about.facts.get("definer"):
        cautions.append("The function runs with the rights of its owner (SECURITY DEFINER).")
    if about.kind == "all_tables":
        cautions.append("Tables that are made later are not in it: kind=future_tables says what becomes of those.")
        cautions.append("Sequences and functions have rights of their own.")
    if about.maker is not None:
        cautions.append(
            f"Only tables that {about.maker.name} makes from now on: not those of others, nor those that exist."
        )
    return tuple(cautions)


def _use(found: Case) -> list[str]:
    """What the grant does not change in practice, and who gets it beside."""
    why = found.why(found.entries)
    indirect = {right: texts for right, texts in why.items() if found.held.get(right) and not _direct(found, right)}
    notes = []
    if indirect:
        right = next(iter(indirect))
        which = grants.named(found, right) if len(indirect) == 1 else f"{len(indirect)} of these rights"
        notes.append(f"It has {which} already, {listing(indirect[right])}: the grant makes that lasting.")
    if not found.role.logs_in and not found.role.is_public:
        notes.append(f"{found.role.name} cannot log in: what it gets counts for its members.")
    if found.subject.klass == "role" and not found.role.inherits:
        notes.append(f"{found.role.name} is NOINHERIT: the rights count only after SET ROLE.")
    return notes


def _direct(found: Case, right: grants.Right) -> bool:
    """Whether the role was granted the right itself."""
    return any(entry.key[:3] == right for entry in found.entries.of(found.role.oid))


def _suggestions(before: Any) -> tuple[Suggestion, ...]:
    return tuple(
        Suggestion(
            tool="postgresql.grant_permission",
            arguments={"role": before["role"], "object": name, "kind": kind, "privileges": ["usage"]},
            why=why,
        )
        for kind, name, why in before["needs"]
    )


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read back the entries and what the role can do now."""
    before: Any = plan.before
    found = await grants.outcome(reader, plan)
    if found.missing:
        return grants.missing(plan, ending, found)
    return Effect(
        state="succeeded",
        summary=f"{before['role']} {_now(before, found.remaining)}.",
        suggestions=_suggestions(before),
        figures={**grants.figures(plan, found), "undo": plan.undo},
    )


def _now(before: Any, remaining: Sequence[str]) -> str:
    if before["class"] == "future":
        return f"will have {listing(before['privileges'], 9)} on {before['shown']}"
    if before["class"] == "role":
        return f"is a member of {before['shown']} now"
    return f"has {listing(remaining, 9)} on {before['shown']} now"
