"""get_locks: who blocks whom, walked up to the session at the root."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import brief, shown, who
from opsagent_jupyter.plugins.postgresql.lock_modes import spelled
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note, sheet
from opsagent_jupyter.plugins.wording import duration, listing, plural, verb

#: What pg_blocking_pids calls a prepared transaction, which has no process.
PREPARED = 0
#: Lines of the tree.
LINES = 60


@dataclass(frozen=True)
class Forest:
    """Sessions by pid, and who waits for whom."""

    sessions: dict[int, Row]
    waiters: dict[int, list[int]]
    """Blocker to the sessions that wait for it."""

    @property
    def roots(self) -> list[int]:
        """Those who block and wait for nobody, the one that blocks most first; a deadlock's members if there are none."""
        blockers = [pid for pid in self.waiters if not (self.sessions.get(pid) or {}).get("blocked_by")]
        return sorted(blockers or list(self.waiters), key=lambda pid: (-len(self.below(pid)), pid))

    def below(self, pid: int) -> set[int]:
        """Everybody who waits for a session, directly or through others."""
        found: set[int] = set()
        todo = [pid]
        while todo:
            fresh = [waiter for waiter in self.waiters.get(todo.pop(), []) if waiter not in found]
            found.update(fresh)
            todo.extend(fresh)
        return found - {pid}


@tools.read(
    phrases=(
        "who is blocking whom",
        "show locks",
        "are there any blocked queries",
        "what is blocking pid {pid}",
        "find the root blocker",
        "which sessions are waiting for a lock",
        "why is my update hanging",
        "is anything stuck",
        "lock contention",
    ),
    keywords=(
        "lock",
        "locks",
        "locked",
        "block",
        "blocked",
        "blocking",
        "blocker",
        "waiting",
        "stuck",
        "hanging",
        "deadlock",
    ),
    patterns=(r"\bblock(s|ed|ing|er|ers)?\b", r"\bpg_(locks|blocking_pids)\b", r"\block(s|ed|ing)?\b"),
)
async def get_locks(db: Database) -> Result:
    """Show which sessions wait for locks, who blocks them, and the session at the root of each chain."""
    rows = await db.rows(query("locks"))
    for row in rows:
        row["query"] = shown(row["query"])
    forest = forest_of(rows)
    if not forest.waiters:
        return await _quiet(db)
    prepared = await db.rows(query("prepared_transactions")) if PREPARED in forest.waiters else []
    held = await db.rows(query("held_locks"), {"pids": forest.roots})
    waiting = [row for row in rows if row["blocked_by"]]
    page = sheet("sessions", _COLUMNS, rows, db.limits, {"transaction": "s", "waiting": "s", "in state": "s"})
    return Result(
        summary=_summary(forest, waiting),
        highlights=(*(_root(forest, pid, held, prepared) for pid in forest.roots[:5]), *map(_waiter, waiting[:8])),
        tables=(page,),
        tree=_tree(forest),
        figures={"waiting": len(waiting), "roots": [pid for pid in forest.roots if pid != PREPARED]},
        notes=(*_notes(db, rows), *cut_note(page)),
        suggestions=tuple(_kill(forest, pid) for pid in forest.roots[:3] if _can_be_killed(forest, pid)),
    )


_COLUMNS = (
    "pid", "blocked by", "role", "application", "state", "waits for", "lock", "mode", "relation", "waiting",
    "transaction", "in state", "query",
)  # fmt: skip


def forest_of(rows: list[Row]) -> Forest:
    """Order the sessions of a look at the locks by who waits for whom."""
    waiters: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        for blocker in dict.fromkeys(row["blocked_by"]):
            waiters[blocker].append(row["pid"])
    return Forest({row["pid"]: row for row in rows}, dict(waiters))


async def _quiet(db: Database) -> Result:
    exclusive = await db.rows(query("exclusive_locks"))
    page = sheet("exclusive locks", ("pid", "relation", "role", "application", "transaction"), exclusive, db.limits)
    held = [f"{row['relation']} by pid {row['pid']} ({who(row['role'], row['application'])})" for row in exclusive]
    text = f" Held exclusively, so that the next to ask would wait: {listing(held)}." if held else ""
    return Result(
        summary=f"No session waits for a lock.{text}",
        tables=(page,) if exclusive else (),
        figures={"waiting": 0, "roots": []},
    )


def _summary(forest: Forest, waiting: list[Row]) -> str:
    root = forest.roots[0]
    victims = len(forest.below(root))
    text = f"{plural(len(waiting), 'session')} {verb(len(waiting), 'waits', 'wait')} for a lock."
    return (
        f"{text} The root is {_name(forest, root)}{_state(forest, root)}; it holds up {plural(victims, 'session')}"
        f"{_through(forest, root)}."
    )


def _through(forest: Forest, root: int) -> str:
    relations = [forest.sessions[pid]["relation"] for pid in forest.below(root) if pid in forest.sessions]
    named = sorted({relation for relation in relations if relation})
    return f" on {listing(named)}" if named else ""


def _name(forest: Forest, pid: int) -> str:
    if pid == PREPARED:
        return "a prepared transaction"
    row = forest.sessions.get(pid)
    return f"pid {pid} ({who(row['role'], row['application'])})" if row else f"pid {pid}"


def _state(forest: Forest, pid: int) -> str:
    row = forest.sessions.get(pid)
    if row is None or row["state"] is None:
        return ""
    since = row["in_state"] if row["state"] != "active" else row["transaction"]
    return f", {row['state']} for {duration(since)}" if since else f", {row['state']}"


def _root(forest: Forest, pid: int, held: list[Row], prepared: list[Row]) -> str:
    if pid == PREPARED:
        names = listing([f"{row['gid']!r} of {row['role']}, {duration(row['age'])} old" for row in prepared])
        return f"A prepared transaction blocks and cannot be killed: {names}. COMMIT PREPARED or ROLLBACK PREPARED ends it."
    locks = [f"{spelled(row['mode'])} on {row['relation']}" for row in held if row["pid"] == pid]
    holds = f"; holds {listing(locks)}" if locks else ""
    row = forest.sessions.get(pid) or {}
    which = "running" if row.get("state") == "active" else "last"
    last = f"; {which} statement: {brief(row['query'])}" if row.get("query") else ""
    return f"Root blocker {_name(forest, pid)}{_state(forest, pid)}{holds}{last}."


def _waiter(row: Row) -> str:
    blockers = dict.fromkeys(row["blocked_by"])
    by = listing(["a prepared transaction" if pid == PREPARED else f"pid {pid}" for pid in blockers])
    waited = f" for {duration(row['waiting'])}" if row["waiting"] else ""
    session = f"pid {row['pid']} ({who(row['role'], row['application'])})"
    return f"{session} waits{waited} for {_wanted(row)}, held up by {by}: {brief(row['query'])}."


def _wanted(row: Row) -> str:
    if row["lock"] in ("transactionid", "tuple"):
        return f"a row of {row['relation']}" if row["relation"] else "a row that another transaction changed"
    if row["relation"]:
        return f"{spelled(row['mode'])} on {row['relation']}"
    return f"a lock of type {row['lock'] or 'unknown'}"


def _tree(forest: Forest) -> str:
    lines: list[str] = []
    for root in forest.roots:
        _branch(forest, root, "", lines, set())
    return "\n".join([*lines[:LINES], *([f"… {len(lines) - LINES} more"] if len(lines) > LINES else [])])


def _branch(forest: Forest, pid: int, indent: str, lines: list[str], seen: set[int]) -> None:
    row = forest.sessions.get(pid)
    waits = f", waits for {_wanted(row)}" if row and row["blocked_by"] else ""
    text = f": {brief(row['query'], 80)}" if row and row["query"] else ""
    lines.append(f"{indent}{_name(forest, pid)}{_state(forest, pid)}{waits}{text}")
    for waiter in sorted(forest.waiters.get(pid, [])):
        if waiter not in seen:
            _branch(forest, waiter, f"{indent}  ", lines, seen | {pid, waiter})


def _notes(db: Database, rows: list[Row]) -> list[str]:
    if all(row["kind"] for row in rows):
        return []
    return [f"Details of other roles' sessions are hidden: GRANT pg_read_all_stats TO {db.server.role} to see them."]


def _can_be_killed(forest: Forest, pid: int) -> bool:
    row = forest.sessions.get(pid)
    return row is not None and row["kind"] == "client backend" and not row["leader"]


def _kill(forest: Forest, pid: int) -> Suggestion:
    active = forest.sessions[pid]["state"] == "active"
    return Suggestion(
        tool="postgresql.kill_connection",
        arguments={"pid": pid, "mode": "cancel" if active else "terminate"},
        why=f"it is the root blocker of {plural(len(forest.below(pid)), 'session')}",
    )
