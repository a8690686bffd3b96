"""The audit in DuckDB: carried exactly once, complete at every moment, and verifiable; on every store."""

from __future__ import annotations

import json
import multiprocessing
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from opsagent_jupyter.audit import projection
from opsagent_jupyter.audit.blocks import block_after
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.audit.query import AuditReader
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.models import sha256
from tests.audit_log import ALICE, BOB, START, event, fill, reader_of


@pytest.fixture
def store(opening):
    found = opening()
    yield found
    found.close()


@pytest.fixture
def reader(store, tmp_path):
    return reader_of(store, tmp_path)


def carried(path):
    """The rows in the file, as any other tool reads them."""
    with duckdb.connect(path, read_only=True) as database:
        return database.execute("SELECT seq, hash FROM audit ORDER BY seq").fetchall()


def test_rows_are_carried_once_and_in_order(store, tmp_path):
    """Each carry takes what is new; nothing is carried twice, nothing is left out."""
    path = tmp_path / "audit.duckdb"
    counts = []
    for count in (7, 0, 1, 30):
        fill(store, count)
        counts.append(DuckProjection(store, path).carry())
    assert counts == [7, 0, 1, 30]
    assert carried(path) == [(row.seq, row.hash) for row in store.audit_rows(0, 100)]


def test_a_long_log_is_carried_in_one_go(store, tmp_path, monkeypatch):
    """More rows than one batch holds are one carry, and the copy verifies in plain SQL."""
    monkeypatch.setattr(projection, "BATCH", 16)
    fill(store, 100)
    path = tmp_path / "audit.duckdb"
    assert DuckProjection(store, path).carry() == 100
    with duckdb.connect(path, read_only=True) as database:
        broken = database.execute(
            "SELECT count(*) FROM (SELECT *, lag(hash, 1, 'genesis') OVER (ORDER BY seq) AS before FROM audit) "
            "WHERE prev_hash <> before OR hash <> sha256(prev_hash || chr(10) || body)"
        ).fetchall()
    assert broken == [(0,)]


def _carry_often(open_store, url, path, times, results):
    store = open_store(url)
    found = [DuckProjection(store, path).carry() for _ in range(times)]
    results.put(sum(count or 0 for count in found))
    store.close()


def test_processes_that_carry_at_once_carry_each_row_once(opening, store, tmp_path):
    """Three processes carry while a fourth appends: together they carry every row exactly once."""
    path = tmp_path / "audit.duckdb"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    fill(store, 20)
    workers = [
        context.Process(target=_carry_often, args=(opening.open, opening.url, path, 10, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for number in range(20):
        fill(store, 5, start=number)
    for worker in workers:
        worker.join(60)
    rest = DuckProjection(store, path).carry()
    assert rest is not None
    assert sum(results.get(timeout=10) for _ in workers) + rest == 120
    assert [seq for seq, _ in carried(path)] == list(range(1, 121))


def test_typed_columns_say_what_the_bodies_say(store, reader):
    """Every column of every row is the value of the event that was recorded."""
    events = [event(number) for number in range(40)]
    store.record(*events)
    frame = reader.frame()
    for position, given in enumerate(events):
        row = frame.iloc[position]
        assert row.seq == position + 1
        assert row.time == given.at
        assert row.risk == given.risk or (pd.isna(row.risk) and given.risk is None)
        assert (row.tool, row.plugin) == (given.tool, given.tool.split(".")[0])
        assert (row.actor, row.actor_name, row.via, row.agent) == (
            given.actor.id,
            given.actor.name,
            given.actor.via,
            given.actor.agent,
        )
        assert row.arguments == given.arguments
        assert row.statements == [*given.statements]
        assert row.details == given.details
        assert row.milliseconds == given.milliseconds or (np.isnan(row.milliseconds) and given.milliseconds is None)
        for name in ("type", "status", "server", "instance", "environment", "session", "call", "summary", "error_code"):
            assert row[name] == getattr(given, name), name


FILTERS = {
    "risk": ("high", lambda e: e.risk is not None and e.risk.rank >= 2),
    "status": ("failed", lambda e: e.status == "failed"),
    "server": ("server-1", lambda e: e.server == "server-1"),
    "instance": ("Ünï", lambda e: e.instance == "Ünï"),
    "tool": ("create_index", lambda e: e.tool.endswith(".create_index")),
    "actor": (BOB.id, lambda e: e.actor == BOB),
    "session": (sha256("session 1")[:8], lambda e: e.session == sha256("session 1")[:32]),
    "since": (START + timedelta(minutes=20), lambda e: e.at >= START + timedelta(minutes=20)),
    "until": (START + timedelta(minutes=20), lambda e: e.at < START + timedelta(minutes=20)),
}


def test_each_filter_finds_what_it_says(store, reader):
    """Alone and all together the filters select by their meaning: a level and up, short tool names, beginnings of ids."""
    events = [event(number) for number in range(60)]
    store.record(*events[:50])
    reader.frame()
    store.record(*events[50:])
    for name, (value, matches) in FILTERS.items():
        expected = [position + 1 for position, given in enumerate(events) if matches(given)]
        assert expected
        assert list(reader.frame(**{name: value}).seq) == expected, name
    both = reader.frame(risk="medium", tool="postgresql.drop_index", actor="Alice")
    assert list(both.seq) == [
        position + 1
        for position, given in enumerate(events)
        if given.risk
        and given.risk.rank >= 1
        and given.tool == "postgresql.drop_index"
        and given.actor.name == ALICE.name
    ]
    assert list(reader.frame(limit=3).seq) == [58, 59, 60]
    assert list(reader.frame(limit=0).seq) == []


def test_sql_sees_carried_and_new_rows_alike(store, reader):
    """A query right after a commit counts it, whether it was carried or not; risk levels compare by rank."""
    for count in range(1, 6):
        store.record(event(count, risk="critical"), event(count, risk="low"), event(count, risk="medium"))
        found = reader.sql("SELECT count(*) AS n, count(*) FILTER (risk >= 'high') AS high FROM audit")
        assert found.iloc[0].to_dict() == {"n": 3 * count, "high": count}


def test_a_checkpoint_is_the_newest_row(store, reader):
    """Count and head as the store has them; a later log still contains it."""
    fill(store, 12)
    kept = reader.checkpoint()
    assert (kept["count"], kept["head"]) == store.audit_head()
    assert datetime.fromisoformat(kept["time"]).tzinfo is not None
    fill(store, 5)
    found = reader.verify((kept["count"], kept["head"]))
    assert found.ok
    assert found.rows == 17
    assert json.dumps(kept)


def test_a_whole_log_verifies(store, reader):
    """Before the first carry, after it, and with rows that are not carried yet; an empty log verifies too."""
    assert reader.verify().ok
    fill(store, 30)
    before = reader.verify()
    assert before.ok
    assert "not compared" in " ".join(before.notes)
    reader.frame()
    fill(store, 3)
    found = reader.verify()
    assert (found.ok, found.rows, found.head) == (True, 33, store.audit_head()[1])
    assert found.problems == ()
    assert "No checkpoint" in " ".join(found.notes)
    assert "33 rows" in str(found)


def test_the_audit_is_read_in_a_fresh_process_by_path_alone(opening, store, tmp_path):
    """A second reader on the same file and store, as in another kernel, sees the same rows."""
    fill(store, 9)
    assert len(reader_of(store, tmp_path).frame()) == 9
    other = opening()
    try:
        assert len(AuditReader(other, DuckProjection(other, Path(tmp_path) / "audit.duckdb")).frame()) == 9
    finally:
        other.close()


def test_a_line_of_filter_columns_says_what_the_columns_say(store):
    """The fast form that verification compares is the slow one, spelled out, on each database."""
    store.record(event(1, approval="abc"), event(2, at=START + timedelta(microseconds=7)), event(4))
    rows = store.audit_columns(0, 10)
    written = [row["at"].isoformat(timespec="microseconds") for row in rows]
    lines = [(row["seq"], "\x1f".join([at, *list(row.values())[2:]])) for row, at in zip(rows, written, strict=True)]
    assert store.audit_columns_in_line(0, 10) == lines


def test_a_block_is_the_rows_by_the_column(store):
    """The fast way reads the very rows of the slow one, with their filter columns, on each database."""
    fill(store, 50)
    store.record(event(1, summary='snow \N{SNOWMAN} "quoted"\n', instance="nul \x00"))
    rows = store.audit_rows(0, 100)
    block = block_after(store, 1, rows[0].hash, 100, beside=True)
    assert block is not None
    assert [tuple(row.values()) for row in block.rows.to_pylist()] == [tuple(row) for row in rows[1:]]
    assert (block.seq, block.hash) == (51, rows[-1].hash)
    assert block.lines.decode() == "".join(f"{line}\n" for _, line in store.audit_columns_in_line(1, 100))
    assert block_after(store, 51, rows[-1].hash) is None
    assert block_after(store, 1, "0" * 64) is None


def test_rows_that_were_archived_leave_the_store_and_its_chain_goes_on(store, reader, tmp_path):
    """On each database a prune leaves one chain of archives and rest, and new rows follow it."""
    fill(store, 40)
    done = prune(store, reader, tmp_path / "old", START + timedelta(minutes=25), event(9000))
    assert (done.rows, done.last, store.audit_rows(0, 1)[0].seq) == (25, 25, 26)
    fill(store, 5, start=40)
    found = reader.verify(archives=tmp_path / "old")
    assert (found.ok, found.rows, found.head) == (True, 47, store.audit_head()[1])
    assert list(reader.frame(archives=tmp_path / "old").seq) == list(range(1, 48))
    assert store.check() == []
