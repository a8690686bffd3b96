"""get_table_stats: size, rows, dead rows, bloat, and what VACUUM and ANALYZE owe each table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from opsagent_jupyter.models import Json, Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.measures import locked_note, measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import sheet
from opsagent_jupyter.plugins.wording import count, listing, percent, plural, size, verb

#: Share and bytes of a table from which its estimated bloat is reported.
BLOATED_SHARE, BLOATED_BYTES = 0.3, 1024 * 1024
#: Share of live rows, and rows, from which dead rows are reported before autovacuum's own threshold.
DEAD_SHARE, DEAD_ROWS = 0.2, 1_000
#: Share of the way to a forced anti-wraparound VACUUM that is reported; age at which writes stop.
WRAPAROUND_SHARE, WRAPAROUND_END = 0.9, 2**31
#: Bytes of a row beside its columns (header and line pointer), and of a page.
_ROW, _PAGE = 28, 24


@dataclass(frozen=True)
class TableState:
    """One table and what was found about it."""

    row: Row
    findings: tuple[str, ...]
    remedy: str = ""
    """vacuum, analyze, or nothing."""
    bloat: float | None = None
    """Estimated bytes of the table that hold nothing; None when it cannot be told."""

    @property
    def name(self) -> str:
        return str(self.row["table"])

    @property
    def bytes(self) -> int:
        """Table, TOAST and indexes together."""
        return int(self.row["table_bytes"] + self.row["index_bytes"])


@tools.read(
    phrases=(
        "show table statistics",
        "how big is {table}",
        "which tables are bloated",
        "how many rows does {table} have",
        "which tables need vacuum",
        "show the largest tables",
        "when was {table} last vacuumed",
        "how many dead rows are in {table}",
        "is transaction id wraparound a danger",
    ),
    keywords=(
        "table",
        "tables",
        "size",
        "big",
        "largest",
        "rows",
        "dead",
        "bloat",
        "bloated",
        "vacuumed",
        "wraparound",
        "stats",
    ),
    patterns=(
        r"\bbloat(ed)?\b",
        r"\bdead (rows|tuples)\b",
        r"\bwraparound\b",
        r"\bhow (big|large)\b(?!.*\bind(ex|exes|ices)\b)",
    ),
)
async def get_table_stats(
    db: Database,
    table: Annotated[str, Arg("only this table, with its partitions", slot="table", example="orders")] = "",
    limit: Annotated[int, Field(ge=1, le=500), Arg("how many tables, the largest first", slot="number")] = 20,
) -> Result:
    """Show size, rows, dead rows, estimated bloat and vacuum state of the largest tables, or of one table."""
    async with db.together() as reads:
        relation = await names.table(reads, table, kinds=("r", "p", "m")) if table else None
        settings = await reads.one(query("vacuum_settings"))
        states = await examined(reads, relation.oid if relation else None, 500 if relation else limit, settings)
        holders = await reads.rows(query("horizon")) if any(state.row["dead"] for state in states) else []
    rows = [state.row for state in states]
    page = sheet("tables", _COLUMNS, [_line(state) for state in states], db.limits, _UNITS)
    sick = sorted((state for state in states if state.findings), key=lambda state: (state.remedy == "", -state.bytes))
    return Result(
        summary=_one(states, relation) if relation else _all(states, sick),
        highlights=tuple(f"{state.name}: {'; '.join(state.findings)}." for state in sick[:10]),
        tables=(page,),
        figures=_figures(states),
        notes=tuple(_notes(db, states, settings, holders)) + locked_note(rows, "tables"),
        suggestions=tuple(filter(None, map(_suggestion, sick[:6]))),
    )


async def examined(db: Database, table: int | None, limit: int, settings: Row) -> list[TableState]:
    """Return the largest tables, or one table by its OID with its partitions, each with what was found about it."""
    rows = await measured(db, "tables", {"table": table, "limit": limit})
    known = {row["oid"]: row for row in await db.rows(query("table_widths"), {"oids": [row["oid"] for row in rows]})}
    return [_state(row, known.get(row["oid"]), settings, db.server.block_size) for row in rows]


_COLUMNS = (
    "table", "rows", "table bytes", "index bytes", "toast bytes", "dead", "dead share", "bloat bytes", "last vacuum",
    "last analyze", "modified", "seq scans", "index scans", "xid age", "findings",
)  # fmt: skip
_UNITS = {
    "table bytes": "bytes", "index bytes": "bytes", "toast bytes": "bytes", "bloat bytes": "bytes", "dead share": "%",
    "xid age": "transactions",
}  # fmt: skip


def _rows(row: Row) -> float:
    """The best count there is: the planner's, or the statistics collector's while the planner has none; -1 unknown."""
    if row["counted"] >= 0 and (row["counted"] or row["pages"]):
        return float(row["counted"])
    return float(row["live"]) if row["live"] else -1.0


def _alive(row: Row) -> float:
    """Live rows, rounded up: both counts lag, the planner's by design, the collector's after bulk changes."""
    return float(max(row["live"] or 0, row["counted"], 0))


def _state(row: Row, known: Row | None, settings: Row, block: int) -> TableState:
    bloat = _bloat(row, known, block)
    findings = [*_dead(row, settings), *_bloated(row, bloat), *_stale(row, settings), *_aged(row, settings)]
    remedies = [remedy for remedy, _ in findings]
    remedy = next((each for each in ("vacuum", "analyze") if each in remedies), "")
    said = tuple(text for _, text in findings)
    if row["vacuuming"]:
        return TableState(row, (*said, "VACUUM is working on it right now"), "", bloat)
    return TableState(row, said, remedy, bloat)


def _option(row: Row, settings: Row, option: str, setting: str) -> float:
    return float(row["options"].get(option, settings[setting]))


def _dead(row: Row, settings: Row) -> list[tuple[str, str]]:
    dead, rows = row["dead"] or 0, max(_rows(row), 0)
    threshold = _option(row, settings, "autovacuum_vacuum_threshold", "threshold")
    threshold += _option(row, settings, "autovacuum_vacuum_scale_factor", "scale") * rows
    if settings["max_threshold"] and settings["max_threshold"] > 0:
        threshold = min(threshold, settings["max_threshold"])
    if dead < min(threshold, DEAD_ROWS + DEAD_SHARE * rows):
        return []
    text = f"{count(dead)} dead rows ({percent(dead, dead + _alive(row))} of all)"
    if row["options"].get("autovacuum_enabled") in ("false", "off") or not settings["autovacuum"]:
        text += ", and autovacuum is switched off for it"
    return [("vacuum", text)]


def _bloated(row: Row, bloat: float | None) -> list[tuple[str, str]]:
    own = row["table_bytes"] - (row["toast_bytes"] or 0)
    if bloat is None or bloat < max(BLOATED_BYTES, BLOATED_SHARE * own):
        return []
    share = f"about {size(bloat)} of its {size(own)} hold no live row ({percent(bloat, own)}, estimate)"
    return [("bloat", f"{share}; VACUUM lets new rows use it, only VACUUM FULL gives it back")]


def _stale(row: Row, settings: Row) -> list[tuple[str, str]]:
    rows = max(_rows(row), 0)
    if row["kind"] == "p":
        whole = row["last_analyze"] or row["counted"] > 0
        return [] if whole else [("analyze", "never analysed as a whole: autovacuum leaves partitioned parents out")]
    if row["last_analyze"] is None and row["counted"] < 0 and (row["live"] or row["pages"]):
        return [("analyze", "never analysed, so the planner guesses")]
    threshold = _option(row, settings, "autovacuum_analyze_threshold", "analyze_threshold")
    threshold += _option(row, settings, "autovacuum_analyze_scale_factor", "analyze_scale") * rows
    if (row["modified"] or 0) < max(threshold, 1):
        return []
    return [("analyze", f"{count(row['modified'])} rows changed since the last ANALYZE")]


def _aged(row: Row, settings: Row) -> list[tuple[str, str]]:
    limit = _option(row, settings, "autovacuum_freeze_max_age", "freeze_max_age")
    age = max(row["xid_age"] or 0, row["toast_xid_age"] or 0)
    found = []
    if row["kind"] != "p" and age >= WRAPAROUND_SHARE * limit:
        left = max(WRAPAROUND_END - age, 0)
        found.append(("vacuum", f"its oldest row is {count(age)} transactions old, {count(left)} before writes stop"))
    if (row["multixact_age"] or 0) >= WRAPAROUND_SHARE * settings["multixact_max_age"]:
        found.append(("vacuum", f"its oldest multixact is {count(row['multixact_age'])} old"))
    return found


def _bloat(row: Row, known: Row | None, block: int) -> float | None:
    """Bytes of the heap beyond what its rows need, by the planner's statistics."""
    if known is None or row["kind"] == "p" or not row["pages"] or _rows(row) < 0:
        return None
    header = _ROW + (math.ceil(known["columns"] / 8 / 8) * 8 if known["has_nulls"] else 0)
    each = header + math.ceil((known["width"] or 0) / 8) * 8
    usable = (block - _PAGE) * float(row["options"].get("fillfactor", 100)) / 100
    pages = max(row["pages"], 0 if row["locked"] else (row["table_bytes"] - (row["toast_bytes"] or 0)) / block)
    return max(0.0, float(pages - math.ceil(_alive(row) * each / usable)) * block)


def _line(state: TableState) -> Row:
    row, rows = state.row, _rows(state.row)
    dead, live = row["dead"] or 0, _alive(row)
    return {
        **row,
        "rows": round(rows) if rows >= 0 else None,
        "dead_share": 100 * dead / (dead + live) if dead + live else 0.0,
        "bloat_bytes": None if state.bloat is None else round(state.bloat),
        "findings": "; ".join(state.findings),
    }


def _figures(states: list[TableState]) -> dict[str, Json]:
    return {
        "tables": len(states),
        "bytes": sum(state.bytes for state in states),
        "dead_rows": sum(state.row["dead"] or 0 for state in states if state.row["kind"] != "p"),
        "bloat_bytes": round(sum(state.bloat or 0 for state in states)),
        "need_vacuum": sum(state.remedy == "vacuum" for state in states),
        "need_analyze": sum(state.remedy == "analyze" for state in states),
    }


def _all(states: list[TableState], sick: list[TableState]) -> str:
    if not states:
        return "There are no tables in this database."
    largest = max(states, key=lambda state: state.bytes)
    total = sum(state.bytes for state in states)
    text = f"{plural(len(states), 'table')}, {size(total)} with indexes."
    text += f" The largest is {largest.name}: {_measures(largest)}."
    if not sick:
        return f"{text} None needs attention."
    needs = f"{count(len(sick))} {verb(len(sick), 'needs', 'need')} attention"
    return f"{text} {needs}, first {sick[0].name}: {'; '.join(sick[0].findings)}."


def _one(states: list[TableState], relation: names.Relation) -> str:
    own = next(state for state in states if state.row["oid"] == relation.oid)
    parts = [state for state in states if state is not own]
    if parts:
        rows = sum(max(_rows(state.row), 0) for state in parts)
        total = sum(state.bytes for state in states)
        text = (
            f"{own.name} has {plural(len(parts), 'partition')} with about {plural(rows, 'row')}, {size(total)} in all."
        )
        sick = [state for state in (own, *parts) if state.findings]
        return f"{text} {count(len(sick))} of them {verb(len(sick), 'needs', 'need')} attention." if sick else text
    last = own.row["last_vacuum"]
    vacuumed = f"It was last vacuumed {last:%Y-%m-%d %H:%M} UTC." if last else "It was never vacuumed."
    found = f" Attention: {'; '.join(own.findings)}." if own.findings else " Nothing needs attention."
    return f"{own.name}: {_measures(own)}. {vacuumed}{found}"


def _measures(state: TableState) -> str:
    row, rows = state.row, _rows(state.row)
    counted = f"about {plural(rows, 'row')}" if rows >= 0 else "an unknown number of rows"
    toast = f", {size(row['toast_bytes'])} of it TOAST" if row["toast_bytes"] else ""
    return f"{counted}, table {size(row['table_bytes'])}{toast}, indexes {size(row['index_bytes'])}"


def _notes(db: Database, states: list[TableState], settings: Row, holders: list[Row]) -> list[str]:
    notes = []
    if any(state.bloat for state in states):
        notes.append("Bloat is an estimate from the planner's statistics; pgstattuple_approx would measure it.")
    blind = [state.name for state in states if state.bloat is None and state.row["kind"] != "p" and state.row["pages"]]
    if blind:
        notes.append(
            f"No bloat estimate for {listing(blind)}: never analysed, or {db.server.role} may not read the columns "
            f"(GRANT pg_read_all_data TO {db.server.role})."
        )
    if holders and holders[0]["age"] > 0:
        first = holders[0]
        notes.append(
            f"VACUUM cannot remove rows deleted since {first['kind']} {first['name']} began, "
            f"{plural(first['age'], 'transaction')} ago."
        )
    if not settings["autovacuum"]:
        notes.append("autovacuum is off for the whole server.")
    return notes


def _suggestion(state: TableState) -> Suggestion | None:
    why = "; ".join(state.findings)
    if state.remedy == "analyze":
        return Suggestion(tool="postgresql.analyze_table", arguments={"table": state.name}, why=why)
    if state.remedy:
        arguments: dict[str, Json] = {"table": state.name, "analyze": True}
        return Suggestion(tool="postgresql.vacuum_table", arguments=arguments, why=why)
    return None
