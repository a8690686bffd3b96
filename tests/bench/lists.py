"""How long the first page of each list takes, over HTTP from a real Jupyter server, with a full store behind it.

Run as ``python -m tests.bench.lists [--small] [--keep FOLDER]``; prints medians in milliseconds as JSON. Figures, not a
test. The store has 100,000 approval requests, 1,000,000 messages in 10,000 sessions, and 1,000,000 audit records.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from opsagent_jupyter.audit.chain import GENESIS, link
from opsagent_jupyter.models import AuditEvent, Message, Session, canonical, new_id
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import ALICE, instance, request
from tests.server.jupyter import jupyter

START = datetime(2026, 1, 1, tzinfo=UTC)
#: Nothing that a host would go on with: an approved call would be run, an unknown one probed.
STATES = ["pending", "rejected", "expired", "withdrawn", "superseded", "revoked", "stale", "succeeded", "failed"]
TOOLS = ["postgresql.list_indexes", "postgresql.get_slow_queries", "postgresql.create_index", "postgresql.get_locks"]
STATUSES = ["succeeded", "succeeded", "succeeded", "failed", "refused", "running", "unknown"]
RISKS = ["low", "low", "low", "medium", "high", "critical"]
TIMES = 21


def at(number: int, step: float) -> str:
    """A moment as the store writes it."""
    return (START + timedelta(seconds=number * step)).isoformat(timespec="microseconds")


def approvals(count: int, sessions: list[str]) -> Iterator[tuple[object, ...]]:
    """Rows of requests in all states."""
    sample = request()
    body = json.loads(canonical(sample.model_dump(mode="json", exclude={"state", "version"})))
    dice = random.Random(1)
    for number in range(count):
        made = at(number, 60)
        row = {
            "id": new_id(),
            "session": dice.choice(sessions),
            "created_at": made,
            "expires_at": at(number + 1440, 60),
        }
        text = canonical({**body, **row, "call": new_id(), "nonce": new_id()})
        late = at(number + 10_000_000, 60)
        yield (row["id"], dice.choice(STATES), 2, row["session"], "", made, late, late, text)


def messages(sessions: list[str], each: int) -> Iterator[tuple[object, ...]]:
    """Rows of transcripts."""
    for session in sessions:
        for seq in range(1, each + 1):
            role = "user" if seq % 2 else "assistant"
            text = "What is slow on orders since this morning? " * (1 + seq % 5)
            said = Message(session=session, seq=seq, role=role, text=text, author="Alice", turn=new_id())
            yield (session, seq, canonical(said.model_dump(mode="json")))


def audit(count: int) -> Iterator[tuple[object, ...]]:
    """Rows of the audit, chained."""
    sample = AuditEvent(type="call.outcome", actor=ALICE, summary="12 indexes, 3 of them unused", host=new_id())
    base = sample.model_dump(mode="json")
    dice, head = random.Random(2), GENESIS
    for seq in range(1, count + 1):
        status, risk, tool = dice.choice(STATUSES), dice.choice(RISKS), dice.choice(TOOLS)
        server, event_id, made = f"prod-{seq % 7}", new_id(), at(seq, 10)
        facts = {"status": status, "risk": risk, "tool": tool, "server": server, "instance": "shop", "at": made}
        body = canonical({"v": 1, "seq": seq, "event_id": event_id, **base, **facts})
        new = link(head, body)
        person = f"os:user{seq % 50}"
        yield (
            seq,
            event_id,
            made,
            "call.outcome",
            status,
            risk,
            tool,
            server,
            "shop",
            person,
            person,
            "",
            "",
            body,
            head,
            new,
        )
        head = new


def fill(path: Path, scale: float) -> None:
    """Write the rows past the store, which would audit each of them."""
    store = open_store(f"sqlite:///{path}")
    for number in range(20):
        named = instance(f"shop{number}", server=f"prod-{number % 7}")
        store.add_instance(named, {}, AuditEvent(type="instance.attached", actor=ALICE))
    store.close()
    rows = {"approvals": int(100_000 * scale), "sessions": int(10_000 * scale), "audit": int(1_000_000 * scale)}
    keys = [new_id() for _ in range(rows["sessions"])]
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("DELETE FROM plugin_audit_log")
        fields = list(Session.model_fields)
        for number, key in enumerate(keys):
            session = Session(id=key, title=f"Session {number}", created_by="Alice").model_dump(mode="json")
            session |= {"created_at": at(number, 60), "updated_at": at(number, 60)}
            names = ", ".join([*fields, "last_seq", "lease_holder"])
            db.execute(
                f"INSERT INTO chat_sessions ({names}) VALUES ({', '.join('?' * (len(fields) + 2))})",
                [*(session[field] for field in fields), 100, ""],
            )
        places = {
            "approval_requests": (approvals(rows["approvals"], keys), 9),
            "chat_messages": (messages(keys, 100), 3),
        }
        for table, (found, width) in {**places, "plugin_audit_log": (audit(rows["audit"]), 16)}.items():
            db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * width)})", found)
        last = db.execute("SELECT seq, hash FROM plugin_audit_log ORDER BY seq DESC LIMIT 1").fetchone()
        db.execute("UPDATE chain_head SET audit_seq = ?, audit_hash = ?", last)


def paths(client: httpx.Client) -> Iterator[str]:
    """Every list, with the filters that screens use."""
    yield from ("plugins", "servers", "servers/prod-1/plugins", "sessions", "approvals", "audit")
    session = client.get("api/sessions?limit=1").json()["items"][0]["id"]
    yield f"sessions/{session}/messages"
    yield f"approvals?state=all&session={session}"
    yield from (f"approvals?state={state}" for state in ("all", "pending", "rejected"))
    yield from (f"audit?{name}" for name in ("risk=critical", "status=failed", "server=prod-3", "actor=os:user7"))
    yield "audit?tool=postgresql.create_index&status=failed&risk=high"
    yield "audit?tool=postgresql.nothing&status=failed"
    yield "audit?since=2026-04-01T00:00:00Z&until=2026-04-02T00:00:00Z"
    yield "audit?status=failed&since=2026-04-01T00:00:00Z&until=2026-04-02T00:00:00Z"
    yield "audit/stats?since=2026-04-20T00:00:00Z"
    cursor = client.get("api/audit?limit=200").json()["next"]
    yield f"audit?cursor={cursor}"
    cursor = client.get("api/approvals?state=all&limit=200").json()["next"]
    yield f"approvals?state=all&cursor={cursor}"


def milliseconds(work: Callable[[], object]) -> float:
    """The median of a few runs."""
    found = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        work()
        found.append((time.perf_counter() - begun) * 1000)
    return round(statistics.median(found), 1)


def measure(folder: Path) -> dict[str, float]:
    """Medians by path; the empty answer is measured beside them, because the server's own answer takes time too."""
    with jupyter(folder, OPSAGENT_STORE_URL=f"sqlite:///{folder / 'full.db'}") as server:
        client = server.program()
        found = {"nothing": milliseconds(lambda: client.get("api/version").raise_for_status())}
        for path in list(paths(client)):
            found[path] = milliseconds(lambda path=path: client.get(f"api/{path}").raise_for_status())
        return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(sys.argv[sys.argv.index("--keep") + 1]) if "--keep" in sys.argv else Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "full.db").exists():
            fill(home / "full.db", 0.01 if "--small" in sys.argv else 1.0)
        sys.stdout.write(json.dumps(measure(home), indent=2) + "\n")
