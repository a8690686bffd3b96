"""What gate and durable audit add to a read tool: each call through the API's executor, against its own SQL on psycopg.

Run as ``python -m tests.bench.read_overhead [CALLS]``; prints medians in milliseconds as JSON. Figures, not a test.
The raw side replays the statements that the tool sent, with their values and transaction, on one psycopg connection.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from opsagent_jupyter import OpsAgent
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.executor import Ask
from opsagent_jupyter.plugins.postgresql import connection as live
from opsagent_jupyter.plugins.postgresql import explain, purity

CALLS: dict[str, dict[str, Any]] = {
    "list_indexes": {"table": "bench"},
    "get_table_stats": {"table": "bench"},
    "get_connection_stats": {},
    "get_locks": {},
    "get_replication_status": {},
    "explain_query": {"sql": "SELECT * FROM bench WHERE id = 7"},
}
SEED = """
CREATE TABLE bench (id int PRIMARY KEY, customer_id int, note text);
INSERT INTO bench SELECT n, n % 97, 'row ' || n FROM generate_series(1, 20000) n;
CREATE INDEX ON bench (customer_id);
ANALYZE bench;
"""
#: What a call sends, each as the same work on another connection.
Sent = list[Callable[[Any], Awaitable[object]]]


@contextmanager
def listening(sent: Sent) -> Iterator[None]:
    """Write down what the plugin sends, own words included: they go past psycopg, which forgets its prepared statements
    at a ROLLBACK."""
    fetch, say, ends, simple, parse = live._fetch, live._say, live._ends, explain._simple, explain._Inside._parse
    found, execute = purity._found, psycopg.AsyncConnection.execute

    async def fetched(connection: Any, statement: Any, values: Any = None) -> Any:
        sent.append(partial(fetch, statement=statement, values=values))
        return await fetch(connection, statement, values)

    async def said(connection: Any, command: bytes) -> None:
        sent.append(partial(say, command=command))
        await say(connection, command)

    def ended(connection: Any) -> bool:
        if live._status(connection) == psycopg.pq.TransactionStatus.INTRANS:
            sent.append(partial(say, command=b"ROLLBACK"))  # whoever sends by hand waits for its end
        return ends(connection)

    async def sent_simply(connection: Any, command: bytes) -> None:
        sent.append(partial(simple, command=command))
        await simple(connection, command)

    async def parsed(inside: Any, types: Any) -> Any:
        sent.append(lambda connection: parse(replace(inside, conn=connection), types))
        return await parse(inside, types)

    async def reached(connection: Any, source: str, names: Any, **named: Any) -> Any:
        question = {"question": purity._question_json(names, **named)}
        sent.append(partial(fetch, statement=purity._query(source), values=question))
        return await found(connection, source, names, **named)

    async def executed(connection: Any, query: Any, params: Any = None, **named: Any) -> Any:
        async def again(other: Any) -> None:
            cursor = await execute(other, query, params, **named)
            while cursor.nextset():
                pass
            await cursor.fetchall()

        sent.append(again)
        return await execute(connection, query, params, **named)

    live._fetch, live._say, live._ends = fetched, said, ended
    explain._simple, purity._found = sent_simply, reached
    explain._Inside._parse, psycopg.AsyncConnection.execute = parsed, executed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        live._fetch, live._say, live._ends, explain._simple, purity._found = fetch, say, ends, simple, found
        explain._Inside._parse, psycopg.AsyncConnection.execute = parse, execute  # type: ignore[method-assign]


async def interleaved(dsn: str, sent: Sent, call: Callable[[], Awaitable[object]], count: int) -> list[list[float]]:
    """Milliseconds of our calls and of the raw ones, turn by turn on one loop, so that both meet the machine's moods;
    the first fifth is to warm up."""
    ours, bare = [], []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row) as connection:
        for _ in range(count + count // 5):
            begun = time.perf_counter()
            await call()
            between = time.perf_counter()
            for step in sent:
                await step(connection)
            ours.append((between - begun) * 1000)
            bare.append((time.perf_counter() - between) * 1000)
    return [ours[count // 5 :], bare[count // 5 :]]


def measure(ops: OpsAgent, dsn: str, tool: str, arguments: dict[str, Any], count: int) -> dict[str, float]:
    executor, actor, sent = ops.runtime.executor, ops.runtime.actor, Sent()

    async def call() -> None:
        done = await executor.submit(Ask(f"postgresql.{tool}", arguments, "bench"), actor)
        assert done.status == "succeeded", done.summary

    with listening(sent):
        ops.runtime.submit(call()).result()
        sent.clear()
        ops.runtime.submit(call()).result()
    ours, bare = ops.runtime.submit(interleaved(dsn, sent, call, count)).result()
    found = {
        "ours": statistics.median(ours),
        "raw": statistics.median(bare),
        "overhead": statistics.median(one - other for one, other in zip(ours, bare, strict=True)),
    }
    return {name: round(value, 2) for name, value in found.items()}


def audit_cost(ops: OpsAgent, count: int) -> float:
    """Median milliseconds of one durable audit record alone."""
    from opsagent_jupyter.models import AuditEvent

    event = AuditEvent(type="bench", actor=ops.runtime.actor)
    found = []
    for _ in range(count):
        started = time.perf_counter()
        ops.runtime.store.record(event)
        found.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(found), 2)


def main(count: int) -> dict[str, Any]:
    """Figures of every read tool that has a raw equal, and of one audit record alone."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(SEED)
        ops = OpsAgent(store_url=f"sqlite:///{Path(folder) / 'opsagent.db'}")
        try:
            ops.attach("postgresql", "bench", dsn=server.dsn)
            figures: dict[str, Any] = {"one audit record": audit_cost(ops, count)}
            for tool, arguments in CALLS.items():
                figures[tool] = measure(ops, server.dsn, tool, arguments, count)
            return figures
        finally:
            ops.close()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200), indent=2) + "\n")
