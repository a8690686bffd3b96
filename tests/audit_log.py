"""Audit logs for tests: varied events in a real store, and a reader over them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.audit.query import AuditReader
from opsagent_jupyter.contracts import Store
from opsagent_jupyter.models import Actor, AuditEvent, Risk, sha256

ALICE = Actor(id="os:alice", name="Alice", via="kernel")
BOB = Actor(id="jupyter:bob", name="Bob \N{SNOWMAN}", via="server", stable=True)
AGENT = Actor(id="os:alice", name="Alice", via="kernel", agent=True)
START = datetime(2026, 11, 1, tzinfo=UTC)
STATUSES = ("succeeded", "failed", "refused", "unknown")
TOOLS = ("postgresql.create_index", "postgresql.drop_index", "mongodb.create_index", "postgresql.get_locks")


def event(number: int, **changes: object) -> AuditEvent:
    """An event that differs from its neighbours in everything a filter looks at."""
    fields = {
        "type": "call.outcome",
        "actor": (ALICE, BOB, AGENT)[number % 3],
        "at": START + timedelta(minutes=number),
        "status": STATUSES[number % 4],
        "risk": (*Risk, None)[number % 5],
        "tool": TOOLS[number % 4],
        "server": f"server-{number % 2}",
        "instance": ("shop", "books", "Ünï")[number % 3],
        "environment": ("production", "staging", "development")[number % 3],
        "session": sha256(f"session {number // 10}")[:32],
        "call": sha256(f"call {number}")[:32],
        "arguments": {"table": "orders", "n": number, "deep": [{"a": None}, 1.5, "é\x00'\"\\"]},
        "statements": (f"CREATE INDEX i{number} ON orders (id)", "-- second; 'statement'"),
        "summary": f"number {number}",
        "error_code": "execution.database" if number % 4 == 1 else "",
        "milliseconds": None if number % 5 == 0 else number * 1.5,
        "details": {"seen": number} if number % 2 else {},
    }
    return AuditEvent.model_validate(fields | changes)


def fill(store: Store, count: int, start: int = 0) -> None:
    """Append ``count`` events."""
    store.record(*(event(number) for number in range(start, start + count)))


def reader_of(store: Store, folder: Path) -> AuditReader:
    """A reader with its projection in the folder."""
    return AuditReader(store, DuckProjection(store, folder / "audit.duckdb"))
