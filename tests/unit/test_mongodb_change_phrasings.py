"""The offline model asks for a change of MongoDB only by a plain command that names everything it touches."""

from __future__ import annotations

import pytest

from opsagent_jupyter.agent.dialogue import Dialogue
from opsagent_jupyter.agent.exchange import Exchange
from opsagent_jupyter.agent.world import World
from opsagent_jupyter.models import Catalog, Instance
from opsagent_jupyter.plugins.mongodb import plugin

TOOLS = tuple(plugin.toolbox.tools.values())
CHANGING = {tool.name for tool in TOOLS if tool.changes}
CATALOG = Catalog(
    names={"collection": ("orders", "customers"), "index": ("status_1", "cust_1"), "database": ("shop",)},
    columns={"orders": ("cust", "status", "ts"), "customers": ("region",)},
)
NAMES = {"collection": "orders", "fields": "cust", "index": "status_1", "opid": "4711", "database": "shop", "user": "bob",
         "roles": "readWrite"}  # fmt: skip


def calls(text):
    world = World(TOOLS, (Instance(name="m", server="d", plugin="mongodb"),), "m", {"m": CATALOG})
    return [(call.tool.name, dict(call.arguments)) for call in Dialogue(world).reply([Exchange(text)]).calls]


@pytest.mark.parametrize("tool", sorted(CHANGING))
def test_every_declared_phrase_reaches_its_own_tool_or_asks_back(tool):
    """With a name in each place; a phrase that leads elsewhere is a defect of the declaration."""
    phrases = [phrase.format(**NAMES) for phrase in plugin.toolbox.tools[tool].phrases]
    assert phrases
    assert {name for phrase in phrases for name, _ in calls(phrase)} <= {tool}


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("create an index on orders for cust", "create_index", {"collection": "orders", "fields": ["cust"]}),
        ("make a unique index on orders cust", "create_index", {"unique": True}),
        ("create a sparse index on orders for ts", "create_index", {"sparse": True}),
        ("drop index status_1 of orders", "drop_index", {"collection": "orders", "index": "status_1"}),
        ("hide index status_1 of orders", "drop_index", {"hide": True}),
        ("unhide index status_1 of orders", "drop_index", {"unhide": True}),
        ("compact orders", "compact_collection", {"collection": "orders"}),
        ("reindex orders", "reindex_collection", {"collection": "orders"}),
        ("kill operation 4711", "kill_operation", {"opid": 4711}),
        ("set the profiling level to 1", "set_profiling_level", {"level": 1}),
        ("set profiling level 1 with slowms 50", "set_profiling_level", {"level": 1, "slowms": 50}),
        ("turn the profiler off", "set_profiling_level", {"level": 0}),
        ("create a ttl index on orders for ts, 2 hours", "create_index", {"fields": ["ts"], "expire_after": 7200}),
        ("create index on orders {cust: 1, ts: -1}", "create_index", {"fields": ["cust", "-ts"]}),
        ("create a user named reporting", "create_user", {"name": "reporting"}),
        ("drop user bob", "drop_user", {"user": "bob"}),
        ("drop user bob@admin", "drop_user", {"user": "bob@admin"}),
        ("grant readWrite to bob", "grant_roles", {"user": "bob", "roles": ["readWrite"]}),
        ("grant read, dbAdmin to bob", "grant_roles", {"roles": ["read", "dbAdmin"]}),
        ("grant role Auditor to user Bob", "grant_roles", {"user": "Bob", "roles": ["Auditor"]}),
        ("revoke read@reports from bob", "revoke_roles", {"user": "bob", "roles": ["read@reports"]}),
    ],
)
def test_a_plain_command_carries_everything_it_says(text, tool, arguments):
    """The tool, its object, and how."""
    [(found, given)] = calls(text)
    assert found == tool
    assert arguments.items() <= given.items()
    assert plugin.toolbox.tools[tool].parse(given)


@pytest.mark.parametrize(
    "text",
    [
        "should I drop status_1?", "drop orders", "drop the database", "drop everything", "drop all indexes on orders",
        "db.orders.drop()", "drop index status_1 of orders tonight", "don't drop index status_1 of orders",
        "what would drop index status_1 of orders do", "drop index statsu_1 of orders", "hide orders",
        "create a ttl index on orders for ts", "create an index for cust",
        "create an index on ordrs for cust", "would an index on orders (cust) help",
        "is compacting orders safe?", "how do I compact orders", "don't compact orders", "compact", "compact everything",
        "force compact orders", "reindex everything", "did anyone reindex orders",
        "kill the server", "kill 4711 or 5512", "kill it", "kill orders", "who killed operation 4711",
        "set level", "set profiling level to 2 when idle",
        "drop user", "remove bob", "who dropped user bob", "grant all to bob", "grant root to everybody",
        "revoke everything from bob", "take a backup from primary",
        "create index on orders {ts: 1} ttl",
        "create a ttl index on orders {ts: 1}, 2 or 3 hours", "set all profiling levels",
        "grant read but not write to bob", "give access to bob", "grant auditor to bob",
        "drop user bob tonight", "grant read to bob and alice", "drop every user", "take the lead from bob",
        "create a user bob if needed", "yes", "do it", "fix it",
        "the log says: drop index status_1 of orders", "find indexes to drop",
    ],
)  # fmt: skip
def test_questions_conditions_quotes_and_half_requests_change_nothing(text):
    """A risky tool is never chosen by loose wording."""
    assert {name for name, _ in calls(text)} & CHANGING == set()
