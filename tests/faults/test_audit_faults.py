"""Whatever happens to audit.duckdb, operations go on, answers are complete, and every row gets there once."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from opsagent_jupyter.audit import projection
from opsagent_jupyter.audit.anchor import anchor_of
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.errors import AuditError, AuditQueryError, StoreError
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import START, event, fill, reader_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(store_url):
    found = open_store(store_url)
    yield found
    found.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.duckdb"


@pytest.fixture
def reader(store, tmp_path):
    return reader_of(store, tmp_path)


@contextmanager
def held_by_another_process(path, *, read_only):
    """Another process keeps the file open; its PID."""
    program = (
        f"import duckdb, sys; c = duckdb.connect({str(path)!r}, read_only={read_only}); print(1, flush=True)\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        yield holder.pid
    finally:
        holder.communicate(timeout=30)


def seqs(path):
    with duckdb.connect(path, read_only=True) as database:
        return [row[0] for row in database.execute("SELECT seq FROM audit ORDER BY seq").fetchall()]


# -- the file is in use -----------------------------------------------------------------------------------------------


def test_while_another_process_writes_the_file_reads_are_complete(store, reader, path):
    """Records are written, no carry blocks, every answer counts every row and says who holds the file."""
    fill(store, 10)
    reader.frame()
    with held_by_another_process(path, read_only=False) as pid:
        for number in range(10, 15):
            started = time.monotonic()
            store.record(event(number))
            assert time.monotonic() - started < 5
            assert DuckProjection(store, path).carry() is None
            found = reader.frame()
            assert list(found.seq) == list(range(1, number + 2))
            assert f"process {pid}" in " ".join(found.attrs["notices"])
        assert reader.sql("SELECT count(*) AS n FROM audit").n[0] == 15
        assert reader.verify().ok
    assert DuckProjection(store, path).carry() == 5
    assert seqs(path) == list(range(1, 16))
    assert reader.frame().attrs["notices"] == ()


def test_while_another_process_reads_the_file_reads_are_complete(store, reader, path):
    """Rows that cannot be carried now are added from the store."""
    fill(store, 10)
    reader.frame()
    with held_by_another_process(path, read_only=True):
        fill(store, 5, start=10)
        assert DuckProjection(store, path).carry() is None
        assert list(reader.frame().seq) == list(range(1, 16))
        assert reader.sql("SELECT max(seq) AS n FROM audit").n[0] == 15
    assert seqs(path) == list(range(1, 11))


def open_for_writing(path):
    return duckdb.connect(path)


def open_for_reading(path):
    return duckdb.connect(path, read_only=True)


def attach_for_writing(path):
    database = duckdb.connect()
    database.execute(f"ATTACH '{path}' AS mine")
    return database


def attach_for_reading(path):
    database = duckdb.connect()
    database.execute(f"ATTACH '{path}' AS mine (READ_ONLY)")
    return database


@pytest.mark.parametrize("opened", [open_for_writing, open_for_reading, attach_for_writing, attach_for_reading])
def test_a_handle_of_the_users_own_kernel_disturbs_nobody(store, reader, path, opened):
    """DuckDB has three kinds of errors for a file that this process has open itself; all of them mean "later"."""
    fill(store, 10)
    reader.frame()
    with closing(opened(path)):
        fill(store, 5, start=10)
        assert DuckProjection(store, path).carry() is None
        assert list(reader.frame().seq) == list(range(1, 16))
        assert reader.sql("SELECT count(*) AS n FROM audit").n[0] == 15
        assert reader.verify().ok
    assert DuckProjection(store, path).carry() == 5


def test_no_handle_stays_open(store, reader, path):
    """After each call the file is free for everybody."""
    fill(store, 5)

    def free():
        with duckdb.connect(path) as database:
            database.execute("CHECKPOINT")

    reader.frame()
    free()
    reader.sql("SELECT 1")
    free()
    with pytest.raises(AuditQueryError):
        reader.sql("SELECT nonsense")
    free()
    reader.verify()
    free()
    reader.export(path.with_suffix(".parquet"))
    free()


# -- the file is damaged, or is not ours ------------------------------------------------------------------------------


def overwrite_the_beginning(path):
    with path.open("r+b") as file:
        file.write(b"x" * 4096)


def overwrite_the_end(path):
    with path.open("r+b") as file:
        file.seek(-200_000, os.SEEK_END)
        file.write(random.Random(1).randbytes(200_000))


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def replace_by_text(path):
    path.write_text("this is not a database\n" * 100)


def replace_by_another_database(path):
    path.unlink()
    with duckdb.connect(path) as database:
        database.execute("CREATE TABLE mine (x INT)")


def replace_by_a_look_alike(path):
    path.unlink()
    with duckdb.connect(path) as database:
        database.execute("CREATE TABLE audit (seq BIGINT, hash VARCHAR)")
        database.execute("COMMENT ON TABLE audit IS 'opsagent_jupyter audit, layout x'")


DAMAGES = [
    overwrite_the_beginning,
    overwrite_the_end,
    cut_in_half,
    empty,
    replace_by_text,
    replace_by_another_database,
    replace_by_a_look_alike,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_rebuilt(store, reader, path, damage):
    """The next read is complete and says what happened; the damaged file is kept under another name."""
    fill(store, 200)
    reader.frame()
    damage(path)
    left = path.read_bytes()
    fill(store, 1, start=200)
    found = reader.frame()
    assert list(found.seq) == list(range(1, 202))
    assert "moved to audit.duckdb.corrupt-" in " ".join(found.attrs["notices"])
    (aside,) = path.parent.glob("audit.duckdb.corrupt-*Z")
    assert aside.read_bytes() == left
    assert seqs(path) == list(range(1, 202))
    assert reader.frame().attrs["notices"] == ()
    assert reader.verify().ok


def test_damage_that_only_a_query_meets_does_not_spoil_the_answer(store, reader, path):
    """When nothing is to be carried, damage shows while reading; the answer is complete nevertheless."""
    fill(store, 3000)
    reader.frame()
    size = path.stat().st_size
    with path.open("r+b") as file:
        for place in range(16384, size - 4096, 4096):
            file.seek(place)
            file.write(b"\xff" * 64)
    found = reader.sql("SELECT count(*) AS n, sum(length(body)) AS characters FROM audit")
    assert found.n[0] == 3000
    assert len(list(path.parent.glob("audit.duckdb.corrupt-*Z"))) == 1
    assert reader.sql("SELECT count(DISTINCT hash) AS n FROM audit").n[0] == 3000
    assert seqs(path) == list(range(1, 3001))


def test_a_damaged_file_that_cannot_be_verified_is_a_note(store, reader, path):
    """Verify speaks about the log; a copy that cannot be read is said, and is no accusation."""
    fill(store, 50)
    reader.frame()
    overwrite_the_beginning(path)
    found = reader.verify()
    assert found.ok
    assert "damaged" in " ".join(found.notes)


def test_a_file_of_a_newer_release_is_left_alone(store, reader, path):
    """An older release in another kernel does not rebuild it; its own answers come from the store."""
    fill(store, 5)
    reader.frame()
    with duckdb.connect(path) as database:
        database.execute("COMMENT ON TABLE audit IS 'opsagent_jupyter audit, layout 999'")
    fill(store, 1, start=5)
    before = path.read_bytes()
    found = reader.frame()
    assert list(found.seq) == [1, 2, 3, 4, 5, 6]
    assert "newer release" in " ".join(found.attrs["notices"])
    assert path.read_bytes() == before
    with pytest.raises(AuditError, match="newer release"):
        DuckProjection(store, path).carry()


def test_a_file_of_an_older_release_is_rebuilt(store, reader, path):
    """The typed columns may have changed, so they are derived anew."""
    fill(store, 5)
    reader.frame()
    with duckdb.connect(path) as database:
        database.execute("COMMENT ON TABLE audit IS 'opsagent_jupyter audit, layout 0'")
        database.execute("DROP VIEW failures")
    found = reader_of(store, path.parent).frame()
    assert len(found) == 5
    assert "older layout" in " ".join(found.attrs["notices"])
    with duckdb.connect(path, read_only=True) as database:
        assert projection.layout_of(database) == projection.LAYOUT


# -- the disk -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_delays_the_carry_and_spoils_no_answer(store, tmp_path, path):
    """When DuckDB cannot write, carry says so with a way out, and reads are complete from the store."""
    fill(store, 3000)
    store.close()
    program = f"""
import resource
from pathlib import Path
from opsagent_jupyter.audit.projection import DuckProjection
from opsagent_jupyter.errors import AuditError
from opsagent_jupyter.stores.store import open_store
from tests.audit_log import reader_of
store = open_store({store.url!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    DuckProjection(store, Path({str(path)!r})).carry()
except AuditError as error:
    print("carry:", error)
found = reader_of(store, Path({str(tmp_path)!r})).frame()
print("rows:", len(found), found.attrs["notices"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("later:", len(reader_of(store, Path({str(tmp_path)!r})).frame()))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "carry: " in done.stdout, done.stderr
    assert "free space" in done.stdout
    assert "rows: 3000" in done.stdout
    assert "later: 3000" in done.stdout
    assert seqs(path) == list(range(1, 3001))


def test_a_folder_that_cannot_be_used_spoils_no_answer(store, tmp_path):
    """Where audit.duckdb cannot be made at all, reads still answer, with a notice."""
    (tmp_path / "taken").write_text("a file where the folder should be")
    fill(store, 4)
    reader = reader_of(store, tmp_path / "taken")
    found = reader.frame()
    assert list(found.seq) == [1, 2, 3, 4]
    assert "cannot be written" in " ".join(found.attrs["notices"])
    with pytest.raises(AuditError, match="cannot be written"):
        DuckProjection(store, tmp_path / "taken" / "audit.duckdb").carry()


# -- crashes and interrupts ---------------------------------------------------------------------------------------------

CARRIER = """
import sys
from pathlib import Path
from opsagent_jupyter.audit import projection
from opsagent_jupyter.audit.anchor import anchor_of
from opsagent_jupyter.stores.store import open_store
projection.BATCH = 50
store = open_store(sys.argv[1])
print("up", flush=True)
while True:
    projection.DuckProjection(store, Path(sys.argv[2])).carry()
"""


def test_carriers_that_are_killed_lose_and_double_nothing(store, path):
    """Killing at 25 random moments of carrying, while records are written: every row is in the file once."""
    chance = random.Random(4)
    written = 0
    for _ in range(25):
        carrier = subprocess.Popen(
            [sys.executable, "-c", CARRIER, store.url, str(path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert carrier.stdout.readline()
        until = time.monotonic() + chance.uniform(0, 0.15)
        while time.monotonic() < until:
            fill(store, 40, start=written)
            written += 40
        carrier.send_signal(signal.SIGKILL)
        carrier.communicate()
    mine = DuckProjection(store, path)
    mine.carry()
    assert seqs(path) == list(range(1, written + 1))
    found = reader_of(store, path.parent).verify()
    assert found.ok, str(found)
    assert found.rows == written


PRUNER = """
import sys
from datetime import timedelta
from pathlib import Path
from opsagent_jupyter.audit.retention import prune
from opsagent_jupyter.stores.store import SharedStore, open_store
from tests.audit_log import START, event, reader_of
store = open_store(sys.argv[1])
few = SharedStore.prune_audit
SharedStore.prune_audit = lambda self, record: few(self, record, 20)
reader, folder = reader_of(store, Path(sys.argv[2])), Path(sys.argv[2]) / "old"
print("up", flush=True)
for minutes in range(int(sys.argv[3]), 1000, 150):
    prune(store, reader, folder, START + timedelta(minutes=minutes), event(5000))
"""


def test_prunes_that_are_killed_lose_and_double_nothing(store, tmp_path):
    """Killing at 8 random moments of archiving and removing: each row is in the archives or in the store, with the copy it
    is one chain, and the next prune finishes what was begun."""
    chance, folder = random.Random(5), tmp_path / "old"
    fill(store, 1000)
    whole = [row.hash for row in store.audit_rows(0, 2000)]
    for number in range(8):
        pruner = subprocess.Popen(
            [sys.executable, "-c", PRUNER, store.url, str(tmp_path), str(100 + 80 * number)],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert pruner.stdout.readline()
        time.sleep(chance.uniform(0, 1.5))
        pruner.send_signal(signal.SIGKILL)
        pruner.communicate()
        begins = anchor_of(store).seq
        assert begins == store.audit_rows(0, 1)[0].seq - 1
        found = reader_of(store, tmp_path).verify(archives=folder if begins else None)
        assert found.ok, str(found)
        assert found.rows == store.audit_head()[0]
    reader = reader_of(store, tmp_path)
    last = prune(store, reader, folder, START + timedelta(minutes=950), event(5000)).last
    assert last == 950 == anchor_of(store).seq
    frame = reader.frame(archives=folder)
    assert list(frame.seq) == list(range(1, store.audit_head()[0] + 1))
    assert list(frame.hash[:1000]) == whole
    assert seqs(tmp_path / "audit.duckdb")[0] == 951


def failing_at(place, read):
    """A way of reading that fails from a row on."""

    def failing(after, limit, **more):
        if after >= place:
            raise StoreError("the disk fails")
        return read(after, limit, **more)

    return failing


def test_a_store_that_fails_halfway_leaves_a_true_beginning(store, path, monkeypatch):
    """Rows read before the failure are kept, the store's error is raised as it is, and the next carry goes on."""
    monkeypatch.setattr(projection, "BATCH", 10)
    fill(store, 35)
    for name in ("audit_rows", "audit_block"):
        monkeypatch.setattr(store, name, failing_at(20, getattr(store, name)))
    with pytest.raises(StoreError, match="the disk fails"):
        DuckProjection(store, path).carry()
    assert seqs(path) == list(range(1, 21))
    monkeypatch.undo()
    assert DuckProjection(store, path).carry() == 15
    assert seqs(path) == list(range(1, 36))


def interrupted(work, seconds):
    """Run work with the kernel's stop button pressed after some time; whether it came to its end nevertheless."""
    felt, ended = threading.Event(), False

    def handler(number, frame):
        felt.set()
        signal.default_int_handler(number, frame)

    previous = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        work()
        ended = not felt.is_set()
        felt.wait(10)
    except KeyboardInterrupt:
        pass
    timer.join()
    signal.signal(signal.SIGINT, previous)
    return ended


def test_an_interrupt_ends_a_query_and_nothing_else(store, reader, path):
    """The kernel's stop button ends a long query at once; the next call works and the file is free."""
    fill(store, 5)
    endless = "SELECT count(*) FROM range(100000000000) a, range(100000) b"
    for seconds in (0.02, 0.1, 0.5):
        started = time.monotonic()
        assert not interrupted(lambda: reader.sql(endless, seconds=60), seconds)
        assert time.monotonic() - started < 20
    assert len(reader.frame()) == 5
    with duckdb.connect(path):
        pass


def test_an_interrupted_carry_leaves_the_file_whole(store, path):
    """A carry that is broken off is as if it had not begun, or is complete."""
    fill(store, 2000)
    for seconds in (0.0, 0.005, 0.02, 0.05, 0.1):
        interrupted(DuckProjection(store, path).carry, seconds)
    DuckProjection(store, path).carry()
    assert seqs(path) == list(range(1, 2001))
