"""Where hypopg is there to ask, a plan and a card say what an index would bring before one is built."""

from __future__ import annotations

import pytest

from tests.integration.postgresql_stage import attached, call, execute, on_loop, read, seed, value
from tests.postgres import debian_major, new_database

SLOW = "SELECT * FROM orders WHERE customer_id = 7"


@pytest.fixture
def imagining(pg_servers):
    """A seeded database with hypopg, on the server of Debian's packages."""
    with new_database(pg_servers.get(debian_major())) as dsn:
        seed(dsn)
        execute(dsn, "CREATE EXTENSION hypopg")
        yield dsn


@on_loop
async def test_explain_shows_the_plan_with_the_index_that_it_offers(imagining):
    """The answer holds the plan as if the offered index were there, and by how much the planner's cost would fall."""
    async with attached(imagining) as db:
        result = await read(db, "explain_query", sql=SLOW)
    before, after = result.tree.split("With that index:")
    assert "Seq Scan on public.orders" in before
    assert "Seq Scan" not in after
    assert result.figures["hypothetical_cost"] < result.figures["total_cost"] / 2
    assert any(line.startswith("With a hypothetical index on orders") for line in result.highlights)


@on_loop
async def test_a_hypothetical_index_is_gone_after_the_answer(imagining):
    """The server holds no index that was only imagined, and the next plan does not see it."""
    async with attached(imagining) as db:
        await read(db, "explain_query", sql=SLOW)
        (left,) = await db.rows("SELECT count(*) AS n FROM hypopg_list_indexes")
        again = await read(db, "explain_query", sql=SLOW)
    assert left["n"] == 0
    assert "Seq Scan on public.orders" in again.tree.split("With that index:")[0]
    assert value(imagining, "SELECT count(*) FROM pg_indexes WHERE tablename = 'orders'") == 5


@on_loop
async def test_a_card_compares_the_cost_before_and_after(imagining):
    """The card of create_index carries the planner's cost of the recorded statement without and with the index."""
    execute(imagining, "CREATE EXTENSION pg_stat_statements", SLOW)
    async with attached(imagining) as db:
        plan = await call(db, "create_index", table="orders", columns=["customer_id"])
    assert plan.comparison is not None
    assert plan.comparison.after < plan.comparison.before / 2
    assert "hypothetical" in plan.comparison.note
