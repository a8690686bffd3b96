"""A plan as a tree that says where its work is, whichever of the server's three forms it comes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opsagent_jupyter.plugins.mongodb import names, shapes

Document = Mapping[str, Any]

#: How much a stage usually costs, for a plan that was not run: reading everything costs most.
_WEIGHT = {"COLLSCAN": 100, "SORT": 40, "TEXT_MATCH": 30, "FETCH": 20, "IXSCAN": 10, "GROUP": 15}
#: Documents from which on a remark is worth it, and examined for each one kept.
BIG, WASTE = 1_000, 10


@dataclass(frozen=True)
class Node:
    """One stage of a plan. Figures are None where the plan was not run."""

    depth: int
    stage: str
    index: str
    key: str
    filter: str
    """Its condition without the values."""
    bounded: bool
    """Whether the index is entered by bounds, not read from end to end."""
    docs: int | None
    keys: int | None
    returned: int | None
    ms: int | None
    spilled: bool
    shard: str = ""
    costly: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The winning plan, with what its run counted."""

    nodes: tuple[Node, ...]
    rejected: int
    form: str
    """classic, slot-based or pipeline: the form it came in."""
    query_hash: str
    ran: bool
    returned: int | None
    docs: int | None
    keys: int | None
    ms: int | None
    failed: int
    """The error code of a run that did not end; 0 for one that did."""
    failure: str

    @property
    def stages(self) -> set[str]:
        return {node.stage for node in self.nodes}

    @property
    def scans(self) -> bool:
        """Whether it reads a whole collection."""
        return "COLLSCAN" in self.stages

    @property
    def scan_keeps(self) -> float | None:
        """The share of the documents that a scan keeps; None when it was not run."""
        scans = [node for node in self.nodes if node.stage == "COLLSCAN" and node.docs and node.returned is not None]
        return (scans[0].returned or 0) / (scans[0].docs or 1) if scans else None

    @property
    def sorts(self) -> bool:
        """Whether it sorts in memory."""
        return bool(self.stages & {"SORT", "$sort", "SORT_KEY_GENERATOR"})

    @property
    def costly(self) -> Node | None:
        return next((node for node in self.nodes if node.costly), None)

    @property
    def indexes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node.index for node in self.nodes if node.index))


def read_plan(explained: Document) -> Plan:
    """Read the answer of ``explain``."""
    nodes = list(_whole(explained, 0, ""))
    planner, stats = _first(explained, "queryPlanner"), _totals(explained)
    nodes = _marked(nodes)
    return Plan(
        nodes=tuple(nodes),
        rejected=sum(len(each.get("rejectedPlans", ())) for each in _all(explained, "queryPlanner")),
        form=_form(explained, planner),
        query_hash=str(
            explained.get("queryShapeHash") or planner.get("planCacheShapeHash") or planner.get("queryHash") or ""
        ),
        ran=bool(stats),
        returned=_returned(explained, stats),
        docs=_sum(stats, "totalDocsExamined"),
        keys=_sum(stats, "totalKeysExamined"),
        ms=max((int(each.get("executionTimeMillis", 0)) for each in stats), default=None),
        failed=next((int(e.get("errorCode", 0)) for e in stats if e.get("executionSuccess") is False), 0),
        failure=next((str(e.get("errorMessage", "")) for e in stats if e.get("executionSuccess") is False), ""),
    )


# -- the three forms


def _whole(explained: Document, depth: int, shard: str) -> Iterator[Node]:
    if "stages" in explained:
        yield from _pipeline(explained["stages"], depth, shard)
    elif isinstance(explained.get("shards"), Mapping):
        for name, each in explained["shards"].items():
            yield from _whole(each, depth, str(name))
    elif "queryPlanner" in explained:
        yield from _found(explained, depth, shard)


def _found(explained: Document, depth: int, shard: str) -> Iterator[Node]:
    """A plan of the classic engine, or of the slot-based one, whose figures are by plan node."""
    winning = explained["queryPlanner"].get("winningPlan", {})
    stats = explained.get("executionStats", {})
    if "shards" in winning:
        ran = {each.get("shardName"): each for each in stats.get("executionStages", {}).get("shards", ())}
        for each in winning["shards"]:
            part = {"queryPlanner": each, "executionStats": ran.get(each.get("shardName"), {})}
            yield from _found(part, depth, str(each.get("shardName", "")))
        return
    if "queryPlan" in winning or "slotBasedPlan" in winning:
        figures = _by_node(stats.get("executionStages", {}))
        yield from _nodes(winning.get("queryPlan", {}), depth, shard, figures)
    else:
        yield from _nodes(stats.get("executionStages") or winning, depth, shard, None)


def _pipeline(stages: Sequence[Document], depth: int, shard: str) -> Iterator[Node]:
    """Stages of an aggregation, the last on top; the first holds the plan of what reads the collection."""
    for number, stage in enumerate(reversed(stages)):
        name = next((key for key in stage if key.startswith("$")), "")
        if name in {"$cursor", "$geoNearCursor"}:
            yield from _found(stage[name], depth + number, shard)
        else:
            yield _stage(name, stage, depth + number, shard)


def _stage(name: str, stage: Document, depth: int, shard: str) -> Node:
    body = stage[name] if name else {}
    remarks = []
    if stage.get("collectionScans"):
        remarks.append(
            f"scans {body.get('from', 'the other collection')} {stage['collectionScans']} times: it wants an index"
        )
    return Node(
        depth=depth,
        stage=name,
        index=", ".join(stage.get("indexesUsed", ())),
        key="",
        filter=shapes.written(shapes.masked(body, sought=name == "$match")),
        bounded=True,
        docs=_whole_number(stage.get("totalDocsExamined")),
        keys=_whole_number(stage.get("totalKeysExamined")),
        returned=_whole_number(stage.get("nReturned")),
        ms=_whole_number(stage.get("executionTimeMillisEstimate")),
        spilled=bool(stage.get("usedDisk")),
        shard=shard,
        remarks=tuple(remarks),
    )


def _nodes(plan: Document, depth: int, shard: str, figures: Mapping[int, Document] | None) -> Iterator[Node]:
    if "stage" not in plan:
        return
    seen: Document = plan if figures is None else figures.get(int(plan.get("planNodeId", -1)), {})
    yield Node(
        depth=depth,
        stage=str(plan["stage"]),
        index=str(plan.get("indexName", "")),
        key=names.written_key(plan["keyPattern"].items()) if isinstance(plan.get("keyPattern"), Mapping) else "",
        filter=shapes.written(shapes.masked(plan["filter"], sought=True)) if plan.get("filter") else "",
        bounded=_bounded(plan),
        docs=_whole_number(seen.get("docsExamined")),
        keys=_whole_number(seen.get("keysExamined")),
        returned=_whole_number(seen.get("nReturned")),
        ms=_whole_number(seen.get("executionTimeMillisEstimate")),
        spilled=bool(seen.get("usedDisk")),
        shard=shard,
    )
    for child in _children(plan):
        yield from _nodes(child, depth + 1, shard, figures)


def _children(plan: Document) -> Iterator[Document]:
    for name in ("inputStage", "outerStage", "innerStage", "thenStage", "elseStage"):
        if isinstance(plan.get(name), Mapping):
            yield plan[name]
    yield from (each for each in plan.get("inputStages", ()) if isinstance(each, Mapping))


def _by_node(stage: Document) -> Mapping[int, Document]:
    """Figures of the slot-based engine, added up for each plan node."""
    found: dict[int, dict[str, Any]] = {}

    def walk(here: Document) -> None:
        number = here.get("planNodeId")
        if isinstance(number, int):
            mine = found.setdefault(number, {"nReturned": here.get("nReturned")})
            reads = here.get("numReads")
            if reads is not None:
                field = "docsExamined" if here.get("stage") in {"scan", "seek"} else "keysExamined"
                mine[field] = mine.get(field, 0) + int(reads)
            mine["executionTimeMillisEstimate"] = max(
                int(mine.get("executionTimeMillisEstimate") or 0), int(here.get("executionTimeMillisEstimate") or 0)
            )
            mine["usedDisk"] = mine.get("usedDisk") or here.get("usedDisk")
        for child in _children(here):
            walk(child)

    walk(stage)
    return found


def _bounded(plan: Document) -> bool:
    bounds = plan.get("indexBounds")
    if not isinstance(bounds, Mapping) or not bounds:
        return True
    first = next(iter(bounds.values()))
    return not (isinstance(first, Sequence) and list(first) in (["[MinKey, MaxKey]"], ["[MaxKey, MinKey]"]))


# -- totals


def _all(explained: Document, name: str) -> list[Document]:
    """Every section of that name, wherever the form has it."""
    found: list[Document] = []
    if isinstance(explained.get(name), Mapping):
        found.append(explained[name])
    for stage in explained.get("stages", ()):
        found += [each[name] for each in stage.values() if isinstance(each, Mapping) and name in each]
    if isinstance(explained.get("shards"), Mapping):
        found += [part for each in explained["shards"].values() for part in _all(each, name)]
    return found


def _first(explained: Document, name: str) -> Document:
    return next(iter(_all(explained, name)), {})


def _totals(explained: Document) -> list[Document]:
    return _all(explained, "executionStats")


def _sum(stats: Sequence[Document], name: str) -> int | None:
    found = [int(each[name]) for each in stats if name in each]
    return sum(found) if found else None


def _returned(explained: Document, stats: Sequence[Document]) -> int | None:
    """Documents that the query gives: of a pipeline, those of its last stage."""
    stages = explained.get("stages")
    if stages and "nReturned" in stages[-1]:
        return int(stages[-1]["nReturned"])
    return _sum(stats, "nReturned")


def _form(explained: Document, planner: Document) -> str:
    if "stages" in explained:
        return "pipeline"
    winning = planner.get("winningPlan", {})
    return "slot-based" if "slotBasedPlan" in winning else "classic"


def _whole_number(value: Any) -> int | None:
    return None if value is None else int(value)


# -- where the work is


def _marked(nodes: Sequence[Node]) -> list[Node]:
    """The same nodes with remarks, the one that does most of the work marked."""
    remarked = [replace(node, remarks=(*node.remarks, *_remarks(node))) for node in nodes]
    if not remarked:
        return []
    ran = any(node.docs is not None or node.keys is not None for node in remarked)
    top = max(range(len(remarked)), key=lambda place: _work(remarked[place], ran=ran))
    return [replace(node, costly=place == top) for place, node in enumerate(remarked)]


def _work(node: Node, *, ran: bool) -> float:
    if not ran:
        return _WEIGHT.get(node.stage, 1)
    read = (node.docs or 0) + 0.3 * (node.keys or 0)
    return read + (0.5 * (node.returned or 0) if node.stage in {"SORT", "$sort"} else 0)


def _remarks(node: Node) -> Iterator[str]:
    if node.stage == "COLLSCAN":
        yield "reads the whole collection"
    if node.stage == "FETCH" and node.docs and node.docs >= BIG and node.docs > WASTE * max(node.returned or 0, 1):
        yield f"fetches {node.docs:,} documents to keep {node.returned or 0:,}: the index lacks a field of the filter"
    if node.stage == "IXSCAN" and not node.bounded:
        yield "reads the index from end to end: the filter does not begin with its first field"
    if node.stage in {"SORT", "$sort"}:
        yield "sorts in memory: no index gives this order"
    if node.spilled:
        yield "did not fit into memory and used the disk"


def render(plan: Plan) -> str:
    """The plan as plain text, one stage a line, remarks below, the one with most work marked."""
    return "\n".join(line for node in plan.nodes for line in _lines(node))


def _lines(node: Node) -> Iterator[str]:
    indent = "   " * node.depth
    using = f" using {node.index} {node.key}".rstrip() if node.index else ""
    shard = f" [{node.shard}]" if node.shard else ""
    figures = _figures(node)
    mark = "  <== most of the work" if node.costly else ""
    yield f"{indent}{'-> ' if node.depth else ''}{node.stage}{using}{shard}{f'  ({figures})' if figures else ''}{mark}"
    inner = indent + ("   " if node.depth else "") + "  "
    if node.filter:
        yield f"{inner}{'filter: ' if not node.stage.startswith('$') else ''}{node.filter}"
    for remark in node.remarks:
        yield f"{inner}! {remark}"


def _figures(node: Node) -> str:
    parts = [
        f"{value:,} {word}"
        for value, word in ((node.docs, "documents"), (node.keys, "keys"), (node.returned, "returned"), (node.ms, "ms"))
        if value is not None
    ]
    return ", ".join(parts)
