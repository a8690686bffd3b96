"""Pages of the store's lists, on each kind of database: whole, in order, and each row once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.event import listen, remove

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.errors import DigestMismatch, VettingVoid
from opsagent_jupyter.lifecycle import OPEN, ApprovalState
from opsagent_jupyter.models import Actor, AuditEvent, Risk
from opsagent_jupyter.stores import approvals, ledger, revealing, vettings
from opsagent_jupyter.stores.store import SharedStore
from opsagent_jupyter.stores.tables import ZONE
from opsagent_jupyter.testing.store_samples import ALICE, BOB, Opening, event, message, request, session, vetting

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2036, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(opening: Opening) -> Iterator[Store]:
    """An empty store."""
    opened = opening()
    yield opened
    opened.close()


def pages(read, key, size: int = 3) -> list[list[str]]:
    """All pages of a list by time."""
    found, place = [], None
    while rows := read(limit=size, after=place):
        found.append([row.id for row in rows])
        place = key(rows[-1])
    return found


def test_requests_of_one_moment_are_paged_without_gap_or_repeat(store: Store):
    """Where times are equal the id decides, on the page and across pages."""
    for number in range(10):
        store.add_approval(request(created_at=MOMENT + timedelta(seconds=number // 4), expires_at=LATER), event())
    for states in ((), (ApprovalState.PENDING,), tuple(OPEN)):
        read = lambda states=states, **how: store.approvals(states=states, **how)  # noqa: E731
        walked = [key for page in pages(read, lambda row: (row.created_at, row.id)) for key in page]
        assert walked == [row.id for row in store.approvals(states=states, limit=100)]
        assert len(set(walked)) == 10


def test_states_are_read_together_in_one_order(store: Store):
    """Requests of several states come newest first, not state by state."""
    asked = [request(created_at=MOMENT + timedelta(seconds=number), expires_at=LATER) for number in range(6)]
    for one in asked:
        store.add_approval(one, event())
    for one in asked[::2]:
        store.move(one.id, ApprovalState.REJECTED, event("approval.rejected"))
    both = store.approvals(states=(ApprovalState.REJECTED, ApprovalState.PENDING), limit=4)
    assert [row.id for row in both] == [row.id for row in reversed(asked)][:4]


def test_sessions_of_one_moment_are_paged_without_gap_or_repeat(store: Store):
    """The same for conversations."""
    for number in range(7):
        store.add_session(session(updated_at=MOMENT + timedelta(seconds=number // 3)), event("session.opened"))
    walked = [key for page in pages(store.sessions, lambda row: (row.updated_at, row.id), 2) for key in page]
    assert walked == [row.id for row in store.sessions()]
    assert len(set(walked)) == 7


def test_a_transcript_is_read_from_its_end(store: Store):
    """The newest messages come first, those before a seq on demand."""
    known = session()
    store.add_session(known, event("session.opened"))
    for number in range(1, 6):
        store.append(message(known.id, str(number)))
    assert [entry.seq for entry in store.messages_before(known.id, None, 2)] == [5, 4]
    assert [entry.seq for entry in store.messages_before(known.id, 4, 10)] == [3, 2, 1]
    assert store.messages_before(known.id, 1, 10) == []


def test_the_audit_is_filtered_by_person_and_span(store: Store):
    """A person is found by id and by name, once; a span of time bounds what is looked at and loses nothing in it."""
    for number in range(8):
        actor = ALICE if number % 2 else BOB
        store.record(AuditEvent(type="call.outcome", actor=actor, at=MOMENT + timedelta(days=number), status="failed"))
    namesake = Actor(id="Alice", name="os:alice", via="cli")
    store.record(AuditEvent(type="call.outcome", actor=namesake, at=MOMENT, status="failed"))

    def seqs(before: int | None = None, limit: int = 50, **filters: str) -> list[int]:
        return [row.seq for row in store.audit_page(before=before, limit=limit, filters=filters)]

    assert seqs(actor="os:alice") == seqs(actor="Alice") == [9, 8, 6, 4, 2]
    assert seqs(actor="Alice", limit=2) == [9, 8]
    assert seqs(actor="Alice", before=8) == [6, 4, 2]
    assert seqs(since="2026-11-03T00:00:00+00:00", until="2026-11-06T00:00:00+00:00") == [5, 4, 3]
    assert seqs(until="2026-11-02T00:00:00+00:00") == [9, 1]
    assert seqs(since="2026-11-07T00:00:00+00:00", status="failed", actor="os:bob") == [7]


def test_the_audit_is_filtered_by_common_and_rare_values(store: Store):
    """What most rows have is found like what few have, alone and together."""
    said = [
        ("running", None, ""),
        ("succeeded", Risk.LOW, ""),
        ("failed", Risk.LOW, ""),
        ("pending", Risk.HIGH, "a" * 32),
    ]
    for status, risk, approval in said * 3:
        store.record(AuditEvent(type="x", actor=ALICE, status=status, risk=risk, approval=approval))

    def found(**filters: str) -> list[int]:
        return [row.seq for row in store.audit_page(before=None, limit=50, filters=filters)]

    assert found(status="running") == [9, 5, 1]
    assert found(status="succeeded") == [10, 6, 2]
    assert found(status="failed") == [11, 7, 3]
    assert found(risk="low") == [11, 10, 7, 6, 3, 2]
    assert found(risk="high") == [12, 8, 4]
    assert found(approval="a" * 32) == [12, 8, 4]
    assert found(risk="low", status="failed", actor=ALICE.id) == [11, 7, 3]
    assert found(risk="high", status="failed") == []


def plans(connection: Connection, work: Callable[[], object]) -> list[str]:
    """How the database goes about each query that some work sends, when it has to use what indexes there are."""
    sent: list[tuple[str, Any]] = []
    take = lambda _c, _cursor, text, values, *_: sent.append((text, values))  # noqa: E731
    listen(connection, "before_cursor_execute", take)
    work()
    remove(connection, "before_cursor_execute", take)
    if connection.dialect.name == "postgresql":
        for way in ("seqscan", "sort", "bitmapscan"):
            connection.exec_driver_sql(f"SET enable_{way} = off")
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    return [str(connection.exec_driver_sql(f"{explain} {query}", values).fetchall()) for query, values in sent]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "failed"),
        ("risk", "high"),
        ("approval", "a" * 32),
        ("session", "s"),
        ("tool", "a.b"),
    ],
)
def test_a_rare_value_is_found_through_its_index(store: SharedStore, name: str, value: str) -> None:
    """Among millions of rows the few are not looked for one by one: the index that leaves out common values serves."""
    store.record(*(AuditEvent(type="x", actor=ALICE, status="succeeded", risk=Risk.LOW) for _ in range(50)))
    with store._storage.reading() as connection:
        (plan,) = plans(connection, lambda: ledger.rows_before(connection, None, 10, {name: value}))
    assert f"plugin_audit_log_{name}_seq_idx" in plan, plan
    assert "TEMP B-TREE" not in plan


def test_a_value_of_few_kinds_is_found_through_its_zones(store: SharedStore) -> None:
    """Only the stretches of the audit that hold it are read, backwards; the others are not looked at."""
    for number in range(6):
        server = "db-7" if number in (1, 4) else "db-1"
        store.record(*(AuditEvent(type="x", actor=ALICE, server=server if one == 5 else "") for one in range(ZONE)))
    with store._storage.reading() as connection:
        asked, *read = plans(connection, lambda: ledger.rows_before(connection, 700, 10, {"server": "db-7"}))
        found = ledger.rows_before(connection, 700, 10, {"server": "db-7"})
    assert [row.seq for row in found] == [4 * ZONE + 6, ZONE + 6]
    assert "audit_zones_server_zone_idx" in asked
    assert len(read) == 3  # two stretches, and the question whether there are more
    assert sum("INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan or "log_pkey" in plan for plan in read) == 2, read


def test_the_zones_of_a_person_come_newest_first_from_an_index(store: SharedStore) -> None:
    """By id and by name each in the index's own order: not all zones of somebody who is in each are put in order."""
    for actor in (BOB, Actor(id="os:bobby", name=BOB.name, via="kernel"), BOB):
        store.record(*(AuditEvent(type="x", actor=actor if one % 60 == 5 else ALICE) for one in range(ZONE)))
    with store._storage.reading() as connection:
        by_id, by_name, *_ = plans(connection, lambda: ledger.rows_before(connection, 700, 10, {"actor": BOB.name}))
        found = ledger.rows_before(connection, None, 10, {"actor": BOB.name})
        assert [row.seq for row in ledger.rows_before(connection, None, 3, {"actor": BOB.id})] == [382, 322, 262]
    assert [row.seq for row in found] == [first + one for first in (257, 129, 1) for one in (125, 65, 5)]
    assert "audit_zones_actor_zone_idx" in by_id
    assert "audit_zones_actor_name_zone_idx" in by_name
    assert "TEMP B-TREE" not in by_id + by_name


@pytest.mark.parametrize(("tool", "status", "serving"), [("rare.tool", "failed", "tool"), ("a.b", "unknown", "status")])
def test_of_two_indexes_that_of_the_rarer_value_serves(
    store: SharedStore, tool: str, status: str, serving: str
) -> None:
    """Many rows have the one value and hardly one the other: the many are not walked to find that few have both."""
    common = AuditEvent(type="x", actor=ALICE, tool="a.b", status="failed")
    store.record(*(common for _ in range(60)))
    store.record(*(common.model_copy(update={"tool": tool, "status": status}) for _ in range(2)))
    asked = {"tool": tool, "status": status}
    with store._storage.reading() as connection:
        *_, plan = plans(connection, lambda: ledger.rows_before(connection, None, 10, asked))
        found = ledger.rows_before(connection, None, 10, asked)
        assert ledger.rows_before(connection, None, 10, {"tool": "rare.tool", "status": "unknown"}) == []
    assert [row.seq for row in found] == [62, 61]
    if connection.dialect.name == "sqlite":  # PostgreSQL has statistics to choose by
        assert f"plugin_audit_log_{serving}_seq_idx" in plan, plan


ASKED: dict[str, tuple[str | None, ...]] = {
    "server": (None, "", "db-1", "db-2"),
    "instance": (None, "shop", "mart"),
    "actor": (None, "os:alice", "Bob", "os:bob"),
    "status": (None, "a"),
}


@pytest.mark.parametrize("before", [None, 700])
def test_filters_by_zones_find_what_a_look_at_each_row_finds(store: SharedStore, before: int | None) -> None:
    """In any combination, with a span of time or another filter, page after page."""
    dice, events = random.Random(5), []
    for number in range(1000):
        kinds = {"server": dice.choice(("", "db-1", *["db-2"] * (300 < number < 420))), "status": dice.choice("abc")}
        kinds["instance"] = "mart" if number > 900 and dice.random() < 0.02 else "shop"
        actor = BOB if dice.random() < 0.01 else ALICE
        events.append(AuditEvent(type="x", actor=actor, at=MOMENT + timedelta(minutes=number // 7 * 7), **kinds))
    store.record(*events)
    spans = ({}, {"since": str(MOMENT + timedelta(minutes=350))}, {"until": str(MOMENT + timedelta(minutes=410))})
    rows = [(number, one.model_dump(mode="json")) for number, one in enumerate(events, 1)]
    for kinds in itertools.product(*ASKED.values(), (*spans, spans[1] | spans[2])):
        *values, span = kinds
        given = zip(ASKED, values, strict=True)
        filters = {name: value for name, value in given if value is not None} | span
        expected = [seq for seq, row in reversed(rows) if fits(row, filters) and (not before or seq < before)]
        found = [row.seq for row in store.audit_page(before=before, limit=40, filters=filters)]
        assert found == expected[:40], filters


def fits(row: dict[str, Any], filters: dict[str, str]) -> bool:
    """Whether an event is what filters ask for."""
    at = datetime.fromisoformat(row["at"])
    for name, value in filters.items():
        if name == "since":
            good = at >= datetime.fromisoformat(value)
        elif name == "until":
            good = at < datetime.fromisoformat(value)
        else:
            good = value in (row["actor"]["id"], row["actor"]["name"]) if name == "actor" else row[name] == value
        if not good:
            return False
    return True


def test_the_story_of_a_request_is_found_through_its_index(store: SharedStore) -> None:
    """Before a claim, a secret's end and a signed run the audit is asked for one request's rows, not read through."""
    asked = request(state=ApprovalState.SUCCEEDED)
    store.record(*(AuditEvent(type="x", actor=ALICE, status="succeeded", risk=Risk.LOW) for _ in range(50)))
    store.add_vetting(vetting(id="v"), event())
    with store._storage.reading() as connection:

        def ask() -> None:
            revealing.gone(connection, asked)
            with pytest.raises(DigestMismatch):
                approvals.require_witness(connection, asked.id, asked, "")
            with suppress(VettingVoid):
                vettings.witnessed(connection, "v")

        found = [plan for plan in plans(connection, ask) if "approval" in plan]
    assert len(found) == 3
    assert all("plugin_audit_log_approval_seq_idx" in plan for plan in found), found


def test_the_audit_is_counted_by_what_it_says(store: Store):
    """Every record since a moment counts once in each column."""
    for status, tool in (("failed", "a.b"), ("failed", "a.c"), ("succeeded", "a.b")):
        store.record(AuditEvent(type="call.outcome", actor=ALICE, at=MOMENT, status=status, tool=tool))
    store.record(AuditEvent(type="call.outcome", actor=ALICE, at=MOMENT - timedelta(days=1), status="failed"))
    counted = store.audit_counts(MOMENT)
    assert counted["status"] == {"failed": 2, "succeeded": 1}
    assert counted["tool"] == {"a.b": 2, "a.c": 1}
    assert counted["risk"] == {"": 3}


def test_a_server_is_known_before_anything_is_attached(store: Store):
    """It is announced and audited once, however often it is added."""
    for _ in range(2):
        store.add_server("db-7", event("server.added", server="db-7"))
    assert list(store.servers()) == ["db-7"]
    assert [(entry.topic, entry.key) for entry in store.feed(0)] == [("server", "db-7")]
    assert store.audit_head()[0] == 1
