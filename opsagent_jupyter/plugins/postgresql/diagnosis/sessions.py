"""Sessions that hold others up: root blockers, idle transactions, statements without end, prepared transactions."""

from __future__ import annotations

from datetime import timedelta

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.findings import Finding, Severity, Survey
from opsagent_jupyter.plugins.postgresql.connection import Row
from opsagent_jupyter.plugins.postgresql.diagnosis.observation import Observation, call
from opsagent_jupyter.plugins.postgresql.literals import brief, shown, who
from opsagent_jupyter.plugins.postgresql.lock_modes import spelled
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.reads.locks import PREPARED, Forest, forest_of
from opsagent_jupyter.plugins.postgresql.reads.slow_queries import RUNAWAY, RUNNING
from opsagent_jupyter.plugins.wording import count, duration, plural

#: Seconds of waiting from which it harms, and from which it is an outage; sessions held up by one that are an outage.
WAITED, WAITED_LONG, VICTIMS = 1.0, 300.0, 10
#: Seconds from which an idle transaction is told although it blocks nobody, and from which it harms.
IDLE, IDLE_LONG = 30.0, 300.0
#: Seconds from which a running statement, and an open transaction, harm.
ENDLESS = 3600.0
#: Seconds from which a prepared transaction looks forgotten.
FORGOTTEN = 60.0
SESSIONS = 200
#: Transactions since the oldest snapshot began: from OLD on it is told, from HARMFUL on it harms, from DIRE on gravely.
OLD, HARMFUL, DIRE = 50_000, 1_000_000, 100_000_000


async def survey(seen: Observation) -> Survey:
    """Look at who waits for whom, and at what has been open or running for long."""
    db = seen.db
    forest = forest_of(await seen.locks())
    sessions = await db.rows(query("sessions"), {"limit": SESSIONS})
    running = await db.rows(query("running_statements"), {"seconds": RUNNING, "limit": SESSIONS})
    prepared = await db.rows(query("prepared_transactions"))
    for row in (*forest.sessions.values(), *sessions, *running):
        row["query"] = shown(row["query"])
    waiting = {row["pid"] for row in forest.sessions.values() if row["blocked_by"]}
    findings = [
        *(_blocked(forest, row) for row in forest.sessions.values() if row["blocked_by"]),
        *(_idle(forest, row) for row in sessions if _is_idle(row) and _matters(forest, row)),
        *(_running(row) for row in running if row["pid"] not in waiting),
        *(_prepared(row, blocks=PREPARED in forest.waiters) for row in prepared),
    ]
    return Survey(tuple(findings), await _hidden(seen))


async def _hidden(seen: Observation) -> tuple[str, ...]:
    if (await seen.recovery())["reads_stats"]:
        return ()
    role = seen.db.server.role
    return (f"What other roles' sessions do is hidden: GRANT pg_read_all_stats TO {role} to see it.",)


def _seconds(value: timedelta | None) -> float:
    return value.total_seconds() if value else 0.0


def _name(row: Row) -> str:
    return f"pid {row['pid']} ({who(row['role'], row['application'])})"


def _is_idle(row: Row) -> bool:
    return bool((row["state"] or "").startswith("idle in transaction"))


def _root(forest: Forest, pid: int) -> int:
    """The session at the top of the chain in which a session waits."""
    fit = [root for root in forest.roots if pid in forest.below(root)]
    return fit[0] if fit else forest.roots[0]


def _blocked(forest: Forest, row: Row) -> Finding:
    root = _root(forest, row["pid"])
    blocker = forest.sessions.get(root)
    victims, waited = len(forest.below(root)), _seconds(row["waiting"])
    return Finding(
        kind="blocked_session",
        severity=_gravity(waited, victims),
        confidence="certain",
        subject=_name(row),
        title=f"{_name(row)} has waited {duration(waited)} for {_wanted(row)}, held up by {_called(forest, root)}",
        evidence=(
            f"the root blocker holds up {plural(victims, 'session')}",
            *([f"it is {blocker['state']} for {duration(_seconds(blocker['in_state']))}"] if blocker else []),
            f"waiting statement: {brief(row['query'])}",
        ),
        why="It stands still until the blocker ends, and so does everybody who queues behind it.",
        advice=_unblock(forest, root),
        fix=_ended(blocker, f"it is the root blocker of {plural(victims, 'session')}"),
        impact=waited,
    )


def _gravity(waited: float, victims: int) -> Severity:
    if waited >= WAITED_LONG or victims >= VICTIMS:
        return Severity.CRITICAL
    return Severity.HIGH if waited >= WAITED else Severity.INFO


def _wanted(row: Row) -> str:
    if row["lock"] in ("transactionid", "tuple"):
        return f"a row of {row['relation']}" if row["relation"] else "a row that another transaction changed"
    return f"{spelled(row['mode'])} on {row['relation']}" if row["relation"] else f"a lock of type {row['lock']}"


def _called(forest: Forest, root: int) -> str:
    row = forest.sessions.get(root)
    if root == PREPARED:
        return "a prepared transaction"
    return f"{_name(row)}, {row['state'] or 'hidden'}" if row else f"pid {root}"


def _unblock(forest: Forest, root: int) -> str:
    if root == PREPARED:
        return "COMMIT PREPARED or ROLLBACK PREPARED ends it; it has no session that could be killed."
    row = forest.sessions.get(root)
    if row is None or row["kind"] != "client backend":
        return f"pid {root} is not a client's session: let it end, or look at what it does."
    what = "Terminate" if _is_idle(row) else "Cancel the statement of"
    return f"{what} pid {root}, or let its owner end the transaction."


def _ended(row: Row | None, why: str) -> Suggestion | None:
    """The call that ends an idle session or cancels a busy one; none for what is no client."""
    if row is None or row.get("kind", "client backend") != "client backend" or row.get("leader"):
        return None
    return call("kill_connection", why, pid=row["pid"], mode="terminate" if _is_idle(row) else "cancel")


def _matters(forest: Forest, row: Row) -> bool:
    return bool(forest.below(row["pid"])) or _seconds(row["in_state"]) >= IDLE


def _idle(forest: Forest, row: Row) -> Finding:
    idle, victims = _seconds(row["in_state"]), len(forest.below(row["pid"]))
    longest = max((_seconds(forest.sessions[pid]["waiting"]) for pid in forest.below(row["pid"])), default=0.0)
    harms = idle >= IDLE_LONG or longest >= WAITED
    blocks = f" and holds up {plural(victims, 'session')}" if victims else ""
    return Finding(
        kind="idle_in_transaction",
        severity=Severity.HIGH if harms else Severity.MEDIUM if idle >= IDLE else Severity.INFO,
        confidence="certain",
        subject=_name(row),
        title=f"{_name(row)} has been idle in a transaction for {duration(idle)}{blocks}",
        evidence=(
            f"transaction open for {duration(_seconds(row['transaction']))}",
            f"last statement: {brief(row['query'])}",
            *([f"database {row['database']}"] if row["database"] else []),
        ),
        why="It keeps its locks, and VACUUM cannot remove rows that were deleted since it began.",
        advice=f"Terminate pid {row['pid']} if nobody comes back to it, and set idle_in_transaction_session_timeout.",
        fix=_ended(row, f"idle in a transaction for {duration(idle)}{blocks}"),
        impact=idle,
    )


def _running(row: Row) -> Finding:
    seconds = _seconds(row["running"])
    severity = Severity.HIGH if seconds >= ENDLESS else Severity.MEDIUM if seconds >= RUNAWAY else Severity.INFO
    return Finding(
        kind="runaway_query",
        severity=severity,
        confidence="certain",
        subject=_name(row),
        title=f"{_name(row)} has been running one statement for {duration(seconds)} in database {row['database']}",
        evidence=(
            f"statement: {brief(row['query'])}",
            *([f"waits for {row['waits_for']}"] if row["waits_for"] else []),
        ),
        why="It takes a process, keeps what it locked, and VACUUM cannot remove what was deleted since it began.",
        advice=f"Cancel the statement of pid {row['pid']} if it is not meant to run that long.",
        fix=call("kill_connection", f"it has been running for {duration(seconds)}", pid=row["pid"], mode="cancel"),
        impact=seconds,
    )


def _prepared(row: Row, *, blocks: bool) -> Finding:
    age = _seconds(row["age"])
    severity = Severity.MEDIUM if age >= FORGOTTEN else Severity.INFO
    return Finding(
        kind="prepared_transaction",
        severity=Severity.HIGH if blocks or age >= ENDLESS else severity,
        confidence="certain",
        subject=row["gid"],
        title=f"Prepared transaction {row['gid']!r} of {row['role']} has been open for {duration(age)}",
        evidence=(f"database {row['database']}", *(["sessions wait for a prepared transaction"] if blocks else [])),
        why="It survives restarts, keeps its locks and stops VACUUM until somebody ends it.",
        advice=f"Ask its transaction manager; else COMMIT PREPARED or ROLLBACK PREPARED it in database {row['database']}.",
        impact=age,
    )


async def horizon(seen: Observation) -> Survey:
    """Look at what keeps VACUUM from removing dead rows in the whole cluster."""
    holders = await seen.db.rows(query("horizon"))
    return Survey(tuple(_held_back(row) for row in holders[:1] if row["age"] >= OLD))


def _held_back(row: Row) -> Finding:
    age = row["age"]
    pid = int(row["name"].removeprefix("pid ")) if row["kind"] == "session" else None
    how = {
        "standby": "Find the long query on it; hot_standby_feedback passes its snapshot on.",
        "slot": "Let its consumer go on, or drop the slot if the consumer is gone.",
        "prepared transaction": "COMMIT PREPARED or ROLLBACK PREPARED ends it.",
    }
    return Finding(
        kind="vacuum_held_back",
        severity=Severity.HIGH if age >= DIRE else Severity.MEDIUM if age >= HARMFUL else Severity.INFO,
        confidence="certain",
        subject=f"{row['kind']} {row['name']}",
        title=f"VACUUM can remove nothing that was deleted in the last {count(age)} transactions",
        evidence=(f"held back by {row['kind']} {row['name']}",),
        why="Dead rows pile up in every table, and transaction ids grow old, for as long as it holds its snapshot.",
        advice=how.get(row["kind"], f"End {row['name']} if it is not meant to be open that long."),
        fix=call("kill_connection", "it holds VACUUM back", pid=pid, mode="terminate") if pid else None,
        impact=float(age),
    )
