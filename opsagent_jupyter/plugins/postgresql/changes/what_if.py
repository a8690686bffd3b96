"""What the planner would do with an index that does not exist, where the extension hypopg is there to ask."""

from __future__ import annotations

import re

from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Comparison
from opsagent_jupyter.plugins.postgresql.changes.index_spec import IndexSpec
from opsagent_jupyter.plugins.postgresql.connection import Database
from opsagent_jupyter.plugins.postgresql.literals import brief, shown
from opsagent_jupyter.plugins.postgresql.queries import query, query_in
from opsagent_jupyter.plugins.postgresql.reads.slow_queries import statements_schema


async def comparison(db: Database, spec: IndexSpec) -> Comparison | None:
    """Compare the planner's cost of the recorded statement that gains most; None when there is nothing to compare."""
    if not await db.rows(query("extension"), {"name": "hypopg"}):
        return None
    try:
        found = [await _compared(db, text, spec) for text in await _statements(db, spec)]
    except OpsAgentError:
        return None  # a card without a comparison is still a card
    gains = [each for each in found if each is not None and each.after < each.before]
    return max(gains, key=lambda each: each.before - each.after, default=None)


async def _statements(db: Database, spec: IndexSpec) -> list[str]:
    values = {"table": rf"\m{re.escape(spec.relation.name)}\M", "column": rf"\m{re.escape(spec.keys[0].column.name)}\M"}
    rows = await db.rows(query_in("slow_statements_of", schema=await statements_schema(db)), values)
    return [row["query"] for row in rows]


async def _compared(db: Database, text: str, spec: IndexSpec) -> Comparison | None:
    from opsagent_jupyter.plugins.postgresql.explain import explain, hypothetical

    try:
        async with db.lending() as connection:
            before = await explain(connection, text)
        async with db.lending() as connection:
            after = await hypothetical(connection, text, spec.statement(concurrently=False))
    except OpsAgentError:
        return None  # recorded statements may name what is gone, or hold what EXPLAIN refuses
    if after is None:
        return None
    return Comparison(
        before=float(before.plan["Total Cost"]),
        after=float(after.plan["Total Cost"]),
        note=f"hypothetical plan of {brief(shown(text))}",
    )
