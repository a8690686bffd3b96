"""kill_connection: cancels what a session runs, or ends the session; bound to that session, never to a reused pid."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from opsagent_jupyter.errors import EffectMissing, InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk, sha256
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.postgresql.changes.execution import Reader, carry_out, reported, session
from opsagent_jupyter.plugins.postgresql.connection import Database, Ending, Row
from opsagent_jupyter.plugins.postgresql.literals import brief, shown, who
from opsagent_jupyter.plugins.postgresql.lock_modes import spelled
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.locks import forest_of
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.wording import article, duration, listing, plural, verb

Mode = Literal["terminate", "cancel"]

#: Milliseconds that the server waits for a session to end, and seconds and pauses in which we look.
TERMINATE_MS = 5_000
GONE_WITHIN, PAUSE = 5.0, 0.05

_KINDS = {"client backend", "walsender", "autovacuum worker", "background worker", "logical replication worker"}
_MAINTENANCE = re.compile(
    r"\s*(vacuum|analyze|reindex|cluster|create\s+(unique\s+)?index|drop\s+index|refresh|alter)\b", re.IGNORECASE
)


@tools.change(
    Risk.HIGH,
    phrases=(
        "kill connection {pid}",
        "terminate session {pid}",
        "kill pid {pid}",
        "end the session of pid {pid}",
        "disconnect pid {pid}",
        "cancel the query of pid {pid}",
        "stop the query that pid {pid} runs",
        "kill the blocker {pid}",
    ),
    keywords=("kill", "terminate", "cancel", "end", "disconnect", "stop", "session", "connection", "pid", "backend"),
    patterns=(
        r"pg_(terminate|cancel)_backend\b",
        r"(kill|terminate|disconnect)\s+(the\s+)?(connection|session|backend|process|pid)\b",
    ),
)
async def kill_connection(
    db: Database,
    pid: Annotated[int, Field(ge=1, le=2**31 - 1), Arg("the process id of the session", slot="pid", example="4711")],
    mode: Annotated[Mode, Arg("terminate ends the session; cancel only ends the statement that it runs")] = "terminate",
) -> Plan:
    """End a session of the server, or only cancel the statement that it is running."""
    row = await _session(db, pid)
    _refuse(db, row, mode)
    _permit(db, row)
    forest = forest_of(await db.rows(query("locks")))
    freed = sorted(forest.below(pid))
    held = await db.rows(query("held_locks"), {"pids": [pid]})
    locks = [f"{spelled(each['mode'])} on {each['relation']}" for each in held]
    risk, reasons = _risk(row, mode)
    return Plan(
        title=f"{'Terminate' if mode == 'terminate' else 'Cancel the statement of'} pid {pid} ({_who(row)})",
        statements=(_statement(db, row, mode),),
        risk=risk,
        reasons=reasons,
        lock=f"it takes none; given back: {listing(locks, 5)}" if locks else "it takes none",
        size=_size(row, freed),
        duration="at once, unless the session is busy rolling back",
        undo_note=_undo_note(mode),
        cautions=_cautions(row, mode),
        preconditions={
            "pid": pid,
            "backend_start": row["backend_start"],
            "role": row["role"],
            "database": row["database"],
            "application": row["application"],
            "query": sha256(row["query"] or ""),
        },
        before={
            "session": session(db, "1s"),
            "pid": pid,
            "backend_start": row["backend_start"],
            "query_start": row["query_start"],
            "mode": mode,
            "waiting": [*freed],
        },
        execution="once",
    )


@kill_connection.assesses
def _(arguments: Any) -> Assessment:
    done = "it ends a session" if arguments.mode == "terminate" else "it ends a running statement"
    return Assessment(risk=Risk.HIGH, reasons=(f"{done} of somebody else",))


@kill_connection.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@kill_connection.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    if evidence.get("pid") is None:
        return Effect(state="failed", summary="Nothing was sent to the database.")
    before: Any = plan.before
    rows = await db.rows(query("session_now"), {"pid": before["pid"], "backend_start": before["backend_start"]})
    if _reached(before, rows):
        return Effect(state="succeeded", summary=f"{_subject(before)} is gone; who ended it cannot be told.")
    return Effect(
        state="unknown", summary=f"{_subject(before)} is still there; whether the signal was sent is not known."
    )


async def _session(db: Database, pid: int) -> Row:
    values = {"pid": pid, "autovacuum": db.server.major >= 18}
    found = await db.rows(query("session_of_pid"), values)
    if not found:
        raise InvalidArguments(
            f"There is no session with pid {pid}.", hint="get_locks and get_connection_stats show the pids.", path="pid"
        )
    row = found[0]
    if row["backend_start"] is None:
        raise MissingRight(
            f"Role {db.server.role} may not see when session {pid} began, so it cannot be told from a later one.",
            hint=f"GRANT pg_read_all_stats TO {db.server.role}.",
            right="pg_read_all_stats",
        )
    return row


def _refuse(db: Database, row: Row, mode: Mode) -> None:
    """Refuse our own sessions, parts of the server, and a cancel that would do nothing."""
    pid = row["pid"]
    if pid in db.pids():
        raise PreconditionFailed(f"Session {pid} is OpsAgent's own.")
    if row["leader"]:
        raise PreconditionFailed(f"pid {pid} is a parallel worker.", hint=f"Ask for its leader, pid {row['leader']}.")
    if row["kind"] not in _KINDS and "worker" not in (row["kind"] or ""):
        raise PreconditionFailed(f"pid {pid} is the server's own {row['kind']}: it is not a session.")
    if (
        mode == "cancel"
        and row["kind"] == "client backend"
        and row["state"] not in ("active", "fastpath function call")
    ):
        raise PreconditionFailed(
            f"pid {pid} is {row['state']}: it runs no statement that could be cancelled.",
            hint="Only mode=terminate ends it, and with it its transaction.",
        )


def _permit(db: Database, row: Row) -> None:
    role, pid = db.server.role, row["pid"]
    if db.server.superuser:
        return
    if row["kind"] == "autovacuum worker" and row["signals_autovacuum"]:
        return
    if row["superuser"] or row["role"] is None:
        right = (
            "pg_signal_autovacuum_worker"
            if row["kind"] == "autovacuum worker" and db.server.major >= 18
            else "SUPERUSER"
        )
        hint = f"GRANT {right} TO {role}." if right != "SUPERUSER" else "Ask a superuser."
        raise MissingRight(
            f"pid {pid} belongs to a superuser or to the server; role {role} may not signal it.", hint=hint, right=right
        )
    if not (row["same_role"] or row["signals"]):
        raise MissingRight(
            f"Role {role} may not signal sessions of role {row['role']}.",
            hint=f"GRANT pg_signal_backend TO {role}.",
            right="pg_signal_backend",
        )


def _who(row: Row) -> str:
    return who(row["role"], row["application"]) if row["kind"] == "client backend" else str(row["kind"])


def _risk(row: Row, mode: Mode) -> tuple[Risk, tuple[str, ...]]:
    grave = []
    if row["kind"] == "walsender":
        grave.append("it serves a replica or a backup")
    if row["slot"]:
        grave.append(f"it uses the replication slot {row['slot']}")
    if row["superuser"]:
        grave.append(f"it is a session of the superuser {row['role']}")
    if row["kind"] == "autovacuum worker":
        grave.append("it is the server's own maintenance")
    elif row["maintenance"] or (row["state"] == "active" and _MAINTENANCE.match(row["query"] or "")):
        grave.append(f"it is running maintenance ({row['maintenance'] or 'DDL'}), which would be lost")
    elif row["kind"] != "client backend" and row["kind"] != "walsender":
        grave.append(f"it is {article(str(row['kind']))}")
    done = "it ends a session, and its open transaction is rolled back"
    base = done if mode == "terminate" else "it ends a running statement, and its transaction fails"
    return (Risk.CRITICAL if grave else Risk.HIGH), (*grave, base)


def _statement(db: Database, row: Row, mode: Mode) -> str:
    """One SELECT that signals exactly this session: another with the same pid began at another time."""
    from psycopg.sql import SQL, Literal

    if mode == "cancel":
        call = SQL("pg_catalog.pg_cancel_backend(a.pid)")
    elif db.server.major >= 14:
        call = SQL("pg_catalog.pg_terminate_backend(a.pid, {})").format(Literal(TERMINATE_MS))  # type: ignore[assignment]
    else:
        call = SQL("pg_catalog.pg_terminate_backend(a.pid)")
    text = SQL(
        "SELECT {} AS done FROM pg_catalog.pg_stat_activity AS a WHERE a.pid = {} AND a.backend_start = {}"
    ).format(call, Literal(row["pid"]), Literal(row["backend_start"]))
    if mode == "cancel" and row["query_start"]:
        text += SQL(" AND a.query_start = {}").format(Literal(row["query_start"]))
    return text.as_string(None)


def _size(row: Row, freed: list[int]) -> str:
    age = f"transaction {duration(row['transaction'])} old" if row["transaction"] else "no open transaction"
    state = f"{row['state']} for {duration(row['in_state'])}, " if row["state"] and row["in_state"] else ""
    text = brief(shown(row["query"]))
    frees = (
        f"; {plural(len(freed), 'session')} {verb(len(freed), 'waits', 'wait')} for it"
        if freed
        else "; nobody waits for it"
    )
    return f"{state}{age}{frees}" + (f"; statement: {text}" if text else "")


def _undo_note(mode: Mode) -> str:
    if mode == "cancel":
        return "A cancelled statement cannot be brought back; its client may send it again."
    return "A session cannot be brought back; its client may connect again."


def _cautions(row: Row, mode: Mode) -> tuple[str, ...]:
    cautions = []
    if row["has_written"]:
        cautions.append("Its transaction has written: that is rolled back and lost.")
    if row["kind"] == "walsender":
        cautions.append("Its replica connects again by itself, if it still can.")
    elif mode == "terminate":
        cautions.append(f"The client ({row['client']}) sees a broken connection; a pool usually connects again.")
    return tuple(cautions)


def _subject(before: Any) -> str:
    return f"pid {before['pid']}" if before["mode"] == "terminate" else f"The statement of pid {before['pid']}"


def _reached(before: Any, rows: list[Row]) -> bool:
    """Whether the session is gone, or for a cancel whether that statement is."""
    if not rows:
        return True
    (row,) = rows
    ended = row["state"] != "active" or row["query_start"] != before["query_start"]
    return before["mode"] == "cancel" and bool(ended)


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Look whether that very session, or for a cancel that very statement, is gone."""
    before: Any = plan.before
    waited = 0.0
    while True:
        rows = await reader.rows(query("session_now"), {"pid": before["pid"], "backend_start": before["backend_start"]})
        if _reached(before, rows) or waited >= GONE_WITHIN or not ending.clean:
            break
        await asyncio.sleep(PAUSE)
        waited += PAUSE
    if not _reached(before, rows):
        return Effect(
            state="failed",
            summary=f"{_subject(before)} is still there: {reported(ending)}.",
            error_code=ending.sqlstate or EffectMissing.code,
        )
    return await _gone(reader, before, ending, waited)


async def _gone(reader: Reader, before: Any, ending: Ending, waited: float) -> Effect:
    took = f" after {duration(ending.seconds + waited)}" if ending.rows else ", but had ended by itself already"
    (row,) = await reader.rows(query("still_blocked"), {"pids": before["waiting"]})
    went_on = len(before["waiting"]) - row["blocked"]
    onward = f"; {plural(went_on, 'waiting session')} went on" if went_on else ""
    return Effect(
        state="succeeded",
        summary=f"{_subject(before)} is gone{took}{onward}.",
        figures={"seconds": round(ending.seconds + waited, 3), "went_on": went_on},
    )
