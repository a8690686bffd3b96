"""revoke_permission: takes a right away, and says what the role can do all the same, and whose rights go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from opsagent_jupyter.errors import PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql.changes import grants
from opsagent_jupyter.plugins.postgresql.changes.access import Entries, Entry, regrant
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, unfinished
from opsagent_jupyter.plugins.postgresql.changes.grants import Case
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import listing, plural

DONE = "what uses the right fails from then on"


@tools.change(
    Risk.HIGH,
    phrases=(
        "revoke a privilege on {table} from {role}",
        "revoke permission on {table} from {role}",
        "take the permission on {table} from {role}",
    ),
    keywords=("revoke", "permission", "privilege", "right", "role"),
)
async def revoke_permission(
    db: Database,
    role: Annotated[str, Arg("the role that loses it, or public for everybody", slot="role", example="app")],
    object: grants.Named,
    privileges: grants.Asked = [],  # noqa: B006
    kind: grants.Sort = "table",
    columns: grants.Columns = [],  # noqa: B006
    *,
    option_only: Annotated[bool, Arg("leave the right; take only the right to pass it on")] = False,
    cascade: Annotated[bool, Arg("take it from everybody who got it from this role too")] = False,
    made_by: grants.Maker = "",
) -> Plan:
    """Revoke privileges on an object, or membership in another role, from a role."""
    found = await grants.case(db, role, kind, object, privileges, columns, made_by)
    givers = grants.grantors(db, found, "revoke")
    unwanted = _unwanted(found, givers, option_only=option_only)
    after = found.entries.revoked(unwanted, found.owners, option_only=option_only)
    _refuse_nothing(found, unwanted)
    dependants = _dependants(found, after, unwanted)
    _refuse_dependants(found, dependants, cascade=cascade)
    risk, reasons = _risk(found, dependants)
    return Plan(
        title=f"Revoke {'the option to grant ' if option_only else ''}{_what(found)} from {found.role.name}",
        statements=(_statement(found, option_only=option_only, cascade=bool(dependants)),),
        risk=risk,
        reasons=reasons,
        lock=grants.lock(db, found),
        waits=await grants.waits(db, found),
        size=grants.SIZE.format(
            now=grants.spoken(found, found.held), then=grants.spoken(found, found.predicted(after))
        ),
        duration="at once",
        undo=";\n".join(regrant(found.subject, [*found.entries.lost(after), *found.entries.freed(after)], found.reach)),
        undo_note="It gives back exactly what goes, each in the name of who had granted it.",
        cautions=(
            *_remaining(found, after, option_only=option_only),
            *_others(found, after, unwanted),
            *_gone(found, dependants),
        ),
        preconditions=grants.bound(found, after),
        before={**grants.kept(db, found, after), "option_only": option_only},
        execution="probeable",
    )


@revoke_permission.assesses
def _(arguments: Any) -> Assessment:
    return grants.assessed(arguments, DONE)


@revoke_permission.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@revoke_permission.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    unseen = Ending(message="its end was not seen", sqlstate="08006")
    return await unfinished(db, plan, evidence) or await _judge(db, plan, unseen)


def _asked(found: Case, entry: Entry) -> bool:
    """Whether an entry is one that the request is about: a whole table stands for its columns too."""
    subs = {item.sub for item in found.subject.items if item.oid == entry.oid}
    named = bool(subs) and (subs == {0} or entry.sub in subs)
    return named and entry.grantee == found.role.oid and entry.privilege in found.subject.privileges


def _unwanted(found: Case, givers: Mapping[int, int], *, option_only: bool) -> list[Entry]:
    """The entries that REVOKE reaches: only what was granted in the name in which it acts."""
    mine = [entry for entry in found.entries if _asked(found, entry) and entry.grantor == givers[entry.oid]]
    return [entry for entry in mine if entry.grantable] if option_only else mine


def _refuse_nothing(found: Case, unwanted: list[Entry]) -> None:
    """The server would report success and change nothing; say instead where the right comes from."""
    if unwanted:
        return
    why = [
        f"{grants.named(found, right)}: {listing(texts)}" for right, texts in found.why(found.entries).items() if texts
    ]
    others = [entry for entry in found.entries if _asked(found, entry)]
    held = f" It has the right all the same ({'; '.join(why[:4])})." if why else ""
    raise PreconditionFailed(
        f"Nothing to do: {_what(found)} was not granted to {found.role.name} by a role in whose name we act.{held}",
        hint=_way_out(found, others, why),
    )


def _way_out(found: Case, others: list[Entry], why: list[str]) -> str:
    if others:
        givers = sorted({found.reach.name(entry.grantor) for entry in others})
        return f"Only {listing(givers)} takes back what it granted: attach that role."
    if any("PUBLIC" in text for text in why):
        return "Revoke it from public, and grant it to those who need it."
    return "Revoke it where it comes from." if why else "It does not have it."


def _what(found: Case) -> str:
    if found.subject.klass == "role":
        return f"membership in {found.subject.shown}"
    return f"{listing(found.subject.privileges, 9)} on {found.subject.shown}"


def _dependants(found: Case, after: Entries, unwanted: list[Entry]) -> list[Entry]:
    """What others hold only because this role passed it on."""
    asked = {entry.key for entry in unwanted}
    return [entry for entry in found.entries.lost(after) if entry.key not in asked]


def _refuse_dependants(found: Case, dependants: list[Entry], *, cascade: bool) -> None:
    if dependants and not cascade:
        raise PreconditionFailed(
            f"{found.role.name} passed it on: {'; '.join(grants.described(found, dependants))}.",
            hint="Ask with cascade=true to take that away too, or let those be granted by somebody else first.",
        )


def _statement(found: Case, *, option_only: bool, cascade: bool) -> str:
    about, tail = found.subject, f"FROM {found.role.written}{' CASCADE' if cascade else ''}"
    if about.granted is not None:
        return f"REVOKE {'ADMIN OPTION FOR ' if option_only else ''}{about.granted.written} {tail}"
    text = f"REVOKE {'GRANT OPTION FOR ' if option_only else ''}{about.clause} ON {about.on} {tail}"
    if about.maker is not None and about.schema is not None:
        return f"ALTER DEFAULT PRIVILEGES FOR ROLE {about.maker.written} IN SCHEMA {about.schema['written']} {text}"
    return text


def _risk(found: Case, dependants: list[Entry]) -> tuple[Risk, tuple[str, ...]]:
    grave = grants.gravity(found)
    if dependants:
        grave.append(f"{plural(len(dependants), 'right')} of other roles {'go' if len(dependants) > 1 else 'goes'} too")
    if found.role.ourselves:
        grave.append("it is taken from the role that we are connected as")
    if found.role.is_public:
        grave.append("it is taken from PUBLIC: every role that has it no other way loses it")
    if found.subject.kind == "all_tables":
        grave.append(f"it closes {found.subject.shown}")
    return (Risk.CRITICAL if grave else Risk.HIGH), (*grave, DONE)


def _remaining(found: Case, after: Entries, *, option_only: bool) -> list[str]:
    """The rights that the role keeps, and why."""
    if option_only:
        return []
    then, why = found.predicted(after), found.why(after)
    kept = [right for right in found.rights if then.get(right)]
    lines = [
        f"{found.role.name} keeps {grants.named(found, right)}: {listing(why.get(right) or ['for a reason not seen'])}."
        for right in kept[:8]
    ]
    return [*lines, *([f"It keeps {len(kept) - 8} more of these rights."] if len(kept) > 8 else [])]


def _others(found: Case, after: Entries, unwanted: list[Entry]) -> list[str]:
    """What else goes or stays of the same role."""
    cautions = []
    columns = [entry for entry in unwanted if entry.sub]
    if columns and not found.subject.columns:
        cautions.append(f"Grants on single columns go too: {'; '.join(grants.described(found, columns, 8))}.")
    stay = [entry for entry in after.of(found.role.oid) if _asked(found, entry)]
    foreign = [entry for entry in stay if entry.key not in {each.key for each in unwanted}]
    if foreign:
        cautions.append(f"What other roles granted stays: {'; '.join(grants.described(found, foreign, 8))}.")
    if found.subject.columns and any(not entry.sub for entry in stay):
        cautions.append("The right on the whole table stays; a column cannot be taken out of it.")
    return cautions


def _gone(found: Case, dependants: list[Entry]) -> list[str]:
    return [f"This goes too: {line}." for line in grants.described(found, dependants)]


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read back that the entries are gone, and what the role can do all the same."""
    before: Any = plan.before
    found = await grants.outcome(reader, plan)
    if found.missing:
        return grants.missing(plan, ending, found)
    return Effect(
        state="succeeded",
        summary=f"{before['role']} {_now(before, found.remaining)}.",
        figures={**grants.figures(plan, found), "undo": plan.undo},
    )


def _now(before: Any, remaining: tuple[str, ...]) -> str:
    if before["option_only"]:
        what = "membership in" if before["class"] == "role" else f"{listing(before['privileges'], 9)} on"
        return f"can no longer pass on {what} {before['shown']}"
    if before["class"] == "future":
        return f"gets {listing(before['privileges'], 9)} no longer on {before['shown']}"
    what = "membership in" if before["class"] == "role" else f"{listing(before['privileges'], 9)} on"
    if remaining:
        still = (
            "it is a member through others" if before["class"] == "role" else f"it still has {listing(remaining, 9)}"
        )
        return f"was revoked {what} {before['shown']}, but {still} by other ways"
    return f"has lost {what} {before['shown']}"
