"""What is kept for the views is what they would gather from all rows, however the rows arrive."""

from __future__ import annotations

import random
from datetime import timedelta

import duckdb
import pytest

from opsagent_jupyter.audit import rollups
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import START, event, reader_of
from tests.faults.test_audit_faults import held_by_another_process

ENDS = ("succeeded", "failed", "unknown")
STATES = ("pending", "approved", "rejected", "denied", "executing", *ENDS)
#: The questions, asked of the raw rows.
RECOMPUTED = {
    "outcomes": """
        SELECT if(call = '', event_id, call) AS call, arg_max(status, seq) AS status, max(risk) AS risk,
               arg_min(tool, seq) AS tool, arg_min(server, seq) AS server, arg_min(instance, seq) AS instance,
               max(time) AS time, arg_max(milliseconds, seq) AS milliseconds, arg_max(error_code, seq) AS error_code,
               arg_max(summary, seq) AS summary, max(approval) AS approval, max(seq) AS seq
        FROM audit WHERE type IN ('call.outcome', 'approval.succeeded', 'approval.failed', 'approval.unknown')
        GROUP BY ALL""",
    "approvals": """
        SELECT approval, arg_max(status, seq) FILTER (type <> 'approval.denied') AS state, max(risk) AS risk,
               arg_min(tool, seq) AS tool, arg_min(server, seq) AS server, arg_min(instance, seq) AS instance,
               arg_min(environment, seq) AS environment, arg_min(actor_name, seq) AS requested_by, min(time) AS requested_at,
               arg_max(actor_name, seq) FILTER (status IN ('approved', 'rejected')) AS decided_by,
               arg_max(status, seq) FILTER (status IN ('approved', 'rejected')) AS decision,
               max(time) FILTER (status IN ('approved', 'rejected')) AS decided_at,
               arg_max(reason, seq) FILTER (status IN ('approved', 'rejected')) AS reason,
               epoch(max(time) FILTER (status IN ('approved', 'rejected')) - min(time)) AS seconds_to_decision,
               max(time) FILTER (status IN ('succeeded', 'failed', 'unknown')) AS ended_at,
               arg_max(summary, seq) FILTER (status IN ('succeeded', 'failed', 'unknown')) AS outcome,
               arg_min(statements, seq) AS statements, arg_min(session, seq) AS session, arg_min(digest, seq) AS digest
        FROM audit WHERE approval <> '' AND starts_with(type, 'approval.') GROUP BY approval""",
    "changes": """
        SELECT server, CAST(time AS DATE) AS day, count(*) AS changes,
               count(*) FILTER (risk >= CAST('high' AS risk_level)) AS high_or_critical, list_sort(list(DISTINCT tool)) AS tools
        FROM audit WHERE type = 'approval.succeeded' GROUP BY ALL""",
}


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    yield found
    found.close()


def anything(chance, number):
    """An event of one of few calls and requests, with a clock that goes back and forth."""
    at = START + timedelta(minutes=number + chance.choice((0, 0, -3000, 5)))
    call = chance.choice(("", "c1", "c2", "c3", f"{chance.randrange(6):032x}"))
    if chance.random() < 0.5:
        return event(number, at=at, call=call, status=chance.choice(ENDS), error_code=chance.choice(("", "x")))
    state = chance.choice(STATES)
    approval = chance.choice(("", "p1", "p2", f"{chance.randrange(6):032X}"))
    return event(
        number,
        at=at,
        type=f"approval.{state}",
        status=state,
        approval=approval,
        call=call,
        reason=f"because of {number}",
    )


def require_same(ask):
    """Each view is what its question finds in the raw rows of the same answer."""
    for name, question in RECOMPUTED.items():
        kept, found = ask(f"FROM {name} ORDER BY ALL"), ask(f"FROM ({question}) ORDER BY ALL")
        assert len(found) > 0, name
        assert kept == found, name


def of_reader(reader):
    return lambda text: reader.sql(text).astype(str).to_numpy().tolist()


@pytest.mark.parametrize("seed", range(3))
def test_kept_rows_are_what_all_rows_say(store, tmp_path, monkeypatch, seed):
    """After each of many carries of different sizes, by every reader: with the file, with rows that cannot be carried, and
    by other tools that open the file."""
    monkeypatch.setattr(rollups, "STEP", 7)
    chance = random.Random(seed)
    reader, path = reader_of(store, tmp_path), tmp_path / "audit.duckdb"
    store.record(event(0, type="approval.succeeded"), *(anything(chance, number) for number in range(60)))
    DuckProjection(store, path).carry()
    for number in (60, 90, 95):
        store.record(*(anything(chance, number + more) for more in range(chance.randrange(1, 40))))
        if number != 90:
            require_same(of_reader(reader))
            continue
        with held_by_another_process(path, read_only=True):
            require_same(of_reader(reader))
    with duckdb.connect(path, read_only=True) as database:
        database.execute("SET TimeZone = 'UTC'")
        require_same(lambda text: database.sql(text).to_arrow_table().to_pylist())


def test_kept_rows_follow_a_prune_and_the_archives(store, tmp_path):
    """After a prune the views are about what is live; with the archives they are about everything again."""
    chance = random.Random(9)
    reader = reader_of(store, tmp_path)
    store.record(event(0, type="approval.succeeded"), *(anything(chance, number) for number in range(1, 200)))
    before = {name: of_reader(reader)(f"FROM {name} ORDER BY ALL") for name in RECOMPUTED}
    cut = START + timedelta(minutes=100)
    assert prune(store, reader, tmp_path / "old", cut, event(9000)).rows > 0
    require_same(of_reader(reader))
    for name, answer in before.items():
        found = reader.sql(f"FROM {name} ORDER BY ALL", archives=tmp_path / "old")
        assert found.astype(str).to_numpy().tolist() == answer, name
