"""Roles of the server, found by the name that a person writes; PUBLIC is the role that everybody has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.names import near
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.names import check_length
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import listing

#: Owner of everything that initdb made; the server cannot be without it.
BOOTSTRAP = 10


@dataclass(frozen=True)
class Role:
    """A role as the catalog shows it. Its password is not in here."""

    oid: int
    """0 for PUBLIC."""
    name: str
    written: str
    superuser: bool = False
    makes_roles: bool = False
    makes_databases: bool = False
    replicates: bool = False
    bypasses: bool = False
    inherits: bool = True
    logs_in: bool = False
    connection_limit: int = -1
    valid_until: str | None = None
    comment: str | None = None
    member_of: tuple[str, ...] = ()
    powers: tuple[str, ...] = ()
    """Itself and roles that it can become, as far as they are like a superuser in something."""
    ours: bool = False
    """Whether our role has its rights."""
    administered: bool = False
    """Whether our role may give it to others."""
    ourselves: bool = False

    @property
    def is_public(self) -> bool:
        return self.oid == 0

    @property
    def is_reserved(self) -> bool:
        """Whether it is one of the server's own roles."""
        return self.name.startswith("pg_")

    @property
    def attributes(self) -> str:
        """Its attributes as CREATE ROLE takes them, without a password."""
        words = [
            "LOGIN" if self.logs_in else "NOLOGIN",
            *(["SUPERUSER"] if self.superuser else []),
            *(["CREATEDB"] if self.makes_databases else []),
            *(["CREATEROLE"] if self.makes_roles else []),
            *(["REPLICATION"] if self.replicates else []),
            *(["BYPASSRLS"] if self.bypasses else []),
            *([] if self.inherits else ["NOINHERIT"]),
            *([f"CONNECTION LIMIT {self.connection_limit}"] if self.connection_limit >= 0 else []),
            *([f"VALID UNTIL '{self.valid_until}'"] if self.valid_until else []),
        ]
        return " ".join(words)


PUBLIC = Role(0, "public", "PUBLIC")


async def role(db: Database, text: str, argument: str, *, public: bool = False) -> Role:
    """Resolve a role's name, as written or folded to lower case; ``InvalidArguments`` with near matches when there is none."""
    if text.strip().lower() == "public":
        if public:
            return PUBLIC
        raise InvalidArguments("PUBLIC stands for everybody: it is not a role that can be named here.", path=argument)
    found = await db.rows(query("role_facts"), {"names": spellings(text, argument)})
    if not found:
        known = [row["name"] for row in await db.rows(query("role_names"), {"limit": 2_000})]
        raise InvalidArguments(
            f"There is no role {text!r} on this server{near(text, known)}.",
            hint="Roles belong to the whole server; write the name as \\du shows it.",
            path=argument,
        )
    facts: dict[str, Any] = dict(found[0])
    return Role(**{**facts, "member_of": tuple(facts["member_of"]), "powers": tuple(facts["powers"])})


def spellings(text: str, argument: str) -> list[str]:
    """The names that a text can mean, the likelier first: exactly as written, then as SQL folds it."""
    quoted = len(text) > 2 and text.startswith('"') and text.endswith('"')
    bare = text[1:-1].replace('""', '"') if quoted else text.strip()
    if not bare or "\0" in bare:
        raise InvalidArguments("The name is empty, or holds what no name can hold.", path=argument)
    check_length(bare, argument)
    return [bare] if quoted or bare == bare.lower() else [bare, bare.lower()]


def powers_of(role: Role) -> str:
    """Why a role is like a superuser; empty when it is not."""
    own = [
        word
        for word, held in (
            ("is a superuser", role.superuser),
            ("may make roles (CREATEROLE)", role.makes_roles),
            ("may replicate everything (REPLICATION)", role.replicates),
            ("bypasses row security (BYPASSRLS)", role.bypasses),
        )
        if held
    ]
    others = [] if role.superuser else [f"has the powers of {name}" for name in role.powers if name != role.name]
    reserved = ["has the powers of a superuser in part"] if role.name in role.powers and not own else []
    return listing([*own, *reserved, *others], 4)
