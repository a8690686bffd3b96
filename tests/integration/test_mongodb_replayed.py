"""What MongoDB 6.0 cannot answer, replayed over the wire: mongos, and fields of 8.0.

``tests/cases/mongodb_replies.json`` names for each set of replies its source and server version. Nothing in here stands
in for a reply that the real server of the other tests gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mockupdb
import pytest

from tests.integration.mongodb_stage import attached, line, offered, on_loop, read

REPLIES = json.loads((Path(__file__).parents[1] / "cases" / "mongodb_replies.json").read_text(encoding="utf-8"))
OPTIONS = "?directConnection=true&serverMonitoringMode=poll"


def responder(replies: dict[str, Any]) -> Callable[[Any], bool]:
    """One answer for every request: by the command's name, an aggregate by its first stage too."""

    def answer(request: Any) -> bool:
        command = dict(request.doc)
        name = next(iter(command))
        key = "hello" if name.lower() in {"hello", "ismaster"} else name
        if name == "aggregate":
            key = f"aggregate {next(iter(command['pipeline'][0]))}"
        reply = replies.get(key, {"ok": 0, "code": 59, "errmsg": f"no such command: {key!r}"})
        request.reply({**reply, "helloOk": True} if key == "hello" else reply)
        return True

    return answer


@pytest.fixture
def replayed(request) -> Iterator[str]:
    """The URI of a server that gives one set of replies."""
    found = REPLIES[request.param]
    assert found["source"]
    assert found["version"].startswith("8.")
    server = mockupdb.MockupDB(request_timeout=5)
    server.autoresponds(responder(found["replies"]))
    port = server.run()
    yield f"mongodb://127.0.0.1:{port}/shop{OPTIONS}"
    server.stop()


@pytest.mark.parametrize("replayed", ["mongos"], indirect=True)
@on_loop
async def test_replayed_mongos_is_a_sharded_cluster_with_the_id_of_the_cluster(replayed):
    """The identity behind mongos is the cluster's own."""
    async with attached(replayed) as db:
        identity = await db.identity()
    assert identity["topology"] == "sharded cluster"
    assert identity["deployment_id"] == "665f1c5b8f1b2c0012345678"


@pytest.mark.parametrize("replayed", ["mongos"], indirect=True)
@on_loop
async def test_replayed_operations_behind_mongos_keep_the_shard_in_their_number(replayed):
    """An opid of mongos is text, and the call that ends it names it whole."""
    async with attached(replayed) as db:
        result = await read(db, "get_current_ops")
    row = line(result, "operations", "opid", "shard01:4711")
    assert (row["member"], row["command"]) == ("shard01", '{find: "orders", filter: {cust: ?}}')
    assert offered(result, "kill_operation") == [{"opid": "shard01:4711"}]


@pytest.mark.parametrize("replayed", ["mongos"], indirect=True)
@on_loop
async def test_replayed_plan_of_a_sharded_collection_has_a_tree_for_each_shard(replayed):
    """Figures of the shards are shown one by one and added up."""
    async with attached(replayed) as db:
        result = await read(db, "explain_query", collection="orders", query='{"cust": 7}', verbosity="executionStats")
    assert "[shard01]" in result.tree
    assert "[shard02]" in result.tree
    assert result.figures["documents_examined"] == 50_000
    assert offered(result, "create_index")[0]["fields"] == ["cust"]


@pytest.mark.parametrize("replayed", ["mongos"], indirect=True)
@on_loop
async def test_replayed_sizes_of_a_sharded_collection_are_added_up(replayed):
    """Documents and sizes are those of all shards together."""
    async with attached(replayed) as db:
        result = await read(db, "list_collections")
        profile = await read(db, "get_profiler_data")
    assert line(result, "collections of shop", "collection", "orders")["documents"] == 50_000
    assert "Behind mongos" in profile.summary


@pytest.mark.parametrize("replayed", ["busy"], indirect=True)
@on_loop
async def test_replayed_server_of_8_0_near_its_limits_says_so(replayed):
    """Tickets where 8.0 has them, a full and dirty cache, and connections that run out."""
    async with attached(replayed) as db:
        result = await read(db, "get_server_status")
        sick = await read(db, "diagnose")
    said = " ".join(result.highlights)
    for word in ("95 %", "is full", "30% of the cache is dirty", "12 operations", "All read tickets"):
        assert word in said
    assert {"connections_near_limit", "cache_pressure", "tickets_taken"} <= set(sick.figures["kinds"])


@pytest.mark.parametrize("replayed", ["busy"], indirect=True)
@on_loop
async def test_replayed_plan_of_8_0_is_named_by_its_new_hash(replayed):
    """The hash of the shape took the place of the old one."""
    async with attached(replayed) as db:
        result = await read(db, "explain_query", collection="orders", query='{"cust": 7}')
    assert result.figures["query_hash"] == "F00D"
    assert "COLLSCAN" in result.tree
