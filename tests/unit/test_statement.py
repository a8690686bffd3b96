"""The first guard of EXPLAIN: what a statement is, which names are in it, and what is refused without asking a server."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from opsagent_jupyter.errors import StatementRefused
from opsagent_jupyter.plugins.postgresql import statement as statements
from opsagent_jupyter.plugins.postgresql.explain_failures import withheld
from opsagent_jupyter.plugins.postgresql.explain_plan import filter_columns, read_plan, render_tree
from opsagent_jupyter.plugins.postgresql.statement import (
    Call,
    Field,
    Name,
    Names,
    calls_with_constants,
    examine,
    examine_body,
    examine_index,
)
from opsagent_jupyter.plugins.postgresql.statement_rules import READERS, rule_for
from opsagent_jupyter.plugins.postgresql.statement_tokens import read_tokens

CASES = [
    case
    for file in sorted((Path(__file__).parents[1] / "cases").glob("explain_safety*.json"))
    for case in json.loads(file.read_text(encoding="utf-8"))["cases"]
]


def reason(text: str, *, analyze: bool = True) -> str:
    """The slug of the refusal of a text."""
    with pytest.raises(StatementRefused) as caught:
        examine(text, analyze=analyze)
    assert caught.value.hint
    return caught.value.facts["reason"]


# --- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "reads_only"),
    [
        ("SELECT 1", "select", True),
        ("(SELECT 1) UNION ALL (SELECT 2)", "select", True),
        ("TABLE orders", "select", True),
        ("VALUES (1), (2)", "values", True),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "select", True),
        ("SELECT * FROM orders FOR UPDATE", "select", False),
        ("WITH a AS (DELETE FROM orders RETURNING 1) SELECT * FROM a", "select", False),
        ("INSERT INTO orders VALUES (1)", "insert", False),
        ("UPDATE orders SET id = 1", "update", False),
        ("DELETE FROM orders", "delete", False),
        ("MERGE INTO orders o USING new n ON o.id = n.id WHEN MATCHED THEN DELETE", "merge", False),
    ],
)
def test_kind_and_effect_are_told(text, kind, reads_only):
    """The class of a statement is read from its tree, and so is whether it only reads."""
    statement = examine(text, analyze=False)
    assert (statement.kind, statement.reads_only, statement.text) == (kind, reads_only, text)


def test_parameters_are_counted_by_the_highest():
    """$3 means three parameters, however often each is used; a $1 inside a string is none."""
    assert examine("SELECT $1, $3, $1 FROM t WHERE a = $2 AND b = '$9'", analyze=False).parameters == 3
    assert examine("SELECT 1", analyze=False).parameters == 0


def test_functions_and_relations_are_named_as_written():
    """Names keep their schema, fold their case, and decode quotes and Unicode escapes."""
    statement = examine(
        'SELECT Upper(a), app."Do It"(b), U&"\\0066"(1) FROM Shop.Orders o, "Odd Name", (SELECT max(x) FROM inner_t) y',
        analyze=True,
    )
    assert set(statement.functions) == {(None, "upper"), ("app", "Do It"), (None, "f"), (None, "max")}
    assert set(statement.relations) == {("shop", "orders"), (None, "Odd Name"), (None, "inner_t")}


def names(text: str) -> Names:
    return examine(text, analyze=False).names


def test_every_call_is_found_with_its_arguments():
    """Calls are found wherever they stand, and ordered-set aggregates count what they sort."""
    text = """SELECT a(1) FROM b(1, 2) x, LATERAL (VALUES (c())) y TABLESAMPLE_ JOIN z ON d(1) WHERE e(1) IN (SELECT f(1))
              GROUP BY g(1) HAVING h(1) WINDOW w AS (ORDER BY i(1)) ORDER BY j(1) WITHIN_, k(0.5) WITHIN GROUP (ORDER BY v)
              LIMIT l(1) OFFSET m(1)""".replace("TABLESAMPLE_", "").replace("WITHIN_", "")
    assert {(call.name, call.arguments) for call in names(text).calls} == {
        ("a", 1), ("b", 2), ("c", 0), ("d", 1), ("e", 1), ("f", 1), ("g", 1), ("h", 1), ("i", 1), ("j", 1), ("k", 2),
        ("l", 1), ("m", 1),
    }  # fmt: skip


def test_operators_and_types_are_named():
    """Operators count with the comparisons that need no name; a call may be a conversion, so its name is a type's too."""
    found = names(
        "SELECT a @@@ 1, b OPERATOR(app.##) 2, c::app.money2, CAST(d AS email[]), price('x') ORDER BY e USING ~<~"
    )
    assert {Name(None, "@@@"), Name("app", "##"), Name(None, "~<~"), Name(None, "=")} <= found.operators
    assert {Name("app", "money2"), Name(None, "email"), Name(None, "price")} <= found.types


def test_targets_are_what_is_written_to():
    """Relations that a statement writes to are told apart from those that it reads."""
    found = names("WITH d AS (DELETE FROM a.b RETURNING *) INSERT INTO c SELECT * FROM d, e")
    assert found.targets == {Name("a", "b"), Name(None, "c")}
    assert found.relations >= {Name("a", "b"), Name(None, "c"), Name(None, "e")}


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("SELECT o.total FROM orders o", {Field("total", Name(None, "orders"))}),
        ("SELECT shop.orders.total FROM shop.orders", {Field("total", Name("shop", "orders"))}),
        (
            "SELECT o.total FROM orders o, (SELECT 1 AS x) o2 WHERE EXISTS (SELECT o.total FROM f(1) o)",
            {Field("total", None)},
        ),
        ("SELECT x.total FROM (SELECT total FROM orders) x", set()),
        ("SELECT x.total FROM (SELECT id, total FROM orders) x(a, b)", {Field("total", None)}),
        ("SELECT x.b FROM (SELECT id, total FROM orders) x(a, b)", set()),
        ("SELECT g.touch FROM generate_series(1, 2) g", {Field("touch", None)}),
        ("SELECT g.n FROM generate_series(1, 2) g(n)", set()),
        ("SELECT r.n FROM json_to_record('{}') AS r(n int)", set()),
        ("WITH t AS (SELECT 1 AS n) SELECT t.n, u.m FROM t, t AS u", {Field("m", None), Field("n", Name(None, "t"))}),
        ("SELECT (a).touch, (f(1)).x.y FROM orders a", {Field("touch", None), Field("x", None), Field("y", None)}),
        ("SELECT o.* FROM orders o", set()),
    ],
)
def test_fields_that_may_be_calls_are_kept(text, fields):
    """x.f is a call of f(x) where x has no column f; only what is a column for sure is let go."""
    found = names(text).fields
    assert fields <= found
    assert {field.name for field in found} - {"total"} == {field.name for field in fields} - {"total"}


def test_later_syntax_counts_as_a_call():
    """What an older server would read as a function call is one."""
    text = "SELECT JSON_SCALAR(1), JSON_VALUE('{}', '$'), JSON_OBJECT('a': 1) FROM JSON_TABLE('[]', '$[*]' COLUMNS (a int)) j"
    assert {call.name for call in names(text).calls} == {"json_scalar", "json_value", "json_object", "json_table"}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "empty"),
        (" ; ", "empty"),
        ("-- nothing", "empty"),
        ("SELECT 1; SELECT 2", "several_statements"),
        ("SELECT '\\'; DELETE FROM t; --'", "several_statements"),
        ("SELEC 1", "syntax"),
        ("SELECT 'open", "syntax"),
        ("(ANALYZE) DELETE FROM t", "syntax"),
        ("SELECT 1\0", "syntax"),
        ("SELECT '\ud800'", "syntax"),
        ("EXPLAIN SELECT 1", "explain"),
        ("CREATE TABLE t AS SELECT 1", "creates_table"),
        ("SELECT 1 INTO t", "creates_table"),
        ("SELECT 1 INTO t UNION SELECT 2", "creates_table"),
        ("REFRESH MATERIALIZED VIEW m", "creates_table"),
        ("EXECUTE p", "indirect"),
        ("DECLARE c CURSOR FOR SELECT 1", "indirect"),
        ("COPY t TO STDOUT", "utility"),
        ("SET TRANSACTION READ WRITE", "utility"),
        ("COMMIT", "utility"),
        ("DO 'BEGIN END'", "utility"),
        ("CALL p()", "utility"),
        ("SELECT table_to_xml('t', true, false, '')", "sql_in_text"),
        ("SELECT g.dblink FROM generate_series(1, 2) g", "sql_in_text"),
        ("SELECT domain_in('x', 1, -1)", "type_by_value"),
        ("SELECT txid_current()", "transaction_id"),
        ("SELECT * FROM pg_authid", "secret_relation"),
        ("SELECT " + "1+" * 5000 + "1", "too_deep"),
        ("SELECT '" + "x" * 300_000 + "'", "too_long"),
    ],
)
@pytest.mark.parametrize("analyze", [False, True])
def test_refused_with_and_without_analyze(text, slug, analyze):
    """Two statements, utilities, tables made on the way and hidden SQL are refused before anything is sent."""
    assert reason(text, analyze=analyze) == slug


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("UPDATE t SET a = 1", "writes"),
        ("WITH d AS (DELETE FROM t) SELECT 1", "writes"),
        ("SELECT * FROM (SELECT * FROM t FOR KEY SHARE) x", "row_locks"),
        ("SELECT $1::int", "parameters"),
        ("SELECT pg_catalog.pg_terminate_backend(1)", "signal"),
        ("SELECT (1).pg_terminate_backend", "signal"),
        ("SELECT set_config('a', 'b', true)", "setting"),
        ("SELECT nextval('s')", "sequence"),
        ("SELECT pg_try_advisory_xact_lock(1)", "advisory_lock"),
        ("SELECT pg_ls_dir('.')", "file"),
        ("SELECT lo_import('x')", "large_object"),
        ("SELECT pg_switch_wal()", "wal"),
        ("SELECT pg_copy_logical_replication_slot('a', 'b')", "replication"),
        ("SELECT pg_stat_statements_reset()", "statistics"),
        ("SELECT pg_notify('a', 'b')", "notify"),
        ("SELECT pg_export_snapshot()", "snapshot"),
        ("SELECT gin_clean_pending_list('i')", "maintenance"),
        ("SELECT pg_sleep_for('1 s')", "sleep"),
    ],
)
def test_refused_with_analyze_only(text, slug):
    """What only execution would do is planned, but not executed."""
    assert reason(text, analyze=True) == slug
    examine(text, analyze=False)


def test_unknown_syntax_is_refused():
    """A kind of node that is not in our list is not guessed at."""
    assert reason("DELETE FROM t WHERE CURRENT OF c", analyze=False) == "unknown_syntax"


def test_refusal_says_what_and_what_instead():
    """The message names the function, what it does and a way out."""
    with pytest.raises(StatementRefused) as caught:
        examine("SELECT pg_terminate_backend(1)", analyze=True)
    assert "pg_terminate_backend() is not run" in str(caught.value)
    assert "kill_connection" in str(caught.value)


def test_cases_to_allow_pass_the_parser():
    """No case that is to be answered is refused by its text."""
    for case in CASES:
        if case["expect"] == "allow":
            examine(case["sql"], analyze=case["analyze"])


def test_readers_and_rules_are_apart():
    """No name is both known to read only and known to do more."""
    assert [name for name in READERS if rule_for(name)] == []
    assert rule_for("pg_stat_get_db_stat_reset_time") is None


# --- bodies and indexes ----------------------------------------------------------------------------------------------


def test_body_of_a_function_must_only_read_if_it_runs():
    """An SQL function that may run is read like the statement; one that cannot be inlined is not looked into."""
    assert Call(None, "f", 1) in examine_body("SELECT 1; SELECT f($1)", runs=True).calls
    with pytest.raises(StatementRefused):
        examine_body("UPDATE t SET a = 1; SELECT 1", runs=True)
    assert examine_body("UPDATE t SET a = 1; SELECT 1", runs=False) == Names()
    assert Call(None, "f", 0) in examine_body("SELECT f()", runs=False).calls


def test_index_names_its_functions():
    """A hypothetical index is one CREATE INDEX, and its expressions are checked like a statement."""
    found = examine_index(
        "CREATE INDEX CONCURRENTLY ON shop.orders USING btree (lower(note), id DESC) WITH (fillfactor = 70) WHERE ok(id)"
    )
    assert {call.name for call in found.calls} == {"lower", "ok"}
    for text in ("DROP INDEX i", "CREATE INDEX ON t (a); SELECT 1", "CREATE INDEX ON t (pg_sleep(1))"):
        with pytest.raises(StatementRefused):
            examine_index(text)


@pytest.mark.parametrize(
    ("expression", "constant"),
    [
        ("f(a)", False),
        ("f(1)", True),
        ("f(g(a), 2)", False),
        ("a + f()", True),
        ("g(f(a), f('x'))", True),
        ("(broken", True),
    ],
)
def test_constant_calls_are_told_from_calls_of_columns(expression, constant):
    """The planner runs f(1) in an index expression by itself; f(column) it does not."""
    assert calls_with_constants(expression, "f") is constant


# --- without PostgreSQL's parser -------------------------------------------------------------------------------------


@pytest.fixture
def tokens_only(monkeypatch):
    """The machine has no build of the parser."""
    monkeypatch.setattr(statements, "_parser", lambda: read_tokens)


def passing() -> set[tuple[str, bool, str, bool]]:
    """Cases whose text is not refused."""
    passed = set()
    for case in CASES:
        with suppress(StatementRefused):
            found = examine(case["sql"], analyze=case["analyze"])
            passed.add((case["sql"], case["analyze"], case["expect"], found.reads_only))
    return passed


def test_stand_in_is_stricter(monkeypatch):
    """Without the parser nothing passes that the parser would refuse, nothing that writes, and most plain reads do."""
    by_parser = passing()
    monkeypatch.setattr(statements, "_parser", lambda: read_tokens)
    by_tokens = passing()
    assert by_tokens < by_parser
    assert all(reads_only for *_, reads_only in by_tokens)
    allowed = [sum(expect == "allow" for _, _, expect, _ in passed) for passed in (by_parser, by_tokens)]
    assert allowed[1] > 0.6 * allowed[0]


@pytest.mark.usefixtures("tokens_only")
def test_stand_in_takes_every_word_for_every_name():
    """It cannot tell a column from a function, a type or a relation, so the catalog is asked for all of them."""
    found = examine('SELECT a.b, x @@@ 1 FROM shop."Odd Name" WHERE c = $2', analyze=False)
    assert {Call("a", "b", -1), Call(None, "b", -1), Call("shop", "Odd Name", -1)} <= found.names.calls
    assert {Name("shop", "Odd Name"), Name(None, "c")} <= found.names.relations
    assert {Name(None, "@@@"), Name(None, "@@")} <= found.names.operators
    assert found.parameters == 2


@pytest.mark.usefixtures("tokens_only")
@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM t",
        "SELECT 1; SELECT 2",
        "SELECT 1 -- x",
        "SELECT /* x */ 1",
        "SELECT E'\\''",
        'SELECT U&"a"',
        "SELECT $$x$$",
        "SELECT é",
        "SELECT 1 INTO t",
        "SELECT * FROM t FOR UPDATE",
        "WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d",
        "SELECT 'open",
        "SELECT ((1)",
        "EXPLAIN SELECT 1",
        "SELECT pg_sleep(1)",
    ],
)
def test_stand_in_refuses_what_it_is_not_sure_of(text):
    """Writes, comments, escapes, dollar quotes and anything beyond ASCII are refused without the parser."""
    with pytest.raises(StatementRefused):
        examine(text, analyze=True)


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "columns"),
    [
        ("(orders.customer_id = 42)", ("customer_id",)),
        ("((o.total > 5) AND (o.status = 'paid'::text) AND (42 = o.customer_id))", ("status", "customer_id", "total")),
        ("((name)::text ~~ 'a%'::text)", ("name",)),
        ("(id = ANY ('{1,2}'::integer[]))", ("id",)),
        ("(deleted_at IS NULL)", ("deleted_at",)),
        ("(customer_id = $1)", ("customer_id",)),
        ("(lower(name) = 'x'::text)", ()),
        ("(a = b)", ()),
        ("((a = 1) OR (b = 2))", ()),
        ("(NOT (SubPlan 1))", ()),
    ],
)
def test_columns_of_a_filter_are_read_by_the_parser(condition, columns):
    """A filter names its columns only if it is a conjunction of comparisons of a column with a value."""
    assert filter_columns(condition) == columns


NESTED = {
    "Node Type": "Limit", "Total Cost": 10.0, "Startup Cost": 0.0, "Plan Rows": 1, "Plans": [{
        "Node Type": "Nested Loop", "Join Type": "Inner", "Total Cost": 1000.0, "Plan Rows": 100, "Plans": [
            {"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Schema": "shop", "Relation Name": "orders",
             "Total Cost": 100.0, "Plan Rows": 100, "Filter": "(orders.note = 'x'::text)"},
            {"Node Type": "Index Scan", "Parent Relationship": "Inner", "Schema": "shop", "Relation Name": "customers",
             "Index Name": "customers_pkey", "Total Cost": 8.0, "Plan Rows": 1, "Index Cond": "(c.id = o.customer_id)"},
        ]}]}  # fmt: skip


def test_inner_side_of_a_loop_counts_for_each_row():
    """Costs are attributed: the inner scan once per outer row, all of it scaled to what a Limit fetches."""
    tree = read_plan(NESTED)
    own = {node.kind: round(node.own_cost, 2) for node in tree.nodes}
    assert own == {"Limit": 0.0, "Nested Loop": 1.0, "Seq Scan": 1.0, "Index Scan": 8.0}
    assert tree.costliest.index == "customers_pkey"


def test_tree_is_plain_text():
    """One line a node, indented by depth, conditions below, the costliest marked."""
    assert render_tree(read_plan(NESTED)).splitlines() == [
        "Limit  (0%, cost 10, rows 1 estimated)",
        "   -> Nested Loop  (10%, cost 1,000, rows 100 estimated)",
        "      -> Seq Scan on shop.orders  (10%, cost 100, rows 100 estimated)",
        "           Filter: (orders.note = 'x'::text)",
        "      -> Index Scan using customers_pkey on shop.customers  (80%, cost 8, rows 1 estimated)  <== costliest",
        "           Index Cond: (c.id = o.customer_id)",
    ]


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ('invalid input syntax for type integer: "hunter2"', "invalid input syntax for type integer …"),
        ("ungültige Eingabesyntax für Typ integer: »hunter2«", "ungültige Eingabesyntax für Typ integer …"),
        ('value "99999999999" is out of range for type integer', "value …"),
        ("invalid byte sequence for encoding: 0xff", "invalid byte sequence for encoding …"),
        ("division by zero", "division by zero"),
    ],
)
def test_message_ends_where_a_value_may_stand(message, kept):
    """Only fixed words of the server are kept, in any of its languages."""
    assert withheld(message) == kept
