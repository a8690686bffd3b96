"""What GRANT and REVOKE have in common: the state before, who would be the grantor, the risk, and the reading back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion, canonical, sha256
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql.changes import preflight
from opsagent_jupyter.plugins.postgresql.changes.access import Entries, Entry, Reach, Sources, sources
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, reported, session
from opsagent_jupyter.plugins.postgresql.changes.privileges import MEMBER, Item, Kind, Privileges, Subject, subject
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.roles import BOOTSTRAP, Role, powers_of, role
from opsagent_jupyter.plugins.wording import listing, plural

#: How long a statement waits when somebody else is changing the rights of the same object.
PATIENCE = "2s"
#: Objects times privileges that one request may be about: more would make a card that nobody reads.
MOST = 5_000

# What both tools ask for beside the role.
Named = Annotated[str, Arg("the table, view, sequence, schema, database, function or role", slot="table")]
Asked = Annotated[Privileges, Arg("select, insert, …; all of them; none for a role")]
Sort = Annotated[Kind, Arg("what the object is; all_tables and future_tables name a schema")]
Columns = Annotated[list[str], Arg("only these columns of a table or view", slot="columns")]
Maker = Annotated[str, Arg("with future_tables: whose tables, our own role's by default")]

Right = tuple[int, int, str]
Held = dict[Right, bool]

SIZE = "now: {now}; then: {then}"


@dataclass(frozen=True)
class Case:
    """One role, some objects, and every right on them at one moment."""

    subject: Subject
    role: Role
    reach: Reach
    entries: Entries
    held: Held
    """What the role can really do, as the server says."""

    @property
    def rights(self) -> list[Right]:
        """What the request is about: each object or column with each privilege."""
        return [(item.oid, item.sub, each) for item in self.subject.items for each in self.subject.privileges]

    @property
    def owners(self) -> dict[int, int]:
        """The owner of each object; the server never takes from owners the right to grant."""
        return {item.oid: item.owner for item in self.subject.items if item.owner}

    def why(self, entries: Entries) -> Sources:
        """Why the role has each right, with these entries."""
        return sources(entries, self.subject, self.role, self.reach)

    def predicted(self, after: Entries) -> Held:
        """What the role will be able to do; a right that nothing here explains is taken to stay."""
        now, then = self.why(self.entries), self.why(after)
        return {
            right: bool(then.get(right)) or (self.held.get(right, False) and not now.get(right))
            for right in self.rights
        }


async def case(
    db: Database, asked: str, kind: Any, name: str, privileges: Any, columns: Sequence[str], made_by: str
) -> Case:
    """Resolve a request and read the state before; refuses what no request may touch."""
    await _must_write(db)
    about = await subject(db, kind, name, privileges, columns, made_by)
    grantee = await role(db, asked, "role", public=True)
    _refuse(about, grantee)
    entries = await read_entries(db, state_of(db, about, grantee))
    mode = "MEMBER" if about.klass == "role" else "USAGE"
    reach = Reach.read(await db.rows(query("role_reach"), {"role": grantee.oid, "mode": mode}))
    found = Case(about, grantee, reach, entries, {})
    if about.klass == "future":
        return Case(
            about, grantee, reach, entries, {right: bool(found.why(entries).get(right)) for right in found.rights}
        )
    return Case(about, grantee, reach, entries, await read_held(db, state_of(db, about, grantee)))


async def _must_write(db: Database) -> None:
    if (await db.one(query("rights")))["standby"]:
        raise PreconditionFailed("This server is a standby: it only reads.", hint="Attach the primary and ask there.")


def _refuse(about: Subject, grantee: Role) -> None:
    if about.klass == "role" and grantee.is_public:
        raise InvalidArguments("A role is granted to roles: everybody cannot be a member.", path="role")
    if about.klass == "relation" and about.items[0].written.startswith(
        ("pg_catalog.", "information_schema.", "pg_toast.")
    ):
        raise PreconditionFailed(
            f"{about.shown} belongs to the system: its rights are left alone.",
            hint="The predefined roles (pg_monitor, pg_read_all_stats, …) open parts of it.",
        )
    if len(about.items) * len(about.privileges) > MOST:
        raise PreconditionFailed(
            f"{plural(len(about.items), 'object')} are too many for one card.",
            hint="Grant to a role per schema, or a predefined role such as pg_read_all_data.",
        )


def state_of(db: Database, about: Subject, grantee: Role) -> dict[str, Json]:
    """What reads the same state again: kept with the plan, for the post-check and the probe."""
    future = [0] if about.klass == "future" else []
    return {
        "class": about.klass,
        "oids": [*about.oids, *future],
        "items": [[item.oid, item.sub] for item in about.items],
        "privileges": list(about.privileges),
        "maker": about.maker.oid if about.maker else 0,
        "grantors": db.server.major >= 16,
        "role": grantee.name,
        "role_oid": grantee.oid,
    }


async def read_entries(reader: Reader, state: Mapping[str, Any]) -> Entries:
    """Read every right on the objects."""
    values = {key: state[key] for key in ("class", "oids", "maker", "grantors")}
    return Entries.read(await reader.rows(query("acl_entries"), values))


async def read_held(reader: Reader, state: Mapping[str, Any]) -> Held:
    """Ask the server what the role can really do with each object."""
    oids, subs = [oid for oid, _ in state["items"]], [sub for _, sub in state["items"]]
    values = {"class": state["class"], "role": state["role"], "privileges": state["privileges"]}
    rows = await reader.rows(query("effective_rights"), {**values, "oids": oids, "subs": subs})
    return {(row["oid"], row["sub"], row["privilege"]): bool(row["held"]) for row in rows}


# -- who grants -------------------------------------------------------------------------------------------------------


def grantors(db: Database, found: Case, verb: str) -> dict[int, int]:
    """The role in whose name the server will act, for each object; ``MissingRight`` names the object and the right."""
    if found.subject.maker is not None:
        return {item.oid: _maker(db, found.subject.maker) for item in found.subject.items}
    if found.subject.granted is not None:
        return {found.subject.granted.oid: _admin(db, found, found.subject.granted)}
    return {item.oid: _grantor(db, found, item, verb) for item in found.subject.items}


def _maker(db: Database, maker: Role) -> int:
    if maker.ours:
        return maker.oid
    raise MissingRight(
        f"Role {db.server.role} may not say what becomes of the tables of {maker.name}.",
        hint=f"GRANT {maker.written} TO {db.server.role}, or attach a role that has its rights.",
        right=f"membership in {maker.written}",
    )


def _admin(db: Database, found: Case, granted: Role) -> int:
    role, number = db.server.role, db.server.major
    if granted.name == "pg_database_owner":
        raise PreconditionFailed(
            "pg_database_owner has exactly one member, the owner of the database: it is not granted."
        )
    if granted.superuser and not db.server.superuser:
        raise MissingRight(f"Only a superuser grants or revokes the superuser role {granted.name}.", right="SUPERUSER")
    creates = number < 16 and found.reach.creates
    if not (db.server.superuser or granted.administered or creates):
        raise MissingRight(
            f"Role {role} may not grant or revoke {granted.name}.",
            hint=f"GRANT {granted.written} TO {role} WITH ADMIN OPTION, or attach a role that has it.",
            right=f"ADMIN OPTION on role {granted.written}",
        )
    if number < 16:
        return 0
    if db.server.superuser:
        return BOOTSTRAP
    admins = [entry.grantee for entry in found.entries if entry.grantable and entry.grantee in found.reach.ours]
    return found.reach.ourself if found.reach.ourself in admins else admins[0]


def _grantor(db: Database, found: Case, item: Item, verb: str) -> int:
    if item.owner in found.reach.ours:
        return item.owner
    able: dict[int, set[str]] = defaultdict(set)
    for entry in found.entries:
        if (
            entry.oid == item.oid
            and entry.sub in (0, item.sub)
            and entry.grantable
            and entry.grantee in found.reach.ours
        ):
            able[entry.grantee].add(entry.privilege)
    ready = [oid for oid, privileges in able.items() if privileges.issuperset(found.subject.privileges)]
    if not ready:
        role, wanted = db.server.role, ", ".join(found.subject.privileges)
        raise MissingRight(
            f"Role {role} may not {verb} {wanted} on {item.written}: it is not the owner and has no grant option for it.",
            hint=f"GRANT {found.reach.name(item.owner)} TO {role}, or GRANT {wanted} … TO {role} WITH GRANT OPTION.",
            right=f"ownership of {item.written}, or {wanted} WITH GRANT OPTION",
        )
    return found.reach.ourself if found.reach.ourself in ready else ready[0]


# -- locks --------------------------------------------------------------------------------------------------------------


def lock(db: Database, found: Case) -> str:
    """What the statement locks; from release 18 it locks what it names, measured with pg_locks on 13 to 18."""
    seen = "other sessions see it with their next statement"
    named = found.subject.kind not in ("role", "all_tables")
    if db.server.major >= 18 and named:
        return f"ACCESS SHARE on the object: reads and writes go on; it gives up after {PATIENCE} of waiting; {seen}"
    return f"none on the data: reads and writes go on; {seen}"


async def waits(db: Database, found: Case) -> tuple[str, ...]:
    """The transactions that it would wait for: those that hold the table exclusively, from release 18."""
    if db.server.major < 18 or found.subject.relation is None:
        return ()
    return await preflight.waits(db, found.subject.relation, ("AccessExclusiveLock",))


# -- risk -------------------------------------------------------------------------------------------------------------


def assessed(arguments: Any, done: str) -> Assessment:
    """The risk by arguments alone."""
    grave = []
    if arguments.role.strip().lower() == "public":
        grave.append("it is about PUBLIC: everybody who can connect")
    if arguments.kind == "all_tables":
        grave.append("it is about all tables of a schema")
    if getattr(arguments, "grantable", False):
        grave.append("who gets it can pass it on to others")
    if getattr(arguments, "cascade", False):
        grave.append("what others were granted by this role goes too")
    return Assessment(risk=Risk.CRITICAL if grave else Risk.HIGH, reasons=(*grave, done))


def gravity(found: Case) -> list[str]:
    """Why the objects make it critical: roles like superusers, and what belongs to the system."""
    grave = []
    granted = found.subject.granted
    if granted is not None and (granted.powers or granted.superuser):
        grave.append(f"{granted.name} {powers_of(granted) or 'is like a superuser'}")
    if found.subject.klass == "function" and (found.subject.schema or {}).get("name") == "pg_catalog":
        grave.append("it is a function of the system")
    return grave


# -- words ------------------------------------------------------------------------------------------------------------


def spoken(found: Case, held: Mapping[Right, bool]) -> str:
    """The rights of the role in words: named for one object, counted for several."""
    about = found.subject
    if about.klass == "role":
        return "a member" if any(held.values()) else "not a member"
    if len(about.items) == 1:
        return listing([right[2] for right in found.rights if held.get(right)], 9) or "none of these"
    counted = []
    for privilege in about.privileges:
        many = sum(bool(held.get((item.oid, item.sub, privilege))) for item in about.items)
        counted.append(f"{privilege} on {many} of {len(about.items)}")
    return listing(counted, 9)


def named(found: Case, right: Right) -> str:
    """A right in words, with its object when there are several."""
    about = found.subject
    if about.klass == "role":
        return f"membership in {about.granted.name if about.granted else ''}"
    if len(about.items) == 1:
        return right[2]
    written = next(item.written for item in about.items if (item.oid, item.sub) == right[:2])
    return f"{right[2]} on {written}"


def described(found: Case, entries: Sequence[Entry], limit: int = 20) -> list[str]:
    """Entries in words, one line each: ``SELECT of bob, granted by app``."""
    written = {item.oid: item.written.partition(" (")[0] for item in found.subject.items}
    lines = []
    for entry in entries[:limit]:
        what = (
            "membership" if entry.privilege == MEMBER else entry.privilege + (f" ({entry.column})" if entry.sub else "")
        )
        by = f", granted by {found.reach.name(entry.grantor)}" if entry.grantor else ""
        place = f" on {written.get(entry.oid, '')}" if len(written) > 1 else ""
        lines.append(f"{what}{place} of {found.reach.name(entry.grantee)}{by}")
    return [*lines, *([f"and {len(entries) - limit} more"] if len(entries) > limit else [])]


# -- the plan's bound part --------------------------------------------------------------------------------------------


def bound(found: Case, after: Entries) -> dict[str, Json]:
    """The facts under which a change is approved: objects, role, who has what, and what exactly would change."""
    items: list[Json] = [[item.oid, item.sub, item.written, item.owner] for item in found.subject.items]
    mine = [list(entry.key) for entry in found.entries if found.role.oid in (entry.grantee, entry.grantor)]
    return {
        "role_oid": found.role.oid,
        "role": found.role.name,
        "objects": items if len(items) <= 20 else sha256(canonical(items)),
        "entries": sha256(canonical(mine)),
        "rights": sha256(canonical(sorted([*map(list, (right for right, held in found.held.items() if held))]))),
        "difference": sha256(canonical(found.entries.difference(after))),
        "powers": list(found.role.powers),
    }


def kept(db: Database, found: Case, after: Entries) -> dict[str, Json]:
    """The state before and the state that is expected, for the post-check."""
    return {
        **state_of(db, found.subject, found.role),
        "session": session(db, PATIENCE),
        "shown": found.subject.shown,
        "difference": found.entries.difference(after),
        "held": [list(right) for right in found.rights if found.held.get(right)],
        "expected": [list(right) for right, held in found.predicted(after).items() if held],
    }


# -- reading back -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the catalog says after the statement."""

    missing: tuple[str, ...]
    """Parts of the expected difference that are not there."""
    held: Held
    remaining: tuple[str, ...]
    """Privileges that the role has all the same."""


async def outcome(reader: Reader, plan: Plan) -> Outcome:
    """Compare the rights as they are now with what the plan expected."""
    state: Any = plan.before
    entries = {entry.key: entry for entry in await read_entries(reader, state)}
    difference = state["difference"]
    missing = [f"{key[2]} is not there" for key in map(tuple, difference["added"]) if key not in entries]
    missing += [f"{key[2]} is still there" for key in map(tuple, difference["removed"]) if key in entries]
    missing += [
        f"{key[2]} cannot be passed on"
        for key in map(tuple, difference["grantable"])
        if key not in entries or not entries[key].grantable
    ]
    missing += [
        f"{key[2]} can still be passed on"
        for key in map(tuple, difference["not_grantable"])
        if key in entries and entries[key].grantable
    ]
    future = state["class"] == "future"
    held = {} if future else await read_held(reader, state)
    remaining = tuple(dict.fromkeys(right[2] for right, has in held.items() if has))
    return Outcome(tuple(dict.fromkeys(missing)), held, remaining)


def figures(plan: Plan, found: Outcome) -> dict[str, Json]:
    """What the role could do before and can do now, as the server says; of tables to come nothing can be said yet."""
    state: Any = plan.before
    if state["class"] == "future":
        return {}
    before = sorted({str(right[2]) for right in state["held"]})
    after = sorted({right[2] for right, held in found.held.items() if held})
    return {"rights_before": [*before], "rights_after": [*after]}


def missing(plan: Plan, ending: Ending, found: Outcome, suggestions: tuple[Suggestion, ...] = ()) -> Effect:
    """The effect of a statement that failed, or succeeded and changed nothing."""
    before: Any = plan.before
    return Effect(
        state="failed",
        summary=f"The rights on {before['shown']} are not as planned: {reported(ending)}; {listing(found.missing, 5)}.",
        error_code=ending.sqlstate or EffectMissing.code,
        suggestions=suggestions,
        figures=figures(plan, found),
    )
