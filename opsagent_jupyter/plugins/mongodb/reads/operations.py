"""get_current_ops: what runs now on every member, what waits, and what runs too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from opsagent_jupyter.errors import MissingRight
from opsagent_jupyter.models import Json, Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import shapes
from opsagent_jupyter.plugins.mongodb.connection import MARK, SHARDED, Database, Document
from opsagent_jupyter.plugins.mongodb.members import everywhere, one_member_note, silent_notes
from opsagent_jupyter.plugins.mongodb.sheets import sheet
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note
from opsagent_jupyter.plugins.wording import duration, listing, plural, verb

#: Seconds from which an operation is worth a remark, and from which ending it is offered.
LONG, TOO_LONG = 5.0, 30.0

#: Work of the server for itself and of drivers that wait for news: it looks long and is none.
_NO_WORK = ("hello", "isMaster", "ismaster", "replSetUpdatePosition", "replSetHeartbeat", "awaitable")
#: Our own commands that are work: a build of ours is shown like anybody's.
_OUR_WORK = ("createIndexes", "dropIndexes", "collMod", "compact", "reIndex")


@tools.read(
    phrases=(
        "what is running right now",
        "show the current operations",
        "which operations are running long",
        "is anything waiting for a lock",
        "show the long running operations",
        "show running index builds",
        "long running queries",
    ),
    keywords=("operations", "ops", "running", "current", "waiting", "lock", "long", "opid", "busy", "stuck"),
    patterns=(r"\bcurrentOp\b", r"\bcurrent\s+op(s|erations?)?\b", r"\brunning\b"),
)
async def get_current_ops(
    db: Database,
    seconds: Annotated[int, Arg("show operations that run at least so many seconds", slot="number", example="5")] = 0,
) -> Result:
    """Show the operations that run now on every member, the longest first, with what they wait for; not our own."""
    rows, notes = await running(db)
    rows = [row for row in rows if row["running"] >= max(0, seconds)]
    page = sheet("operations", _COLUMNS, rows, db.limits, {"running": "s", "progress": "%"})
    long = [row for row in rows if row["running"] >= LONG and not row["build"]]
    waiting = [row for row in rows if row["waits"]]
    builds = [row for row in rows if row["build"]]
    return Result(
        summary=_summary(rows, long, waiting, builds),
        highlights=(
            *(_build(row) for row in builds[:3]),
            *(f"{_line(row)}, waits for a lock." for row in waiting[:5]),
            *(f"{_line(row)}." for row in long[:8] if not row["waits"]),
        ),
        tables=(page,),
        figures={"operations": len(rows), "long": len(long), "waiting": len(waiting), "index_builds": len(builds)},
        notes=(*notes, *cut_note(page), *one_member_note(db)),
        suggestions=tuple(_kill(row) for row in long if row["running"] >= TOO_LONG and row["killable"])[:3],
    )


_COLUMNS = (
    "opid", "member", "running", "operation", "namespace", "command", "plan", "waits", "user", "application", "client",
    "comment", "progress",
)  # fmt: skip


async def running(db: Database) -> tuple[list[Document], tuple[str, ...]]:
    """Operations of everybody but ourselves, the longest first; without the right to all, those of our own user."""
    narrowed = False

    async def ask(member: str) -> list[Document]:
        nonlocal narrowed
        try:
            return await _asked(db, member, everybody=True)
        except MissingRight:
            narrowed = True
            return await _asked(db, member, everybody=False)

    answers = await everywhere(db, ask)
    rows = [row_of(each, answer.member, db) for answer in answers for each in answer.found or () if _is_work(each, db)]
    rows.sort(key=lambda row: -row["running"])
    hidden = "Only operations of our own user are visible: grant it clusterMonitor on admin to see all."
    return rows, (*((hidden,) if narrowed else ()), *silent_notes(answers))


async def _asked(db: Database, member: str, *, everybody: bool) -> list[Document]:
    look: Document = {"allUsers": everybody, "idleConnections": False, "truncateOps": False}
    if db.server.topology == SHARDED:
        look["localOps"] = False
    command = {"aggregate": 1, "pipeline": [{"$currentOp": look}], "cursor": {}}
    return await db.documents("admin", command, member=member, action="inprog")


def _is_work(each: Document, db: Database) -> bool:
    command = each.get("command") or {}
    first = shapes.command_name(command)
    if each.get("op") == "none" and not each.get("msg"):
        return False
    if first in _NO_WORK or str(each.get("ns", "")).startswith("local.oplog"):
        return False
    ours = str(command.get("comment", "")).startswith(f"{MARK} ") and each.get("appName") == f"opsagent:{db.name}"
    return not ours or first in _OUR_WORK


def row_of(each: Document, member: str, db: Database) -> Document:
    """An operation as a row: what it is without its values, and who runs it."""
    command = each.get("command") or {}
    progress = each.get("progress") or {}
    done, total = progress.get("done"), progress.get("total")
    users = each.get("effectiveUsers") or ()
    build = "createIndexes" in command or str(each.get("desc", "")).startswith("IndexBuildsCoordinator")
    return {
        "opid": each.get("opid"),
        "member": member if len(db.server.hosts) > 1 else each.get("shard", ""),
        "running": round(each.get("microsecs_running", 0) / 1_000_000, 3),
        "operation": each.get("op", ""),
        "namespace": each.get("ns", ""),
        "command": shapes.shown(_origin(each)),
        "plan": _plan(each),
        "waits": "lock" if each.get("waitingForLock") else "flow control" if each.get("waitingForFlowControl") else "",
        "user": ", ".join(f"{user['user']}@{user['db']}" for user in users),
        "application": each.get("appName", ""),
        "client": str(each.get("client") or each.get("client_s") or ""),
        "comment": str(command.get("comment", ""))[:100],
        "progress": round(100 * done / total, 1) if done is not None and total else None,
        "build": build,
        "message": each.get("msg", ""),
        "killable": bool(each.get("client") or each.get("client_s")) and not build,
    }


def _origin(each: Document) -> Document:
    """A getMore says nothing of its query; the cursor remembers it."""
    command = each.get("command") or {}
    origin = (each.get("cursor") or {}).get("originatingCommand")
    return dict(origin) if origin and "getMore" in command else dict(command)


def _plan(each: Document) -> str:
    return str(each.get("planSummary") or "")[:200]


# -- words


def _summary(
    rows: Sequence[Document], long: Sequence[Document], waiting: Sequence[Document], builds: Sequence[Document]
) -> str:
    if not rows:
        return "Nothing runs right now but our own look."
    parts = [f"{plural(len(rows), 'operation')} {verb(len(rows), 'runs', 'run')} now"]
    parts += [f"{len(long)} longer than {duration(LONG)} (the longest {duration(long[0]['running'])})"] if long else []
    parts += [f"{len(waiting)} waiting"] if waiting else []
    parts += [plural(len(builds), "index build")] if builds else []
    return listing(parts, 4) + "."


def _line(row: Document) -> str:
    who = " ".join(filter(None, [row["application"], f"({row['user']})" if row["user"] else ""])) or row["client"]
    where = f" on {row['member']}" if row["member"] else ""
    plan = f", {row['plan']}" if row["plan"] else ""
    return (
        f"opid {row['opid']}{where}: {row['command']} runs {duration(row['running'])}{plan}, by {who or 'the server'}"
    )


def _build(row: Document) -> str:
    share = f", {row['progress']:.0f} %" if row["progress"] is not None else ""
    message = f": {row['message']}" if row["message"] else ""
    return f"An index of {row['namespace']} is being built for {duration(row['running'])}{share}{message}."


def _kill(row: Document) -> Suggestion:
    arguments: dict[str, Json] = {"opid": str(row["opid"])}
    if ":" in row["member"]:
        arguments["member"] = row["member"]
    return Suggestion(
        tool="mongodb.kill_operation",
        arguments=arguments,
        why=f"it runs {duration(row['running'])} on {row['namespace']}",
    )
