"""What the server's refusal of an EXPLAIN means, said without quoting data.

While a statement is parsed, a message can hold only what the statement itself says. Once it is evaluated, a message may
quote a row or a file through a failed conversion: then only the server's fixed words are kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from opsagent_jupyter.errors import (
    Cancelled,
    DatabaseError,
    DeadlineExceeded,
    InvalidArguments,
    MissingRight,
    OpsAgentError,
    StatementRefused,
)
from opsagent_jupyter.plugins.postgresql.failures import failed
from opsagent_jupyter.plugins.postgresql.purity import Reached
from opsagent_jupyter.plugins.postgresql.statement import Statement

CHECK_MS = 5000
"""What the questions to the catalog may take at least, however short the limit of the statement is."""

Stage = Literal["check", "parse", "evaluate"]


@dataclass
class Circumstances:
    """How far a call has come, for the words of its failure."""

    statement: Statement
    statement_timeout_ms: int
    lock_timeout_ms: int
    stage: Stage = "check"
    entered: float = field(default_factory=time.monotonic)
    """When the stage began, seconds of the monotonic clock."""
    relations: Sequence[Reached] = ()
    role: str = ""
    """Quoted as an identifier."""

    def enter(self, stage: Stage) -> None:
        self.stage, self.entered = stage, time.monotonic()

    @property
    def limit_ms(self) -> int:
        """The limit of one statement in this stage."""
        return max(self.statement_timeout_ms, CHECK_MS) if self.stage == "check" else self.statement_timeout_ms


def translated(error: psycopg.Error, now: Circumstances) -> OpsAgentError:
    """Say what the server's error means for this call."""
    state = error.sqlstate or ""
    if state == "42501":
        return _missing_right(error, now)
    if state == "57014":
        return _ended(now)
    if state == "55P03":
        return DeadlineExceeded(
            f"A relation in the statement is locked by another session; EXPLAIN waited {now.lock_timeout_ms} ms.",
            hint="Run get_locks to see who holds the lock.",
            native_code=state,
        )
    if state == "25006":
        return StatementRefused(
            "The statement tried to write; the server refused it in a READ ONLY transaction.",
            hint="Explain it without ANALYZE.",
            reason="writes",
        )
    if state[:2] in {"08", "57", "28", ""}:
        return failed(error)
    if state[:2] in {"42", "3F"} and now.stage == "parse":
        return _misspelt(error, state)
    return DatabaseError(
        f"The server could not plan or run the statement: {type(error).__name__} ({state}), {withheld(_said(error))}",
        hint="Values are left out of this message, because they can be data.",
        native_code=state,
    )


def withheld(message: str) -> str:
    """The server's fixed words up to the first place where a value may stand."""
    fixed = re.split(r"[^\w\s(),-]|\d", message, maxsplit=1)[0].strip()
    return f"{fixed} …" if fixed != message else message


def _said(error: psycopg.Error) -> str:
    return " ".join((error.diag.message_primary or "").split())


def _ended(now: Circumstances) -> OpsAgentError:
    if (time.monotonic() - now.entered) * 1000 < now.limit_ms:
        return Cancelled("The statement was cancelled in the database by another session.", native_code="57014")
    what = "Looking up the names of the statement" if now.stage == "check" else "The statement"
    return DeadlineExceeded(
        f"{what} took longer than {now.limit_ms} ms and was cancelled in the database.",
        hint="Explain it without ANALYZE, or with a smaller LIMIT or range.",
        native_code="57014",
    )


def _misspelt(error: psycopg.Error, state: str) -> InvalidArguments:
    hint = " ".join((error.diag.message_hint or "").split())
    if state == "42P18":
        hint = "Say its type with a cast, such as $1::text."
    if state == "42P01":
        hint = "Check the spelling, or write schema.table; only the schemas of the search_path are looked through."
    return InvalidArguments(f"The server cannot read the statement: {_said(error)}.", hint=hint, native_code=state)


def _missing_right(error: psycopg.Error, now: Circumstances) -> MissingRight:
    """Name the relation and the GRANT, from the catalog: the server's words are in its own language."""
    for each in now.relations:
        if not each.direct or (each.facts["usable"] and each.facts["fully_readable"]):
            continue
        schema, relation = each.facts["quoted_schema"], each.facts["quoted"]
        if not each.facts["usable"]:
            right, grant = f"USAGE on schema {schema}", f"GRANT USAGE ON SCHEMA {schema} TO {now.role};"
        else:
            right, grant = f"SELECT on {relation}", f"GRANT SELECT ON {relation} TO {now.role};"
        return MissingRight(
            f"The role {now.role} lacks {right}.", hint=f"Let its owner run: {grant}", right=right, native_code="42501"
        )
    said = _said(error)  # names an object, never a value
    return MissingRight(
        f"The role {now.role} lacks a right: {said}.",
        hint="Planning a write needs the rights of the write. Let the owner grant it, or attach a role that has it.",
        right=said,
        native_code="42501",
    )
