"""What is looked at before any change is proposed: rights, the state of the table, and who is in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opsagent_jupyter.errors import MissingRight, PreconditionFailed
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import who
from opsagent_jupyter.plugins.postgresql.lock_modes import ORDER, spelled
from opsagent_jupyter.plugins.postgresql.measures import measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.wording import count, duration, listing, plural, size

#: Bytes from which a table counts as large: changes that read all of it are one risk level higher.
LARGE = 10 * 1024**3
#: Bytes and seconds of replay lag from which a change that writes much WAL is one level higher.
LAG_BYTES, LAG_SECONDS = 256 * 1024**2, 30.0


@dataclass(frozen=True)
class Target:
    """The table that a change is about, with its measures."""

    relation: names.Relation
    row: Row

    @property
    def rows(self) -> float:
        """Live rows, -1 when nobody knows."""
        known = max(self.row["live"] or 0, self.row["counted"])
        return float(known)

    @property
    def heap(self) -> int:
        """Bytes of the table with TOAST, without indexes."""
        return int(self.row["table_bytes"])

    @property
    def measures(self) -> str:
        """``200,000 rows, 14 MB``."""
        rows = plural(self.rows, "row") if self.rows >= 0 else "never analysed"
        return f"{rows}, {size(self.heap)}"


async def target(db: Database, relation: names.Relation) -> Target:
    """Measure a table; a partitioned one is the sum of its partitions."""
    rows = await measured(db, "tables", {"table": relation.oid, "limit": 10_000})
    own = next(row for row in rows if row["oid"] == relation.oid)
    if relation.kind != "p":
        return Target(relation, own)
    leaves = [row for row in rows if row["kind"] != "p"]
    summed = {
        key: sum(row[key] or 0 for row in leaves) for key in ("table_bytes", "index_bytes", "live", "dead", "writes")
    }
    return Target(relation, {**own, **summed, "counted": sum(max(row["counted"], 0) for row in leaves)})


async def rights(db: Database, relation: names.Relation) -> Row:
    """What our role may do with a table; refuses at once on a standby and for other sessions' temporary tables."""
    found = await db.one(query("change_rights"), {"table": relation.oid, "maintain": db.server.major >= 17})
    if found["standby"]:
        raise PreconditionFailed("This server is a standby: it only reads.", hint="Attach the primary and ask there.")
    if relation.persistence == "t":
        raise PreconditionFailed(
            f"{relation.shown} is a temporary table of another session, which only that session can change."
        )
    return found


def must_own(db: Database, relation: names.Relation, found: Row) -> None:
    """Refuse unless our role has the owner's rights."""
    if not found["owns"]:
        raise MissingRight(
            f"Role {db.server.role} does not own {relation.shown}; {relation.owner} does.",
            hint=f"GRANT {relation.owner} TO {db.server.role}, or attach a role that owns it.",
            right=f"ownership of {relation.written}",
        )


def must_maintain(
    db: Database, relation: names.Relation, found: Row, command: str, *, database_owner: bool = True
) -> None:
    """Refuse unless our role may maintain the table; VACUUM and ANALYZE would only warn and skip it.

    The owner of the database may vacuum and analyse any table of it that is not the system's, but reindex none.
    """
    if found["owns"] or found["maintains"]:
        return
    if database_owner and found["owns_database"] and relation.schema != "pg_catalog":
        return
    role = db.server.role
    grant = (
        f"GRANT MAINTAIN ON {relation.written} TO {role}"
        if db.server.major >= 17
        else f"GRANT {relation.owner} TO {role}"
    )
    raise MissingRight(
        f"Role {role} may not {command} {relation.shown}, which {relation.owner} owns.",
        hint=f"{grant}, or attach a role that may.",
        right=f"MAINTAIN on {relation.written}" if db.server.major >= 17 else f"ownership of {relation.written}",
    )


def must_not_be_system(relation: names.Relation, command: str) -> None:
    """Refuse to touch the catalog."""
    if relation.is_system:
        raise PreconditionFailed(f"{relation.shown} belongs to the system: {command} is not offered for it.")


async def waits(
    db: Database, relation: names.Relation, modes: Sequence[str], *, snapshots: bool = False
) -> tuple[str, ...]:
    """The transactions that a statement would wait for, one line each."""
    values = {"table": relation.oid, "modes": list(modes), "snapshots": snapshots}
    rows = await db.rows(query("in_the_way"), values)
    lines = [_line(row, relation) for row in rows[:8]]
    return (*lines, *([f"and {len(rows) - 8} more"] if len(rows) > 8 else []))


def _line(row: Row, relation: names.Relation) -> str:
    if row["pid"] is None:
        return f"a prepared transaction that holds a lock on {relation.shown}"
    worst = max(row["modes"] or (), key=ORDER.index, default="")
    holds = f"holds {spelled(worst)} on {relation.shown}" if worst else "its snapshot is older"
    state = f", {row['state']} for {duration(row['in_state'])}" if row["state"] and row["in_state"] is not None else ""
    kind = f" {row['kind']}" if row["kind"] not in (None, "client backend") else ""
    age = f", transaction {duration(row['transaction'])} old" if row["transaction"] else ""
    return f"pid {row['pid']}{kind} ({who(row['role'], row['application'])}){state}{age}, {holds}"


async def blind_spots(db: Database) -> tuple[str, ...]:
    """A caution when our role cannot see whether other sessions are in the way."""
    if (await db.one(query("rights")))["reads_stats"]:
        return ()
    return (
        f"Role {db.server.role} does not see other roles' transactions, so more may be in the way (GRANT pg_monitor).",
    )


async def lagging(db: Database) -> tuple[str, ...]:
    """Why standbys raise the risk of a change that writes much WAL: nothing, or one reason. Unknown lag counts as lag."""
    rows = await db.rows(query("standbys"))
    if any(row["state"] is None for row in rows):
        return (f"a standby is connected, and role {db.server.role} may not see whether it lags (GRANT pg_monitor)",)
    late = [row for row in rows if _is_late(row)]
    if not late:
        return ()
    return (f"{listing([row['standby'] for row in late])} lags already, up to {size(late[0]['replay_bytes'] or 0)}",)


def _is_late(row: Row) -> bool:
    """Behind by bytes, or by time; the server keeps the last time for a while after the standby has caught up."""
    behind = row["replay_bytes"] or 0
    return behind > LAG_BYTES or bool(behind and row["replay_lag"] and row["replay_lag"].total_seconds() > LAG_SECONDS)


def estimated(seconds: float, basis: str, waiting: Sequence[str]) -> str:
    """A duration that says that it is an estimate, and what it leaves out."""
    about = "under 1 s" if seconds < 1 else f"about {duration(seconds)}"
    wait = f", plus the wait for {plural(len(waiting), 'transaction')}" if waiting else ""
    return f"{about} (estimate from {basis}; longer under load){wait}"


def large(measure: Target) -> tuple[str, ...]:
    """Why size raises the risk: nothing, or one reason."""
    return (
        (f"the table is large ({size(measure.heap)}, {count(max(measure.rows, 0))} rows)",)
        if measure.heap >= LARGE
        else ()
    )
