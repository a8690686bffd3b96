"""get_connection_stats: how full the server is, who is connected, and which sessions hold it back."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import Field

from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import brief, shown, who
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note, sheet
from opsagent_jupyter.plugins.wording import count, duration, listing, percent, plural, verb

#: Share of the usable connections from which the server counts as nearly full.
FULL = 0.8
#: Seconds of a transaction from which its end is offered.
RUNAWAY = 60.0
SESSIONS = 50
_IDLE_IN_TRANSACTION = "idle in transaction"


@tools.read(
    phrases=(
        "how many connections are open",
        "show connection stats",
        "who is connected to the database",
        "are there idle in transaction sessions",
        "how close are we to max_connections",
        "list active sessions",
        "which sessions are idle in transaction",
        "what is running right now",
        "show the oldest transactions",
    ),
    keywords=(
        "connection",
        "connections",
        "connected",
        "session",
        "sessions",
        "idle",
        "active",
        "clients",
        "pg_stat_activity",
    ),
    patterns=(r"\bidle in transaction\b", r"\bmax_connections\b", r"\bpg_stat_activity\b"),
)
async def get_connection_stats(
    db: Database,
    older_than: Annotated[
        float, Field(ge=0), Arg("seconds from which a transaction counts as long", slot="number")
    ] = 5.0,
) -> Result:
    """Show how many connections are used and by whom, and which sessions are idle in transaction, waiting or running long."""
    async with db.together() as reads:
        limits = await reads.one(query("connection_limits"))
        groups = await reads.rows(query("connections"))
        sessions = await reads.rows(query("sessions"), {"limit": SESSIONS})
        prepared = await reads.rows(query("prepared_transactions"))
        caps = await reads.rows(query("connection_caps"))
    for row in sessions:
        row["query"] = shown(row["query"])
    blockers = {pid for row in sessions for pid in row["blocked_by"] or ()}
    bad = [row for row in sessions if _holds_back(row, older_than, blockers)]
    tables = [
        sheet("connections", _GROUPS, groups, db.limits, _SECONDS),
        sheet("sessions", _SESSIONS, sessions, db.limits, _SECONDS),
        *([sheet("limits", ("kind", "name", "limit", "used"), caps, db.limits)] if caps else []),
    ]
    states: Counter[str] = Counter()
    for row in groups:
        states[row["state"] or "hidden"] += row["sessions"]
    return Result(
        summary=_summary(limits, states, sessions, older_than),
        highlights=(
            *_full(limits, caps),
            *(_highlight(row, blockers) for row in bad[:8]),
            *(_prepared(row) for row in prepared[:3]),
        ),
        tables=tuple(tables),
        figures={
            "used": limits["used"],
            "usable": _usable(limits),
            **{key.replace(" ", "_"): n for key, n in states.items()},
        },
        notes=(*_notes(db, limits), *(note for table in tables for note in cut_note(table))),
        suggestions=tuple(_suggestion(row) for row in bad if _worth_ending(row, blockers))[:3],
    )


_GROUPS = ("database", "role", "application", "state", "waits for", "sessions", "oldest transaction")
_SESSIONS = (
    "pid", "role", "database", "application", "client", "state", "waits for", "transaction", "running", "in state",
    "xmin age", "blocked by", "query",
)  # fmt: skip
_SECONDS = {"oldest transaction": "s", "transaction": "s", "running": "s", "in state": "s", "xmin age": "transactions"}


def _usable(limits: Row) -> int:
    return int(limits["max_connections"] - limits["reserved_for_superusers"] - limits["reserved"])


def _seconds(value: Any) -> float:
    return float(value.total_seconds()) if value else 0.0


def _is_idle(row: Row) -> bool:
    return bool((row["state"] or "").startswith(_IDLE_IN_TRANSACTION))


def _holds_back(row: Row, older_than: float, blockers: set[int]) -> bool:
    if row["pid"] in blockers or row["blocked_by"]:
        return True
    return max(_seconds(row["transaction"]), _seconds(row["running"])) >= older_than


def _worth_ending(row: Row, blockers: set[int]) -> bool:
    """Whether its end is offered: it holds others up, or has been at it for very long, and waits for nobody itself."""
    if row["blocked_by"]:
        return False
    return row["pid"] in blockers or max(_seconds(row["transaction"]), _seconds(row["running"])) >= RUNAWAY


def _summary(limits: Row, states: Counter[str], sessions: list[Row], older_than: float) -> str:
    usable = _usable(limits)
    said = [f"{count(n)} {state}" for state, n in states.most_common() if state != "hidden"]
    taken = f"{verb(limits['used'], 'is', 'are')} taken ({percent(limits['used'], usable)})"
    text = f"{count(limits['used'])} of {count(usable)} usable connections {taken}"
    text += f": {listing(said, 6)}." if said else "."
    if waiting := [row for row in sessions if row["blocked_by"]]:
        text += f" {plural(len(waiting), 'session')} {verb(len(waiting), 'waits', 'wait')} for a lock."
    oldest = max(sessions, key=lambda row: _seconds(row["transaction"]), default=None)
    if oldest is None or not _seconds(oldest["transaction"]):
        return text if limits["hidden"] else f"{text} No transaction is open."
    session = f"pid {oldest['pid']} ({who(oldest['role'], oldest['application'])}), {oldest['state']}"
    text += f" The oldest transaction is {duration(oldest['transaction'])} old: {session}."
    return text if _seconds(oldest["transaction"]) >= older_than else f"{text} That is not long."


def _highlight(row: Row, blockers: set[int]) -> str:
    if _is_idle(row):
        what = f"{row['state']} for {duration(row['in_state'])}, its last statement was {brief(row['query'])}"
    else:
        what = f"{row['state']}, transaction {duration(row['transaction'] or 0)} old: {brief(row['query'])}"
    blocked = (
        f"; waits for a lock of pid {listing([str(pid) for pid in row['blocked_by']])}" if row["blocked_by"] else ""
    )
    blocks = "; blocks others" if row["pid"] in blockers else ""
    return f"pid {row['pid']} ({who(row['role'], row['application'])}): {what}{blocked}{blocks}."


def _prepared(row: Row) -> str:
    return (
        f"Prepared transaction {row['gid']!r} of {row['role']} has been open for {duration(row['age'])}: it holds locks and "
        "stops VACUUM until COMMIT PREPARED or ROLLBACK PREPARED."
    )


def _full(limits: Row, caps: list[Row]) -> list[str]:
    usable = _usable(limits)
    said = []
    if limits["used"] >= FULL * usable:
        said.append(f"The server is nearly full: {count(usable - limits['used'])} connections are left.")
    full = [row for row in caps if row["limit"] and row["used"] >= FULL * row["limit"]]
    return said + [
        f"{row['kind'].capitalize()} {row['name']} uses {row['used']} of its {row['limit']} connections."
        for row in full
    ]


def _notes(db: Database, limits: Row) -> list[str]:
    notes = ["Behind a connection pooler a session here is the pooler's, not a client's."]
    if limits["hidden"]:
        hidden = plural(limits["hidden"], "session")
        notes.append(
            f"{hidden} of other roles show no details: GRANT pg_read_all_stats TO {db.server.role} to see them."
        )
    if limits["idle_limit"] == "0":
        notes.append("Nothing ends idle transactions by itself: idle_in_transaction_session_timeout is 0.")
    return notes


def _suggestion(row: Row) -> Suggestion:
    mode = "terminate" if _is_idle(row) else "cancel"
    since = row["in_state"] if _is_idle(row) else row["transaction"] or row["running"]
    return Suggestion(
        tool="postgresql.kill_connection",
        arguments={"pid": row["pid"], "mode": mode},
        why=f"{row['state']} for {duration(since or 0)}",
    )
