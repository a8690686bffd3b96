"""list_indexes: every index with its use, and those that are invalid, double, redundant, unused or bloated."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.measures import locked_note, measured
from opsagent_jupyter.plugins.postgresql.queries import query
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note, sheet
from opsagent_jupyter.plugins.wording import count, duration, listing, percent, plural, size, verb

#: Share and bytes of an index from which its estimated bloat is reported.
BLOATED_SHARE, BLOATED_BYTES = 0.5, 1024 * 1024
#: Seconds below which "never used" says little.
YOUNG = 7 * 86_400.0
#: Bytes of an index entry beside its columns: header 8, line pointer 4; of a page: header 24, special space 16.
_ENTRY, _PAGE = 12, 40
#: Bytes of the longest list of rows that a btree keeps under one key.
_POSTING = 2704


class Index:
    """One index with what was found about it, and what its row says as attributes. There may be thousands, and a list of two
    should cost next to nothing, so what every question needs is worked out at once."""

    finding = ""
    """invalid, being built, duplicate, redundant, unused, bloated, or nothing."""
    why = ""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, row: Row, bloat: float = 0.0) -> None:
        self.__dict__.update(row)
        self.row = row
        self.bloat = bloat
        """Estimated bytes that a rebuild would give back."""
        self.bloated = bloat >= max(BLOATED_BYTES, BLOATED_SHARE * float(row["size"]))
        """Whether that is a good part of it."""
        self.enforces = bool(
            row["is_unique"] or row["is_primary"] or row["is_exclusion"] or row["is_identity"] or row["constraint"]
        )
        """Whether something besides speed depends on it."""
        self.shape = (
            row["table_oid"], row["method"], tuple(row["keys"]), row["key_count"], row["classes"], row["collations"],
            row["options"], row["predicate"], row["expressions"],
        )  # fmt: skip
        """What two indexes that do the same have in common."""

    @property
    def definition(self) -> str:
        """Columns as in CREATE INDEX, with INCLUDE and WHERE."""
        return definition(self.row)


def definition(row: Row) -> str:
    """Return an index's columns, INCLUDE and WHERE, put together without a lock on the table."""
    plain = iter(row["columns"] or ())
    parts = [next(plain, "?") if key else f"({row['expressions']})" for key in row["keys"]]
    keys = [part + _order(int(option)) for part, option in zip(parts, row["options"].split(), strict=False)]
    included = parts[row["key_count"] :]
    text = ", ".join(keys or parts[: row["key_count"]])
    text += f" INCLUDE ({', '.join(included)})" if included else ""
    return text + (f" WHERE {row['predicate']}" if row["predicate"] else "")


def _order(option: int) -> str:
    return ("", " DESC NULLS LAST", " NULLS FIRST", " DESC")[(option & 1) + (option & 2)]


@tools.read(
    phrases=(
        "list indexes",
        "show the indexes of {table}",
        "which indexes are unused",
        "find duplicate indexes",
        "are there any invalid indexes",
        "which indexes on {table} are never used",
        "show redundant indexes",
        "how big are the indexes of {table}",
        "index usage statistics",
    ),
    keywords=("index", "indexes", "indices", "unused", "duplicate", "invalid", "redundant", "usage"),
    patterns=(r"\b(list|show|which|find|any|what)\b.{0,40}\bind(ex|exes|ices)\b",),
)
async def list_indexes(
    db: Database,
    table: Annotated[str, Arg("only the indexes of this table", slot="table", example="orders")] = "",
) -> Result:
    """List indexes with size and use, and name those that are invalid, duplicate, redundant, unused or bloated."""
    async with db.together() as reads:
        relation = await names.table(reads, table) if table else None
        age = await reads.one(query("statistics_age"))
        found = await examined(reads, relation.oid if relation else None, age)
    rows = [index.row for index in found]
    found.sort(key=lambda index: (_RANKS.index(index.finding), -index.size))
    counts = _counts(found)
    page = sheet("indexes", _COLUMNS, [_line(index) for index in found], db.limits, {"size": "bytes", "bloat": "bytes"})
    return Result(
        summary=_summary(found, counts, relation.shown if relation else "", age),
        highlights=tuple(f"{index.index} on {index.table}: {index.why}." for index in found if index.finding)[:12],
        tables=(page,),
        figures={"indexes": len(found), "bytes": sum(index.size for index in found), **counts},
        notes=(*_notes(found, age), *locked_note(rows, "indexes"), *cut_note(page)),
        suggestions=tuple(_drop(index) for index in found if index.finding in _DROPPABLE and not index.attached)[:5],
    )


async def examined(db: Database, table: int | None, age: Row) -> list[Index]:
    """Return every index, or those of one table by its OID, each with its most important finding."""
    rows = await measured(db, "indexes", {"table": table})
    widths = {row["oid"]: row for row in await db.rows(query("index_widths"), {"oids": [row["oid"] for row in rows]})}
    found = [Index(row, _bloat(row, widths.get(row["oid"]), db.server.block_size)) for row in rows]
    _judge(found, age)
    return found


_COLUMNS = ("index", "table", "columns", "method", "unique", "size", "scans", "last scan", "finding", "why", "bloat")
_RANKS = ("invalid", "incomplete", "duplicate", "redundant", "bloated", "unused", "being built", "")
_DROPPABLE = ("invalid", "duplicate", "redundant")


def _line(index: Index) -> Row:
    own = {"columns": index.definition, "unique": index.is_unique, "finding": index.finding, "why": index.why}
    return {**index.row, **own, "bloat": round(index.bloat) or None}


def _counts(found: Sequence[Index]) -> dict[str, Any]:
    counts = Counter(index.finding for index in found if index.finding)
    counts["bloated"] = sum(index.bloated for index in found)
    return {finding.replace(" ", "_"): number for finding, number in counts.items()}


def _judge(found: list[Index], age: Row) -> None:
    """Give each index its most important finding."""
    by_table: dict[int, list[Index]] = defaultdict(list)
    by_shape: dict[tuple[Any, ...], list[Index]] = defaultdict(list)
    for index in found:
        by_table[index.table_oid].append(index)
        by_shape[index.shape].append(index)
    for index in found:
        finding, why = _finding(index, by_shape[index.shape], by_table[index.table_oid], age)
        if index.bloated:
            free = f"about {percent(index.bloat, index.size)} of its {size(index.size)} is free space (estimate)"
            why = f"{why}; {free}" if why else free
        index.finding, index.why = finding, why


def _finding(index: Index, alike: list[Index], siblings: list[Index], age: Row) -> tuple[str, str]:
    """What is to be said of an index, and why."""
    if index.phase:
        return "being built", f"pid {index.builder} is building it: {index.phase}"
    if not (index.valid and index.ready and index.live):
        return _invalid(index)
    if twin := _twin(index, alike):
        return "duplicate", f"it does the same as {twin.index}"
    if longer := _longer(index, siblings):
        return "redundant", f"{longer.index} ({longer.definition}) begins with its columns"
    if index.scans == 0 and not index.enforces and not index.attached:
        return "unused", _unused(index, age)
    return ("bloated" if index.bloated else ""), ""


def _invalid(index: Index) -> tuple[str, str]:
    if index.kind == "I":
        return "incomplete", "not every partition has its part of this index"
    if index.maintained:
        return "being built", "invalid, but a session maintains the table right now: it may still be being built"
    left = "a REINDEX CONCURRENTLY" if index.index.rstrip('"').endswith(("_ccnew", "_ccold")) else "a concurrent build"
    costs = "costs every write" + (" and may refuse rows" if index.is_unique and index.ready else "")
    cost = costs if index.ready else "takes space"
    return "invalid", f"left invalid by {left} that failed; no query uses it, and it {cost}"


def _twin(index: Index, alike: list[Index]) -> Index | None:
    """The index that makes this one superfluous: same shape, and better to keep."""
    if len(alike) == 1:
        return None
    twins = [other for other in alike if other.valid and other.ready]
    keeper = max(twins, key=_worth)
    if keeper.oid == index.oid or _bound(index):
        return None
    if index.is_unique and not (keeper.is_unique and keeper.nulls_equal == index.nulls_equal):
        return None
    return keeper


def _worth(index: Index) -> tuple[Any, ...]:
    return (bool(_bound(index)), index.is_unique, index.scans or 0, -index.oid)


def _bound(index: Index) -> bool:
    """Whether something names this very index, so that no twin can take its place."""
    row = index.row
    return bool(
        row["is_primary"] or row["is_exclusion"] or row["is_identity"] or row["constraint"] or row["referenced_by"]
        or row["attached"]
    )  # fmt: skip


def _longer(index: Index, siblings: list[Index]) -> Index | None:
    """A valid btree that begins with this index's columns."""
    if index.method != "btree" or index.enforces or index.attached or 0 in index.keys:
        return None
    return next((other for other in siblings if _begins(other, index)), None)


def _begins(longer: Index, index: Index) -> bool:
    n = index.key_count
    if longer.oid == index.oid or longer.method != "btree" or not (longer.valid and longer.ready):
        return False
    if longer.key_count <= n or longer.keys[:n] != index.keys[:n] or longer.predicate != index.predicate:
        return False
    same = (
        getattr(longer, part).split()[:n] == getattr(index, part).split()
        for part in ("classes", "collations", "options")
    )
    return all(same) and set(index.keys) <= set(longer.keys)


def _unused(index: Index, age: Row) -> str:
    why = f"never used in {duration(age['seconds'])}, {size(index.size)}"
    if index.supports:
        why += f"; it would serve the foreign key {listing(index.supports)}"
    return why


def _bloat(row: Row, widths: Row | None, block: int) -> float:
    """Estimate what a rebuild of a btree would give back, from the planner's statistics of its columns."""
    columns = len(set(row["keys"]))
    if (
        row["method"] != "btree"
        or 0 in row["keys"]
        or widths is None
        or widths["known"] < columns
        or row["tuples"] <= 0
    ):
        return 0.0
    usable = (block - _PAGE) * widths["fillfactor"] / 100
    expected = (math.ceil(row["tuples"] * entry_bytes(row["tuples"], widths) / usable) + 1) * block
    return max(0.0, float(row["size"] - expected))


def entry_bytes(tuples: float, widths: Row) -> float:
    """Bytes of one entry in a fresh btree: with equal values, one key and 6 bytes for each row that has it."""
    alone = _ENTRY + math.ceil((widths["width"] or 0) / 8) * 8
    distinct = math.prod(n if n > 0 else -n * tuples for n in widths["distinct_values"])
    equal = min(tuples / max(distinct, 1), _POSTING / 6)
    return 6 + alone / equal if widths["merges"] and equal > 2 else float(alone)


def _summary(found: list[Index], counts: Mapping[str, int], table: str, age: Row) -> str:
    tables = len({index.table_oid for index in found})
    where = table or f"{plural(tables, 'table')}"
    if not found:
        return f"{table or 'The database'} has no indexes."
    head = f"{where} {verb(tables if not table else 1, 'has', 'have')} {plural(len(found), 'index', 'indexes')}"
    head += f", {size(sum(index.size for index in found))} in all."
    said = [
        f"{count(counts[kind])} {verb(counts[kind], one, many)}"
        for kind, (one, many) in _SAID.items()
        if counts.get(kind)
    ]
    problems = f" {listing(said, 9)}." if said else " None is invalid, duplicate, redundant or unused."
    return head + problems.replace("never used", f"never used in {duration(age['seconds'])}")


_SAID = {
    "invalid": ("is invalid", "are invalid"),
    "incomplete": ("is incomplete", "are incomplete"),
    "being_built": ("is being built", "are being built"),
    "duplicate": ("is a duplicate", "are duplicates"),
    "redundant": ("is redundant", "are redundant"),
    "unused": ("was never used", "were never used"),
    "bloated": ("is bloated", "are bloated"),
}


def _notes(found: list[Index], age: Row) -> list[str]:
    notes = []
    if any(index.finding == "unused" for index in found):
        if age["seconds"] < YOUNG:
            notes.append(
                f"Use is counted for {duration(age['seconds'])} only: an index for a monthly job looks unused."
            )
        if age["standbys"] or age["standby"]:
            notes.append(
                "Use is counted on each server for itself: look at the other servers before dropping an index."
            )
    if any(index.bloated for index in found):
        notes.append("Bloat is an estimate from the planner's statistics.")
    return notes


def _drop(index: Index) -> Suggestion:
    return Suggestion(
        tool="postgresql.drop_index", arguments={"index": index.index}, why=f"{index.finding}: {index.why}"
    )
