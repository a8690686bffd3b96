"""What a statement is, read from the tree of PostgreSQL's own parser: its class, and every name it may call or read.

`examine` is the first guard of EXPLAIN (the catalog check of `purity` is the second): it knows one statement from two,
a read from a write, and functions that do more than compute. What it cannot read it refuses. Grammar: PostgreSQL 18.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, NamedTuple, TypeVar

from opsagent_jupyter.errors import StatementRefused
from opsagent_jupyter.plugins.postgresql.statement_rules import LATER_SYNTAX, SECRET_RELATIONS, rule_for

Tree = dict[str, Any]

LONGEST = 262_144
"""Characters; a longer text is refused unread."""


class Name(NamedTuple):
    """A name as written: its schema if one was given, and itself, folded as the server folds it."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


class Call(NamedTuple):
    """A function call; ``arguments`` is -1 where any number may be meant."""

    schema: str | None
    name: str
    arguments: int


class Field(NamedTuple):
    """``x.name``: a column, or a function of one argument if x has none; ``relation`` is x where that is sure."""

    name: str
    relation: Name | None


@dataclass(frozen=True)
class Names:
    """Every name in a statement that the catalog can resolve to something that runs or is read."""

    calls: frozenset[Call] = frozenset()
    fields: frozenset[Field] = frozenset()
    operators: frozenset[Name] = frozenset()
    types: frozenset[Name] = frozenset()
    relations: frozenset[Name] = frozenset()
    targets: frozenset[Name] = frozenset()
    """Relations that the statement would write to."""

    def __or__(self, other: Names) -> Names:
        return Names(*(getattr(self, kind) | getattr(other, kind) for kind in Names.__dataclass_fields__))


@dataclass(frozen=True)
class Statement:
    """One statement that may be explained."""

    text: str
    kind: str
    """select, values, insert, update, delete or merge."""
    functions: tuple[tuple[str | None, str], ...]
    relations: tuple[tuple[str | None, str], ...]
    parameters: int
    """The highest $n, 0 without any."""
    reads_only: bool
    names: Names = field(repr=False, compare=False)


def examine(text: str, *, analyze: bool) -> Statement:
    """Read one statement, or raise StatementRefused with ``reason`` (a slug); ``analyze``: it would be executed."""
    statements = read(text)
    if not statements:
        raise refused("empty", "There is no statement in the text.", "Give one SELECT.")
    if len(statements) > 1:
        raise refused("several_statements", f"The text holds {len(statements)} statements.", "Give exactly one.")
    kind, node = statements[0]
    reading = Reading(kind, node)
    reading.refuse(analyze=analyze)
    if analyze and reading.parameters:
        raise refused("parameters", "The statement has parameters ($1) without values.", "Put values in their place.")
    return Statement(
        text=text,
        kind=reading.kind,
        functions=tuple(sorted({(call.schema, call.name) for call in reading.calls}, key=str)),
        relations=tuple(sorted(reading.relations, key=str)),
        parameters=reading.parameters,
        reads_only=not (reading.writes or reading.locks),
        names=reading.names(),
    )


def examine_body(text: str, *, runs: bool) -> Names:
    """Names in the body of an SQL function; ``runs``: it may be executed, so it must only read."""
    statements = [Reading(kind, node) for kind, node in read(text)]
    if not runs and (len(statements) > 1 or any(each.kind not in READING for each in statements)):
        return Names()  # the planner inlines a single SELECT only; what it cannot inline it does not look into
    names = Names()
    for reading in statements:
        reading.refuse(analyze=runs)
        names |= reading.names()
    return names


def examine_index(text: str) -> Names:
    """Names in one CREATE INDEX, for a hypothetical index."""
    statements = read(text)
    if len(statements) != 1 or statements[0][0] != "IndexStmt":
        raise refused("not_an_index", "The text is not one CREATE INDEX statement.", "Give exactly that.")
    reading = Reading("IndexStmt", statements[0][1])
    reading.refuse_unknown()
    reading.refuse_functions(analyze=True)
    return reading.names()


def calls_with_constants(expression: str, function: str) -> bool:
    """Whether an expression calls a function of this name with no column among its arguments; in doubt it does."""
    try:
        [(_, select)] = read(f"SELECT {expression}")
        calls = [node for kind, node in descendants(select) if kind == "FuncCall"]
    except (StatementRefused, ValueError):
        return True
    its = [call for call in calls if words(call["funcname"])[-1] == function]
    return not its or any(all(kind != "ColumnRef" for kind, _ in descendants(call)) for call in its)


def refused(reason: str, message: str, hint: str) -> StatementRefused:
    return StatementRefused(message, hint=hint, reason=reason)


# --- the tree --------------------------------------------------------------------------------------------------------

Parser = Callable[[str], list[tuple[str, Tree]]]


def read(text: str) -> list[tuple[str, Tree]]:
    """Parse a text into its statements, each as node type and node."""
    if len(text) > LONGEST:
        raise refused("too_long", f"The text is longer than {LONGEST} characters.", "Give the statement alone.")
    if "\0" in text:
        raise refused("syntax", "The text holds a NUL character.", "Remove it; PostgreSQL does not accept it either.")
    return _parser()(text)


@cache
def _parser() -> Parser:
    try:
        lib: ctypes.CDLL = import_module("postgast.native").lib  # its bundled stubs are beyond mypy
    except (ImportError, OSError):
        from opsagent_jupyter.plugins.postgresql.statement_tokens import read_tokens

        return read_tokens
    return lambda text: _native(lib, text)


def _native(lib: ctypes.CDLL, text: str) -> list[tuple[str, Tree]]:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise refused("syntax", "The text holds half a Unicode character.", "Type it again.") from error
    answer = lib.pg_query_parse(encoded)
    try:
        if answer.error:
            message = answer.error.contents.message.decode(errors="replace")
            raise refused("syntax", f"PostgreSQL's parser cannot read this: {message}.", "Correct the statement.")
        tree = json.loads(answer.parse_tree, strict=False)
    except RecursionError as error:
        raise refused("too_deep", "The statement is nested too deeply to be checked.", "Simplify it.") from error
    except ValueError as error:
        raise refused("syntax", "The parser's answer cannot be read.", "Remove unusual characters.") from error
    finally:
        lib.pg_query_free_parse_result(answer)
    return [next(iter(each["stmt"].items())) for each in tree.get("stmts", ())]


# --- what the nodes mean ---------------------------------------------------------------------------------------------

READING = ("select", "values")

KINDS = {
    "InsertStmt": "insert",
    "UpdateStmt": "update",
    "DeleteStmt": "delete",
    "MergeStmt": "merge",
}

INNER = {
    # Fields whose node the tree writes without its type.
    "typeName": "TypeName",
    "larg": "SelectStmt",
    "rarg": "SelectStmt",
    **dict.fromkeys(("relation", "rel"), "RangeVar"),
    "intoClause": "IntoClause",
    "withClause": "WithClause",
    "over": "WindowDef",
    "collClause": "CollateClause",
    "onConflictClause": "OnConflictClause",
    "infer": "InferClause",
    "returningClause": "ReturningClause",
    **dict.fromkeys(("alias", "join_using_alias"), "Alias"),
    **dict.fromkeys(("search_clause", "cycle_clause"), "CTEClause"),
    **dict.fromkeys(("ival", "fval", "boolval", "sval", "bsval"), "Value"),
    **dict.fromkeys(
        ("returning", "val", "context_item", "output", "on_empty", "on_error", "pathspec", "format", "value", "expr"),
        "Json",
    ),
    **dict.fromkeys(("constructor", "arg"), "Json"),
}

QUIET = frozenset(
    # Nodes that call nothing by name themselves; their children are walked like all others.
    """
    ResTarget A_Const A_Star A_Indices A_ArrayExpr TypeCast CollateClause RangeTableFuncCol Alias WithClause CTEClause
    BoolExpr
    NullTest BooleanTest RowExpr CoalesceExpr GroupingFunc GroupingSet WindowDef SQLValueFunction XmlExpr XmlSerialize
    NamedArgExpr SetToDefault MultiAssignRef OnConflictClause InferClause IndexElem MergeWhenClause ReturningClause
    ColumnDef List String Integer Float Boolean BitString Value Json JsonArgument JsonTableColumn
    JsonTablePathSpec JsonKeyValue JsonValueExpr JsonFormat JsonReturning JsonIsPredicate JsonBehavior JsonOutput
    JsonAggConstructor MinMaxExpr CaseExpr CaseWhen DefElem
    """.split()  # noqa: SIM905 - a list of a hundred strings is no easier to read
)

COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")
"""Operators that joins, sorting, grouping, IN, CASE, BETWEEN and DISTINCT use without naming them."""


def children(node: Tree) -> Iterator[tuple[str, Tree]]:
    """The nodes directly below a node, each with its type; an unknown kind of field is refused."""
    for key, value in node.items():
        for each in value if isinstance(value, list) else (value,):
            if isinstance(each, dict):
                yield _typed(key, each)


def descendants(node: Tree) -> Iterator[tuple[str, Tree]]:
    """All nodes below a node."""
    stack = list(children(node))
    while stack:
        each = stack.pop()
        yield each
        stack.extend(children(each[1]))


def _typed(key: str, value: Tree) -> tuple[str, Tree]:
    if len(value) == 1:
        kind, inner = next(iter(value.items()))
        if kind[:1].isupper() and isinstance(inner, dict):
            return kind, inner
    if key in INNER:
        return INNER[key], value
    if not value:  # an empty list element, as in SELECT DISTINCT without ON
        return "Value", value
    raise refused("unknown_syntax", f"The statement has a part ({key}) that cannot be checked.", "Simplify it.")


def words(nodes: Sequence[Tree]) -> list[str]:
    """The texts of a list of String nodes, other nodes left out."""
    return [node["String"].get("sval", "") for node in nodes if "String" in node]


def named(parts: Sequence[str]) -> Name:
    return Name(parts[-2] if len(parts) > 1 else None, parts[-1])


_Source = Name | frozenset[str]
"""What x in x.name may be: a relation, or something with at least these columns."""


def _output_columns(query: Tree, renamed: Sequence[str]) -> frozenset[str]:
    """Columns that a subquery has for sure; the first ones may be renamed."""
    select = query.get("SelectStmt", {})
    while "larg" in select:
        select = select["larg"]
    targets = [each["ResTarget"] for each in select.get("targetList", ()) if "ResTarget" in each]
    names = [target.get("name") or _column_name(target) for target in targets]
    if renamed:
        names = names[len(renamed) :] if "*" not in names else []
    return frozenset([*renamed, *names]) - {"", "*"}


def _column_name(target: Tree) -> str:
    fields = target.get("val", {}).get("ColumnRef", {}).get("fields", [{}])
    return "*" if "A_Star" in fields[-1] else (words(fields) or [""])[-1]


_AnyName = TypeVar("_AnyName", Name, Call, Field)


def _folded(names: set[_AnyName]) -> frozenset[_AnyName]:
    """Names, and how a server with a single-byte encoding would fold their letters beyond ASCII."""
    return frozenset(names | {each._replace(name=each.name.lower()) for each in names if not each.name.isascii()})


class Reading:
    """One statement walked through: what it is, and the names in it."""

    def __init__(self, kind: str, node: Tree) -> None:
        self.node_type = kind
        self.kind = KINDS.get(kind, "values" if "valuesLists" in node and "targetList" not in node else "select")
        self.calls: set[Call] = set()
        self.operators: set[Name] = set()
        self.types: set[Name] = set()
        self.relations: set[Name] = set()
        self.targets: set[Name] = set()
        self.sources: dict[str, set[_Source]] = {}
        self.ctes: dict[str, set[_Source]] = {}
        self.qualified: list[list[str]] = []
        self.fields: set[Field] = set()
        self.parameters = 0
        self.writes = False
        self.locks = ""
        self.creates = False
        self._unknown = ""
        self._nameless = False
        if kind in {"SelectStmt", "IndexStmt", *KINDS}:
            self._walk(kind, node)

    def names(self) -> Names:
        calls, fields = _folded(self.calls), _folded(self._called_fields())
        # A call or a field may be a conversion: evil_domain('x'), (x).evil_domain.
        conversions = {Name(each.schema, each.name) for each in calls} | {Name(None, each.name) for each in fields}
        return Names(
            calls,
            fields,
            frozenset(self.operators | {Name(None, each) for each in COMPARISONS}),
            _folded(self.types) | conversions,
            _folded(self.relations),
            _folded(self.targets),
        )

    # --- refusals

    def refuse(self, *, analyze: bool) -> None:
        """Raise StatementRefused unless this may be planned, or with ``analyze`` executed."""
        self._refuse_class()
        if self.creates:
            raise refused("creates_table", "SELECT INTO creates a table.", "Explain the SELECT without INTO.")
        if analyze and self.writes:
            raise refused(
                "writes",
                f"EXPLAIN ANALYZE would execute the {self.kind.upper() if self.kind not in READING else 'write'}.",
                "Explain it without ANALYZE: that plans only.",
            )
        if analyze and self.locks:
            raise refused("row_locks", f"{self.locks} locks rows.", "Leave the locking clause out.")
        self.refuse_unknown()
        self.refuse_functions(analyze=analyze)
        if any(each.schema == "pg_temp" for each in self.calls | self.types | self.operators | self.relations):
            raise refused("temporary", "Objects of pg_temp cannot be checked.", "Use a permanent object.")
        for relation in sorted(self.relations, key=str):
            if relation.name in SECRET_RELATIONS and relation.schema in {None, "pg_catalog", "information_schema"}:
                raise secret(relation.name)

    def refuse_unknown(self) -> None:
        if self._unknown:
            raise refused("unknown_syntax", f"{self._unknown} cannot be checked here.", "Simplify the statement.")

    def refuse_functions(self, *, analyze: bool) -> None:
        """Raise StatementRefused for a function that is known by its name to do more than compute."""
        fields = {each.name for each in self._called_fields() if each.relation is None}
        for name in sorted({each.name for each in self.calls} | fields):
            rule = rule_for(name)
            if rule and (analyze or rule.planned):
                raise refused(rule.reason, f"{name}() is not run: it {rule.does}.", rule.instead)

    def _refuse_class(self) -> None:
        if self.node_type == "ExplainStmt":
            raise refused("explain", "The text brings its own EXPLAIN.", "Give the bare statement.")
        if self.node_type in {"CreateTableAsStmt", "RefreshMatViewStmt"}:
            raise refused("creates_table", "This statement writes a table.", "Explain its SELECT alone.")
        if self.node_type in {"ExecuteStmt", "DeclareCursorStmt", "PrepareStmt", "FetchStmt"}:
            raise refused("indirect", "The statement stands behind another one.", "Give the SELECT itself.")
        if self.node_type not in {"SelectStmt", *KINDS}:
            name = self.node_type.removesuffix("Stmt")
            raise refused("utility", f"A statement of this class ({name}) has no plan.", "Give a SELECT.")

    # --- the walk

    def _walk(self, kind: str, node: Tree) -> None:
        stack = [(kind, node)]
        while stack:
            kind, node = stack.pop()
            if kind in self._SEEN:
                self._SEEN[kind](self, node)
            elif kind in LATER_SYNTAX:
                self.calls.add(Call(None, LATER_SYNTAX[kind], -1))
            elif kind not in QUIET:
                self._unknown = self._unknown or kind
            stack.extend(children(node))

    def _see_select(self, node: Tree) -> None:
        self.creates = self.creates or "intoClause" in node

    def _see_into(self, _node: Tree) -> None:
        self.creates = True

    def _see_writing(self, node: Tree) -> None:
        self.writes = True
        relation = Name(node["relation"].get("schemaname"), node["relation"]["relname"])
        self.targets.add(relation)
        for each in ("excluded", "old", "new"):
            self._name(each, relation)

    def _see_index(self, _node: Tree) -> None:
        self.writes = True

    def _see_locking(self, node: Tree) -> None:
        strength = node.get("strength", "").removeprefix("LCS_FOR")
        self.locks = "FOR " + {"NOKEYUPDATE": "NO KEY UPDATE", "KEYSHARE": "KEY SHARE"}.get(strength, strength)

    def _see_call(self, node: Tree) -> None:
        name = named(words(node["funcname"]))
        arguments = len(node.get("args", ()))
        if node.get("agg_within_group"):
            arguments += len(node.get("agg_order", ()))
        self.calls.add(Call(*name, arguments))

    def _see_sample(self, node: Tree) -> None:
        self.calls.add(Call(*named(words(node["method"])), 1))

    def _see_json_query(self, node: Tree) -> None:
        self.calls.add(Call(None, LATER_SYNTAX[node.get("op", "JSON_EXISTS_OP")], -1))

    def _see_expression(self, node: Tree) -> None:
        self.operators.add(named(words(node["name"])))

    def _see_sublink(self, node: Tree) -> None:
        if node.get("operName"):
            self.operators.add(named(words(node["operName"])))

    def _see_sort(self, node: Tree) -> None:
        if node.get("useOp"):
            self.operators.add(named(words(node["useOp"])))

    def _see_type(self, node: Tree) -> None:
        if node.get("names"):
            self.types.add(named(words(node["names"])))

    def _see_parameter(self, node: Tree) -> None:
        self.parameters = max(self.parameters, node.get("number", 0))

    def _see_relation(self, node: Tree) -> None:
        relation = Name(node.get("schemaname"), node["relname"])
        self.relations.add(relation)
        renamed = words(node.get("alias", {}).get("colnames", ()))
        self._name(node.get("alias", {}).get("aliasname", relation.name), frozenset(renamed) if renamed else relation)

    def _see_subselect(self, node: Tree) -> None:
        alias = node.get("alias", {})
        renamed = words(alias.get("colnames", ()))
        self._name(alias.get("aliasname", ""), _output_columns(node.get("subquery", {}), renamed))

    def _see_other_source(self, node: Tree) -> None:
        """A function or the like in FROM: only columns that it names here are known."""
        alias = node.get("alias", {})
        defined = [each["ColumnDef"].get("colname", "") for each in node.get("coldeflist", ()) if "ColumnDef" in each]
        self._name(alias.get("aliasname", ""), frozenset([*words(alias.get("colnames", ())), *defined]))
        self._nameless = self._nameless or "aliasname" not in alias

    def _see_join(self, node: Tree) -> None:
        for alias in (node.get("alias"), node.get("join_using_alias")):
            if alias:
                self._name(alias["aliasname"], frozenset(words(alias.get("colnames", ()))))

    def _see_json_table(self, node: Tree) -> None:
        self._see_other_source(node)
        self.calls.add(Call(None, LATER_SYNTAX["JsonTable"], -1))

    def _see_returning(self, node: Tree) -> None:
        self._name(node.get("value", ""), frozenset())

    def _see_cte(self, node: Tree) -> None:
        renamed = words(node.get("aliascolnames", ()))
        self.ctes.setdefault(node["ctename"], set()).add(_output_columns(node.get("ctequery", {}), renamed))

    def _name(self, name: str, source: _Source) -> None:
        self.sources.setdefault(name, set()).add(source)

    def _see_column(self, node: Tree) -> None:
        parts = words(node["fields"])
        if len(parts) > 1 and "String" in node["fields"][-1]:
            self.qualified.append(parts)

    def _see_indirection(self, node: Tree) -> None:
        self.fields |= {Field(each, None) for each in words(node["indirection"])}

    def _called_fields(self) -> set[Field]:
        """Every x.name that may be a call: all but those where each x in the statement has such a column for sure."""
        return self.fields | {field for parts in self.qualified for field in self._field(parts)}

    def _field(self, parts: list[str]) -> list[Field]:
        sources: set[_Source] = set()
        for source in self.sources.get(parts[-2], {frozenset[str]()}):
            hidden = isinstance(source, Name) and source.schema is None and source.name in self.ctes
            sources |= self.ctes[source.name] if isinstance(source, Name) and hidden else {source}
            if hidden:
                sources.add(source)
        relations = [source for source in sources if isinstance(source, Name)]
        if self._nameless or any(parts[-1] not in source for source in sources if not isinstance(source, Name)):
            return [Field(parts[-1], None)]
        return [Field(parts[-1], relation) for relation in relations]

    def _see_word(self, node: Tree) -> None:
        """A word of the token reader, which cannot tell what it names: so it names everything."""
        self.calls.add(Call(node.get("schema"), node["sval"], -1))
        self.relations.add(Name(node.get("schema"), node["sval"]))

    _SEEN: ClassVar[dict[str, Callable[[Reading, Tree], None]]] = {
        "SelectStmt": _see_select,
        "IntoClause": _see_into,
        "IndexStmt": _see_index,
        "LockingClause": _see_locking,
        "FuncCall": _see_call,
        "RangeTableSample": _see_sample,
        "JsonFuncExpr": _see_json_query,
        "A_Expr": _see_expression,
        "SubLink": _see_sublink,
        "SortBy": _see_sort,
        "TypeName": _see_type,
        "ParamRef": _see_parameter,
        "RangeVar": _see_relation,
        "JoinExpr": _see_join,
        "JsonTable": _see_json_table,
        "ReturningOption": _see_returning,
        "CommonTableExpr": _see_cte,
        "ColumnRef": _see_column,
        "A_Indirection": _see_indirection,
        "Word": _see_word,
        **dict.fromkeys(KINDS, _see_writing),
        "RangeSubselect": _see_subselect,
        **dict.fromkeys(("RangeFunction", "RangeTableFunc"), _see_other_source),
    }


def secret(name: str) -> StatementRefused:
    """The refusal of a relation whose rows are secrets."""
    return refused("secret_relation", f"{name} holds secrets.", "Use a public view of it, such as pg_roles.")
