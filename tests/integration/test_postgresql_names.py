"""A name means one object or is refused with what was probably meant; a statement shows no value of its own."""

from __future__ import annotations

import pytest

from opsagent_jupyter.errors import InvalidArguments, OpsAgentError
from opsagent_jupyter.plugins.postgresql import names
from opsagent_jupyter.plugins.postgresql.changes import predicates
from opsagent_jupyter.plugins.postgresql.literals import HIDDEN, SHOWN, masked, shown
from opsagent_jupyter.plugins.sheets import cell
from opsagent_jupyter.plugins.wording import duration, listing, milliseconds, percent, plural, size
from tests.integration.postgresql_stage import attached, execute, on_loop, role, seed

FULL = "n" * 63


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("orders", "public.orders"),
        ("ORDERS", "public.orders"),
        ("public.orders", "public.orders"),
        ('"orders"', "public.orders"),
        ('"Mixed Case"', 'public."Mixed Case"'),
        ("Mixed Case", 'public."Mixed Case"'),
        ("public.Mixed Case", 'public."Mixed Case"'),
        ("apart.hidden_away", "apart.hidden_away"),
    ],
)
@on_loop
async def test_a_table_is_found_as_sql_or_letter_by_letter(database18, text, written):
    """SQL's own reading of a name wins; failing that, a name of exactly these letters."""
    seed(database18)
    async with attached(database18) as db:
        relation = await names.table(db, text)
    assert relation.written == written
    assert relation.owned


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("odrers", "did you mean orders"),
        ("hidden_away", "did you mean apart.hidden_away"),
        ("mixed case", 'did you mean "Mixed Case"'),
        ("a.b.c.d", "too many parts"),
        ("orders_pkey", "is an index, not a table"),
        ("n" * 64, "64 bytes"),
        ("orders; DROP TABLE orders", "There is no table"),
        ('x"; DROP TABLE orders; --', "There is no table"),
        ("", "There is no table"),
        (".", "There is no table"),
        ("12345", "There is no table"),
    ],
)
@on_loop
async def test_what_is_no_table_is_refused_with_what_was_meant(database18, text, said):
    """A refusal names near matches, and nothing of the text is run."""
    seed(database18)
    async with attached(database18) as db:
        with pytest.raises(InvalidArguments, match=said.replace(".", r"\.")):
            await names.table(db, text)
        assert (await names.table(db, "orders")).oid


@on_loop
async def test_a_name_of_63_bytes_is_not_cut(database):
    """The longest name works; one byte more is refused, not silently cut."""
    execute(database, f"CREATE TABLE {FULL} (a int)", f"CREATE INDEX {'i' * 63} ON {FULL} (a)")
    async with attached(database) as db:
        assert (await names.table(db, FULL)).name == FULL
        assert (await names.index(db, "i" * 63)).name == "i" * 63
        with pytest.raises(InvalidArguments, match="64 bytes"):
            await names.table(db, FULL + "n")


@on_loop
async def test_columns_are_found_folded_or_exactly(database):
    """A column is meant as written, or in lower case; the answer quotes it by the server's rule."""
    execute(database, 'CREATE TABLE t (a int, "B c" text, "order" int)')
    async with attached(database) as db:
        relation = await names.table(db, "t")
        found = await names.columns(db, relation, ["A", "B c", '"B c"', "order"])
        with pytest.raises(InvalidArguments, match=r"no column 'ordr'.*order"):
            await names.columns(db, relation, ["ordr"])
    assert [column.written for column in found] == ["a", '"B c"', '"B c"', '"order"']


@on_loop
async def test_a_schema_without_usage_is_a_missing_right(database):
    """A table in a schema that the role may not enter is refused as a right that lacks, or as not found."""
    seed(database)
    with role(database) as dsn:
        async with attached(dsn) as db:
            with pytest.raises(OpsAgentError) as refusal:
                await names.table(db, "apart.hidden_away")
    assert refusal.value.code in {"call.missing_right", "call.invalid_arguments"}


# -- conditions of partial indexes


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("status = 'open'", "status = 'open'"),
        ("deleted_at is null and total > 5.5", "deleted_at IS NULL AND total > 5.5"),
        ("a in (1, 2, 'x')", "a IN (1, 2, 'x')"),
        ("not paid", "NOT paid"),
        ("paid", "paid"),
        ("a = 'it''s' AND b != -3", "a = 'it''s' AND b <> -3"),
        ("a is not null", "a IS NOT NULL"),
        ("a = true", "a = true"),
    ],
)
def test_a_condition_within_the_grammar_is_rewritten(text, written):
    """What is offered comes out with its values quoted by the driver."""
    assert predicates.written(predicates.parse(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "x = now()", "a = 1 or b = 2", "a = 1 and", "", "a; DROP TABLE t", "lower(a) = 'x'", "a = 'x' --", "a = b",
        "a = 1.5e3", "a = $$x$$", "a = 'x' /* */", "(a = 1)", "a = E'x'", "exists (select 1)", "and", "a in ()", "a is",
        "a = 'open", "a ~ 'x'", "a::text = 'x'",
    ],
)  # fmt: skip
def test_a_condition_outside_the_grammar_is_refused(text):
    """Functions, OR, casts and everything else that is not a plain comparison are refused."""
    with pytest.raises(InvalidArguments):
        predicates.parse(text)


# -- what is shown of other people's statements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT * FROM t WHERE a = 'secret' AND b = 42", "SELECT * FROM t WHERE a = ? AND b = ?"),
        ("SELECT 'it''s', E'a\\nb', $1, $tag$x $$ y$tag$, B'101'", "SELECT ?, ?, $1, ?, ?"),
        ("UPDATE t2 SET c3 = .5, d = 1e-7, e = 0x1F", "UPDATE t2 SET c3 = ?, d = ?, e = ?"),
        ('SELECT "we\'ird 1" FROM x -- tail 7\n/* note */ WHERE y=1', 'SELECT "we\'ird 1" FROM x WHERE y=?'),
        ("SELECT 'cut off here", "SELECT ?"),
        ("SELECT U&'d\\0061t', N'x'", "SELECT ?, ?"),
    ],
)
def test_literals_and_comments_do_not_show(text, expected):
    """Values become question marks; names and parameters stay."""
    assert shown(text) == expected


@pytest.mark.parametrize(
    "text",
    ["SELECT 'a\\' || 'secret'", "SELECT 'a\\'; SELECT secret --'", "INSERT INTO t VALUES ('x\\'', 'secret')"],
)
def test_a_string_that_may_end_in_two_ways_hides_the_rest(text):
    """Where the end of a string depends on a setting of the session, nothing after it is shown."""
    assert "secret" not in masked(text)


def test_a_statement_with_a_password_is_hidden_and_a_column_of_that_kind_is_not():
    """PASSWORD as a word hides the statement; password_hash does not."""
    assert shown("ALTER ROLE x PASSWORD 'abc'") == HIDDEN
    assert "password_hash" in shown("SELECT password_hash FROM users WHERE id = $1")


def test_a_long_statement_is_cut():
    """At most 500 characters of a statement are shown."""
    assert len(shown("SELECT " + ", ".join(f"column_{n}" for n in range(200)))) == SHOWN


# -- words and cells


def test_figures_read_like_a_person_wrote_them():
    """Sizes, times, shares and counts in plain English."""
    assert [size(n) for n in (0, 900, 4613734, 65498251264)] == ["0 bytes", "900 bytes", "4.4 MB", "61 GB"]
    assert [duration(n) for n in (0.012, 4.23, 42, 200, 18720, 273600)] == [
        "12 ms",
        "4.2 s",
        "42 s",
        "3 min 20 s",
        "5 h 12 min",
        "3 d 4 h",
    ]
    assert [milliseconds(n) for n in (0.35, 9.7, 41.2, 2400)] == ["0.35 ms", "9.7 ms", "41 ms", "2.4 s"]
    assert [percent(1, 3), percent(1, 1000), percent(1, 0)] == ["33 %", "under 1 %", "0 %"]
    assert [plural(1, "row"), plural(200_000, "row"), plural(2, "index", "indexes")] == [
        "1 row",
        "200,000 rows",
        "2 indexes",
    ]
    assert [listing(["a"]), listing(["a", "b"]), listing(list("abcde"))] == ["a", "a and b", "a, b, c and 2 more"]


def test_a_cell_is_json_and_cut_in_bytes():
    """Odd numbers become nothing, long texts are cut to whole characters."""
    assert cell(float("nan")) is None
    assert cell(float("inf")) is None
    long = cell("ä" * 5000, 100)
    assert isinstance(long, str)
    assert len(long.encode()) <= 100
