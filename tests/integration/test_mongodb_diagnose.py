"""Diagnose finds what is sick in a real deployment, ranks it, offers the ready fix, and finds nothing in a healthy one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from pymongo import MongoClient

from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.plugins.mongodb import plugin
from opsagent_jupyter.plugins.mongodb.diagnosis import KINDS, documents, operations, replication
from opsagent_jupyter.plugins.mongodb.reads import collections
from tests.integration.mongodb_stage import attached, on_loop, on_loop_losing_sockets, read, rows
from tests.mongo import connected, fill_orders, frozen, lock_wait, new_database, required_mongod, slow_op

SECRET = "canary-51c9"


def found(result, kind: str) -> list[dict]:
    """The findings of one kind."""
    return [row for row in rows(result, "findings") if row["kind"] == kind]


def kinds(result) -> set[str]:
    return set(result.figures["kinds"])


def fix_of(result, finding: dict) -> tuple[str, dict]:
    """The ready call of a finding."""
    suggestion = result.suggestions[finding["fix"] - 1]
    return suggestion.tool, dict(suggestion.arguments)


@pytest.fixture(scope="module")
def sick(mongo):
    """A shop that lacks an index, keeps two too many, never lets sessions expire, and packs all into one document."""
    with new_database(mongo) as uri:
        fill_orders(uri, 20_000)
        soon = datetime.now(UTC) + timedelta(days=1)
        with connected(uri) as client:
            place = client.get_default_database()
            place.orders.create_index([("status", 1)])
            place.orders.create_index([("status", 1), ("amt", 1)])
            place.orders.create_index([("pad", 1)], name="pad_hidden", hidden=True)
            place.sessions.insert_many([{"user": n, "expiresAt": soon} for n in range(50)])
            place.access_log.insert_many([{"path": SECRET, "ts": soon} for _ in range(documents.MANY)])
            place.carts.insert_one({"blob": "x" * 2_000_000, "lines": [SECRET] * 20_000})
            place.command("profile", 2)
            for customer in range(5):
                list(place.orders.find({"cust": customer}).sort("ts", -1))
            place.command("profile", 0)
        yield uri


@on_loop
async def test_everything_sick_is_found_with_its_fix(sick):
    """Each planted defect is a finding with figures, and its fix is a call that the tools take."""
    async with attached(sick) as db:
        result = await read(db, "diagnose")
        place = db.server.database
    assert {
        "missing_index", "redundant_index", "unused_index", "hidden_index", "missing_ttl", "oversize_document", "oversize_array",
        "queries_not_recorded", "no_authentication",
    } <= kinds(result)  # fmt: skip
    assert kinds(result) <= set(KINDS)
    (scan,) = found(result, "missing_index")
    tool, arguments = fix_of(result, scan)
    assert (tool, arguments["fields"], arguments["database"]) == ("mongodb.create_index", ["cust", "-ts"], place)
    assert "100,000 documents" in scan["evidence"]
    (redundant,) = found(result, "redundant_index")
    assert fix_of(result, redundant)[1]["index"] == "status_1"
    assert not [each for each in result.notes if "Could not look" in each or "Not looked" in each]


@on_loop
async def test_a_recorded_scan_that_an_index_serves_now_is_no_defect(sick):
    """The profiler keeps what was: once the index is there the finding says so, asks for nothing, and is a defect again
    when the index is hidden."""
    with connected(sick) as client:
        place = client.get_default_database()
        place.orders.create_index([("cust", 1), ("ts", -1)], name="by_customer")
        try:
            async with attached(sick) as db:
                (served,) = found(await read(db, "diagnose"), "missing_index")
                place.command("collMod", "orders", index={"name": "by_customer", "hidden": True})
                (hidden,) = found(await read(db, "diagnose"), "missing_index")
        finally:
            place.orders.drop_index("by_customer")
    assert (served["severity"], served["fix"]) == ("info", None)
    assert "by_customer {cust: 1, ts: -1} serves it now" in served["advice"]
    assert hidden["severity"] in ("high", "medium")
    assert hidden["fix"]


@on_loop
async def test_every_fix_is_a_call_that_its_tool_takes(sick):
    """Arguments of the ready calls are valid for the tools that they name."""
    async with attached(sick) as db:
        result = await read(db, "diagnose")
    assert result.suggestions
    for each in result.suggestions:
        plugin.toolbox.tools[each.tool.removeprefix("mongodb.")].parse(each.arguments)


@on_loop
async def test_what_should_expire_is_told_from_what_only_might(sick):
    """A field that says when it expires gets a fix; a log with dates gets a remark."""
    async with attached(sick) as db:
        result = await read(db, "diagnose")
    by_place = {row["subject"].rpartition(".")[2]: row for row in found(result, "missing_ttl")}
    assert by_place["sessions"]["severity"] == "medium"
    assert fix_of(result, by_place["sessions"])[1]["expire_after"] == 0
    assert (by_place["access_log"]["severity"], by_place["access_log"]["fix"]) == ("info", None)


@on_loop
async def test_large_documents_and_long_arrays_are_measured_on_the_server(sick):
    """Sizes and field names come back, no value."""
    async with attached(sick) as db:
        result = await read(db, "diagnose")
    (document,) = found(result, "oversize_document")
    (array,) = found(result, "oversize_array")
    assert "carts" in document["finding"]
    assert array["subject"].endswith("carts.lines")
    assert array["severity"] == "high"
    assert "20,000" in array["finding"]
    assert SECRET not in result.model_dump_json()


@on_loop
async def test_findings_are_ranked_and_told(sick):
    """The gravest stands first, in the table, the points and the summary."""
    async with attached(sick) as db:
        result = await read(db, "diagnose")
    order = ["critical", "high", "medium", "info"]
    severities = [order.index(row["severity"]) for row in rows(result, "findings")]
    assert severities == sorted(severities)
    assert result.highlights[0].startswith("HIGH")
    assert rows(result, "findings")[0]["finding"] in result.summary


@on_loop
async def test_a_healthy_database_has_no_problem():
    """With authentication, an index for each query and nothing odd, nothing above a remark is found."""
    with EmbeddedMongod(auth=True, mongod=required_mongod()) as server:
        uri = server.uri_for("shop")
        with connected(uri) as client:
            client.shop.orders.insert_many([{"cust": n % 10, "amt": n} for n in range(2_000)])
            client.shop.orders.create_index([("cust", 1)])
            list(client.shop.orders.find({"cust": 3}))
        async with attached(uri) as db:
            result = await read(db, "diagnose")
    assert "Nothing is wrong" in result.summary
    assert result.figures["high"] == result.figures["critical"] == result.figures["medium"] == 0


@on_loop
async def test_without_a_database_in_the_connection_string_all_are_looked_at(sick, mongo):
    """The findings name the database that they are about."""
    place = plugin.describe(sick)["database"]
    async with attached(mongo.uri) as db:
        result = await read(db, "diagnose")
    assert any(str(row["subject"]).startswith(f"{place}.") for row in found(result, "redundant_index"))


@on_loop
async def test_a_long_operation_is_found_with_the_call_that_ends_it(orders, monkeypatch):
    """The operation is named by its number, its namespace and its time."""
    monkeypatch.setattr(operations, "TOO_LONG", 0.0)
    with slow_op(orders, "runaway") as running:
        async with attached(orders) as db:
            result = await read(db, "diagnose")
    finding = next(row for row in found(result, "long_operation") if str(running["opid"]) in row["subject"])
    assert fix_of(result, finding) == ("mongodb.kill_operation", {"opid": str(running["opid"])})


@on_loop
async def test_a_write_that_waits_for_a_lock_is_found(shop, monkeypatch):
    """A lock that holds up others is high."""
    monkeypatch.setattr(operations, "WAITING", 0.0)
    with lock_wait(shop):
        async with attached(shop) as db:
            result = await read(db, "diagnose")
    (finding, *_) = found(result, "waiting_operation")
    assert finding["severity"] == "high"


@on_loop
async def test_reclaimable_space_is_found(shop, monkeypatch):
    """A file that is mostly free is a remark with the call that compacts it."""
    monkeypatch.setattr(documents, "WORTH_BYTES", 100_000)
    monkeypatch.setattr(collections, "WORTH_BYTES", 100_000)
    with MongoClient(shop) as client:
        place = client.get_default_database()
        place.big.insert_many([{"_id": n, "pad": str(n) * 300} for n in range(20_000)])
        client.admin.command("fsync")
        place.big.delete_many({"_id": {"$gt": 10}})
        client.admin.command("fsync")
    async with attached(shop) as db:
        result = await read(db, "diagnose")
    (finding,) = found(result, "reclaimable_space")
    assert fix_of(result, finding)[0] == "mongodb.compact_collection"


@on_loop
async def test_too_many_indexes_are_found(shop):
    """Each write pays for each of them."""
    with MongoClient(shop) as client:
        for number in range(20):
            client.get_default_database().wide.create_index([(f"f{number}", 1)])
    async with attached(shop) as db:
        result = await read(db, "diagnose")
    assert "21 indexes" in found(result, "many_indexes")[0]["finding"]


@on_loop_losing_sockets
async def test_a_fallen_member_is_a_critical_finding_when_no_other_may_fall(mongo_rs3):
    """Two of three votes are up: one more failure stops all writes, and the other areas are looked at all the same."""
    secondary = next(member for member in mongo_rs3.members if not is_primary(mongo_rs3, member))
    with new_database(mongo_rs3) as uri:
        fill_orders(uri, 100)
        async with attached(uri) as db:
            with frozen(secondary):
                result = await until_found(db, "member_unreachable")
    (finding,) = found(result, "member_unreachable")
    assert (finding["severity"], finding["subject"]) == ("critical", secondary.address)
    assert rows(result, "findings")[0]["kind"] == "member_unreachable"
    assert "replication_lag" not in kinds(result)


@on_loop_losing_sockets
async def test_without_a_primary_the_set_is_told_to_have_none():
    """With two of three members down the one that is left still answers, and says that nothing can be written."""
    with EmbeddedMongod(members=3, auth=False, mongod=required_mongod()) as server:
        async with attached(server.uri) as db:
            with frozen(server.members[1]), frozen(server.members[2]):
                result = await until_found(db, "no_primary")
    assert rows(result, "findings")[0]["kind"] == "no_primary"
    assert found(result, "no_primary")[0]["severity"] == "critical"


async def until_found(db, kind: str):
    """The diagnosis once the set has noticed."""
    for _ in range(60):
        result = await read(db, "diagnose")
        if kind in kinds(result):
            return result
        await asyncio.sleep(0.2)
    raise AssertionError("nobody noticed")


def is_primary(server, member) -> bool:
    with server.client(member) as client:
        return client.admin.command("hello")["isWritablePrimary"]


@on_loop
async def test_a_short_oplog_counts_only_once_it_has_been_full():
    """A young set has a short oplog too, and that is no finding."""
    standing = {"name": "rs0", "members": (), "asked": "a:1", "majority": 1, "at": datetime.now(UTC)}
    young = replication.Standing(**standing, full=False, window=0.1)
    worn = replication.Standing(**standing, full=True, window=0.1)
    kinds_of = [{each.kind for each in replication.findings(standing)} for standing in (young, worn)]
    assert "oplog_window_short" not in kinds_of[0]
    assert "oplog_window_short" in kinds_of[1]


@on_loop
async def test_what_a_user_may_not_see_becomes_a_note(mongo_auth):
    """A user with read alone gets findings of what it sees, and notes that name the role for the rest."""
    async with attached(mongo_auth.uri_of("narrow")) as db:
        result = await read(db, "diagnose")
    assert any("clusterMonitor" in note for note in result.notes)
    assert "no_authentication" not in kinds(result)
