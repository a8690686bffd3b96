"""With PostgreSQL and MongoDB attached, a question goes to the one that it is about, and what fits both is asked back."""

from __future__ import annotations

import pytest

from opsagent_jupyter.agent.dialogue import Dialogue
from opsagent_jupyter.agent.exchange import Called, Exchange, Step
from opsagent_jupyter.agent.requests import Requests
from opsagent_jupyter.agent.world import World
from opsagent_jupyter.models import Catalog, Instance
from opsagent_jupyter.plugins.mongodb import plugin as mongodb
from opsagent_jupyter.plugins.postgresql import plugin as postgresql

SHOP = Catalog(
    names={"table": ("orders", "customers", "inventory"), "index": ("orders_pkey",), "role": ("bob",)},
    columns={"orders": ("id", "customer_id"), "customers": ("id", "email")},
)
STOREFRONT = Catalog(
    names={"collection": ("orders", "carts", "sessions"), "index": ("status_1",), "database": ("storefront",)},
    columns={"orders": ("customer_id", "status"), "carts": ("items",)},
)


def requests(focus: str = "") -> Requests:
    tools = (*postgresql.toolbox.tools.values(), *mongodb.toolbox.tools.values())
    instances = (
        Instance(name="shop", server="demo", plugin="postgresql"),
        Instance(name="storefront", server="demo", plugin="mongodb"),
    )
    return Requests(World(tools, instances, focus, {"shop": SHOP, "storefront": STOREFRONT}))


RIGHT = {
    "show collection scans": "mongodb.get_profiler_data",
    "is the replica set healthy": "mongodb.get_repl_status",
    "show the profiler": "mongodb.get_profiler_data",
    "list collections": "mongodb.list_collections",
    "show server status": "mongodb.get_server_status",
    "who is blocking whom": "postgresql.get_locks",
    "show locks": "postgresql.get_locks",
    "vacuum orders": "postgresql.vacuum_table",
    "create an index on carts for items": "mongodb.create_index",
    "compact the carts collection": "mongodb.compact_collection",
    "what is wrong with the storefront?": "mongodb.diagnose",
    "what is wrong with shop?": "postgresql.diagnose",
    "show me slow queries on shop": "postgresql.get_slow_queries",
}


@pytest.mark.parametrize("text", RIGHT)
def test_a_question_goes_to_the_database_that_it_is_about(text: str) -> None:
    """By the name it gives, by a name that only one has, or by what only one can do."""
    assert [call.tool.full_name for call in requests().decided(text).calls] == [RIGHT[text]]


BOTH = (
    "show me slow queries", "list indexes", "what is wrong with my database?", "show replication lag",
    "create an index on orders for customer_id", "kill 4711", "how big is the database",
)  # fmt: skip


@pytest.mark.parametrize("text", BOTH)
def test_what_fits_both_is_asked_back_and_nothing_runs(text: str) -> None:
    """Above all a change: the wrong database would be changed."""
    reply = requests().decided(text)
    assert reply.calls == ()
    assert "shop or storefront?" in reply.text


def test_a_place_that_answers_a_question_moves_no_earlier_look() -> None:
    """“storefront” after “Which database?” is the answer, not the last look somewhere else."""
    world = requests().world
    said = [Exchange("show me slow queries on shop", [Step("", [Called("postgresql_get_slow_queries", {}, "c", "x")])])]
    said += [Exchange("what is wrong?", [Step("Which database: shop or storefront?")]), Exchange("storefront")]
    [call] = Dialogue(world).reply(said).calls
    assert call.tool.full_name == "mongodb.diagnose"


def test_the_database_in_focus_needs_no_name() -> None:
    """A session that is bound to one asks nothing."""
    (call,) = requests("storefront").decided("list indexes").calls
    assert (call.tool.full_name, call.on) == ("mongodb.list_indexes", "storefront")
