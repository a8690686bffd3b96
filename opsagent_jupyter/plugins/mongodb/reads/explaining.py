"""explain_query: the plan of a query, as estimated or as run, with the index that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from opsagent_jupyter.errors import DeadlineExceeded, InvalidArguments, OpsAgentError
from opsagent_jupyter.models import Result, Suggestion
from opsagent_jupyter.plugin import Arg
from opsagent_jupyter.plugins.mongodb import failures, indexing, names, plans, readonly, shapes, statements
from opsagent_jupyter.plugins.mongodb.connection import READ_SECONDS, Database, Document
from opsagent_jupyter.plugins.mongodb.members import one_member_note
from opsagent_jupyter.plugins.mongodb.reads.collections import InDatabase
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import count, listing, plural

Verbosity = Literal["queryPlanner", "executionStats", "allPlansExecution"]
#: Share of the documents from which on reading them all is the right plan.
MOST = 0.3
#: Documents below which reading a whole collection is nothing to mend.
SMALL = 1_000


@tools.read(
    phrases=(
        "explain {query} on {collection}",
        "why is {query} slow on {collection}",
        "show the plan of {query} on {collection}",
        "which index does {query} use on {collection}",
        "explain the pipeline {query} on {collection}",
    ),
    keywords=("explain", "plan", "query", "pipeline", "why", "collscan", "ixscan"),
    patterns=(r"\.explain\(", r"\bdb\.\w+\.(find|aggregate|count|distinct)\b", r"\bexplain\b", r"[{\[]\s*[{\"'$\w]"),
)
async def explain_query(
    db: Database,
    query: Annotated[
        str,
        Arg(
            'JSON: a filter {...}, a pipeline [...], or a whole command such as {"find": "orders", "filter": {...}}',
            slot="document",
            example='{"cust": 7, "ts": {"$gt": 5}}',
        ),
    ],
    collection: Annotated[
        str, Arg("collection name, unless the query is a whole command", slot="collection", example="orders")
    ] = "",
    sort: Annotated[str, Arg('JSON: the order of a filter, such as {"ts": -1}', slot="sort")] = "",
    database: InDatabase = "",
    verbosity: Annotated[
        Verbosity, Arg("queryPlanner only plans; executionStats runs the query, at most 5 s; allPlansExecution too")
    ] = "queryPlanner",
) -> Result:
    """Show the plan of a query with the stage that does most of the work, and the index that it lacks."""
    command = _command(query, collection, sort)
    checked = readonly.checked(command)
    name = next(iter(checked))
    target = await names.collection(db, str(checked[name]), database)
    if name in readonly.WRITING and verbosity != "queryPlanner":
        raise InvalidArguments(f"{name} is explained by its plan only: verbosity queryPlanner.", path="verbosity")
    explained = await _explained(db, target, {**checked, name: target.name}, verbosity)
    plan = plans.read_plan(explained)
    return await _told(db, target, checked, plan)


def _command(query: str, collection: str, sort: str) -> Document:
    text = query.strip()
    if text.startswith("["):
        found: Document = {"aggregate": collection, "pipeline": statements.array(text, "query")}
    else:
        document = statements.document(text, "query")
        if next(iter(document), "") in readonly.OPTIONS or "pipeline" in document:
            return _given(document, collection)
        found = {"find": collection, "filter": document}
        if sort:
            found["sort"] = statements.document(sort, "sort")
    if not collection:
        raise InvalidArguments("Which collection? A filter or a pipeline names none.", path="collection")
    return found


def _given(command: Document, collection: str) -> Document:
    name = next(iter(command))
    if collection and command[name] != collection:
        raise InvalidArguments(
            f"The command is about {command[name]!r} and the argument about {collection!r}: name one.",
            path="collection",
        )
    return command


async def _explained(db: Database, target: names.Collection, command: Document, verbosity: str) -> Document:
    action = next(iter(command))
    try:
        explain = {"explain": command, "verbosity": verbosity}
        return await db.command(target.database, explain, seconds=READ_SECONDS, action=action)
    except DeadlineExceeded as error:
        raise DeadlineExceeded(
            f"The query ran longer than {READ_SECONDS:g} s and was ended.",
            hint="Explain it with verbosity queryPlanner, which does not run it.",
            native_code=error.facts.get("native_code", ""),
        ) from error


async def _told(db: Database, target: names.Collection, command: Document, plan: plans.Plan) -> Result:
    documents = await _documents(db, target)
    suggestions = await _suggestions(db, target, command, plan, documents)
    notes = [*_notes(plan, documents), *one_member_note(db)]
    return Result(
        summary=_summary(target, plan, documents, suggestions),
        highlights=tuple(_points(plan)),
        tree=plans.render(plan),
        figures={
            "form": plan.form,
            "collection_scan": plan.scans,
            "sorts_in_memory": plan.sorts,
            "indexes": list(plan.indexes),
            "documents_examined": plan.docs,
            "keys_examined": plan.keys,
            "returned": plan.returned,
            "milliseconds": plan.ms,
            "documents": documents,
            "query_hash": plan.query_hash,
            "query": shapes.shown(command),
        },
        notes=tuple(notes),
        suggestions=tuple(suggestions),
    )


async def _documents(db: Database, target: names.Collection) -> int | None:
    """How many documents the collection has, by its own count; None for a view."""
    if target.is_view:
        return None
    pipeline: list[Document] = [{"$collStats": {"count": {}}}]
    try:
        rows = await db.documents(target.database, {"aggregate": target.name, "pipeline": pipeline}, action="collStats")
    except OpsAgentError:
        return None
    return sum(int(row.get("count", 0)) for row in rows)


async def _suggestions(
    db: Database, target: names.Collection, command: Document, plan: plans.Plan, documents: int | None
) -> list[Suggestion]:
    wanted = indexing.wanted(_inner(command))
    lacking = plan.scans or plan.sorts
    if not lacking or wanted is None or target.is_view or (documents is not None and documents < SMALL):
        return []
    if not plan.sorts and (plan.scan_keeps or 0) > MOST:
        return []
    existing = await names.indexes(db, target)
    why = f"the query reads all {plural(documents, 'document')}" if plan.scans and documents else "it sorts in memory"
    if found := indexing.suggestion(target, wanted, existing, why):
        return [found]
    return [_unhide(target, index) for index in existing if index.option("hidden") and index.key == wanted.key]


def _unhide(target: names.Collection, index: names.Index) -> Suggestion:
    return Suggestion(
        tool="mongodb.drop_index",
        arguments={"collection": target.name, "index": index.name, "database": target.database, "unhide": True},
        why=f"{index.name} would serve the query and is hidden",
    )


def _inner(command: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a command that has the filter: an update or delete holds a list of them."""
    for name in ("updates", "deletes"):
        if command.get(name):
            first = command[name][0]
            return first if isinstance(first, Mapping) else {}
    return command


# -- words


def _summary(
    target: names.Collection, plan: plans.Plan, documents: int | None, suggestions: Sequence[Suggestion]
) -> str:
    if plan.failed:
        how = "ran into its time limit" if plan.failed == failures.MAX_TIME_EXPIRED else f"failed (code {plan.failed})"
        text = f"The query on {target.shown} {how}"
    elif plan.scans:
        size = f" of {plural(documents, 'document')}" if documents is not None else ""
        text = f"The query reads the whole collection {target.shown}{size}"
    elif plan.indexes:
        text = f"The query on {target.shown} uses {listing([f'index {name}' for name in plan.indexes])}"
    else:
        text = f"The query on {target.shown} reads no documents through an index" if plan.nodes else "There is no plan"
    if plan.ran and plan.docs is not None and not plan.failed:
        examined = f"{plural(plan.docs, 'document')} and {plural(plan.keys or 0, 'key')}"
        text += f": it examined {examined} to return {count(plan.returned or 0)}"
        text += f" in {plan.ms} ms" if plan.ms is not None else ""
    if suggestions:
        fields = suggestions[0].arguments.get("fields")
        what = f"an index on {', '.join(map(str, fields))}" if isinstance(fields, list) else suggestions[0].why
        text += f". It lacks {what}" if isinstance(fields, list) else f". {what[:1].upper()}{what[1:]}"
    return text + "."


def _points(plan: plans.Plan) -> list[str]:
    points = [
        f"{node.stage}{f' {node.index}' if node.index else ''} {remark}."
        for node in plan.nodes
        for remark in node.remarks
    ]
    if plan.rejected:
        points.append(
            f"{plural(plan.rejected, 'other plan')} {'was' if plan.rejected == 1 else 'were'} considered and rejected."
        )
    return points


def _notes(plan: plans.Plan, documents: int | None) -> list[str]:
    notes = []
    if not plan.ran:
        notes.append("The query was planned, not run: verbosity executionStats runs it, for at most 5 s, and counts.")
    if plan.failed:
        notes.append("The run was ended early: its figures are of the part that ran.")
    if (plan.scan_keeps or 0) > MOST:
        notes.append(f"The scan keeps {plan.scan_keeps:.0%} of what it reads: no index would spare much of that.")
    if documents is not None and documents < SMALL and plan.scans:
        notes.append(f"With {plural(documents, 'document')} a collection scan costs next to nothing.")
    if plan.form == "slot-based":
        notes.append("The server ran it on its slot-based engine: figures are added up for each stage of the plan.")
    return notes
