"""The conformance kit of a plugin finds each fault that it names; a sound plugin and the two that are shipped pass it."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import psycopg
import pytest
from pymongo import MongoClient

from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.errors import PreconditionFailed, TargetUnreachable
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Result, Risk, Table
from opsagent_jupyter.plugin import Arg, Limits, Note, Plugin, Toolbox
from opsagent_jupyter.plugins.mongodb import plugin as mongodb
from opsagent_jupyter.plugins.mongodb.statements import read as read_statement
from opsagent_jupyter.plugins.postgresql import plugin as postgresql
from opsagent_jupyter.testing.plugin_kit import RULES, Example, Report, Trial, examine
from tests.ledger_plugin import Ledger, LedgerPlugin
from tests.ledger_plugin import plugin as ledger
from tests.mongo import new_database

SECRET = "s3cret-folder"


# -- a small plugin that can have each fault ------------------------------------------------------------------------


class Shelf(Ledger):
    """A ledger that keeps what it was told to write."""

    def __init__(self, name: str, path: str, limits: Limits, flaw: str, heard: list[str]) -> None:
        super().__init__(name, path)
        self.limits, self.flaw, self.heard, self.closed = limits, flaw, heard, False

    def open(self) -> sqlite3.Connection:
        db = super().open()
        db.execute("PRAGMA synchronous = OFF")  # nothing here outlives the test
        return db

    async def identity(self) -> dict[str, Json]:
        if self.flaw == "another identity each time":
            return {"path": secrets.token_hex(4)}
        return {"path": self.path if self.flaw == "a secret in the identity" else Path(self.path).name}

    async def close(self) -> None:
        if self.flaw == "closes once" and self.closed:
            raise RuntimeError
        self.closed = True

    def write(self, statement: str) -> None:
        self.heard.append(statement)
        with closing(self.open()) as db, db:
            db.execute(statement)


def text_of(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


class ShelfPlugin(LedgerPlugin):
    """The plugin, with one fault or none."""

    name = "shelf"

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        self.heard: list[str] = []
        self.toolbox = toolbox(flaw)

    def redactions(self, secret: str) -> tuple[str, ...]:  # noqa: ARG002  # the contract
        return (SECRET,)

    async def connect(self, name: str, secret: str, limits: Limits) -> Shelf:
        there = await asyncio.to_thread(Path(secret).exists)
        if not there and self.flaw != "connects to anything":
            raise TargetUnreachable("There is no such shelf.", hint="Give the path of one.")
        return Shelf(name, secret, limits, self.flaw, self.heard)


def toolbox(flaw: str) -> Toolbox:
    tools = Toolbox("shelves" if flaw == "two names" else "shelf", version="1")
    reading(tools, flaw)
    changing(tools, flaw)
    if flaw == "a tool without an example":

        @tools.read(phrases=("count",))
        async def count_marks(db: Shelf) -> Result:
            """Count the marks."""
            return Result(summary=f"{len(db.texts())} marks")

    return tools


def reading(tools: Toolbox, flaw: str) -> None:
    phrases = ("list marks", "list {mark}") if flaw == "a phrase of its own" else ("list marks",)
    if flaw == "takes anything":

        @tools.read(phrases=phrases)
        async def list_marks(db: Shelf, like: Annotated[Any, Arg("how they begin")] = "") -> Result:
            """List the marks."""
            return listed(db, str(like), flaw)

    else:

        @tools.read(phrases=phrases)
        async def list_marks(db: Shelf, like: Annotated[str, Arg("how they begin")] = "") -> Result:
            """List the marks."""
            return listed(db, like, flaw)


def listed(db: Shelf, like: str, flaw: str) -> Result:
    if flaw == "chokes on text" and "'" in like:
        raise ValueError(like)
    if flaw == "reads and writes":
        db.write("INSERT INTO mark (text) VALUES ('read')")
    texts = [text for text in db.texts() if text.startswith(like)]
    rows = tuple((text,) for text in (texts if flaw == "no cap" else texts[: db.limits.rows]))
    table = Table(name="marks", columns=("text",), rows=rows, total=len(texts))
    return Result(summary="" if flaw == "nothing said" else f"{len(texts)} marks", tables=(table,))


def changing(tools: Toolbox, flaw: str) -> None:
    @tools.change(Risk.MEDIUM, phrases=("add {text}",))
    async def add_mark(db: Shelf, text: Annotated[str, Arg("what to write")]) -> Plan:
        """Write a mark."""
        return planned(db, text, flaw)

    if flaw != "nothing performs":

        @add_mark.performs
        async def _perform(db: Shelf, plan: Plan, note: Note) -> Effect:
            return await performed(db, plan, note, flaw)

    @add_mark.probes
    async def _probe(db: Shelf, plan: Plan, evidence: Mapping[str, Json]) -> Effect:  # the contract
        return Effect(state="succeeded", summary="surely") if flaw == "the probe guesses" else found(db, plan)

    @add_mark.assesses
    def _assess(arguments: Any) -> Assessment:
        lowered = flaw == "arguments lower the risk" and "x" in arguments.text
        return Assessment(risk=Risk.LOW if lowered else Risk.MEDIUM)


def planned(db: Shelf, text: str, flaw: str) -> Plan:
    if not text.strip() or "\0" in text:
        raise PreconditionFailed("A mark is a text.", hint="Give one.")
    if flaw == "plans and writes":
        db.write("INSERT INTO mark (text) VALUES ('planned')")
    literal = f"'{text}'" if flaw == "no quotes" else text_of(text)
    undo = "SELECT 1" if flaw == "an undo that does not" else f"DELETE FROM mark WHERE text = {literal}"
    return Plan(
        title=f"Add the mark {text}",
        statements=(f"INSERT INTO mark (text, at) VALUES ({literal}, 'now')",),
        risk=Risk.LOW if flaw == "a card that plays it down" else Risk.MEDIUM,
        reasons=("it writes",),
        lock="the file",
        undo=undo,
        preconditions={} if flaw == "no preconditions" else {"marks": len(db.texts())},
        before={"text": text},
    )


async def performed(db: Shelf, plan: Plan, note: Note, flaw: str) -> Effect:
    statements = plan.statements
    if flaw == "statements of its own":
        statements = (f"INSERT INTO mark (text, at) VALUES ({text_of(str(plan.before['text']))}, 'then')",)
    if flaw == "writes before the note":
        db.write(statements[0])
        statements = ()
    await note({"path": Path(db.path).name})
    for statement in statements:
        db.write(statement)
    try:
        await asyncio.sleep(0)  # a driver would wait for the answer here
    except asyncio.CancelledError:
        if flaw == "an end that is made up":
            return Effect(state="failed", summary="it was cancelled")
        raise
    return Effect(state="succeeded", summary="sent") if flaw == "success is not looked up" else found(db, plan)


def found(db: Shelf, plan: Plan) -> Effect:
    if plan.before["text"] in db.texts():
        return Effect(state="succeeded", summary="the mark is there")
    return Effect(state="failed", summary="the mark is not there")


MARKS = """
CREATE TABLE IF NOT EXISTS era (number INT);
CREATE TABLE IF NOT EXISTS mark (text TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP);
DELETE FROM mark;
INSERT INTO mark (text, at) VALUES ('a', 'now'), ('b', 'now'), ('c', 'now');
"""


def lines(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT * FROM mark").fetchall()


def shelf_trial(plugin: Plugin, folder: Path, **more: Any) -> Trial:
    """A shelf with three marks."""
    file = folder / SECRET / "shelf.db"
    file.parent.mkdir(exist_ok=True)

    def by_hand(statement: str) -> None:
        with closing(sqlite3.connect(file)) as db, db:
            db.execute(statement)

    def reset() -> None:
        with closing(sqlite3.connect(file)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.executescript(MARKS)

    changing = Example("add_mark", {"text": "d"}, meanwhile=lambda: by_hand("DELETE FROM mark WHERE text = 'a'"))
    given: dict[str, Any] = {
        "plugin": plugin,
        "secret": str(file),
        "broken": str(folder / SECRET / "nowhere.db"),
        "fingerprint": lambda: lines(file),
        "reset": reset,
        "examples": (Example("list_marks"), changing),
        "by_hand": by_hand,
    }
    return Trial(**{**given, **more})


def heard_by(plugin: ShelfPlugin) -> Any:
    def heard() -> list[str]:
        said = list(plugin.heard)
        plugin.heard.clear()
        return said

    return heard


def examined(trial: Trial) -> Report:
    return asyncio.run(examine(trial))


#: Each fault, and a rule that has to find it.
FLAWS = {
    "two names": "names_agree",
    "a tool without an example": "every_tool_is_tried",
    "another identity each time": "it_says_what_answers",
    "closes once": "it_lets_go",
    "connects to anything": "a_wrong_address_is_refused",
    "a phrase of its own": "phrases_name_arguments",
    "takes anything": "arguments_are_validated",
    "arguments lower the risk": "arguments_lower_no_risk",
    "chokes on text": "hostile_text_is_text",
    "a secret in the identity": "nothing_secret_is_said",
    "reads and writes": "reading_changes_nothing",
    "nothing said": "results_read_well",
    "no cap": "results_are_capped",
    "nothing performs": "a_change_can_be_run",
    "plans and writes": "planning_changes_nothing",
    "a card that plays it down": "the_card_is_complete",
    "statements of its own": "it_performs_what_was_planned",
    "writes before the note": "the_note_comes_first",
    "success is not looked up": "only_the_statements_run",
    "no quotes": "hostile_text_is_quoted",
    "an end that is made up": "an_unseen_end_is_not_guessed",
    "the probe guesses": "the_probe_tells_the_truth",
    "no preconditions": "what_changed_meanwhile_is_seen",
    "an undo that does not": "the_undo_takes_it_back",
}


def test_a_sound_plugin_conforms_and_nothing_is_left_untried(tmp_path: Path) -> None:
    """Every rule was tried on it, and every one held."""
    plugin = ShelfPlugin()
    report = examined(shelf_trial(plugin, tmp_path, heard=heard_by(plugin)))
    assert report.ok, report
    assert report.untried == ()
    assert repr(report).startswith("shelf conforms")


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_fault_is_found_by_the_rule_that_forbids_it(flaw: str, tmp_path: Path) -> None:
    """A plugin with one fault does not conform, and the report says which rule it breaks."""
    plugin = ShelfPlugin(flaw)
    report = examined(shelf_trial(plugin, tmp_path, heard=heard_by(plugin)))
    assert FLAWS[flaw] in {check.rule for check in report.failures}, report
    assert "does not conform" in repr(report)


def test_every_rule_has_a_fault_that_only_it_is_known_for() -> None:
    """No rule is there that nothing could break, and each says in a sentence what it asks."""
    assert sorted(FLAWS.values()) == sorted(RULES)
    assert all(sentence.endswith(".") for sentence in RULES.values())


def test_what_was_not_given_is_said_to_be_untried(tmp_path: Path) -> None:
    """Without a hand that runs the undo and without an interfering person two rules are named as not tried."""
    trial = shelf_trial(ShelfPlugin(), tmp_path, by_hand=None)
    report = examined(replace(trial, examples=(Example("list_marks"), Example("add_mark", {"text": "d"}))))
    assert report.ok, report
    assert report.untried == ("what_changed_meanwhile_is_seen", "the_undo_takes_it_back")


def test_a_report_holds_no_secret_of_the_connection_string(tmp_path: Path) -> None:
    """An error that gives the secret away is reported without it."""

    def leaking() -> object:
        raise OSError(tmp_path / SECRET)

    report = examined(shelf_trial(ShelfPlugin(), tmp_path, fingerprint=leaking))
    assert "***" in repr(report)
    assert SECRET not in repr(report)


def test_the_kit_finds_what_the_ledger_of_the_tests_leaves_open(tmp_path: Path) -> None:
    """The ledger neither quotes nor caps: faults that its tests do not need mended, and the only ones."""
    examples = (Example("list_marks"), Example("audit_marks"), Example("add_mark", {"text": "d"}))
    report = examined(shelf_trial(ledger, tmp_path, examples=examples, broken="no://ledger"))
    assert {check.rule for check in report.failures} == {"results_are_capped", "hostile_text_is_quoted"}, report


# -- what is shipped ------------------------------------------------------------------------------------------------

POSTGRESQL_SEED = """
DROP TABLE IF EXISTS orders, archive;
CREATE TABLE orders (id int PRIMARY KEY, customer_id int, status text);
INSERT INTO orders SELECT i, i % 50, 'new' FROM generate_series(1, 500) AS i;
CREATE INDEX orders_status_idx ON orders (status);
CREATE INDEX orders_status_again ON orders (status);
"""
POSTGRESQL_SHAPE = """
SELECT c.relname, c.relkind, i.indisvalid, pg_get_indexdef(c.oid), c.relacl::text,
       (SELECT count(*) FROM orders)
FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
POSTGRESQL_EXAMPLES = (
    Example("list_indexes"),
    Example("get_table_stats"),
    Example("get_locks"),
    Example("get_connection_stats"),
    Example("get_replication_status"),
    Example("explain_query", {"sql": "SELECT * FROM orders WHERE customer_id = 7"}),
    Example("create_index", {"table": "orders", "columns": ["customer_id"]}),
    Example("drop_index", {"index": "orders_status_again"}),
    Example("analyze_table", {"table": "orders"}, visible=False),
)


def disturbed(examples: Sequence[Example], meanwhile: Callable[[], object]) -> list[Example]:
    """The examples, and somebody who interferes with the one that creates an index."""
    return [replace(each, meanwhile=meanwhile) if each.tool == "create_index" else each for each in examples]


@pytest.fixture
def by_hand(database18: str) -> Iterator[psycopg.Connection]:
    """Somebody's own connection to the database."""
    with psycopg.connect(database18, autocommit=True) as connection:
        yield connection


def test_postgresql_conforms(database18: str, by_hand: psycopg.Connection) -> None:
    """Its reading tools and three that change something, on a real server; the others have tests of their own."""
    tried = {example.tool for example in POSTGRESQL_EXAMPLES}
    trial = Trial(
        plugin=postgresql,
        secret=database18,
        broken="postgresql://nobody:s3cret@127.0.0.1:1/nowhere",
        fingerprint=lambda: by_hand.execute(POSTGRESQL_SHAPE).fetchall(),
        reset=lambda: by_hand.execute(POSTGRESQL_SEED),
        examples=disturbed(POSTGRESQL_EXAMPLES, lambda: by_hand.execute("ALTER TABLE orders RENAME TO archive")),
        left_out=sorted(set(postgresql.toolbox.tools) - tried),
        by_hand=by_hand.execute,
    )
    report = examined(trial)
    assert report.ok, report


MONGODB_EXAMPLES = (
    Example("list_indexes", {"collection": "orders"}),
    Example("list_collections"),
    Example("get_collection_stats", {"collection": "orders"}),
    Example("get_database_stats"),
    Example("get_current_ops"),
    Example("explain_query", {"collection": "orders", "query": '{"customer_id": 7}'}),
    Example("create_index", {"collection": "orders", "fields": ["customer_id"]}),
    Example("drop_index", {"collection": "orders", "index": "status_1"}),
)


def test_mongodb_conforms(mongo: EmbeddedMongod) -> None:
    """Its reading tools and two that change something, on a real server; the others have tests of their own."""
    tried = {example.tool for example in MONGODB_EXAMPLES}
    with new_database(mongo) as uri, MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()

        def reset() -> None:
            database.drop_collection("orders")
            database.orders.insert_many([{"_id": n, "customer_id": n % 9, "status": "new"} for n in range(100)])
            database.orders.create_index("status")

        def by_hand(statement: str) -> None:
            name, command = read_statement(statement)
            client[name].command(command)

        trial = Trial(
            plugin=mongodb,
            secret=uri,
            broken="mongodb://nobody:s3cret@127.0.0.1:1/nowhere?serverSelectionTimeoutMS=300",
            fingerprint=lambda: (
                sorted(database.list_collection_names()),
                database.orders.index_information(),
                list(database.orders.find()),
            ),
            reset=reset,
            examples=disturbed(MONGODB_EXAMPLES, lambda: database.drop_collection("orders")),
            left_out=sorted(set(mongodb.toolbox.tools) - tried),
            by_hand=by_hand,
        )
        report = examined(trial)
    assert report.ok, report
