"""The offline model in conversations about a real PostgreSQL and a real mongod: reads run, approved changes are carried out."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from opsagent_jupyter.agent.dialogue import Dialogue
from opsagent_jupyter.agent.exchange import Called, Exchange, Step
from opsagent_jupyter.agent.prompts import model_name
from opsagent_jupyter.agent.transcript import read_answer, tool_text, waiting_text
from opsagent_jupyter.agent.world import Reply, Wanted, World
from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import CallRecord, Catalog, Effect, Instance, Result, Risk, canonical
from opsagent_jupyter.plugins.mongodb import plugin as mongodb
from opsagent_jupyter.plugins.postgresql import plugin as postgresql
from tests import mongo, postgres
from tests.integration import mongodb_stage, postgresql_stage

SHOP = Instance(name="shop", server="demo", plugin="postgresql")
DOCS = Instance(name="docs", server="demo", plugin="mongodb")
PLACES = {"postgresql": (SHOP,), "mongodb": (DOCS,), "both": (SHOP, DOCS)}
PLUGINS = {"shop": postgresql, "docs": mongodb}
TOOLS = (*postgresql.toolbox.tools.values(), *mongodb.toolbox.tools.values())
CHANGING = {tool.full_name for tool in TOOLS if tool.changes}
#: Changes that the tests do not carry out: their end is told as their tools tell it.
ENDS = {
    "postgresql.kill_connection": "pid 4711 (app) is gone after 12 ms.",
    "mongodb.kill_operation": "Operation 99 is gone.",
    "mongodb.drop_user": "The user report@shop is dropped.",
}
ROLES = ("reporting", "app")
#: A scene in which nobody blocks and nothing runs.
QUIET = "quiet"

SEED = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE customers (id bigint PRIMARY KEY, email text UNIQUE, full_name text, region text, created_at timestamptz);
INSERT INTO customers SELECT i, i || '@example.org', 'name ' || i, 'r' || i % 7, now() FROM generate_series(1, 5000) AS i;
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint REFERENCES customers, status text, total_cents int,
                     created_at timestamptz);
INSERT INTO orders SELECT i, 1 + i % 5000, 'paid', i % 100, now() FROM generate_series(1, 60000) AS i;
CREATE TABLE products (id bigint PRIMARY KEY, sku text UNIQUE, name text, category text, price_cents int);
INSERT INTO products SELECT i, 's' || i, 'n', 'c', i FROM generate_series(1, 500) AS i;
CREATE TABLE order_items (id bigint PRIMARY KEY, order_id bigint REFERENCES orders, product_id bigint, quantity int,
                          price_cents int);
INSERT INTO order_items SELECT i, i, 1 + i % 500, 1, i FROM generate_series(1, 20000) AS i;
CREATE INDEX customers_region_unused ON customers (region);
CREATE INDEX orders_created_at_idx ON orders (created_at);
CREATE INDEX orders_created_at_idx_dup ON orders (created_at);
CREATE INDEX order_items_order_id_idx ON order_items (order_id);
ANALYZE;
SELECT pg_stat_statements_reset();
SELECT count(*) FROM orders WHERE customer_id = 42;
SELECT count(*) FROM order_items WHERE product_id = 7;
"""
#: What approved changes of the conversations leave behind, taken back.
RESTORE = """
DROP INDEX IF EXISTS orders_customer_id_idx;
CREATE INDEX IF NOT EXISTS customers_region_unused ON customers (region);
REVOKE ALL ON orders FROM reporting;
"""


@dataclass
class Stage:
    """The two servers and what the tools said of them; a read is made once a scene."""

    connections: Mapping[str, Any]
    dsn: str
    uri: str
    scene: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Pids and opids of the scene, by the word that stands for them."""
    said: dict[str, Result] = field(default_factory=dict)
    names: dict[str, Catalog] = field(default_factory=dict)

    async def world(self, on: str) -> World:
        for place in PLACES[on]:
            if place.name not in self.names:
                self.names[place.name] = await self.connections[place.name].catalog()
        places = PLACES[on]
        return World(TOOLS, places, places[0].name if len(places) == 1 else "", self.names)

    async def read(self, wanted: Wanted) -> Result:
        key = canonical([self.scene, wanted.tool.full_name, dict(wanted.arguments)])
        if key not in self.said:
            stage = postgresql_stage if wanted.on == "shop" else mongodb_stage
            self.said[key] = await stage.read(self.connections[wanted.on], wanted.tool.name, **wanted.arguments)
        return self.said[key]

    async def change(self, wanted: Wanted) -> Effect:
        self.names.pop(wanted.on, None)
        if wanted.tool.full_name in ENDS:
            return Effect(state="succeeded", summary=ENDS[wanted.tool.full_name])
        stage = postgresql_stage if wanted.on == "shop" else mongodb_stage
        return await stage.performed(self.connections[wanted.on], wanted.tool.name, **wanted.arguments)

    def restore(self) -> None:
        """Take back what approved changes have done."""
        self.names.clear()
        postgresql_stage.execute(self.dsn, *filter(str.strip, RESTORE.split(";")))
        with mongo.connected(self.uri) as client:
            shop = client.get_default_database()
            for collection, index in (("orders", "amt_1"), ("events", "type_1")):
                if index in shop[collection].index_information():
                    shop[collection].drop_index(index)
            shop.command("collMod", "orders", index={"name": "status_1", "hidden": False})
            shop.command("updateUser", "report", roles=[])


@dataclass
class Turn:
    """What one message led to: all calls of it, and the last thing that was said."""

    calls: list[Wanted] = field(default_factory=list)
    reply: Reply = field(default_factory=Reply)
    text: str = ""


@dataclass
class Conversation:
    """One conversation, as the loop leads it: reads are answered at once, changes wait until they are decided."""

    stage: Stage
    on: str
    exchanges: list[Exchange] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    waiting: list[tuple[Step, int, Wanted]] = field(default_factory=list)

    async def say(self, text: str) -> Turn:
        self.exchanges.append(Exchange(text))
        return await self._go_on()

    async def decide(self, status: str) -> Turn:
        if not self.waiting:  # the change was not even asked for
            return Turn()
        step, place, wanted = self.waiting.pop(0)
        effect = await self.stage.change(wanted) if status == "succeeded" else None
        told = effect.summary if effect else f"{status} by ann. Nothing was run."
        kind: Any = effect.state if effect else "refused"
        record = self._record(wanted, status=kind, summary=told, effect=effect, approval="ab12" * 8)
        old, text = step.calls[place], tool_text(record)
        step.calls[place] = Called(old.name, old.arguments, old.id, text, read_answer(text))
        return await self._go_on()

    async def _go_on(self) -> Turn:
        turn = Turn()
        while True:
            dialogue = Dialogue(await self.stage.world(self.on))
            turn.reply = dialogue.reply(self.exchanges)
            turn.text += turn.reply.text
            step = Step(turn.reply.text)
            self.exchanges[-1].steps.append(step)
            if not turn.reply.calls:
                return turn
            turn.calls += turn.reply.calls
            for place, wanted in enumerate(turn.reply.calls):
                step.calls.append(await self._called(step, place, wanted, dialogue.world))
            if any(wanted.tool.changes for wanted in turn.reply.calls):
                return turn

    async def _called(self, step: Step, place: int, wanted: Wanted, world: World) -> Called:
        number = f"call_{next(self.numbers)}"
        arguments = json.loads(json.dumps(world.arguments(wanted)))
        if wanted.tool.changes:
            self.waiting.append((step, place, wanted))
            return Called(model_name(wanted.tool), arguments, number, waiting_text("ab12" * 8))
        try:
            result = await self.stage.read(wanted)
            record = self._record(wanted, status="succeeded", result=result, summary=result.summary)
        except OpsAgentError as error:
            record = self._record(wanted, status="failed", summary=str(error), error_code=error.code)
        text = tool_text(record)
        return Called(model_name(wanted.tool), arguments, number, text, read_answer(text))

    def _record(self, wanted: Wanted, **values: Any) -> CallRecord:
        return CallRecord(
            id="c", tool=wanted.tool.full_name, arguments=dict(wanted.arguments), instance=wanted.on, risk=Risk.LOW, **values
        )  # fmt: skip


# -- the servers


@asynccontextmanager
async def staged(pg: EmbeddedPostgres, mongod: EmbeddedMongod) -> AsyncIterator[Stage]:
    """Both servers with a small sick shop each; everything is gone afterwards."""
    uri = mongod.uri_for("shop")
    with postgres.new_database(pg) as dsn, _roles(dsn):
        postgresql_stage.execute(dsn, *filter(str.strip, SEED.split(";")))
        _fill(uri)
        try:
            async with postgresql_stage.attached(dsn) as shop, mongodb_stage.attached(uri) as docs:
                yield Stage({"shop": shop, "docs": docs}, dsn, uri)
        finally:
            with mongo.connected(uri) as client:
                client.get_default_database().command("dropAllUsersFromDatabase")
                client.drop_database("shop")


@contextmanager
def _roles(dsn: str) -> Iterator[None]:
    for name in ROLES:
        postgresql_stage.execute(dsn, f"CREATE ROLE {name}")
    try:
        yield
    finally:
        for name in ROLES:
            postgresql_stage.execute(dsn, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def _fill(uri: str) -> None:
    mongo.fill_orders(uri, 5000)
    with mongo.connected(uri) as client:
        shop = client.get_default_database()
        shop.customers.insert_many([{"_id": n, "email": f"{n}@example.org", "name": "n"} for n in range(500)])
        shop.sessions.insert_many([{"_id": n, "expiresAt": n, "user": n} for n in range(500)])
        shop.events.insert_many([{"_id": n, "type": "click", "at": n} for n in range(500)])
        shop.orders.create_index([("cust", 1), ("ts", -1)])
        shop.orders.create_index([("cust", 1)])
        shop.orders.create_index([("status", 1)])
        shop.customers.create_index([("email", 1)])
        for name in ("report", "app"):
            shop.command("createUser", name, pwd="x", roles=[])


@contextmanager
def blocker(dsn: str, statement: str) -> Iterator[int]:
    """A session that holds a row and another that waits for it; the pid of the first."""
    with postgresql_stage.transaction(dsn, statement) as blocking, postgresql_stage.waiting(dsn, statement) as waiting:
        postgresql_stage.eventually(
            lambda: postgresql_stage.value(dsn, "SELECT cardinality(pg_blocking_pids(%s))", (waiting,)) == 1
        )
        yield blocking.info.backend_pid


@contextmanager
def _operation(uri: str, comment: str) -> Iterator[int]:
    """An aggregate that runs for minutes and keeps its opid, because it has one result; killed at the end."""
    sleep = {"$function": {"body": "function(){sleep(50);return 1}", "args": [], "lang": "js"}}
    stages: list[Any] = [{"$group": {"_id": None, "n": {"$sum": sleep}}}]

    def work() -> None:
        with mongo.connected(uri) as client:
            list(client.get_default_database().orders.aggregate(stages, comment=comment))

    with mongo.connected(uri) as client, mongo.background(work):
        try:
            yield mongo.eventually(lambda: mongo.running(client, {"command.comment": comment}))[0]["opid"]
        finally:
            mongo.kill_commented(client, comment)


@contextmanager
def scene(stage: Stage, name: str) -> Iterator[None]:
    """What goes on at the servers while a conversation takes place."""
    stage.scene, stage.facts = name, {}
    with ExitStack() as work:
        if name == QUIET:  # changes are carried out, and must not wait for somebody
            yield
            return
        stage.facts["blocker"] = work.enter_context(blocker(stage.dsn, "UPDATE orders SET status = 'x' WHERE id = 1"))
        if name == "two blockers":
            work.enter_context(blocker(stage.dsn, "UPDATE products SET name = 'x' WHERE id = 1"))
        stage.facts["op"] = work.enter_context(_operation(stage.uri, "nightly report"))
        if name == "two operations":
            work.enter_context(_operation(stage.uri, "second report"))
        if name == "lock wait":
            stage.facts["blocker"] = work.enter_context(mongo.lock_wait(stage.uri))["opid"]
        yield


async def settled() -> None:
    """Let blocked sessions and long operations have lasted for a moment."""
    await asyncio.sleep(2.2)


__all__: Sequence[str] = ("CHANGING", "QUIET", "Conversation", "Stage", "Turn", "blocker", "scene", "settled", "staged")
