"""What is special about a store in a file: its journal, its place, its permissions."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from opsagent_jupyter.errors import ConfigError, StoreCorrupt, StoreLocked
from opsagent_jupyter.stores import sqlite
from opsagent_jupyter.stores.sqlite import NETWORK, filesystem_of, wal_is_safe
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.stores.store import SharedStore, open_store
from opsagent_jupyter.testing.store_kit import verified
from opsagent_jupyter.testing.store_samples import event
from tests.conformance.openers import open_journal_store, open_wal_store

MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/homes /home nfs4 rw 0 0
/dev/vdb /home/local\\040disk xfs rw 0 0
//nas/share /mnt/share cifs rw 0 0
me@host: /mnt/far fuse.sshfs rw 0 0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "store.db"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A process whose new files everybody may read."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.40.1", False), ("3.44.5", False), ("3.44.6", True), ("3.45.0", False), ("3.50.6", False),
        ("3.50.7", True), ("3.51.0", False), ("3.51.2", False), ("3.51.3", True), ("3.52.0", True), ("4.0.0", True),
    ],
)  # fmt: skip
def test_wal_is_used_only_without_its_bug(version: str, safe: bool) -> None:
    """The WAL-reset bug is fixed in 3.51.3, and in two maintained lines."""
    assert wal_is_safe(tuple(map(int, version.split(".")))) is safe


def test_the_journal_mode_is_known(url: str) -> None:
    """An operator learns which it is, and why it is not WAL."""
    with closing(open_store(url)) as store:
        assert store.journal_mode == ("wal" if wal_is_safe() else "truncate")
        assert any("WAL-reset" in notice for notice in store.notices) is not wal_is_safe()


def test_commits_are_on_the_disk(url: str) -> None:
    """Every connection of the pool is fully synchronous, checks foreign keys and waits for locks."""
    store = open_store(url, lock_timeout=7)
    with store._storage.reading() as one, store._storage.writing() as two:
        for connection in (one, two):
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                     ("synchronous", "foreign_keys", "busy_timeout")]  # fmt: skip
            assert found == [2, 1, 7000]
    store.close()


def test_a_wal_store_is_taken_out_of_wal_by_an_affected_sqlite(url: str) -> None:
    """From then on all use the rollback journal: the other SQLite would follow the mode of the file."""
    with closing(open_wal_store(url)) as store:
        assert store.journal_mode == "wal"
        store.record(event())
    with closing(open_journal_store(url)) as store:
        assert store.journal_mode == "truncate"
    with closing(open_wal_store(url)) as store:
        assert store.journal_mode == "truncate"
        assert verified(store) == 1


def test_an_affected_sqlite_does_not_join_a_wal_store_in_use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do instead of writing with the bug."""
    monkeypatch.setattr(sqlite, "wal_is_safe", lambda: True)
    with closing(open_store(url)):
        monkeypatch.setattr(sqlite, "wal_is_safe", lambda: False)
        with pytest.raises(StoreLocked, match=r"journal mode wal|locked") as caught:
            open_store(url, lock_timeout=0.2)
        assert caught.value.hint


def test_the_database_of_another_program_is_not_changed(file: Path, url: str) -> None:
    """A wrong URL costs nothing: neither its tables nor its journal mode are touched."""
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as theirs:
        theirs.execute("PRAGMA journal_mode = wal")
        theirs.execute("CREATE TABLE notes (text)")
    content = file.read_bytes()
    for opener in (open_wal_store, open_journal_store):
        with pytest.raises(StoreCorrupt, match="notes"):
            opener(url)
    assert file.read_bytes() == content


@pytest.mark.usefixtures("open_umask")
def test_the_file_and_its_folder_are_private(file: Path, url: str) -> None:
    """Nobody else on the machine may read them, whatever the umask."""
    with closing(open_wal_store(url)) as store:
        store.record(event())
        files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_is_noticed(file: Path, url: str) -> None:
    """It is not changed behind its owner's back."""
    open_store(url).close()
    file.chmod(0o644)
    with closing(open_store(url)) as store:
        assert any("chmod 600" in notice for notice in store.notices)


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/store.db", "ext4", False),
        ("/home/alice/store.db", "nfs4", True),
        ("/home/local disk/store.db", "xfs", False),
        ("/homework/store.db", "ext4", False),
        ("/mnt/share/x/store.db", "cifs", True),
        ("/mnt/far/store.db", "fuse.sshfs", True),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str, network: bool) -> None:
    """By the mount that holds the path, spaces in its name included."""
    assert filesystem_of(Path(path), MOUNTS) == kind
    assert (NETWORK.match(kind) is not None) is network


def test_a_store_on_a_network_file_system_gets_no_wal_and_a_notice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """WAL needs shared memory of one machine."""
    monkeypatch.setattr(sqlite, "NETWORK", sqlite.re.compile(""))
    with closing(open_wal_store(url)) as store:
        assert store.journal_mode == "truncate"
        assert any("network file system" in notice for notice in store.notices)


@pytest.mark.parametrize("wrong", ["sqlite://", "sqlite:///:memory:", "mysql://u:geheim@h/d", "geheim@", "://geheim"])
def test_a_url_that_is_no_store_is_refused_without_repeating_it(wrong: str) -> None:
    """A store in memory could not be shared, and a text that cannot be read may hold a password."""
    with pytest.raises(ConfigError) as caught:
        open_store(wrong)
    assert "geheim" not in str(caught.value)
    assert caught.value.hint


def test_the_default_store_is_in_the_jupyter_data_directory() -> None:
    """Without a URL every process of this user finds the same file."""
    with closing(open_store()) as store:
        assert store.url == f"sqlite:///{os.environ['JUPYTER_DATA_DIR']}/opsagent/opsagent.db"


def test_a_name_with_special_characters_is_a_name(tmp_path: Path) -> None:
    """Spaces and percent signs in the path are part of it."""
    folder = tmp_path / "my data 100%"
    with closing(open_store(f"sqlite:///{folder}/store.db")):
        assert (folder / "store.db").exists()


def recording_child(store: SharedStore) -> int:
    """The id of a forked child that records and ends, with 0 when it could."""
    child = os.fork()
    if child == 0:
        try:
            store.record(event())
            os._exit(0)
        finally:
            os._exit(1)
    return child


@pytest.mark.parametrize("opener", [open_wal_store, open_journal_store])
def test_a_forked_child_opens_connections_of_its_own(url: str, opener) -> None:
    """Parent and child both write afterwards, and the chain holds."""
    store = opener(url)
    store.record(event())
    child = recording_child(store)
    store.record(event())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert verified(store) == 3
    store.close()


def test_a_child_writes_although_a_thread_of_its_parent_was_writing(url: str) -> None:
    """The turn among threads is free in the child: nobody there would give it back."""
    store = open_store(url, lock_timeout=5.0)
    with store._storage._turns.here(1.0):
        child = recording_child(store)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.record(event())
    assert verified(store) == 2
    store.close()


def test_a_store_takes_turns_with_a_stopped_writer_only_so_long(file: Path, url: str) -> None:
    """Whoever holds the turn and does nothing cannot hold up the others for ever, and leaves no trace in them."""
    store = open_store(url, lock_timeout=0.3)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with open_store(url)._storage._turns.turn(10):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    with pytest.raises(StoreLocked):
        store.record(event())
    leave.set()
    holder.join()
    assert store.record(event()) == 1
    store.close()


def test_another_program_may_read_the_file(file: Path, url: str) -> None:
    """The tables are plain SQLite: an administrator's tools see names and times as text."""
    with closing(open_store(url)) as store:
        store.record(event(tool="postgresql.create_index"))
    with closing(sqlite3.connect(file)) as plain:
        ((tool, age),) = plain.execute("SELECT tool, julianday('now') - julianday(at) FROM plugin_audit_log").fetchall()
    assert tool == "postgresql.create_index"
    assert 0 <= age * 86400 < 60
