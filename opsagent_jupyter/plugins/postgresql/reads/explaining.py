"""explain_query: the plan of one statement, by its text or by its id, where its cost is, and which index would help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from opsagent_jupyter.errors import InvalidArguments, MissingRight, OpsAgentError
from opsagent_jupyter.models import Assessment, Json, Result, Risk, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.connection import Database, Row
from opsagent_jupyter.plugins.postgresql.literals import brief
from opsagent_jupyter.plugins.postgresql.measures import measured
from opsagent_jupyter.plugins.postgresql.queries import query, query_in
from opsagent_jupyter.plugins.postgresql.reads.slow_queries import statements_schema
from opsagent_jupyter.plugins.postgresql.toolbox import tools
from opsagent_jupyter.plugins.sheets import cut_note, sheet
from opsagent_jupyter.plugins.wording import count, listing, milliseconds

if TYPE_CHECKING:
    from opsagent_jupyter.plugins.postgresql.explain import ExplainedPlan, PlanTree
    from opsagent_jupyter.plugins.postgresql.explain_plan import Mark

#: Milliseconds that planning may take, and that ANALYZE may run.
PLAN_MS, ANALYZE_MS = 5_000, 25_000
#: Columns of an index that is offered.
COLUMNS = 3


@tools.read(
    phrases=(
        "explain {sql}",
        "show the plan of {sql}",
        "why is this query slow: {sql}",
        "explain query {query_id}",
        "how does the planner run {sql}",
        "what does the execution plan of query id {query_id} look like",
        "does this use an index: {sql}",
        "explain the slowest query",
    ),
    keywords=("explain", "plan", "planner", "execution", "cost", "seq", "scan"),
    patterns=(r"^\s*explain\b", r"\b(query|execution) plan\b", r"\bquery[ _]?id\s+(?P<query_id>-?\d{5,20})\b"),
)
async def explain_query(
    db: Database,
    sql: Annotated[str, Arg("the statement", slot="sql", example="SELECT * FROM orders WHERE customer_id = 7")] = "",
    query_id: Annotated[
        str,
        BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
        Arg("the id of a recorded statement instead, as get_slow_queries shows it", slot="query_id"),
    ] = "",
    *,
    analyze: Annotated[bool, Arg("run the statement too and measure it; SELECT only, asks a person first")] = False,
) -> Result:
    """Show the plan of one statement, where its cost is, and which index would help."""
    from opsagent_jupyter.plugins.postgresql.explain import explain, read_plan, render_tree

    text = await _text(db, sql, query_id)
    if analyze and query_id and "$1" in text:
        raise InvalidArguments(
            "A recorded statement has no values for $1 to run with.",
            hint="Leave analyze out, or give the statement with its values as sql.",
            path="analyze",
        )
    async with db.lending() as connection:
        timeout = ANALYZE_MS if analyze else PLAN_MS
        explained = await explain(connection, text, analyze=analyze, statement_timeout_ms=timeout)
    tree = read_plan(explained.plan)
    wanted = [mark for mark in tree.marks if mark.kind == "removes_most" and mark.columns and mark.relation]
    suggestions, existing = await _indexes(db, wanted)
    imagined = None if analyze else await _imagined(db, text, suggestions)
    page = sheet("nodes", _COLUMNS, [_node(node) for node in tree.nodes], db.limits, {"share": "%", "own ms": "ms"})
    return Result(
        summary=_summary(explained, tree, suggestions),
        highlights=(*_marks(tree), *existing, *_gain(tree, imagined, suggestions)),
        tables=(page,),
        tree=render_tree(tree) + (f"\n\nWith that index:\n{render_tree(imagined)}" if imagined else ""),
        figures=_figures(explained, tree) | ({"hypothetical_cost": imagined.total_cost} if imagined else {}),
        notes=(*_notes(explained), *cut_note(page)),
        suggestions=tuple(suggestions),
    )


@explain_query.assesses
def _(arguments: object) -> Assessment:
    if getattr(arguments, "analyze", False):
        return Assessment(risk=Risk.MEDIUM, reasons=("EXPLAIN ANALYZE runs the statement on the server",))
    return Assessment(risk=Risk.LOW)


_COLUMNS = (
    "depth", "node", "relation", "index", "share", "total cost", "own ms", "estimated rows", "actual rows", "loops",
)  # fmt: skip


async def _text(db: Database, sql: str, query_id: str) -> str:
    if bool(sql.strip()) == bool(query_id.strip()):
        raise InvalidArguments(
            "Give either sql or query_id.", hint="get_slow_queries shows the ids of recorded statements.", path="sql"
        )
    return sql or await recorded_text(db, query_id.strip())


async def recorded_text(db: Database, query_id: str) -> str:
    """Return the normalised text of a statement that pg_stat_statements holds."""
    if not query_id.lstrip("-").isdigit() or abs(int(query_id)) >= 2**63:
        raise InvalidArguments(f"{query_id[:40]!r} is no query id: it is a whole number.", path="query_id")
    schema = await statements_schema(db)
    found = await db.rows(query_in("statement_text", schema=schema), {"query_id": query_id})
    if found:
        return str(found[0]["query"])
    (row,) = await db.rows(query_in("hidden_statements", schema=schema))
    if row["hidden"]:
        role = db.server.role
        raise MissingRight(
            f"Role {role} does not see the statements of other roles, so query {query_id} may exist.",
            hint=f"GRANT pg_read_all_stats TO {role}.",
            right="pg_read_all_stats",
        )
    raise InvalidArguments(
        f"No statement with id {query_id} is recorded in database {db.server.database}.",
        hint="get_slow_queries shows the ids of recorded statements.",
        path="query_id",
    )


async def _indexes(db: Database, wanted: list[Mark]) -> tuple[list[Suggestion], list[str]]:
    """Offer an index for each filter that removes most rows, unless one begins with its column already."""
    suggestions: list[Suggestion] = []
    existing: list[str] = []
    for mark in wanted[:3]:
        try:
            relation = await names.table(db, _quoted(mark.relation), kinds=("r", "m"))
        except InvalidArguments:
            continue  # a CTE or a function has rows but no indexes
        if twin := await _begins(db, relation, mark.columns[0]):
            existing.append(f"{twin} begins with {mark.columns[0]}, but the planner did not choose it.")
            continue
        arguments: dict[str, Json] = {"table": relation.shown, "columns": list(mark.columns[:COLUMNS])}
        suggestions.append(Suggestion(tool="postgresql.create_index", arguments=arguments, why=f"the plan {mark.text}"))
    return suggestions, existing


async def _imagined(db: Database, text: str, suggestions: list[Suggestion]) -> PlanTree | None:
    """Return the plan as if the first index that is offered were there; None where hypopg is not installed."""
    from opsagent_jupyter.plugins.postgresql.explain import hypothetical, read_plan

    if not suggestions or not await db.rows(query("extension"), {"name": "hypopg"}):
        return None
    relation = await names.table(db, str(suggestions[0].arguments["table"]), kinds=("r", "m"))
    columns = suggestions[0].arguments["columns"]
    keys = ", ".join(_quoted_word(str(column)) for column in columns) if isinstance(columns, list) else ""
    try:
        async with db.lending() as connection:
            found = await hypothetical(connection, text, f"CREATE INDEX ON {relation.written} ({keys})")
    except OpsAgentError:
        return None  # the plan that there is does not depend on the one that there might be
    return read_plan(found.plan) if found else None


def _gain(tree: PlanTree, imagined: PlanTree | None, suggestions: list[Suggestion]) -> list[str]:
    if imagined is None:
        return []
    table = suggestions[0].arguments["table"]
    if imagined.total_cost >= tree.total_cost:
        return [f"A hypothetical index on {table} does not lower the cost: the planner would not use it."]
    before, after = count(tree.total_cost), count(imagined.total_cost)
    return [f"With a hypothetical index on {table} the planner's cost falls from {before} to {after}."]


def _quoted_word(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(relation: str) -> str:
    schema, _, name = relation.rpartition(".") if relation.count(".") < 2 else relation.partition(".")
    quoted = [_quoted_word(part) for part in (schema, name) if part]
    return ".".join(quoted)


async def _begins(db: Database, relation: names.Relation, column: str) -> str:
    rows: list[Row] = await measured(db, "indexes", {"table": relation.oid})
    fit = (row for row in rows if row["keys"][0] and (row["columns"] or [""])[0] == column and row["valid"])
    return next((row["index"] for row in fit if not row["predicate"]), "")


def _summary(explained: ExplainedPlan, tree: PlanTree, suggestions: list[Suggestion]) -> str:
    top = tree.costliest
    if explained.execution_ms is not None:
        took = f"The statement took {milliseconds(explained.execution_ms)}"
    else:
        took = f"The planner estimates a cost of {count(tree.total_cost)} for {brief(explained.statement.text, 80)}"
    on = f" on {top.relation}" if top.relation else ""
    removes = top.mark("removes_most")
    detail = f", which {removes.text}" if removes else ""
    article = "an" if top.kind[:1] in "AEIOU" else "a"
    text = f"{took}; {top.cost_share:.0%} of it goes into {article} {top.kind}{on}{detail}."
    for suggestion in suggestions[:1]:
        columns = ", ".join(map(str, suggestion.arguments["columns"]))  # type: ignore[arg-type]
        text += f" An index on {suggestion.arguments['table']} ({columns}) would help."
    return text


def _marks(tree: PlanTree) -> list[str]:
    said = []
    for node in tree.nodes:
        on = f" on {node.relation}" if node.relation else ""
        said += [f"{node.kind}{on} {mark.text}." for mark in node.marks]
    return said[:10]


def _node(node: object) -> Row:
    facts = vars(node).copy()
    return {**facts, "node": facts["kind"], "share": 100 * facts["cost_share"]}


def _figures(explained: ExplainedPlan, tree: PlanTree) -> dict[str, Json]:
    return {
        "total_cost": tree.total_cost,
        "planning_ms": round(explained.planning_ms, 3),
        "execution_ms": None if explained.execution_ms is None else round(explained.execution_ms, 3),
        "generic": explained.generic,
    }


def _notes(explained: ExplainedPlan) -> list[str]:
    notes = []
    if not explained.analyzed:
        notes.append("The statement was planned, not run: rows and cost are the planner's estimates.")
    if explained.generic:
        notes.append("It is the plan for any values of its parameters; certain values may get another.")
    if explained.settings:
        said = [f"{name} = {value}" for name, value in explained.settings.items()]
        notes.append(f"Planner settings that differ from the defaults: {listing(said, 6)}.")
    return notes
