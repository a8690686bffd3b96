"""The offline model speaks MongoDB: its tools are found by what DBAs type, with the names that exist filled in."""

from __future__ import annotations

from typing import Any

import pytest

from opsagent_jupyter.agent.world import World
from opsagent_jupyter.models import Catalog, Instance
from opsagent_jupyter.plugins.mongodb import plugin
from tests.offline_shop import asked, calls

TOOLS = tuple(plugin.toolbox.tools.values())
READS = tuple(tool for tool in TOOLS if not tool.changes)
CHANGING = {tool.name for tool in TOOLS if tool.changes}
PLACE = Instance(name="docs", server="demo", plugin="mongodb")
CATALOG = Catalog(
    names={
        "collection": ("orders", "customers", "sessions"),
        "index": ("cust_1_ts_-1", "status_1"),
        "database": ("shop", "archive"),
    },
    columns={"orders": ("cust", "ts", "status", "amt"), "customers": ("name",), "sessions": ("expiresAt",)},
)
NAMES = {
    "collection": "orders",
    "database": "shop",
    "index": "status_1",
    "columns": "cust",
    "pid": "4711",
    "query": '{"cust": 7}',
}


def outcome(text: str) -> tuple[str, dict[str, Any]]:
    reply = asked(text, world=World(TOOLS, (PLACE,), "docs", {"docs": CATALOG}))
    if reply.calls:
        return calls(reply)[0]
    return ("ask" if reply.asks else "none"), {}


@pytest.mark.parametrize("tool", READS, ids=lambda tool: tool.name)
def test_every_declared_phrase_of_a_read_reaches_its_own_tool(tool: Any) -> None:
    """With a name in each place; a phrase that leads elsewhere is a defect of the declaration."""
    strays = {}
    for phrase in tool.phrases:
        text = phrase.format(**NAMES)
        found, _ = outcome(text)
        if found not in {tool.name, "ask"}:
            strays[text] = found
    assert strays == {}


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("show collection scans", "get_profiler_data", {}),
        ("is the replica set healthy?", "get_repl_status", {}),
        ("what indexes does orders have?", "list_indexes", {"collection": "orders"}),
        ("show me the slow queries on orders", "get_profiler_data", {"collection": "orders"}),
        ("which collections are in archive", "list_collections", {"database": "archive"}),
        ("how many documents are in customers?", "get_collection_stats", {"collection": "customers"}),
        ("what is running right now", "get_current_ops", {}),
        ("how large is the database archive", "get_database_stats", {"database": "archive"}),
        ("what's wrong with this database?", "diagnose", {}),
        ("how far behind is the secondary", "get_repl_status", {}),
        ("how many connections does the server have", "get_server_status", {}),
        ('explain {"cust": 7} on orders', "explain_query", {"collection": "orders", "query": '{"cust": 7}'}),
        ("show operations that run longer than 30 seconds", "get_current_ops", {"seconds": 30}),
        ("why is {cust: 7, ts: {$gt: 5}} slow on orders", "explain_query", {"query": "{cust: 7, ts: {$gt: 5}}"}),
    ],
)
def test_a_request_reaches_the_right_tool_with_its_names(text: str, tool: str, arguments: dict[str, Any]) -> None:
    """What a DBA of MongoDB types, and what must come of it."""
    found, given = outcome(text)
    assert found == tool
    assert arguments.items() <= given.items()


def test_a_collection_that_does_not_exist_is_asked_about() -> None:
    """A mistyped collection of a read is never looked for in the dark."""
    reply = asked("show the indexes of collection ordres_old", world=World(TOOLS, (PLACE,), "docs", {"docs": CATALOG}))
    assert reply.asks
    assert "ordres_old" in reply.text
