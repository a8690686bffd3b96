"""create_user: a login role with a password that is made when it runs, that the server never sees, and one person once."""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field

from opsagent_jupyter.credentials import Secret
from opsagent_jupyter.errors import EffectMissing, InvalidArguments, MissingRight, PluginError, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql import roles
from opsagent_jupyter.plugins.postgresql.changes.create_index import Columns
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, session
from opsagent_jupyter.plugins.postgresql.changes.transaction import carry_out_whole, fate, transacted
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.names import check_length
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import listing, plural

Attribute = Literal["createdb", "createrole", "superuser", "replication", "bypassrls", "noinherit"]

#: Stands in the approved statement where the verifier comes, at its very end; as it is, no server takes it.
PLACEHOLDER = "<SCRAM-SHA-256 verifier of a password that is made when this runs>"
#: Letters and digits that nobody takes for another one; 32 of them are 186 bits.
ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LENGTH = 32

_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+")
#: Why an attribute makes a role like a superuser.
_GRAVE = {
    "superuser": "the role may do everything (SUPERUSER)",
    "createrole": "the role may make and change other roles (CREATEROLE)",
    "replication": "the role may copy everything and hold back WAL (REPLICATION)",
    "bypassrls": "the role sees rows that row security hides from others (BYPASSRLS)",
}
#: The server's own roles that are not like a superuser; one that is not known here is taken for one.
_MILD = {
    "pg_checkpoint", "pg_create_subscription", "pg_monitor", "pg_read_all_data", "pg_read_all_settings",
    "pg_read_all_stats", "pg_signal_autovacuum_worker", "pg_signal_backend", "pg_stat_scan_tables",
    "pg_use_reserved_connections",
}  # fmt: skip


def _lower(value: Any) -> Any:
    """Attributes as they are declared, from a list or from ``CREATEDB,NOINHERIT``."""
    words = value.split(",") if isinstance(value, str) else value
    return [word.strip().lower() if isinstance(word, str) else word for word in words] if words else words


@tools.change(
    Risk.HIGH,
    phrases=(
        "create a user named reporting",
        "create a user reporting",
        "add a user called bob",
        "add a login for bob",
        "create a login role named bob",
        "make a database user named reporting",
        "create role reporting with a password",
    ),
    keywords=("user", "users", "login", "role", "account", "password"),
    patterns=(
        r"(create|add|make)\s+(an?\s+|new\s+|database\s+)*(user|login|account)\b",
        r"create\s+(an?\s+|new\s+|login\s+)*role\b",
    ),
)
async def create_user(
    db: Database,
    name: Annotated[
        str, Arg("the name of the new role, as it is to be written; say: named reporting", example="reporting")
    ],
    attributes: Annotated[
        list[Attribute], BeforeValidator(_lower), Arg("what it may beside logging in; nothing by default")
    ] = [],  # noqa: B006  # never changed
    connection_limit: Annotated[int, Field(ge=-1, le=10_000), Arg("sessions at the same time; -1: no limit")] = -1,
    valid_until: Annotated[
        AwareDatetime | None, Arg("when its password ends, with a time zone", example="2027-01-31T00:00:00Z")
    ] = None,
    member_of: Annotated[Columns, Arg("existing roles whose rights it gets", example="pg_monitor")] = [],  # noqa: B006
) -> Plan:
    """Create a login role with a generated password, which is shown once to the person who asks or approves."""
    role = _named(name)
    until = valid_until.isoformat() if valid_until else None
    maker = await db.one(query("role_makers"), {"name": role, "valid_until": until})
    _refuse(role, maker)
    found = [await roles.role(db, each, "member_of") for each in member_of]
    groups = [*{group.oid: group for group in found}.values()]
    _permit(db, maker, attributes)
    _permit_groups(db, maker, groups)
    wanted = Wanted(maker["written"], frozenset(attributes), connection_limit, until, tuple(groups))
    grave = (*_grave(attributes), *wanted.powers)
    return Plan(
        title=f"Create the login role {maker['written']}",
        statements=transacted(wanted.statement),
        risk=Risk.CRITICAL if grave else Risk.HIGH,
        reasons=(*grave, "somebody can log in to this server from then on"),
        lock="none that others wait for: it writes a row of the server's roles",
        size=f"a role of the whole server: it exists in {plural(maker['databases'], 'database')}",
        duration="at once",
        undo=f"DROP ROLE {maker['written']}",
        undo_note="That works while the role owns nothing and nothing was granted to it.",
        cautions=_cautions(role, wanted),
        preconditions={
            "role": role,
            "member_of": [{"oid": group.oid, "name": group.name, "powers": [*group.powers]} for group in groups],
        },
        before={
            "session": session(db, "5s") | {"statement_timeout": "30s"},
            "role": role,
            "written": maker["written"],
            "wanted": wanted.facts,
            "valid_until": until,
        },
        execution="probeable",
    )


@create_user.assesses
def _(arguments: Any) -> Assessment:
    reserved = [name for each in arguments.member_of if (name := each.strip().strip('"').lower()).startswith("pg_")]
    powers = [f"it becomes a member of {name}" for name in reserved if name not in _MILD]
    grave = (*_grave(arguments.attributes), *powers)
    return Assessment(risk=Risk.CRITICAL if grave else Risk.HIGH, reasons=grave)


@create_user.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    before: Any = plan.before
    password = Secret("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
    verifier = await _verifier(db, before["role"], password)
    sent = [filled(statement, verifier) for statement in plan.statements]
    return await carry_out_whole(db, plan, note, _judge, sent=sent, secret=password.reveal)


@create_user.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await fate(db, evidence) or await _judge(db, plan, Ending())


async def _verifier(db: Database, role: str, password: Secret) -> str:
    """What the server keeps in the place of a password; made here, so that the password is never sent."""
    async with db.lending() as connection:
        return connection.pgconn.encrypt_password(password.reveal().encode(), role.encode(), b"scram-sha-256").decode()


def filled(statement: str, verifier: str) -> str:
    """The approved statement with the verifier in its one open place, which is its end; all else is to the letter."""
    head = statement.removesuffix(PLACEHOLDER)
    if head == statement:
        return statement
    if not _VERIFIER.fullmatch(verifier):
        raise PluginError("The client library made no SCRAM-SHA-256 verifier, so nothing was sent.")
    return f"{head}'{verifier}'"


@dataclass(frozen=True)
class Wanted:
    """The role as it is to be."""

    written: str
    attributes: frozenset[str]
    connection_limit: int
    valid_until: str | None
    groups: tuple[roles.Role, ...]

    @property
    def statement(self) -> str:
        """One statement, every attribute said; its end is left open for the verifier."""
        said = [
            "NOINHERIT" if "noinherit" in self.attributes else "INHERIT",
            *(
                word.upper() if word in self.attributes else f"NO{word.upper()}"
                for word in ("superuser", "createdb", "createrole", "replication", "bypassrls")
            ),
            f"CONNECTION LIMIT {self.connection_limit}",
            *([f"VALID UNTIL '{self.valid_until}'"] if self.valid_until else []),
            *([f"IN ROLE {', '.join(group.written for group in self.groups)}"] if self.groups else []),
        ]
        return f"CREATE ROLE {self.written} WITH LOGIN {' '.join(said)} PASSWORD {PLACEHOLDER}"

    @property
    def powers(self) -> tuple[str, ...]:
        """Why the roles that it becomes a member of make it like a superuser, as the catalog knows them."""
        return tuple(
            f"it becomes a member of {group.written}, which {roles.powers_of(group) or 'is a role of the server'}"
            for group in self.groups
            if group.powers or (group.is_reserved and group.name not in _MILD)
        )

    @property
    def facts(self) -> dict[str, Json]:
        """The same as the catalog is to show it afterwards."""
        flags = ("superuser", "createdb", "createrole", "replication", "bypassrls")
        return {
            "login": True,
            "inherit": "noinherit" not in self.attributes,
            **{flag: flag in self.attributes for flag in flags},
            "connection_limit": self.connection_limit,
            "valid_until": True,
            "member_of": [*sorted({group.oid for group in self.groups})],
        }


def _named(text: str) -> str:
    """The new role's name, letter by letter; a name in double quotes stands between them."""
    quoted = len(text) > 2 and text.startswith('"') and text.endswith('"')
    name = text[1:-1].replace('""', '"') if quoted else text
    if not name.strip() or name != name.strip() or any(unicodedata.category(char)[0] == "C" for char in name):
        raise InvalidArguments(
            "The name is empty, begins or ends with a space, or holds a character that is not seen.", path="name"
        )
    check_length(name, "name")
    if name in ("public", "none") or name.startswith("pg_"):
        raise InvalidArguments(
            f"{name} is reserved: PostgreSQL keeps public, none and all names that begin with pg_ for itself.",
            hint="Choose another name.",
            path="name",
        )
    return name


def _refuse(role: str, maker: Row) -> None:
    if maker["standby"]:
        raise PreconditionFailed("This server is a standby: it only reads.", hint="Attach the primary and ask there.")
    if maker["taken"]:
        raise PreconditionFailed(
            f"There is a role {maker['written']} on this server already.",
            hint="Roles belong to the whole server, not to one database: choose another name.",
        )
    if maker["past"]:
        raise InvalidArguments(
            f"The password of {role} would have ended already.", hint="Give a time that is to come.", path="valid_until"
        )


def _permit(db: Database, maker: Row, attributes: Sequence[str]) -> None:
    """Refuse what the server would refuse, with the right that lacks. From 16 on nobody gives what they do not have."""
    if maker["superuser"]:
        return
    if not maker["createrole"]:
        raise _missing(db, "CREATEROLE", "create roles")
    if "superuser" in attributes:
        raise _missing(db, "SUPERUSER", "make a superuser")
    for attribute in ("replication", "bypassrls", "createdb"):
        if attribute not in attributes:
            continue
        if db.server.major >= 16 and not maker[attribute]:
            raise _missing(db, attribute.upper(), f"give {attribute.upper()}, which it does not have itself")
        if db.server.major < 16 and attribute != "createdb":
            raise _missing(db, "SUPERUSER", f"give {attribute.upper()}; before PostgreSQL 16 only a superuser may")


def _missing(db: Database, right: str, what: str) -> MissingRight:
    who = db.server.role
    hint = "Attach a superuser." if right == "SUPERUSER" else f"ALTER ROLE {who} {right}, or attach a role that has it."
    return MissingRight(f"Role {who} may not {what}: it lacks {right}.", hint=hint, right=right)


def _permit_groups(db: Database, maker: Row, groups: Sequence[roles.Role]) -> None:
    for group in groups:
        if group.name == "pg_database_owner":
            raise PreconditionFailed("Nobody becomes a member of pg_database_owner: it is whoever owns the database.")
        if maker["superuser"]:
            continue
        if group.superuser:
            raise _missing(db, "SUPERUSER", f"make members of the superuser {group.written}")
        if db.server.major >= 16 and not group.administered:
            raise MissingRight(
                f"Role {db.server.role} may not make members of {group.written}: it has no ADMIN OPTION on it.",
                hint=f"GRANT {group.written} TO {db.server.role} WITH ADMIN OPTION, or leave it out of member_of.",
                right=f"ADMIN OPTION on {group.written}",
            )


def _grave(attributes: Sequence[str]) -> tuple[str, ...]:
    return tuple(why for attribute, why in _GRAVE.items() if attribute in attributes)


def _cautions(role: str, wanted: Wanted) -> tuple[str, ...]:
    written = wanted.written
    found = [
        "Its password is made when it runs. Whoever asked or approved can see it once: on the card, or by `opsagent reveal`.",
        "Whether it can log in from a host is for pg_hba.conf to say.",
    ]
    if written != role:
        found.append(f"The name has to be written {written} in SQL, quotes included.")
    if wanted.valid_until:
        found.append("VALID UNTIL ends the password, not the sessions, and no other way to log in.")
    if wanted.groups:
        names = listing([group.written for group in wanted.groups], 8)
        found.append(f"It gets everything that {names} may, now and later.")
    return tuple(found)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read the role back and compare it with what was approved."""
    before: Any = plan.before
    written, wanted = before["written"], before["wanted"]
    rows = await reader.rows(query("role_made"), {"name": before["role"], "valid_until": before["valid_until"]})
    if not rows:
        return Effect(
            state="failed",
            summary=f"There is no role {written}, although its transaction was committed.",
            error_code=EffectMissing.code,
        )
    differing = [fact for fact, value in wanted.items() if rows[0][fact] != value]
    if differing:
        return Effect(
            state="failed",
            summary=f"The role {written} is there, but not as approved: {listing(differing, 12)}.",
            error_code=EffectMissing.code,
            residue=(f"role {written} (oid {rows[0]['oid']})",),
        )
    return Effect(
        state="succeeded",
        summary=f"The role {written} can log in. Its password is shown once: on the card, or by `opsagent reveal`.",
        figures={"oid": rows[0]["oid"], "seconds": round(ending.seconds, 3)},
    )
