"""How fast the audit is carried, verified and asked: ``python tests/bench/audit.py [EVENTS] [VIEW_EVENTS]``.

A store on SQLite is filled with EVENTS (300,000 by default), carried into DuckDB, verified and pruned; then the views are
asked on a file of VIEW_EVENTS (1,000,000 by default; the targets are for ten million) that is made in DuckDB itself. The
figures are printed as JSON, with the machine's load, and with the processor time of a row beside the wall clock's: on a busy
machine only the former says much, and there the ratio to the peer says more.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[2]))

from opsagent_jupyter.audit.chain import GENESIS, link
from opsagent_jupyter.audit.projection import CONFIG, DuckProjection, create
from opsagent_jupyter.audit.query import AuditReader
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.audit.rollups import gather
from opsagent_jupyter.models import canonical, new_id
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import SharedStore, open_store
from tests.audit_log import event

#: What somebody who opens a view sees of it.
VIEWS = {
    "approvals": "SELECT * FROM approvals ORDER BY requested_at DESC LIMIT 100",
    "decisions": "SELECT * FROM decisions ORDER BY seq DESC LIMIT 100",
    "time_to_decision": "FROM time_to_decision",
    "outcomes": "SELECT * FROM outcomes ORDER BY seq DESC LIMIT 100",
    "failures": "FROM failures",
    "changes": "FROM changes",
    "unknowns": "SELECT * FROM unknowns ORDER BY seq DESC LIMIT 100",
    "refusals": "SELECT * FROM refusals ORDER BY seq DESC LIMIT 100",
}
SHAPE = """
INSERT INTO audit BY NAME
WITH numbered AS (SELECT range AS n, range // 10 AS k, range % 10 AS step FROM range({count}))
SELECT
    n + 1 AS seq,
    printf('%032x', n) AS event_id,
    TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(n * 3) AS time,
    CASE step WHEN 5 THEN 'approval.pending' WHEN 6 THEN if(k % 7 = 0, 'approval.rejected', 'approval.approved')
        WHEN 7 THEN if(k % 7 = 0, 'call.refused', 'approval.executing')
        WHEN 8 THEN if(k % 7 = 0, 'call.refused', if(k % 11 = 0, 'approval.failed', 'approval.succeeded'))
        ELSE if(step % 2 = 0, 'call.intent', 'call.outcome') END AS type,
    CASE WHEN type LIKE 'approval.%' THEN split_part(type, '.', 2) WHEN type = 'call.refused' THEN 'refused'
        WHEN type = 'call.intent' THEN 'running' WHEN n % 5003 = 1 THEN 'unknown' WHEN n % 31 = 1 THEN 'failed'
        ELSE 'succeeded' END AS status,
    CAST(['low', 'medium', 'high', 'critical'][if(step BETWEEN 5 AND 8, 2 + k % 3, 1)] AS risk_level) AS risk,
    'postgresql.' || ['get_locks', 'list_indexes', 'create_index', 'explain_query', 'drop_index'][1 + k % 5] AS tool,
    'postgresql' AS plugin, 'prod-' || k % 7 AS server, 'shop' || k % 20 AS instance, 'production' AS environment,
    'os:user' || k % 50 AS actor, 'User ' || k % 50 AS actor_name, 'kernel' AS via, k % 3 = 0 AS agent,
    md5('s' || k // 20) AS session, if(step BETWEEN 5 AND 8, md5('a' || k), md5('c' || n // 2)) AS call,
    if(step BETWEEN 5 AND 8, md5('p' || k), '') AS approval, if(step = 5, sha256('d' || k), '') AS digest,
    '{{"table": "orders"}}' AS arguments, ['CREATE INDEX ON orders (customer_id)'] AS statements,
    'the orders page is slow' AS reason, 'number ' || n AS summary,
    if(status = 'failed', 'execution.database', '') AS error_code,
    if(type = 'call.outcome' OR step = 8, n % 977 * 1.5, NULL) AS milliseconds,
    'host' AS host, 'personal' AS setup, '{{}}' AS details, '{{}}' AS body, '' AS prev_hash, '' AS hash
FROM numbered
"""


def rows(count: int) -> Iterator[tuple[object, ...]]:
    """Chained rows of the store, of some 800 bytes each."""
    more = {"reason": "the orders page is slow, see the plan above", "host": "a" * 32, "setup": "personal"}
    kinds = [event(number, **more).model_dump(mode="json") for number in range(60)]
    head = GENESIS
    for seq in range(1, count + 1):
        kind, event_id = kinds[seq % 60], new_id()
        body = canonical({**kind, "v": 1, "seq": seq, "event_id": event_id, "call": event_id[::-1]})
        new = link(head, body)
        at = kind["at"].replace("Z", ".000000+00:00")
        facts = [kind[name] or "" for name in ("type", "status", "risk", "tool", "server", "instance")]
        person = kind["actor"]
        yield (
            seq, event_id, at, *facts, person["id"], person["name"], kind["session"], kind["approval"], body, head, new
        )  # fmt: skip
        head = new


def fill(path: Path, count: int) -> None:
    """Write the rows past the store, which would take one transaction each."""
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("DELETE FROM plugin_audit_log")
        db.executemany(f"INSERT INTO plugin_audit_log VALUES ({', '.join('?' * 16)})", rows(count))
        last = db.execute("SELECT seq, hash FROM plugin_audit_log ORDER BY seq DESC LIMIT 1").fetchone()
        db.execute("UPDATE chain_head SET audit_seq = ?, audit_hash = ?", last)


def measured(work: Callable[[], object], count: int) -> dict[str, float]:
    """Rows a second, and microseconds of processor time a row."""
    wall, spent = time.perf_counter(), time.process_time()
    work()
    wall, spent = time.perf_counter() - wall, time.process_time() - spent
    return {"per_second": round(count / wall), "processor_microseconds": round(spent / count * 1e6, 2)}


def against(found: dict[str, float], peer: dict[str, float], target: int) -> dict[str, float]:
    """A figure with its target, and how many times the peer's processor time it took in the same run."""
    ratio = round(found["processor_microseconds"] / max(peer["processor_microseconds"], 0.01), 2)
    return {**found, "target_per_second": target, "peer_per_second": peer["per_second"], "times_the_peer": ratio}


def carrying(folder: Path, count: int) -> dict[str, object]:
    """The carry of a whole store, the verification of store and copy, a catch-up of a few rows, and a prune of half.

    The carry's peer is DuckDB inserting the finished columns from Arrow into a file of the same tables; the verification's is
    a loop of SHA-256 over the bodies, in memory already."""
    fill(folder / "store.db", count)
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    projection = DuckProjection(store, folder / "audit.duckdb")
    reader = AuditReader(store, projection)
    carry = measured(projection.carry, count)
    verify = measured(lambda: expect(reader), count)
    found: dict[str, object] = {
        "carry": against(carry, inserting(folder, count), 200_000),
        "verify": against(verify, hashing(folder, count), 300_000),
        "catch_up_of_3_milliseconds": catching_up(store, projection),
    }
    event_of_prune = event(0, type="audit.pruned", at=datetime.now(UTC))
    begun = time.perf_counter()
    gone = prune(store, reader, folder / "archives", "1s", event_of_prune).rows
    found["prune"] = {"rows": gone, "per_second": round(gone / (time.perf_counter() - begun))}
    begun = time.perf_counter()
    expect(reader, folder / "archives")
    found["verify_archives_and_rest_seconds"] = round(time.perf_counter() - begun, 2)
    store.close()
    return found


def inserting(folder: Path, count: int) -> dict[str, float]:
    """The finished columns of some rows, from Arrow into a new file."""
    some = min(count, 300_000)
    with duckdb.connect(folder / "audit.duckdb", read_only=True) as source:
        table = source.sql(f"SELECT * REPLACE (risk::VARCHAR AS risk) FROM audit WHERE seq <= {some}").to_arrow_table()

    def insert() -> None:
        with duckdb.connect(folder / "peer.duckdb", config=CONFIG) as database:
            create(database)
            database.register("finished", table)
            database.execute("INSERT INTO audit BY NAME FROM finished")

    return measured(insert, some)


def hashing(folder: Path, count: int) -> dict[str, float]:
    """SHA-256 of some bodies."""
    some = min(count, 300_000)
    with sqlite3.connect(folder / "store.db") as db:
        texts = db.execute("SELECT prev_hash || char(10) || body FROM plugin_audit_log LIMIT ?", (some,)).fetchall()
    return measured(lambda: [sha256(text.encode()).hexdigest() for (text,) in texts], some)


def catching_up(store: SharedStore, projection: DuckProjection) -> float:
    """Milliseconds until three new rows are in the file, the median of nine."""
    found = []
    for number in range(9):
        store.record(*(event(number + more) for more in range(3)))
        begun = time.perf_counter()
        projection.carry()
        found.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(found), 1)


def expect(reader: AuditReader, archives: Path | None = None) -> None:
    """A measurement of a check that fails would mean nothing."""
    found = reader.verify(archives=archives)
    if not found.ok:
        raise SystemExit(str(found))


def asking(path: Path, count: int) -> dict[str, object]:
    """Milliseconds of each view, the median of five."""
    new = not path.exists()
    with duckdb.connect(path, config=CONFIG) as database:
        database.execute("SET TimeZone = 'UTC'")
        if new:
            create(database)
            database.execute(SHAPE.format(count=count))
            gather(database, 0, count)
        found: dict[str, object] = {name: milliseconds(database, text) for name, text in VIEWS.items()}
        found["target"] = 300
        found["a plain count of all rows by status"] = milliseconds(
            database, "SELECT status, count(*) FROM audit GROUP BY ALL"
        )
        return found


def milliseconds(database: duckdb.DuckDBPyConnection, text: str) -> float:
    """The median of five, after one to warm up."""
    found = []
    for _ in range(6):
        begun = time.perf_counter()
        database.sql(text).to_arrow_table()
        found.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(found[1:]), 1)


if __name__ == "__main__":
    events, view_events = ([int(text) for text in sys.argv[1:]] + [300_000, 1_000_000][len(sys.argv) - 1 :])[:2]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        report: dict[str, object] = {"cores": os.cpu_count(), "load": os.getloadavg(), "events": events}
        report |= carrying(home, events)
        report |= {"view_events": view_events, "views_milliseconds": asking(home / "views.duckdb", view_events)}
        report["load_after"] = os.getloadavg()
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
