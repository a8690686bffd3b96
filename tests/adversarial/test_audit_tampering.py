"""Whoever edits the audit is found out, and whoever reads it can do nothing else."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import closing

import duckdb
import pandas as pd
import pytest

from opsagent_jupyter.audit import chain
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.errors import AuditQueryError, AuditTampered
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import event, fill, reader_of

ROWS = 40
TIMES = 50


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    fill(found, ROWS)
    yield found
    found.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.duckdb"


@pytest.fixture
def reader(store, tmp_path):
    return reader_of(store, tmp_path)


class Intruder:
    """Somebody with write access to the store's file, and the patience to cover the tracks."""

    def __init__(self, url):
        self.file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        self.file.execute("PRAGMA synchronous = OFF")
        self.columns = [row[1] for row in self.file.execute("PRAGMA table_info(plugin_audit_log)")]
        self.rows = self.file.execute("SELECT * FROM plugin_audit_log").fetchall()
        self.head = self.file.execute("SELECT audit_seq, audit_hash FROM chain_head").fetchall()[0]

    def undo(self):
        self.file.execute("DELETE FROM plugin_audit_log")
        marks = ", ".join("?" * len(self.columns))
        self.file.executemany(f"INSERT INTO plugin_audit_log VALUES ({marks})", self.rows)
        self.set_head(*self.head)

    def set_head(self, seq, head):
        self.file.execute("UPDATE chain_head SET audit_seq = ?, audit_hash = ?", (seq, head))

    def bodies(self):
        return self.file.execute("SELECT seq, body FROM plugin_audit_log ORDER BY seq").fetchall()

    def rewrite_body(self, seq, **changes):
        (body,) = self.file.execute("SELECT body FROM plugin_audit_log WHERE seq = ?", (seq,)).fetchall()[0]
        text = json.dumps(json.loads(body) | changes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        self.file.execute("UPDATE plugin_audit_log SET body = ? WHERE seq = ?", (text, seq))

    def rehash(self):
        """Number and link all rows anew, so that the chain is whole again."""
        head = chain.GENESIS
        for number, (seq, body) in enumerate(self.bodies(), 1):
            text = body.replace(f'"seq":{seq},', f'"seq":{number},')
            digest = chain.link(head, text)
            self.file.execute(
                "UPDATE plugin_audit_log SET seq = ?, body = ?, prev_hash = ?, hash = ? WHERE seq = ?",
                (number, text, head, digest, seq),
            )
            head = digest
        self.set_head(number, head)


@pytest.fixture
def intruder(store):
    found = Intruder(store.url)
    with closing(found.file):
        yield found


def edit(intruder, seq):
    intruder.rewrite_body(seq, status="succeeded", summary="nothing to see here")


def delete(intruder, seq):
    intruder.file.execute("DELETE FROM plugin_audit_log WHERE seq = ?", (seq,))


def swap(intruder, seq):
    """Two neighbours change places, each with its body and hashes."""
    for source, target in ((seq, -1), (seq + 1, seq), (-1, seq + 1)):
        intruder.file.execute("UPDATE plugin_audit_log SET seq = ? WHERE seq = ?", (target, source))


def truncate(intruder, seq):
    """Cut the end off, and set the head to what is left."""
    intruder.file.execute("DELETE FROM plugin_audit_log WHERE seq > ?", (seq,))
    intruder.set_head(
        *intruder.file.execute("SELECT seq, hash FROM plugin_audit_log WHERE seq = ?", (seq,)).fetchall()[0]
    )


def edit_and_rehash(intruder, seq):
    """A thorough forger changes the filter column beside the body as well."""
    edit(intruder, seq)
    intruder.file.execute("UPDATE plugin_audit_log SET status = 'succeeded' WHERE seq = ?", (seq,))
    intruder.rehash()


def delete_and_rehash(intruder, seq):
    delete(intruder, seq)
    intruder.rehash()


BREAKING = [edit, delete, swap]
SMOOTH = [truncate, edit_and_rehash, delete_and_rehash]


def tampered(intruder, tamper, times=TIMES):
    """The log tampered with in so many ways, one after the other; each time the row where it begins."""
    chance = random.Random(tamper.__name__)
    for _ in range(times):
        seq = chance.randrange(2, ROWS - 1)
        intruder.file.execute("BEGIN")
        tamper(intruder, seq)
        intruder.file.execute("COMMIT")
        yield seq
        intruder.file.execute("BEGIN")
        intruder.undo()
        intruder.file.execute("COMMIT")


@pytest.mark.parametrize("tamper", BREAKING)
def test_a_broken_chain_is_found_at_its_first_bad_row(intruder, reader, tamper):
    """Edited, deleted and swapped rows are found each time, and named, with nothing but the store."""
    for seq in tampered(intruder, tamper):
        found = reader.verify()
        assert not found.ok
        assert found.first_bad == seq
        assert f"row {seq}" in str(found) or "gap" in str(found)


@pytest.mark.parametrize("tamper", SMOOTH)
def test_a_kept_checkpoint_finds_what_looks_whole(intruder, reader, tamper):
    """Against count and head that were kept elsewhere truncation does not hold, nor a rehash of everything."""
    kept = reader.checkpoint()
    for _ in tampered(intruder, tamper):
        found = reader.verify((kept["count"], kept["head"]))
        assert not found.ok
        assert found.first_bad is not None


@pytest.mark.parametrize("tamper", BREAKING + SMOOTH)
def test_the_carried_copy_finds_every_kind_of_tampering(intruder, reader, tamper):
    """What was carried into audit.duckdb before is a witness: each change is found, at the row where it begins."""
    reader.frame()
    for seq in tampered(intruder, tamper, times=10):
        found = reader.verify()
        assert not found.ok
        assert found.first_bad == seq + (tamper is truncate)


@pytest.mark.parametrize("tamper", SMOOTH)
def test_without_a_witness_the_limits_are_said(intruder, reader, tamper):
    """A log that was rewritten whole looks whole; verify says that it had nothing to compare it with."""
    for _ in tampered(intruder, tamper, times=2):
        found = reader.verify()
        assert found.ok
        assert "No checkpoint was given" in str(found)


def test_rows_beside_the_head_are_found(intruder, store, reader):
    """A head that names another row, or rows past it, do not go unnoticed."""
    intruder.set_head(ROWS - 5, intruder.rows[ROWS - 6][intruder.columns.index("hash")])
    assert reader.verify().first_bad == ROWS - 4
    intruder.undo()
    intruder.set_head(ROWS, "0" * 64)
    assert "head" in str(reader.verify())
    intruder.undo()
    delete(intruder, ROWS)
    found = reader.verify()
    assert (found.ok, found.first_bad) == (False, ROWS)
    assert "removed at the end" in str(found)


def test_an_event_id_beside_its_body_is_found(intruder, reader):
    """The columns that stand beside the body are checked too."""
    intruder.file.execute("UPDATE plugin_audit_log SET event_id = 'forged' WHERE seq = 7")
    assert reader.verify().first_bad == 7


@pytest.mark.parametrize(
    "column", ["status", "risk", "tool", "server", "instance", "actor", "session", "approval", "at"]
)
def test_a_row_that_hides_from_a_filter_is_found(store, intruder, tmp_path, column):
    """Editing only the column that a screen filters by would hide a row from it."""
    store.record(event(1, instance="nul \x00 and half a pair \ud800", approval="abcd"))
    reader = reader_of(store, tmp_path)
    assert reader.verify().ok
    value = "2031-01-01T00:00:00.000000+00:00" if column == "at" else "something else"
    intruder.file.execute(f"UPDATE plugin_audit_log SET {column} = ? WHERE seq = 11", (value,))
    found = reader.verify()
    assert (found.ok, found.first_bad) == (False, 11)
    assert column in str(found)


def move(column):
    """The last character of a row's text goes to the beginning of the next row's, so that the two joined are the same."""

    def moved(intruder, seq):
        texts = f"SELECT {column} FROM plugin_audit_log WHERE seq IN (?, ?) ORDER BY seq"
        (one,), (two,) = intruder.file.execute(texts, (seq, seq + 1)).fetchall()
        for place, text in ((seq, one[:-1]), (seq + 1, one[-1] + two)):
            intruder.file.execute(f"UPDATE plugin_audit_log SET {column} = ? WHERE seq = ?", (text, place))

    return moved


@pytest.mark.parametrize("column", ["event_id", "body", "prev_hash", "hash", "session", "server"])
def test_what_moved_between_neighbours_is_found(intruder, reader, column):
    """Verification reads thousands of rows as one text by column; a shift that leaves that text as it was is found."""
    reader.frame()
    move(column)(intruder, 20)
    found = reader.verify()
    assert (found.ok, found.first_bad) == (False, 20)


@pytest.mark.parametrize("column", ["event_id", "body", "prev_hash", "hash"])
def test_a_text_that_became_bytes_is_found(intruder, reader, column):
    """The same bytes as another type are not the same row."""
    reader.frame()
    intruder.file.execute(f"UPDATE plugin_audit_log SET {column} = CAST({column} AS BLOB) WHERE seq = 21")
    found = reader.verify()
    assert (found.ok, found.first_bad) == (False, 21)
    assert len(reader.frame(unverified=True)) == ROWS


def test_a_row_that_spells_two_is_found(intruder, reader):
    """A row whose filter column holds the next row's line does not stand for both."""
    reader.frame()
    intruder.file.execute("UPDATE plugin_audit_log SET approval = approval || char(10) || 'x' WHERE seq = 22")
    assert reader.verify().first_bad == 22


COPY_EDITS = {
    "UPDATE audit SET status = 'succeeded' WHERE seq = 10": 10,
    "UPDATE audit SET risk = 'low' WHERE seq = 9": 9,
    "UPDATE audit SET arguments = '{}' WHERE seq = 12": 12,
    "UPDATE audit SET statements = [] WHERE seq = 13": 13,
    "UPDATE audit SET actor_name = 'Mallory' WHERE seq = 3": 3,
    "UPDATE audit SET time = time - INTERVAL 1 DAY WHERE seq = 20": 20,
    "UPDATE audit SET approval = NULL WHERE seq = 14": 14,
    "UPDATE audit SET plugin = 'mine' WHERE seq = 15": 15,
    "UPDATE audit SET agent = NOT agent WHERE seq = 16": 16,
    "UPDATE audit SET milliseconds = milliseconds + 0.001 WHERE seq = 17": 17,
    "UPDATE audit SET summary = summary || chr(10) WHERE seq = 18": 18,
    """UPDATE audit SET status = status || '","summary":"x' WHERE seq = 19""": 19,
    "UPDATE audit SET body = body || ' ' WHERE seq = 5": 5,
    "UPDATE audit SET hash = 'x' WHERE seq = 6": 6,
    "DELETE FROM audit WHERE seq = 8": 8,
    "INSERT INTO audit SELECT * FROM audit WHERE seq = 8": 8,
    "INSERT INTO audit SELECT * REPLACE (0 AS seq) FROM audit WHERE seq = 8": 0,
    f"INSERT INTO audit SELECT * REPLACE ({ROWS + 1} AS seq) FROM audit WHERE seq = 8": ROWS + 1,
}


@pytest.mark.parametrize("statement", COPY_EDITS)
def test_an_edited_copy_is_found(store, reader, path, statement):
    """Whoever edits audit.duckdb, a typed column or a whole row, is found by verify, at the row."""
    reader.frame()
    with duckdb.connect(path) as database:
        database.execute(statement)
    found = reader.verify()
    assert not found.ok
    assert found.first_bad == COPY_EDITS[statement]
    assert "audit.duckdb" in str(found)


def test_a_tampered_log_gets_no_checkpoint(intruder, reader):
    """What does not verify is not certified."""
    edit(intruder, 4)
    with pytest.raises(AuditTampered, match="first bad row is 4"):
        reader.checkpoint()


def test_tampered_rows_are_not_carried_and_not_shown_as_true(store, intruder, reader, path):
    """Reading stops with the row and what to do; asked for, the rows are shown as they are, with a notice."""
    reader.frame()
    fill(store, 10, start=ROWS)
    edit(intruder, ROWS + 5)
    for read in (reader.frame, lambda: reader.sql("SELECT 1"), DuckProjection(store, path).carry):
        with pytest.raises(AuditTampered) as caught:
            read()
        assert caught.value.first_bad == ROWS + 5
        assert "audit verify" in str(caught.value)
    with duckdb.connect(path, read_only=True) as database:
        assert database.execute("SELECT max(seq) <= ? FROM audit", [ROWS + 4]).fetchall() == [(True,)]
    shown = reader.frame(unverified=True)
    assert len(shown) == ROWS + 10
    assert shown.summary[ROWS + 4] == "nothing to see here"
    assert "not verified" in " ".join(shown.attrs["notices"])


@pytest.mark.parametrize(
    "body", ["", "not json", "[1]", '{"seq":9,', '"text"', "null", '{"at":5,"actor":"x","seq":9,}']
)
def test_a_body_that_is_no_event_breaks_nothing(store, intruder, reader, body):
    """Garbage in a body is found, and can be looked at."""
    intruder.file.execute("UPDATE plugin_audit_log SET body = ? WHERE seq = 9", (body,))
    assert reader.verify().first_bad == 9
    with pytest.raises(AuditTampered):
        reader.frame()
    shown = reader.frame(unverified=True)
    assert len(shown) == ROWS
    assert shown.type[8] == "unreadable"
    assert shown.details[8] == {"body": body}


def replaced_by_another_log(store, folder):
    store.close()
    for file in folder.glob("opsagent.db*"):
        file.unlink()
    other = open_store(store.url)
    fill(other, ROWS + 20, start=100)
    return other


def replaced_by_a_shorter_log(store, folder):
    store.close()
    for file in folder.glob("opsagent.db*"):
        file.unlink()
    other = open_store(store.url)
    fill(other, 3, start=100)
    return other


def restored_from_a_backup(store, folder):
    store.close()
    for file in folder.glob("opsagent.db*"):
        file.unlink()
    shutil.copy(folder / "backup.db", folder / "opsagent.db")
    return open_store(store.url)


@pytest.mark.parametrize("change", [replaced_by_another_log, replaced_by_a_shorter_log, restored_from_a_backup])
def test_a_store_with_another_log_is_never_mixed_with_the_copy(store, path, tmp_path, change):
    """The copy is kept as evidence, reading says what happened and the way out, and the way out works."""
    folder = tmp_path / "store"
    store.backup(folder / "backup.db")
    fill(store, 5, start=ROWS)
    reader_of(store, tmp_path).frame()
    before = path.read_bytes()
    other = change(store, folder)
    with closing(other):
        reader = reader_of(other, tmp_path)
        for read in (DuckProjection(other, path).carry, reader.frame, lambda: reader.sql("FROM audit")):
            with pytest.raises(AuditTampered, match=r"(?s)restored from a backup or replaced.*move .* away"):
                read()
        assert not reader.verify().ok
        assert path.read_bytes() == before
        path.rename(tmp_path / "evidence.duckdb")
        assert len(reader.frame()) == other.audit_head()[0]
        assert reader.verify().ok


# -- what SQL can do ----------------------------------------------------------------------------------------------------

secret_of_the_kernel = pd.DataFrame({"password": ["hunter2"]})

FORBIDDEN = [
    "DELETE FROM audit",
    "UPDATE audit SET status = 'x'",
    "DROP VIEW audit",
    "CREATE TABLE mine AS FROM audit",
    "INSERT INTO carried.audit SELECT * FROM audit",
    "DELETE FROM carried.audit",
    "WITH gone AS (DELETE FROM carried.audit RETURNING *) SELECT * FROM gone",
    "ALTER TABLE carried.audit ADD COLUMN x INT",
    "SELECT 1; DELETE FROM carried.audit",
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
    "COPY audit TO '{folder}/stolen.csv'",
    "COPY (SELECT 1) TO '{folder}/stolen.csv'",
    "EXPORT DATABASE '{folder}/stolen'",
    "ATTACH '{folder}/other.duckdb'",
    "DETACH carried",
    "SELECT * FROM '{folder}/passwords.csv'",
    "SELECT * FROM read_csv('{folder}/passwords.csv')",
    "SELECT * FROM read_text('{folder}/passwords.csv')",
    "SELECT * FROM read_blob('{folder}/passwords.csv')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT content FROM read_text('/etc/passwd')",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "SELECT * FROM secret_of_the_kernel",
    "SELECT * FROM text",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "SET GLOBAL threads = 64",
    "PRAGMA enable_external_access = true",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CHECKPOINT carried",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "UPDATE EXTENSIONS",
    "USE carried",
    "EXPLAIN ANALYZE DELETE FROM carried.audit",
]


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_sql_can_only_read_the_audit(reader, path, tmp_path, statement):
    """No other statement, no file, no variable of the caller, no setting: refused, and nothing is changed or made."""
    (tmp_path / "passwords.csv").write_text("user,password\nbob,hunter2\n")
    reader.frame()
    before, files = path.read_bytes(), sorted(tmp_path.iterdir())
    with pytest.raises(AuditQueryError) as caught:
        reader.sql(statement.replace("{folder}", str(tmp_path)))
    assert "hunter2" not in str(caught.value)
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    assert reader.verify().ok


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) AS n FROM audit",
        "FROM audit SELECT count(*) AS n",
        "WITH few AS (FROM audit LIMIT 3) SELECT count(*) AS n FROM few",
        "DESCRIBE audit",
        "SHOW TABLES",
        "SUMMARIZE audit",
        "VALUES (1), (2)",
        "SELECT 1 AS one;",
        "/* why */ SELECT 1 AS one -- because",
        "SELECT arguments->>'table' AS name, count(*) AS n FROM audit GROUP BY ALL",
        "SELECT unnest(statements) AS statement FROM audit",
    ],
)
def test_sql_can_read_the_audit_in_any_way(reader, statement):
    """Whatever is a question is answered."""
    assert len(reader.sql(statement)) > 0


def test_filters_are_values_and_never_sql(store, reader):
    """Quotes and SQL in a filter find what they say, or nothing."""
    store.record(event(1, instance="it's; DROP TABLE audit --"))
    assert list(reader.frame(instance="it's; DROP TABLE audit --").seq) == [ROWS + 1]
    for name in ("server", "instance", "tool", "actor", "session", "approval"):
        assert len(reader.frame(**{name: "' OR 1=1 --"})) == 0
