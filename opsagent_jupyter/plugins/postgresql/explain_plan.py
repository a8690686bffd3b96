"""A plan as a tree that says where its cost is and where the planner was wrong, for a person and for a screen.

Shares are attributed, not exact: the inner side of a nested loop counts once per outer row, what a Limit does not fetch
counts as not spent, and times of parallel workers are divided among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opsagent_jupyter.errors import StatementRefused
from opsagent_jupyter.plugins.postgresql.statement import Tree, read, words

Plan = Mapping[str, Any]

BIG = 10_000
"""Rows; scanning fewer is not worth a remark."""

MISJUDGED = 10.0
"""Factor between estimated and actual rows from which on a remark is made."""

CONDITIONS = (
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "TID Cond",
    "One-Time Filter",
    "Filter",
    "Sort Key",
    "Group Key",
    "Cache Key",
)

_REPEATED_CHEAPLY = frozenset({"Materialize", "Memoize", "CTE Scan", "WorkTable Scan"})


@dataclass(frozen=True)
class Mark:
    """A remark on a node."""

    kind: str
    """costliest, removes_most, misestimate or spill."""
    text: str
    relation: str = ""
    columns: tuple[str, ...] = ()
    """removes_most: columns that the filter compares with values, those compared by = first; empty if it is no such."""


@dataclass(frozen=True)
class PlanNode:
    """One node of a plan. Rows are per loop; times in milliseconds over all loops."""

    depth: int
    kind: str
    """The server's node type with its variant, such as `Parallel Seq Scan` or `Hash Left Join`."""
    relation: str
    index: str
    conditions: tuple[tuple[str, str], ...]
    estimated_rows: float
    actual_rows: float | None
    loops: float | None
    total_cost: float
    own_cost: float
    cost_share: float
    """Of the whole plan, 0 to 1; of its time where it was measured."""
    own_ms: float | None
    marks: tuple[Mark, ...] = ()

    def mark(self, kind: str) -> Mark | None:
        return next((each for each in self.marks if each.kind == kind), None)


@dataclass(frozen=True)
class PlanTree:
    """All nodes of a plan, top first, each below its parent by `depth`."""

    nodes: tuple[PlanNode, ...]

    @property
    def total_cost(self) -> float:
        return self.nodes[0].total_cost

    @property
    def costliest(self) -> PlanNode:
        return next(node for node in self.nodes if node.mark("costliest"))

    @property
    def marks(self) -> tuple[Mark, ...]:
        return tuple(mark for node in self.nodes for mark in node.marks)


def read_plan(plan: Plan) -> PlanTree:
    """Read the top node of a plan in FORMAT JSON."""
    nodes = list(_nodes(plan, _Place(whole_cost=float(plan["Total Cost"]), whole_ms=plan.get("Actual Total Time"))))
    measured = all(node.own_ms is not None for node in nodes)
    top = max(nodes, key=lambda node: (node.own_ms or 0.0) if measured else node.own_cost * node.cost_share)
    basis = "time" if measured else "estimated cost"
    mark = Mark("costliest", f"takes {top.cost_share:.0%} of the {basis}", top.relation)
    return PlanTree(tuple(replace(node, marks=(mark, *node.marks)) if node is top else node for node in nodes))


# --- one node --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where in the tree a node stands, and what that does to its figures."""

    whole_cost: float
    whole_ms: float | None
    depth: int = 0
    repeats: float = 1.0
    """How often its cost counts: estimated loops, less than 1 below a Limit."""
    workers: float = 1.0
    limited: bool = False
    """Something above may stop asking for rows, so fewer than estimated is no error."""


def _nodes(plan: Plan, place: _Place) -> Iterator[PlanNode]:
    below = [(child, _place_of(child, plan, place)) for child in plan.get("Plans", ())]
    own_cost = max(0.0, _cost(plan, place) - sum(_cost(child, its) for child, its in below if _counted(child)))
    own_ms = _own_ms(plan, place, below)
    if own_ms is not None and place.whole_ms:
        share = own_ms / place.whole_ms
    else:
        share = own_cost / place.whole_cost if place.whole_cost else 0.0
    yield PlanNode(
        depth=place.depth,
        kind=_kind(plan),
        relation=_relation(plan),
        index=str(plan.get("Index Name", "")),
        conditions=tuple((name, _words(plan[name])) for name in CONDITIONS if name in plan),
        estimated_rows=float(plan["Plan Rows"]),
        actual_rows=_number(plan, "Actual Rows"),
        loops=_number(plan, "Actual Loops"),
        total_cost=float(plan["Total Cost"]),
        own_cost=own_cost,
        cost_share=min(1.0, share),
        own_ms=own_ms,
        marks=tuple(_marks(plan, place)),
    )
    for child, its in below:
        yield from _nodes(child, its)


def _place_of(child: Plan, plan: Plan, place: _Place) -> _Place:
    repeats, workers, limited = place.repeats, place.workers, place.limited
    kind = plan["Node Type"]
    if kind == "Limit" and child["Total Cost"]:
        repeats *= min(1.0, plan["Total Cost"] / child["Total Cost"])
        limited = True
    if kind in {"Nested Loop", "Merge Join"}:
        limited = limited or kind == "Merge Join" or plan.get("Join Type") in {"Semi", "Anti"}
    if (
        kind == "Nested Loop"
        and child.get("Parent Relationship") == "Inner"
        and child["Node Type"] not in _REPEATED_CHEAPLY
    ):
        repeats *= max(1.0, float(plan["Plans"][0]["Plan Rows"]))
    if kind.startswith("Gather"):
        workers = float(plan.get("Workers Launched", plan.get("Workers Planned", 0))) + 1.0
    return replace(place, depth=place.depth + 1, repeats=repeats, workers=workers, limited=limited)


def _counted(child: Plan) -> bool:
    """Subplans are part of their parent's expressions: the parent keeps their cost."""
    return child.get("Parent Relationship") != "SubPlan"


def _cost(plan: Plan, place: _Place) -> float:
    return float(plan["Total Cost"]) * place.repeats


def _own_ms(plan: Plan, place: _Place, below: Sequence[tuple[Plan, _Place]]) -> float | None:
    whole = _all_ms(plan, place)
    if whole is None:
        return None
    return max(0.0, whole - sum(_all_ms(child, its) or 0.0 for child, its in below))


def _all_ms(plan: Plan, place: _Place) -> float | None:
    time, loops = _number(plan, "Actual Total Time"), _number(plan, "Actual Loops")
    return None if time is None or loops is None else time * max(loops / place.workers, min(loops, 1.0))


def _number(plan: Plan, name: str) -> float | None:
    return float(plan[name]) if name in plan else None


def _kind(plan: Plan) -> str:
    kind = str(plan["Node Type"])
    if kind == "Aggregate":
        kind = {"Hashed": "HashAggregate", "Sorted": "GroupAggregate"}.get(plan.get("Strategy", ""), kind)
    if kind == "ModifyTable":
        kind = str(plan.get("Operation", kind))
    join = plan.get("Join Type", "Inner")
    if join != "Inner":
        kind = f"{kind.removesuffix(' Join')} {join} Join"
    partial = {"Partial": "Partial ", "Finalize": "Finalize "}.get(plan.get("Partial Mode", ""), "")
    return ("Parallel " if plan.get("Parallel Aware") else "") + partial + kind


def _relation(plan: Plan) -> str:
    name = plan.get("Relation Name", plan.get("CTE Name", plan.get("Function Name", "")))
    return f"{plan['Schema']}.{name}" if name and "Schema" in plan else str(name)


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# --- remarks ---------------------------------------------------------------------------------------------------------


def _marks(plan: Plan, place: _Place) -> Iterator[Mark]:
    for remark in (_removes_most(plan, place), _misestimate(plan, place), _spill(plan)):
        if remark:
            yield remark


def _removes_most(plan: Plan, place: _Place) -> Mark | None:
    # An index that only gives the order, without a condition, is read from end to end like the table itself.
    by_order = plan["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in plan
    if not (by_order or plan["Node Type"] == "Seq Scan") or "Filter" not in plan:
        return None
    loops = _number(plan, "Actual Loops")
    if loops is None:
        # A page holds about a hundred rows: 1 for the page, 0.01 for each row and 0.0025 for each condition; by way of
        # an index, its own entries and pages read out of order make it about twice that.
        a_row = 0.05 if by_order else 0.0225
        scanned, kept, how = float(plan["Total Cost"]) / a_row, float(plan["Plan Rows"]), "(by its cost) about "
    else:
        kept = float(plan["Actual Rows"]) * loops
        scanned, how = kept + float(plan.get("Rows Removed by Filter", 0)) * loops, ""
    if scanned * (place.workers if loops is None else 1) < BIG or kept > scanned / 10:
        return None
    text = f"reads {how}{scanned:,.0f} rows of {_relation(plan)} to keep {kept:,.0f}"
    return Mark("removes_most", text, _relation(plan), filter_columns(plan["Filter"]))


def _misestimate(plan: Plan, place: _Place) -> Mark | None:
    actual, loops = _number(plan, "Actual Rows"), _number(plan, "Actual Loops")
    estimated = float(plan["Plan Rows"])
    if actual is None or not loops or max(actual, estimated) < 100:
        return None
    factor = max(actual, 1.0) / max(estimated, 1.0)
    if factor > MISJUDGED:
        return Mark("misestimate", f"{factor:,.0f} times more rows than estimated ({actual:,.0f} for {estimated:,.0f})")
    if 1 / factor > MISJUDGED and not place.limited:
        text = f"{1 / factor:,.0f} times fewer rows than estimated ({actual:,.0f} for {estimated:,.0f})"
        return Mark("misestimate", text)
    return None


def _spill(plan: Plan) -> Mark | None:
    if plan.get("Sort Space Type") == "Disk":
        return Mark("spill", f"sorts on disk ({plan.get('Sort Space Used', 0):,} kB): more work_mem would hold it")
    if plan["Node Type"] == "Hash" and plan.get("Hash Batches", 1) > 1:
        return Mark("spill", f"hashes in {plan['Hash Batches']} batches on disk: more work_mem would hold it")
    if plan.get("Disk Usage", 0) > 0:
        return Mark("spill", f"groups on disk ({plan['Disk Usage']:,} kB): more work_mem would hold it")
    return None


def filter_columns(condition: str) -> tuple[str, ...]:
    """Columns that a filter of AND-ed comparisons compares with values, = before the rest; empty if it is no such."""
    try:
        [(_, select)] = read(f"SELECT WHERE {condition}")
    except (StatementRefused, ValueError):
        return ()
    found: list[tuple[bool, str]] = []
    for term in _conjuncts(select["whereClause"]) if "whereClause" in select else ():
        column = _compared(term)
        if column is None:
            return ()
        found.append(column)
    return tuple(dict.fromkeys(name for _, name in sorted(found, key=lambda each: not each[0])))


def _conjuncts(node: Tree) -> Iterator[Tree]:
    if node.get("BoolExpr", {}).get("boolop") == "AND_EXPR":
        for each in node["BoolExpr"]["args"]:
            yield from _conjuncts(each)
    else:
        yield node


def _compared(term: Tree) -> tuple[bool, str] | None:
    """Whether a term is an equality, and the column in it; None unless it compares one column with a value."""
    if "NullTest" in term:
        name = _column(term["NullTest"]["arg"])
        return (False, name) if name else None
    expression = term.get("A_Expr", {})
    operator = (words(expression.get("name", ())) or [""])[-1]
    if operator not in {"=", "<", "<=", ">", ">=", "~~"} or "lexpr" not in expression:
        return None
    sides = expression["lexpr"], expression["rexpr"]
    names = [_column(side) for side in sides]
    if bool(names[0]) == bool(names[1]) or not _value(sides[bool(names[0])]):
        return None
    return operator == "=", names[0] or names[1]


def _column(node: Tree) -> str:
    while "TypeCast" in node:
        node = node["TypeCast"]["arg"]
    parts = words(node.get("ColumnRef", {}).get("fields", ()))
    return parts[-1] if parts else ""


def _value(node: Tree) -> bool:
    while "TypeCast" in node:
        node = node["TypeCast"]["arg"]
    return "A_Const" in node or "ParamRef" in node or "A_ArrayExpr" in node


# --- as text ---------------------------------------------------------------------------------------------------------


def render_tree(tree: PlanTree) -> str:
    """The plan as plain text, one node a line with its conditions and remarks below, the costliest marked."""
    return "\n".join(line for node in tree.nodes for line in _lines(node))


def _lines(node: PlanNode) -> Iterator[str]:
    indent = "   " * node.depth
    marked = "  <== costliest" if node.mark("costliest") else ""
    yield f"{indent}{'-> ' if node.depth else ''}{_title(node)}  ({_figures(node)}){marked}"
    inner = indent + ("   " if node.depth else "") + "  "
    for name, text in node.conditions:
        yield f"{inner}{name}: {' '.join(text.split())}"
    for mark in (each for each in node.marks if each.kind != "costliest"):
        columns = f" (compares {', '.join(mark.columns)})" if mark.columns else ""
        yield f"{inner}! {mark.text}{columns}"


def _title(node: PlanNode) -> str:
    using = f" using {node.index}" if node.index else ""
    on = f" on {node.relation}" if node.relation else ""
    return node.kind + using + on


def _figures(node: PlanNode) -> str:
    rows = f"rows {node.estimated_rows:,.0f}"
    if node.actual_rows is None:
        return f"{node.cost_share:.0%}, cost {node.total_cost:,.0f}, {rows} estimated"
    loops = f" x {node.loops:,.0f}" if node.loops and node.loops > 1 else ""
    return (
        f"{node.cost_share:.0%}, {node.own_ms or 0.0:,.1f} ms, {rows} estimated, {node.actual_rows:,.0f}{loops} actual"
    )
