"""get_replication_status: standbys and how far behind they are, slots and what they hold back, archiving."""

from __future__ import annotations

from opsagent_jupyter.models import Json, Result
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import sheet
from opsagent_jupyter.plugins.wording import count, duration, listing, plural, size, verb

#: Bytes and seconds from which a standby counts as lagging; bytes that an inactive slot may retain unremarked.
LAG_BYTES, LAG_SECONDS, RETAINED_BYTES = 8 * 1024 * 1024, 2.0, 64 * 1024 * 1024


@tools.read(
    phrases=(
        "show replication status",
        "is the replica lagging",
        "how far behind is the standby",
        "replication lag",
        "are the replicas in sync",
        "show replication slots",
        "which slots hold back wal",
        "is wal archiving working",
    ),
    keywords=(
        "replication",
        "replica",
        "replicas",
        "standby",
        "lag",
        "lagging",
        "slot",
        "slots",
        "wal",
        "behind",
        "archiving",
    ),
    patterns=(r"\breplica(tion|s)?\b", r"\bstandb(y|ies)\b", r"\breplication slots?\b"),
)
async def get_replication_status(db: Database) -> Result:
    """Show standbys with their lag, replication slots and the WAL they retain, and whether archiving works."""
    async with db.together() as reads:
        recovery = await reads.one(query("recovery"))
        position = (await reads.one(query("position")))["position"]
        slots = await reads.rows(query("slots"), {"position": position})
        own = await reads.one(query("standby_self")) if recovery["standby"] else None
        standbys = [] if own else await reads.rows(query("standbys"))
        archiver = await reads.one(query("archiver"))
        subscriptions = await reads.rows(query("subscriptions"))
    hidden = not recovery["reads_stats"]
    tables = [
        *([sheet("standbys", _STANDBYS, standbys, db.limits, _UNITS)] if standbys else []),
        *([sheet("slots", _SLOTS, slots, db.limits, _UNITS)] if slots else []),
        *([sheet("subscriptions", _SUBSCRIPTIONS, subscriptions, db.limits, _UNITS)] if subscriptions else []),
    ]
    return Result(
        summary=_standby_summary(own) if own else _summary(standbys, slots, hidden=hidden),
        highlights=(
            *(_standby(row) for row in standbys if row["state"]),
            *filter(None, map(_slot, slots)),
            *_archiving(archiver),
            *(await _conflicts(db) if own else []),
        ),
        tables=tuple(tables),
        figures=_figures(standbys, slots, own),
        notes=tuple(_notes(db, standbys, hidden=hidden)),
    )


_STANDBYS = (
    "standby", "client", "state", "sync", "send bytes", "flush bytes", "replay bytes", "write lag", "flush lag",
    "replay lag", "last reply", "pid",
)  # fmt: skip
_SLOTS = (
    "slot", "type", "database", "active", "wal status", "retained bytes", "safe bytes", "xmin age", "catalog xmin age",
    "inactive", "invalidation",
)  # fmt: skip
_SUBSCRIPTIONS = ("subscription", "received", "last message", "pid")
_UNITS = {
    "send bytes": "bytes", "flush bytes": "bytes", "replay bytes": "bytes", "retained bytes": "bytes",
    "safe bytes": "bytes", "write lag": "s", "flush lag": "s", "replay lag": "s", "last reply": "s", "inactive": "s",
    "last message": "s", "xmin age": "transactions", "catalog xmin age": "transactions",
}  # fmt: skip


def _lags(row: Row) -> bool:
    """Behind by bytes, or by time; the server keeps the last time for a while after the standby has caught up."""
    seconds = row["replay_lag"].total_seconds() if row["replay_lag"] and row["replay_bytes"] else 0.0
    return (row["replay_bytes"] or 0) >= LAG_BYTES or seconds >= LAG_SECONDS


def _summary(standbys: list[Row], slots: list[Row], *, hidden: bool) -> str:
    if hidden:
        text = f"{plural(len(standbys), 'standby', 'standbys')} {verb(len(standbys), 'is', 'are')} connected"
        return f"This server is a primary; {text}, but this role may not see how far behind." + _slots_said(slots)
    if not standbys:
        return "This server is a primary and no standby is connected." + _slots_said(slots)
    lagging = [row for row in standbys if _lags(row)]
    text = f"This server is a primary with {plural(len(standbys), 'standby', 'standbys')}: "
    worst = standbys[0]
    if lagging and len(standbys) == 1:
        text += f"{worst['standby']} lags, {_behind(worst)}."
    elif lagging:
        lag = verb(len(lagging), "lags", "lag")
        text += f"{count(len(lagging))} {lag}, {worst['standby']} the most, {_behind(worst)}."
    else:
        text += f"{verb(len(standbys), 'it keeps', 'all keep')} up, {worst['standby']} is {_behind(worst)}."
    return text + _slots_said(slots)


def _behind(row: Row) -> str:
    if row["replay_bytes"] is None:
        return "at an unknown position"
    lag = f" and {duration(row['replay_lag'])}" if row["replay_lag"] else ""
    return f"{size(row['replay_bytes'])}{lag} behind in replay" if row["replay_bytes"] else "not behind"


def _slots_said(slots: list[Row]) -> str:
    idle = [row for row in slots if not row["active"]]
    if not slots:
        return ""
    kept = max((row["retained_bytes"] or 0 for row in idle), default=0)
    if not idle:
        return f" {plural(len(slots), 'replication slot')}, all in use."
    which = (
        f" {count(len(idle))} of {plural(len(slots), 'replication slot')}" if len(slots) > 1 else " 1 replication slot"
    )
    retain = verb(len(idle), "is not in use and retains", "are not in use and retain")
    return f"{which} {retain} {size(kept)} of WAL."


def _standby(row: Row) -> str:
    where = "not sent" if (row["send_bytes"] or 0) > (row["replay_bytes"] or 0) / 2 else "not replayed"
    mostly = f", mostly {where} yet" if (row["replay_bytes"] or 0) >= LAG_BYTES else ""
    return f"{row['standby']} ({row['client']}): {row['state']}, {row['sync']}, {_behind(row)}{mostly}."


def _slot(row: Row) -> str:
    if row["wal_status"] == "lost" or row["invalidation"]:
        reason = f" ({row['invalidation']})" if row["invalidation"] else ""
        return f"Slot {row['slot']} is lost{reason}: its consumer must be built anew, and the slot can be dropped."
    if row["active"]:
        return ""
    since = f" for {duration(row['inactive'])}" if row["inactive"] else ""
    kept = f", retains {size(row['retained_bytes'])} of WAL" if row["retained_bytes"] else ""
    age = max(row["xmin_age"] or 0, row["catalog_xmin_age"] or 0)
    held = f" and holds VACUUM back by {plural(age, 'transaction')}" if age else ""
    return f"Slot {row['slot']} ({row['type']}) is not in use{since}{kept}{held}: drop it if its consumer is gone."


def _archiving(row: Row) -> list[str]:
    if row["mode"] == "off":
        return []
    if row["failing"]:
        failed = f"{row['last_failed_wal']}, {duration(row['since_failed'])} ago"
        return [f"Archiving fails ({failed}): WAL piles up until it works."]
    if row["since_archived"] is None:
        return ["Archiving is on, and nothing has been archived yet."]
    last = f"the last segment {duration(row['since_archived'])} ago, {plural(row['failed'], 'failure')} so far"
    return [f"Archiving works: {last}."]


def _standby_summary(own: Row) -> str:
    source = f" from {own['sender']}" if own["sender"] else ""
    if own["receiver"] is None:
        since = f"; the last change it applied is {duration(own['since_replay'])} old" if own["since_replay"] else ""
        return (
            f"This server is a standby and receives nothing: no WAL receiver runs, or this role may not see it{since}."
        )
    text = f"This server is a standby, {own['receiver']}{source}"
    if own["paused"]:
        return f"{text}; replay is PAUSED, {size(own['behind_bytes'] or 0)} wait to be applied."
    if not own["behind_bytes"] and own["receiver"] == "streaming":
        return f"{text}; everything received is applied."
    since = f", the last change it applied is {duration(own['since_replay'])} old" if own["since_replay"] else ""
    return f"{text}; {size(own['behind_bytes'] or 0)} received are not applied yet{since}."


async def _conflicts(db: Database) -> list[str]:
    found = await db.rows(query("conflicts"))
    number = found[0]["conflicts"] if found else 0
    return [f"{plural(number, 'query', 'queries')} here had to give way to replay so far."] if number else []


def _figures(standbys: list[Row], slots: list[Row], own: Row | None) -> dict[str, Json]:
    figures: dict[str, Json] = {
        "standbys": len(standbys),
        "lagging": sum(map(_lags, standbys)),
        "slots": len(slots),
        "inactive_slots": sum(not row["active"] for row in slots),
        "retained_bytes": max((row["retained_bytes"] or 0 for row in slots), default=0),
    }
    return figures | ({"behind_bytes": own["behind_bytes"]} if own else {})


def _notes(db: Database, standbys: list[Row], *, hidden: bool) -> list[str]:
    notes = []
    if hidden:
        notes.append(f"Rights are missing to see lag: GRANT pg_monitor TO {db.server.role}.")
    if any(row["state"] and row["replay_lag"] is None for row in standbys):
        quiet = listing([row["standby"] for row in standbys if row["replay_lag"] is None])
        notes.append(f"No time lag is known for {quiet}: it is measured only while WAL flows; the bytes are exact.")
    return notes
