"""drop_user: takes a role out of the whole server, database by database; or only closes it, which can be taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

from opsagent_jupyter.errors import (
    EffectMissing,
    InvalidArguments,
    MissingRight,
    OpsAgentError,
    OutcomeUnknown,
    PreconditionFailed,
)
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, Suggestion, canonical, sha256
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql.changes import dependencies
from opsagent_jupyter.plugins.postgresql.changes.dependencies import SHARED, Place
from opsagent_jupyter.plugins.postgresql.changes.execution import (
    Reader,
    carry_out,
    reported,
    session,
    session_of,
    unfinished,
)
from opsagent_jupyter.plugins.postgresql.connection import Change, Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.roles import BOOTSTRAP, Role, powers_of, role
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import listing, plural, verb

#: How long a statement waits for the locks of the objects that it gives away.
PATIENCE = "5s"
#: Names that a card shows of one kind and database.
SHOWN = 50

_PLACE = re.compile(r'-- \\connect "((?:[^"]|"")+)"\n(.*)', re.DOTALL)


@dataclass(frozen=True)
class Leaving:
    """A role that is to go, with everything that hangs on it."""

    role: Role
    heir: Role | None
    places: tuple[Place, ...]
    around: Row
    sessions: tuple[Row, ...]

    @property
    def databases(self) -> list[str]:
        """The databases in which something has to be done, the shared objects left out."""
        return [place.database for place in self.places if place.database != SHARED]


@tools.change(
    Risk.CRITICAL,
    least=Risk.HIGH,
    phrases=("drop the user named old_app", "remove the user called old_app", "delete the user named old_app"),
    keywords=("drop", "user"),
    # "remove the role … from …" takes a membership away, and is no order to drop anything
    patterns=(r"drop\s+(the\s+)?(user|role)\b(?!.*\b(from|to|of|in|on)\b)",),
)
async def drop_user(
    db: Database,
    name: Annotated[str, Arg("the role to drop; say: named old_app", example="old_app")],
    *,
    reassign_to: Annotated[str, Arg("the role that gets what it owns", example="app_owner")] = "",
    drop_owned: Annotated[bool, Arg("take away the rights that it was granted, which the drop needs")] = False,
    disable_only: Annotated[bool, Arg("only forbid its login (ALTER ROLE … NOLOGIN); can be taken back")] = False,
) -> Plan:
    """Drop a role with its rights in every database, or only forbid its login."""
    leaving = await _leaving(db, name, reassign_to)
    _refuse_role(db, leaving)
    if disable_only:
        return _closing(db, leaving)
    _refuse_owner(leaving)
    leaving = await _described(db, leaving)
    _refuse_rest(leaving, drop_owned=drop_owned)
    _permit(db, leaving)
    _refuse_stuck(leaving)
    return _dropping(db, leaving, await dependencies.holders(db, leaving.places))


@drop_user.assesses
def _(arguments: Any) -> Assessment:
    if arguments.disable_only is True:
        return Assessment(risk=Risk.HIGH, reasons=("nobody can log in as the role from then on",))
    return Assessment(risk=Risk.CRITICAL, reasons=("a dropped role cannot be brought back",))


@drop_user.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    if plan.before.get("disable_only"):
        return await carry_out(db, plan, note, _judge_closed)
    return await _carry_out(db, plan, note)


@drop_user.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    unseen = Ending(message="its end was not seen", sqlstate="08006")
    judge = _judge_closed if plan.before.get("disable_only") else _judge_dropped
    return await unfinished(db, plan, evidence) or await judge(db, plan, unseen)


# -- what there is ----------------------------------------------------------------------------------------------------


async def _leaving(db: Database, name: str, reassign_to: str) -> Leaving:
    if (await db.one(query("rights")))["standby"]:
        raise PreconditionFailed("This server is a standby: it only reads.", hint="Attach the primary and ask there.")
    found = await role(db, name, "name")
    heir = await role(db, reassign_to, "reassign_to") if reassign_to else None
    if heir is not None and heir.oid == found.oid:
        raise InvalidArguments("What the role owns has to go to another role.", path="reassign_to")
    around = await db.one(query("role_around"), {"role": found.oid})
    sessions = await db.rows(query("role_sessions"), {"role": found.oid})
    return Leaving(found, heir, tuple(await dependencies.places(db, found.oid)), around, tuple(sessions))


async def _described(db: Database, leaving: Leaving) -> Leaving:
    places = await dependencies.described(db, leaving.places, leaving.role.oid)
    return Leaving(leaving.role, leaving.heir, tuple(places), leaving.around, leaving.sessions)


# -- what is refused --------------------------------------------------------------------------------------------------


def _refuse_role(db: Database, leaving: Leaving) -> None:
    gone = leaving.role
    if gone.oid == BOOTSTRAP:
        raise PreconditionFailed(f"{gone.name} is the role that the server was made with: it cannot be dropped.")
    if gone.is_reserved:
        raise PreconditionFailed(f"{gone.name} is one of the server's own roles.")
    if gone.ourselves:
        raise PreconditionFailed(f"{gone.name} is the role that we are connected as.", hint="Attach another role.")
    if gone.superuser and not leaving.around["other_superusers"]:
        raise PreconditionFailed(f"{gone.name} is the last superuser that can log in.", hint="Make another one first.")
    mine = leaving.around
    if gone.superuser and not mine["superuser"]:
        raise MissingRight(f"Only a superuser changes or drops the superuser {gone.name}.", right="SUPERUSER")
    if not (mine["superuser"] or mine["creates"]):
        raise MissingRight(
            f"Role {db.server.role} may not change or drop roles.",
            hint=f"ALTER ROLE {db.server.role} CREATEROLE, or attach a role that has it.",
            right="CREATEROLE",
        )
    if db.server.major >= 16 and not (mine["superuser"] or gone.administered):
        raise MissingRight(
            f"Role {db.server.role} may not change or drop {gone.name}: it has no ADMIN OPTION on it.",
            hint=f"GRANT {gone.written} TO {db.server.role} WITH ADMIN OPTION.",
            right=f"ADMIN OPTION on role {gone.written}",
        )


def _refuse_owner(leaving: Leaving) -> None:
    """What a role owns is never dropped here: it goes to somebody, whom the person names."""
    owned = [place for place in leaving.places if place.owned]
    if owned and leaving.heir is None:
        counts = "; ".join(f"{place.name}: {place.counted}" for place in owned)
        raise PreconditionFailed(
            f"{leaving.role.name} owns objects ({counts}).",
            hint=f"Say who gets them with reassign_to=ROLE; {INSTEAD}",
            path="reassign_to",
        )


def _refuse_rest(leaving: Leaving, *, drop_owned: bool) -> None:
    lost = [f"{place.name}: {dependencies.lines(place.losses, SHOWN)}" for place in leaving.places if place.losses]
    if lost and not drop_owned:
        raise PreconditionFailed(
            f"{leaving.role.name} has rights that would be lost. {'. '.join(lost)}.",
            hint=f"Ask with drop_owned=true to take them away; {INSTEAD}",
            path="drop_owned",
        )


#: The other way, which is offered before anything is lost.
INSTEAD = "or with disable_only=true, which only forbids the login and can be taken back."


def _permit(db: Database, leaving: Leaving) -> None:
    """REASSIGN OWNED and DROP OWNED need the rights of the roles that they are about."""
    if leaving.around["superuser"] or not leaving.places:
        return
    for each in filter(None, (leaving.role, leaving.heir)):
        if not each.ours:
            raise MissingRight(
                f"Role {db.server.role} does not have the rights of {each.name}, which giving its objects away needs.",
                hint=f"GRANT {each.written} TO {db.server.role}.",
                right=f"membership in {each.written}",
            )


def _refuse_stuck(leaving: Leaving) -> None:
    """DROP OWNED takes back only what owners granted, and only from owners in whose name we can act; the rest blocks."""
    stuck = [(place, row) for place in leaving.places for row in place.stuck]
    if not stuck:
        return
    lines = [
        f"{place.name}: {row['privileges']} on {row['object']}, granted by {row['grantor']}" for place, row in stuck
    ]
    givers = sorted({row["grantor"] for _, row in stuck})
    text = f"These grants to {leaving.role.name} would stay and block the drop: {dependencies.lines(lines, SHOWN)}."
    hint = f"Only {listing(givers)} takes them back: as that role, or as a superuser after SET ROLE, REVOKE them first."
    if all(row["by_owner"] for _, row in stuck):
        raise MissingRight(text, hint=hint, right=f"membership in {listing(givers)}")
    raise PreconditionFailed(text, hint=hint)


# -- the two plans ----------------------------------------------------------------------------------------------------


def _closing(db: Database, leaving: Leaving) -> Plan:
    gone = leaving.role
    if not gone.logs_in:
        raise PreconditionFailed(f"Nothing to do: {gone.name} cannot log in already.")
    return Plan(
        title=f"Forbid the login of role {gone.name}",
        statements=(f"ALTER ROLE {gone.written} NOLOGIN",),
        risk=Risk.HIGH,
        reasons=("nobody can log in as the role from then on", "its objects and rights stay"),
        lock="none",
        size=_sessions_line(leaving),
        duration="at once",
        undo=f"ALTER ROLE {gone.written} LOGIN",
        cautions=_session_cautions(leaving),
        preconditions=_bound(leaving, sessions=False),
        before={"session": session(db, PATIENCE), "disable_only": True, "role_oid": gone.oid, "name": gone.name},
        execution="probeable",
    )


def _dropping(db: Database, leaving: Leaving, waits: tuple[str, ...]) -> Plan:
    gone = leaving.role
    return Plan(
        title=f"Drop role {gone.name} from the whole server",
        statements=tuple(_statements(db, leaving)),
        risk=Risk.CRITICAL,
        reasons=tuple(_reasons(leaving)),
        lock=_lock(leaving),
        size=_size(leaving),
        waits=waits,
        duration="at once in each database, unless somebody uses its objects",
        undo_note=_undo_note(leaving),
        cautions=tuple(_cautions(leaving)),
        preconditions=_bound(leaving, sessions=True),
        before={
            "session": session(db, PATIENCE),
            "disable_only": False,
            "role_oid": gone.oid,
            "name": gone.name,
            "attributes": gone.attributes,
            "member_of": leaving.around["member_of"],
            "members": leaving.around["members"],
            "places": {place.database: place.counted for place in leaving.places},
        },
        execution="probeable",
    )


def _statements(db: Database, leaving: Leaving) -> Iterator[str]:
    """Each statement below the line that says where it runs; other databases first, each a transaction of its own."""
    home = db.server.database
    for database in [*(name for name in leaving.databases if name != home), home]:
        work = list(_work(leaving, database, last=database == home))
        single = len(work) == 1
        for text in work if single else ["BEGIN", *work, "COMMIT"]:
            yield placed(database, text)


def _work(leaving: Leaving, database: str, *, last: bool) -> Iterator[str]:
    """Shared objects go with the database that comes last."""
    here = [place for place in leaving.places if place.database == database or (last and place.database == SHARED)]
    gone, heir = leaving.role.written, leaving.heir
    if heir is not None and any(place.found for place in here):
        # even where it owns nothing now: DROP OWNED would drop what its sessions have made meanwhile
        yield f"REASSIGN OWNED BY {gone} TO {heir.written}"
    if any(place.found for place in here):
        yield f"DROP OWNED BY {gone}"
    if last:
        yield f"DROP ROLE {gone}"


def placed(database: str, text: str) -> str:
    """A statement with the database in which it runs, as part of its text."""
    if any(ord(letter) < 32 for letter in database):
        raise PreconditionFailed("A database has line breaks in its name, which no statement here could say.")
    doubled = database.replace('"', '""')
    return f'-- \\connect "{doubled}"\n{text}'


def place_of(statement: str) -> str:
    """The database that a statement says it runs in."""
    found = _PLACE.fullmatch(statement)
    if found is None:
        raise InvalidArguments("This statement does not say in which database it runs.")
    return found[1].replace('""', '"')


def _bound(leaving: Leaving, *, sessions: bool) -> dict[str, Json]:
    facts: dict[str, Json] = {
        "role_oid": leaving.role.oid,
        "role": leaving.role.name,
        "attributes": leaving.role.attributes,
        "superuser": leaving.role.superuser,
    }
    if not sessions:
        return facts
    around = {key: leaving.around[key] for key in ("member_of", "members", "settings", "subscriptions")}
    return facts | {
        "reassign_to": leaving.heir.oid if leaving.heir else 0,
        "dependencies": {place.database or "(shared)": place.fingerprint for place in leaving.places},
        "around": sha256(canonical(around)),
        "sessions": [[row["pid"], row["backend_start"]] for row in leaving.sessions],
    }


# -- words ------------------------------------------------------------------------------------------------------------


def _reasons(leaving: Leaving) -> Iterator[str]:
    yield "a dropped role cannot be brought back"
    if powers := powers_of(leaving.role):
        yield f"{leaving.role.name} {powers}"
    if leaving.sessions:
        yield f"{plural(len(leaving.sessions), 'session')} of it {verb(len(leaving.sessions), 'is', 'are')} connected"
    databases = leaving.databases
    if databases:
        yield f"it changes {plural(len(databases), 'database')}: {listing(databases, 6)}"


def _lock(leaving: Leaving) -> str:
    if any(place.owned for place in leaving.places):
        return f"ACCESS EXCLUSIVE, shortly, on each object that changes hands; it gives up after {PATIENCE} of waiting"
    return f"rows of the catalog only; it gives up after {PATIENCE} of waiting"


def _size(leaving: Leaving) -> str:
    counts = [f"{place.name}: {place.counted}" for place in leaving.places]
    return (
        "; ".join([*counts, _sessions_line(leaving)]) if counts else f"nothing depends on it; {_sessions_line(leaving)}"
    )


def _sessions_line(leaving: Leaving) -> str:
    return f"{plural(len(leaving.sessions), 'live session')}" if leaving.sessions else "no live session"


def _undo_note(leaving: Leaving) -> str:
    """There is no way back; what a role like it would be made with, without its password, which nobody can read."""
    gone, around = leaving.role, leaving.around
    lines = [f"CREATE ROLE {gone.written} {gone.attributes}"]
    lines += [
        f"GRANT {text.replace(' WITH ADMIN OPTION', '')} TO {gone.written}{_admin(text)}"
        for text in around["member_of"]
    ]
    lines += [f"GRANT {gone.written} TO {text}" for text in around["members"]]
    made = "; ".join(lines)
    return f"There is no way back. A role like it, without its password and what it had: {made}."


def _admin(text: str) -> str:
    return " WITH ADMIN OPTION" if text.endswith(" WITH ADMIN OPTION") else ""


def _cautions(leaving: Leaving) -> Iterator[str]:
    yield "Reversible instead: disable_only=true forbids its login and leaves everything else (ALTER ROLE … NOLOGIN)."
    yield from _session_cautions(leaving)
    for place in leaving.places:
        if place.owned and leaving.heir:
            named = dependencies.lines([each.described for each in place.owned], SHOWN)
            yield f"In {place.name}, goes to {leaving.heir.name}: {named}."
        if place.losses:
            yield f"In {place.name}, lost: {dependencies.lines(place.losses, SHOWN)}."
    around = leaving.around
    if around["member_of"] or around["members"]:
        both = [f"in {text}" for text in around["member_of"]] + [f"of {text}" for text in around["members"]]
        yield f"Memberships that end: {listing(both, 10)}."
    if around["settings"]:
        yield f"Settings of the role that are lost: {listing(around['settings'], 10)}."
    if around["subscriptions"]:
        yield f"It runs subscriptions: {listing(around['subscriptions'], 10)}; the new owner needs the rights for them."
    if leaving.sessions and leaving.places and leaving.heir is None:
        yield "What its sessions make meanwhile would be dropped with its rights: name an heir, or end them first."
    if len(leaving.databases) > 1:
        yield "Each database is a transaction of its own: after a failure the ones before it stay done."


def _session_cautions(leaving: Leaving) -> tuple[str, ...]:
    if not leaving.sessions:
        return ()
    shown = [_session(row) for row in leaving.sessions[:8]]
    rest = f" and {len(leaving.sessions) - 8} more" if len(leaving.sessions) > 8 else ""
    return (f"Its sessions go on running until they end: {listing(shown, 8)}{rest}.",)


def _session(row: Row) -> str:
    state = f", {row['state']}" if row["state"] else ""
    since = f", since {row['backend_start']}" if row["backend_start"] else ""
    return f"pid {row['pid']} ({row['application'] or 'no application name'}{state}{since})"


# -- running ----------------------------------------------------------------------------------------------------------


async def _carry_out(db: Database, plan: Plan, note: Note) -> Effect:
    """Send the statements database by database, each over a connection to the database that it names."""
    done: list[str] = []
    ending = Ending()
    for database, texts in groupby(plan.statements, key=place_of):
        try:
            ending = await _run(db, plan, note, (database, list(texts), done))
        except OutcomeUnknown:
            raise
        except OpsAgentError as error:
            # the database was not reached, so nothing was sent to it
            ending = Ending(message=f"{database}: {error.message}", sqlstate="08001")
        if ending.lost:
            raise OutcomeUnknown(_lost(database, done), database=database)
        if not ending.clean:
            break
        done.append(database)
    try:
        return await _judge_dropped(db, plan, ending)
    except OpsAgentError as error:
        raise OutcomeUnknown(
            f"The statements ended, but their effect could not be read back: {error.message}"
        ) from error


def _lost(database: str, done: Sequence[str]) -> str:
    before = f" Done before: {listing(done, 10)}." if done else ""
    return f"The connection broke while database {database} was being worked on.{before}"


async def _run(db: Database, plan: Plan, note: Note, work: tuple[str, Sequence[str], Sequence[str]]) -> Ending:
    database, statements, done = work
    async with AsyncExitStack() as stack:
        there = db if database == db.server.database else await stack.enter_async_context(db.elsewhere(database))
        change = await stack.enter_async_context(there.changing(session_of(plan)))
        await note({"pid": change.pid, "backend_start": change.backend_start, "database": database, "done": [*done]})
        return await _sent(change, statements)


async def _sent(change: Change, statements: Sequence[str]) -> Ending:
    ending = Ending()
    for statement in statements:
        ending = await change.run(statement)
        if not ending.clean:
            break  # closing the connection rolls back what was begun
    return ending


# -- reading back -----------------------------------------------------------------------------------------------------


async def _judge_closed(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    before: Any = plan.before
    rows = await reader.rows(query("role_now"), {"role": before["role_oid"]})
    if rows and not rows[0]["logs_in"]:
        sessions = await reader.rows(query("role_sessions"), {"role": before["role_oid"]})
        return Effect(
            state="succeeded",
            summary=f"{before['name']} cannot log in any more{_still(sessions)}.",
            suggestions=_endings(sessions),
            figures={"sessions": len(sessions)},
        )
    gone = "is gone" if not rows else "can still log in"
    return Effect(
        state="failed",
        summary=f"{before['name']} {gone}: {reported(ending)}.",
        error_code=ending.sqlstate or EffectMissing.code,
    )


async def _judge_dropped(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """The role is gone from the catalog, or it is there; then each database says what was done in it."""
    before: Any = plan.before
    rows = await reader.rows(query("role_now"), {"role": before["role_oid"]})
    if not rows:
        sessions = await reader.rows(query("role_sessions"), {"role": before["role_oid"]})
        return Effect(
            state="succeeded",
            summary=f"{before['name']} is gone from the server{_still(sessions)}.",
            suggestions=_endings(sessions),
            figures={"sessions": len(sessions), "attributes": before["attributes"], "databases": before["places"]},
        )
    left = {place.database: place.counted for place in await dependencies.places(reader, before["role_oid"])}
    done = [name for name in before["places"] if name not in left]
    return Effect(
        state="failed",
        summary=f"{before['name']} was not dropped: {reported(ending)}.{_progress(done, left)}",
        error_code=ending.sqlstate or EffectMissing.code,
        residue=tuple(
            f"database {name}: what {before['name']} owned or had there is given away already" for name in done
        ),
        suggestions=(
            Suggestion(
                tool="postgresql.drop_user",
                arguments={"name": before["name"], "disable_only": True},
                why="the role is still there: this forbids its login and can be taken back",
            ),
        ),
        figures={"done": [*done], "left": dict(left)},
    )


def _progress(done: Sequence[str], left: Mapping[str, str]) -> str:
    parts = [f"Done: {listing([name or 'shared objects' for name in done], 10)}"] if done else []
    rest = [f"{name or 'shared objects'}: {text}" for name, text in left.items()]
    parts += [f"still there: {'; '.join(rest)}"] if rest else []
    return f" {'; '.join(parts)}." if parts else ""


def _still(sessions: Sequence[Row]) -> str:
    if not sessions:
        return ""
    goes = verb(len(sessions), "goes", "go")
    return f", but {plural(len(sessions), 'session')} of it {goes} on running"


def _endings(sessions: Sequence[Row]) -> tuple[Suggestion, ...]:
    return tuple(
        Suggestion(
            tool="postgresql.kill_connection",
            arguments={"pid": row["pid"]},
            why=f"this session of the role goes on running ({row['application'] or 'no application name'})",
        )
        for row in sessions[:20]
    )
