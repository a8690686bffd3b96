"""Retention: what is old goes into an archive and out of the store, and what is left is still one chain with it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from opsagent_jupyter.audit import agreement
from opsagent_jupyter.audit.anchor import anchor_of
from opsagent_jupyter.audit.projection import DuckProjection, memory
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.errors import AuditError, AuditTampered, StoreError
from opsagent_jupyter.models import PRUNED
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.stores.tables import ZONE, audit_zones
from opsagent_jupyter.testing.store_samples import ALICE
from tests.audit_log import START, event, fill, reader_of

VIEWS = ("approvals", "outcomes", "failures", "changes", "unknowns", "refusals", "decisions", "time_to_decision")


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    yield found
    found.close()


@pytest.fixture
def reader(store, tmp_path):
    return reader_of(store, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "old"


def pruned(store, reader, folder, minutes):
    """What a prune of everything older than so many minutes after the start does."""
    return prune(store, reader, folder, START + timedelta(minutes=minutes), event(9000, type=PRUNED))


def seqs(frame):
    return list(frame.seq)


def test_what_is_old_leaves_the_store_and_the_copy_and_is_one_chain_with_the_rest(store, reader, folder, tmp_path):
    """After several retentions the archives and the store verify as one chain, and the prunes are in the audit."""
    fill(store, 60)
    whole = store.audit_rows(0, 100)
    assert [(found.rows, found.last) for found in (pruned(store, reader, folder, at) for at in (20, 20, 45))] == [
        (20, 20), (0, 20), (25, 45),
    ]  # fmt: skip
    rows = store.audit_rows(0, 100)
    assert [*rows[:15]] == [*whole[45:]]
    assert [json.loads(row.body)["type"] for row in rows[15:]] == ["audit.archived", "audit.pruned"] * 2
    live = reader.verify()
    assert (live.ok, live.rows) == (True, 19)
    assert "Rows 1 to 45 were archived" in str(live)
    both = reader.verify(archives=folder)
    assert (both.ok, both.rows, both.head) == (True, 64, store.audit_head()[1])
    assert "one chain" in str(both)
    assert store.check() == []
    fresh = DuckProjection(store, tmp_path / "fresh.duckdb")
    assert fresh.carry() == 19
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix) == [".json", ".json", ".parquet", ".parquet"]


def test_answers_say_what_is_archived_and_can_have_it_back(store, reader, folder):
    """A frame, SQL and the views are about what is live and say so; with the archives they are as if nothing had gone."""
    fill(store, 50)
    before = {name: reader.sql(f"FROM {name} ORDER BY ALL") for name in VIEWS}
    pruned(store, reader, folder, 30)
    fill(store, 5, start=50)
    live = reader.frame()
    assert seqs(live) == list(range(31, 58))
    assert "Events 1 to 30 are archived" in " ".join(live.attrs["notices"])
    assert reader.sql("SELECT count(*) AS n FROM audit").n[0] == 27
    whole = reader.frame(archives=folder)
    assert seqs(whole) == list(range(1, 58))
    assert whole.attrs["notices"] == ()
    assert whole.arguments[3]["n"] == 3
    assert reader.sql("SELECT count(*) AS n FROM audit", archives=folder).n[0] == 57
    more = reader.sql("SELECT sum(runs) AS n FROM failures", archives=folder).n[0]
    assert more == before["failures"].runs.sum() + 5


def test_a_checkpoint_from_before_the_prune_still_holds(store, reader, folder):
    """Count and head that were kept elsewhere are compared with the archived row, and a wrong one is found."""
    fill(store, 40)
    kept = store.audit_rows(9, 1)[0]
    pruned(store, reader, folder, 30)
    assert "was not compared" in str(reader.verify((10, kept.hash)))
    assert reader.verify((10, kept.hash), archives=folder).ok
    wrong = reader.verify((10, "0" * 64), archives=folder)
    assert (wrong.ok, wrong.first_bad) == (False, 10)


def test_rows_that_are_missing_without_a_record_are_a_gap(store, reader, tmp_path):
    """Whoever deletes the beginning without a recorded prune is found, with the copy and without it."""
    fill(store, 30)
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)) as file:
        file.execute("DELETE FROM plugin_audit_log WHERE seq <= 10")
    assert anchor_of(store) == (0, "genesis")
    assert reader.verify().first_bad == 1
    with pytest.raises(AuditTampered):
        DuckProjection(store, tmp_path / "fresh.duckdb").carry()
    assert store.check()


def test_no_more_is_removed_than_the_record_allows(store, reader, folder):
    """Rows after the recorded one that are removed as well are found."""
    fill(store, 40)
    pruned(store, reader, folder, 20)
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)) as file:
        file.execute("DELETE FROM plugin_audit_log WHERE seq <= 25")
    assert not reader.verify().ok
    assert not reader.verify(archives=folder).ok


def test_a_prune_takes_the_zones_along_that_it_empties(store):
    """A filter finds what is left, and the store finds nothing amiss."""
    fill(store, 3 * ZONE)
    head = store.audit_rows(2 * ZONE + 5, 1)[0]
    details = {"last": head.seq, "head": head.hash}
    record = store.record(event(1, type=PRUNED, status="pruned", details=details))
    while store.prune_audit(record, 100):
        pass
    found = store.audit_page(before=None, limit=500, filters={"actor": ALICE.id})
    left = [row["seq"] for row in store.audit_columns(0, 500) if row["actor"] == ALICE.id]
    assert [row.seq for row in found] == left[::-1]
    assert left[0] > head.seq
    with store._storage.reading() as connection:
        assert connection.execute(select(func.min(audit_zones.c.zone))).scalar() == 2
    assert list(store.check()) == []


def test_nothing_goes_without_a_record_that_the_chain_has(store):
    """The store removes rows for a record of a prune only, and no row that is another one by now."""
    fill(store, 10)
    for record in (3, 99):
        with pytest.raises(StoreError, match="records no prune"):
            store.prune_audit(record)
    forged = store.record(event(1, type=PRUNED, status="pruned", details={"last": 5, "head": "0" * 64}))
    with pytest.raises(StoreError, match="is not the one"):
        store.prune_audit(forged)
    assert len(store.audit_rows(0, 100)) == 11


def test_an_archive_that_was_tampered_with_stops_the_prune(store, reader, folder):
    """Nothing is removed when the archives do not verify, and verification names them."""
    fill(store, 60)
    pruned(store, reader, folder, 20)
    (path,) = folder.glob("*.parquet")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises((AuditTampered, AuditError)):
        pruned(store, reader, folder, 45)
    assert store.audit_rows(0, 1)[0].seq == 21
    assert not reader.verify(archives=folder).ok
    with pytest.raises(AuditError):
        reader.frame(archives=folder)


def test_archives_that_end_too_early_or_are_missing_are_refused(store, reader, folder, tmp_path):
    """An answer is never taken for whole that lacks rows."""
    fill(store, 60)
    pruned(store, reader, folder, 20)
    shutil.copytree(folder, tmp_path / "early")
    pruned(store, reader, folder, 45)
    for given in (tmp_path / "early", tmp_path / "none"):
        with pytest.raises(AuditError, match=r"store begins after event 45"):
            reader.frame(archives=given)
        assert not reader.verify(archives=given).ok
    next(folder.glob("audit-000000000001-*.parquet")).unlink()
    assert not reader.verify(archives=folder).ok


def test_a_copy_that_lags_behind_a_prune_is_set_aside(store, reader, folder, tmp_path):
    """Another machine's copy that had not come so far has nothing to be compared with, so it is kept and made anew."""
    other = DuckProjection(store, tmp_path / "other.duckdb")
    fill(store, 10)
    other.carry()
    fill(store, 40, start=10)
    pruned(store, reader, folder, 30)
    assert other.carry() == 22
    assert "older than what the store still holds" in " ".join(other.take_notices())
    assert len([*tmp_path.glob("other.duckdb.old-*")]) == 1


def test_long_stretches_agree_at_a_glance(store, reader, tmp_path):
    """On a whole log the fast half of verification passes every stretch; an edited copy sends it to the slow half."""
    fill(store, 300)
    store.record(event(1, summary='quoted "words"\n and \\ more', statements=('SELECT "a"\n',), risk=None))
    reader.frame()
    found = agreement_of(store, tmp_path)
    assert [stretch.last for _, stretch in found] == [301]


def agreement_of(store, folder):
    with closing(memory()) as database:
        database.execute(f"ATTACH '{folder / 'audit.duckdb'}' AS carried (READ_ONLY)")
        with agreement.Agreement(database, store, store.audit_head()[0]).stretches(1) as stretches:
            return [*stretches]
