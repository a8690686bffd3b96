"""Stretches of the audit in Parquet: written whole, verified with the store and without it, recorded in the chain."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta

import duckdb
import pytest

from opsagent_jupyter.audit.archive import ARCHIVED, archive, verify_archives
from opsagent_jupyter.errors import AuditError, AuditTampered
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import START, event, fill, reader_of


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    yield found
    found.close()


def archived(store, tmp_path, minutes):
    """What an archive of everything older than so many minutes after the start becomes."""
    before = START + timedelta(minutes=minutes)
    return archive(store, reader_of(store, tmp_path), tmp_path / "old", before, event(0, type=ARCHIVED))


def test_archives_follow_each_other_and_verify(store, tmp_path):
    """Each goes on where the last one ended, the chain runs through them, and the log that records them verifies."""
    fill(store, 60)
    first, none, second = (archived(store, tmp_path, minutes) for minutes in (20, 20, 45))
    assert (first.first, first.last, second.first, second.last) == (1, 20, 21, 45)
    assert none is None
    assert second.prev_hash == first.head
    assert verify_archives(store, tmp_path / "old") == (45, store.audit_rows(44, 1)[0].hash)
    reader = reader_of(store, tmp_path)
    recorded = reader.sql(f"SELECT details FROM audit WHERE type = '{ARCHIVED}' ORDER BY seq").details
    assert [details["head"] for details in recorded] == [first.head, second.head]
    assert reader.verify().ok
    assert sorted(path.name for path in (tmp_path / "old").glob("*.parquet")) == [first.file, second.file]
    manifest = json.loads((tmp_path / "old" / first.file).with_suffix(".json").read_text())
    assert (manifest["last"], manifest["head"], manifest["sha256"]) == (20, first.head, first.sha256)


def test_an_archive_ends_at_the_first_row_that_is_too_new(store, tmp_path):
    """A clock that was set back makes no hole: what follows a newer row waits for it."""
    store.record(event(1), event(50), event(2))
    assert archived(store, tmp_path, 20).last == 1


def test_an_edited_archive_is_found(store, tmp_path):
    """Whoever changes a row, takes one away or cuts the end off is found; a file that is no archive is named."""
    fill(store, 30)
    path = tmp_path / "old" / archived(store, tmp_path, 25).file
    whole = path.read_bytes()
    for rows in ("* REPLACE (body || ' ' AS body)", "* FROM kept WHERE seq <> 7", "* FROM kept WHERE seq <= 20"):
        text = rows if "FROM" in rows else f"{rows} FROM kept"
        with duckdb.connect() as database:
            database.execute(f"CREATE TABLE kept AS FROM '{path}'")
            database.execute(f"COPY (SELECT {text} ORDER BY seq) TO '{path}' (FORMAT parquet)")
        with pytest.raises(AuditTampered):
            verify_archives(store, path.parent)
        path.write_bytes(whole)
    assert verify_archives(store, path.parent)[0] == 25
    path.write_bytes(whole[:500])
    with pytest.raises(AuditError, match="cannot be read"):
        verify_archives(store, path.parent)


def test_archives_of_another_log_are_refused(store, tmp_path):
    """They verify in themselves, but not with this store, and nothing is added to them."""
    fill(store, 30)
    archived(store, tmp_path, 20)
    with closing(open_store(f"sqlite:///{tmp_path / 'other.db'}")) as other:
        fill(other, 40, start=1)
        with pytest.raises(AuditTampered, match="another hash than the store"):
            archive(other, reader_of(other, tmp_path / "new"), tmp_path / "old", START, event(0, type=ARCHIVED))
        assert len([*(tmp_path / "old").glob("*.parquet")]) == 1
