"""Every tool of the PostgreSQL plugin on every supported major: its success, odd names, a locked table, a role without rights.

The tools come from the toolbox: one that is added without a case here fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import DeadlineExceeded, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Effect, Plan, Result
from opsagent_jupyter.plugins.postgresql import plugin
from opsagent_jupyter.plugins.postgresql.changes import maintenance
from tests.integration.postgresql_stage import (
    Run,
    attached,
    call,
    execute,
    on_loop,
    planned,
    role,
    seed,
    transaction,
    value,
    waiting,
)
from tests.postgres import EVERY_MAJOR, new_database

TOOLS = tuple(plugin.toolbox.tools)
READS = tuple(name for name in TOOLS if not plugin.toolbox.tools[name].changes)
CHANGES = tuple(name for name in TOOLS if plugin.toolbox.tools[name].changes)

#: 63 bytes each, the longest that a name can be.
LONG, LONG_COLUMN, LONG_INDEX = "t" * 63, "ü" * 31 + "c", "i" * 63
EXTRA = (
    f"CREATE TABLE {LONG} (id int PRIMARY KEY, {LONG_COLUMN} int, note text)",
    f"CREATE INDEX {LONG_INDEX} ON {LONG} (note)",
    'CREATE INDEX "Mixed Index" ON "Mixed Case" ("Weird Col")',
    'CREATE INDEX "Second Index" ON "Mixed Case" ("Weird Col" DESC)',
    f"INSERT INTO {LONG} SELECT i, i, 'note' FROM generate_series(1, 1000) AS i",
    "CREATE TABLE held (id int PRIMARY KEY, a int)",
    "CREATE INDEX held_a ON held (a)",
    "CREATE TABLE held_parts (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE held_part PARTITION OF held_parts FOR VALUES FROM (0) TO (9)",
    "CREATE TABLE split (a int, b int) PARTITION BY RANGE (a)",
    "CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (9)",
    "CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM (9) TO (18)",
    "CREATE INDEX split_b ON split (b)",
    "ALTER TABLE held SET (autovacuum_enabled = false)",
    "ANALYZE",
)

MIXED = {"table": '"Mixed Case"'}

#: What each tool is called with: names of 63 bytes, mixed case, partitioned tables. ``{role}`` stands for a login role.
SUCCESS: dict[str, list[dict[str, Any]]] = {
    "explain_query": [
        {"sql": 'SELECT "Weird Col" FROM "Mixed Case" WHERE id = $1'},
        {"sql": f"SELECT {LONG_COLUMN} FROM {LONG} WHERE id = 1", "analyze": True},
        {"sql": "SELECT * FROM parts WHERE at > '2026-02-01'"},
    ],
    "get_slow_queries": [{}, {"order": "mean"}],
    "list_indexes": [{}, MIXED, {"table": LONG}, {"table": "parts"}],
    "get_connection_stats": [{}],
    "get_replication_status": [{}],
    "get_table_stats": [{}, MIXED, {"table": LONG}, {"table": "parts"}],
    "get_locks": [{}],
    "diagnose": [{}],
    "create_index": [
        {**MIXED, "columns": ["Weird Col"], "name": '"New Index"', "where": '"Weird Col" IS NOT NULL'},
        {"table": LONG, "columns": [LONG_COLUMN]},
        {"table": "parts", "columns": ["at"], "concurrently": False},
    ],
    "drop_index": [
        {"index": '"Second Index"'},
        {"index": LONG_INDEX},
        {"index": "parts_id", "concurrently": False},
    ],
    "reindex_table": [MIXED, {"index": '"Mixed Index"'}, {"table": LONG}, {"table": LONG, "concurrently": False}],
    "analyze_table": [MIXED, {"table": LONG, "columns": [LONG_COLUMN]}, {"table": "parts"}],
    "vacuum_table": [MIXED, {"table": LONG, "full": True}, {"table": "parts"}],
    "kill_connection": [{"pid": "{pid}"}, {"pid": "{pid}", "mode": "cancel"}],
    "create_user": [{"name": "Made By Matrix", "connection_limit": 2}, {"name": "m" * 63}],
    "grant_permission": [
        {"role": "{role}", "object": '"Mixed Case"', "privileges": ["SELECT"]},
        {"role": "{role}", "object": LONG, "privileges": ["SELECT"], "columns": [LONG_COLUMN]},
        {"role": "{role}", "object": "parts", "privileges": ["INSERT", "UPDATE"]},
    ],
    "revoke_permission": [
        {"role": "{role}", "object": "orders", "privileges": ["DELETE"]},
    ],
    "drop_user": [{"name": "{victim}", "drop_owned": True}, {"name": "{victim}", "disable_only": True}],
}
#: What a role without rights asks for, where the first success is gone by then.
ASKED = {"drop_index": {"index": '"Mixed Index"'}, "create_user": {"name": "never made"}}

#: What each changing tool is asked to do to a table that another session holds in ACCESS EXCLUSIVE mode.
LOCKED: dict[str, list[dict[str, Any]]] = {
    "create_index": [
        {"table": "held", "columns": ["a"], "where": "a > 1"},
        {"table": "held", "columns": ["a"], "where": "a > 1", "concurrently": False},
    ],
    "drop_index": [{"index": "held_a"}],
    "reindex_table": [{"table": "held"}, {"index": "held_a"}, {"table": "held", "concurrently": False}],
    "analyze_table": [{"table": "held"}, {"table": "held_parts"}],
    "vacuum_table": [{"table": "held"}, {"table": "held", "full": True}, {"table": "held_parts"}],
}
#: They write the catalog only, so a locked table is not in their way.
UNHINDERED = ("kill_connection", "create_user", "drop_user", "grant_permission", "revoke_permission")


@dataclass(frozen=True)
class Town:
    """The seeded database of one server."""

    server: EmbeddedPostgres
    dsn: str


@pytest.fixture(scope="module", params=EVERY_MAJOR, ids=lambda major: f"pg{major}")
def town(request: pytest.FixtureRequest, pg_servers) -> Iterator[Town]:
    server = pg_servers.get(request.param)
    with new_database(server) as dsn:
        seed(dsn)
        execute(dsn, *EXTRA)
        if server.has_stat_statements:
            execute(dsn, "CREATE EXTENSION pg_stat_statements", "SELECT count(*) FROM orders")
        yield Town(server, dsn)
        execute(dsn, f'DROP ROLE IF EXISTS "Made By Matrix", {"m" * 63}')


@contextmanager
def stand_ins(dsn: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments with what they ask for: a login role, one that can go, a session that runs a statement."""
    wanted = {value for value in arguments.values() if value in ("{role}", "{victim}", "{pid}")}
    values = {}
    with ExitStack() as stack:
        if wanted & {"{role}", "{pid}"}:
            app = stack.enter_context(role(dsn, "GRANT DELETE ON orders TO {}"))
            values["{role}"] = str(conninfo_to_dict(app)["user"])
        if "{pid}" in wanted:  # its snapshot would hold up every concurrent build
            values["{pid}"] = str(stack.enter_context(waiting(app, "SELECT pg_sleep(60)")))
        if "{victim}" in wanted:
            values["{victim}"] = stack.enter_context(victim(dsn))
        yield {key: values.get(given, given) if isinstance(given, str) else given for key, given in arguments.items()}


@contextmanager
def victim(dsn: str) -> Iterator[str]:
    """A login role that may be gone afterwards."""
    execute(dsn, "CREATE ROLE victim LOGIN", "GRANT SELECT ON orders TO victim")
    yield "victim"
    if value(dsn, "SELECT count(*) FROM pg_roles WHERE rolname = 'victim'"):
        execute(dsn, "DROP OWNED BY victim", "DROP ROLE victim")


def impatient(plan: Plan) -> Plan:
    """The same plan with less patience for a lock, so that a test need not wait for it."""
    return plan.model_copy(update={"before": {**plan.before, "session": {"lock_timeout": "100ms"}}})


def test_every_tool_has_a_case() -> None:
    """A tool that is added to the toolbox is added here, or this fails."""
    assert set(TOOLS) <= set(SUCCESS)
    assert set(CHANGES) == {*LOCKED, *UNHINDERED} & set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
@on_loop
async def test_it_does_what_it_says_on_this_major(town: Town, tool: str) -> None:
    """Each tool once or more, as a superuser, on odd and long names and partitioned tables; a probe says the same."""
    async with attached(town.dsn) as db:
        for case in SUCCESS[tool]:
            with stand_ins(town.dsn, case) as arguments:
                found = await call(db, tool, **arguments)
                if isinstance(found, Result):
                    assert found.summary.endswith((".", "!")), arguments
                    continue
                run = Run(tool, found)
                effect = await run.perform(db)
                probed = await run.probe(db)
            assert_done(arguments, found, effect, probed)


def assert_done(arguments: dict[str, Any], plan: Plan, effect: Effect, probed: Effect) -> None:
    assert effect.state == "succeeded", (arguments, effect.summary)
    assert probed.state == "succeeded" or plan.execution == "once", (arguments, probed.summary)
    assert effect.residue == ()


@on_loop
async def test_a_partitioned_table_is_reindexed_from_14_on(town: Town) -> None:
    """13 only warns and does nothing: it is refused there, with the partitions to ask for."""
    async with attached(town.dsn) as db:
        for arguments in ({"table": "split"}, {"index": "split_b"}, {"table": "split", "concurrently": False}):
            if town.server.major >= 14:
                effect = await Run("reindex_table", await planned(db, "reindex_table", **arguments)).perform(db)
                assert effect.state == "succeeded", effect.summary
                continue
            with pytest.raises(PreconditionFailed, match="cannot reindex as a whole") as refusal:
                await planned(db, "reindex_table", **arguments)
            assert "split_1 and split_2" in refusal.value.hint


@pytest.mark.parametrize("tool", READS)
@on_loop
async def test_a_read_answers_while_a_table_is_locked_exclusively(town: Town, tool: str) -> None:
    """A table, and a partition alone, are held in ACCESS EXCLUSIVE mode; only a plan of the table itself cannot be made."""
    with transaction(town.dsn, "LOCK TABLE held, held_part IN ACCESS EXCLUSIVE MODE"):
        async with attached(town.dsn) as db:
            for table in ("", "held", "held_parts"):
                if tool == "explain_query" and table:
                    with pytest.raises(DeadlineExceeded) as refusal:
                        await call(db, tool, sql=f"SELECT * FROM {table}")
                    assert "get_locks" in refusal.value.hint
                    continue
                asked = {"sql": "SELECT * FROM orders"} if tool == "explain_query" else {"table": table}
                slots = plugin.toolbox.tools[tool].slots
                result = await call(db, tool, **{name: given for name, given in asked.items() if name in slots})
                assert result.summary


@pytest.mark.parametrize("tool", [name for name in CHANGES if name not in UNHINDERED])
@on_loop
async def test_a_change_of_a_locked_table_is_refused_or_gives_up_clearly(
    town: Town, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card names the holder; the run ends with 55P03 and leaves nothing behind."""
    monkeypatch.setattr(maintenance, "COUNTED_WITHIN", 0.2)  # nothing is going to be counted
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = 'held'::regclass AND indisvalid"
    before = value(town.dsn, indexes)
    with transaction(town.dsn, "LOCK TABLE held, held_part IN ACCESS EXCLUSIVE MODE") as holder:
        pid = holder.info.backend_pid
        async with attached(town.dsn) as db:
            for arguments in LOCKED[tool]:
                if tool == "drop_index":  # what it needs to build the index again cannot be read meanwhile
                    with pytest.raises(PreconditionFailed, match="locked exclusively") as refusal:
                        await planned(db, tool, **arguments)
                    assert "get_locks" in refusal.value.hint
                    continue
                plan = await planned(db, tool, **arguments)
                assert any(f"pid {pid} " in line for line in plan.waits), arguments
                effect = await Run(tool, impatient(plan)).perform(db)
                assert effect.state == "failed", arguments
                assert effect.error_code == "55P03"
                assert effect.residue == ()
    assert value(town.dsn, indexes) == before
    assert value(town.dsn, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


@pytest.mark.parametrize("tool", TOOLS)
@on_loop
async def test_a_role_without_rights_gets_an_answer_or_the_name_of_the_right(town: Town, tool: str) -> None:
    """A read says what it sees; whatever it may not do is refused before anybody is asked, with the right by its name."""
    with stand_ins(town.dsn, ASKED.get(tool, SUCCESS[tool][0])) as arguments, role(town.dsn) as weak:
        async with attached(weak) as db:
            if tool not in (*CHANGES, "explain_query"):
                assert (await call(db, tool, **arguments)).summary
                return
            with pytest.raises(MissingRight) as refusal:
                await call(db, tool, **arguments)
    assert refusal.value.facts["right"]
    assert refusal.value.hint
