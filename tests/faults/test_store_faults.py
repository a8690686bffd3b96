"""Whatever happens to the store, it says what, changes nothing by halves, and goes on when the trouble is over."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event as hooks
from sqlalchemy import text
from sqlalchemy.engine import make_url

from opsagent_jupyter.demo.postgres import free_port
from opsagent_jupyter.errors import (
    OpsAgentError,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.stores import postgresql
from opsagent_jupyter.stores.store import SharedStore, open_store
from opsagent_jupyter.testing.store_kit import gapless, verified
from opsagent_jupyter.testing.store_samples import added, event, message, session

S = ApprovalState


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store" / "store.db"


@pytest.fixture
def store(file: Path) -> Iterator[SharedStore]:
    opened = open_store(f"sqlite:///{file}", lock_timeout=0.3)
    yield opened
    opened.close()


@pytest.fixture
def team(database18: str) -> Iterator[SharedStore]:
    """A store on a server."""
    opened = open_store(database18, lock_timeout=0.3)
    yield opened
    opened.close()


def refuses(kind: type[StoreError], work: Callable[[], object]) -> StoreError:
    """The error, which must say what to do."""
    with pytest.raises(kind) as caught:
        work()
    assert type(caught.value) is kind
    return caught.value


# -- locked -----------------------------------------------------------------------------------------------------------


@contextmanager
def foreign_lock(file: Path) -> Iterator[None]:
    """Another program, which knows nothing of us, holds the file locked."""
    program = """if True:
        import sqlite3, sys
        held = sqlite3.connect(sys.argv[1], isolation_level=None)
        held.execute("BEGIN EXCLUSIVE")
        print("held", flush=True)
        sys.stdin.read()"""
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        yield
        holder.stdin.close()


def test_a_locked_file_is_waited_for_and_then_named(store: SharedStore, file: Path) -> None:
    """The wait is bounded, the error can be retried, and afterwards all goes on."""
    store.record(event())
    with foreign_lock(file):
        began = time.monotonic()
        error = refuses(StoreLocked, lambda: store.record(event()))
        assert 0.2 < time.monotonic() - began < 5
        assert error.retryable
        assert str(file) in str(error)
    assert store.record(event()) == 2
    assert verified(store) == 2


def test_a_locked_file_that_is_freed_in_time_costs_only_time(file: Path) -> None:
    """A write that waits gets its turn."""
    with closing(open_store(f"sqlite:///{file}", lock_timeout=20)) as store:
        with foreign_lock(file):
            writer = ThreadPoolExecutor(1)
            waiting = writer.submit(store.record, event())
            time.sleep(0.3)
            assert not waiting.done()
        assert waiting.result(20) == 1
        writer.shutdown()


def test_a_locked_server_is_waited_for_and_then_named(team: SharedStore, database18: str) -> None:
    """Somebody who holds the head's row cannot hold up the others for ever."""
    with psycopg.connect(database18) as holder:
        holder.execute("SELECT * FROM chain_head FOR UPDATE")
        assert refuses(StoreLocked, lambda: team.record(event())).retryable
    assert team.record(event()) == 1


# -- corrupt ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(file: Path) -> None:
    """It may be somebody's document."""
    file.parent.mkdir()
    file.write_text("Dear diary, " * 500)
    refuses(StoreCorrupt, lambda: open_store(f"sqlite:///{file}"))
    assert file.read_text() == "Dear diary, " * 500


def test_damaged_pages_are_found_by_the_check(store: SharedStore, file: Path) -> None:
    """Reading what is damaged is an error with a stable code, never a wrong answer."""
    store.record(*(event(summary="x" * 200) for _ in range(300)))
    store.close()
    content = bytearray(file.read_bytes())
    pages = range(0, len(content), 4096)
    for page in [page for page in pages if content.find(b"x" * 200, page, page + 4096) > 0][::2]:
        content[page : page + 2048] = b"\xff" * 2048
    file.write_bytes(content)
    with closing(open_store(f"sqlite:///{file}")) as damaged:
        assert refuses(StoreCorrupt, lambda: damaged.audit_rows(0, 1000)).code == "store.corrupt"
        assert damaged.check()


def test_a_truncated_file_is_refused(store: SharedStore, file: Path) -> None:
    """Half a file is no store."""
    store.record(*(event(summary="x" * 500) for _ in range(50)))
    store.close()
    os.truncate(file, file.stat().st_size // 3)
    with pytest.raises(StoreCorrupt):
        _ = open_store(f"sqlite:///{file}").audit_rows(0, 1000)


@pytest.mark.parametrize("place", ["store", "team"])
def test_rows_that_somebody_spoiled_are_named(place: str, request: pytest.FixtureRequest) -> None:
    """A request whose text is no request any more, and a missing head, stop what needs them."""
    store: SharedStore = request.getfixturevalue(place)
    asked = added(store, S.APPROVED)
    spoil(store, "UPDATE approval_requests SET body = '{}'")
    assert asked.id in str(refuses(StoreCorrupt, lambda: store.claim(asked.id, "host-1", event())))
    spoil(store, "DELETE FROM chain_head")
    refuses(StoreCorrupt, lambda: store.record(event()))


def spoil(store: SharedStore, statement: str) -> None:
    with store._storage.writing() as connection:
        connection.execute(text(statement))


def test_a_file_that_was_moved_away_takes_no_more_records(store: SharedStore, file: Path) -> None:
    """A record that nobody would find again is refused."""
    store.record(event())
    file.rename(file.with_name("elsewhere.db"))
    with pytest.raises(StoreError):
        store.record(event())


# -- read-only ----------------------------------------------------------------------------------------------------------


def as_nobody(work: Callable[[], object]) -> object:
    """Run in a forked child without the rights of root, and return what came out, be it an error."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            try:
                outcome: object = work()
            except OpsAgentError as error:
                outcome = (type(error).__name__, str(error))
            os.write(writing, pickle.dumps(outcome))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        outcome = pickle.loads(answer.read())
    os.waitpid(child, 0)
    return outcome


@pytest.fixture
def public(store: SharedStore) -> Iterator[Path]:
    """A folder that everybody may enter, outside of pytest's private one. The open store has loaded what it needs."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_in_a_folder_that_cannot_be_written_is_not_made(public: Path) -> None:
    """Without a store there is no audit, so it must be said at once."""
    public.chmod(0o555)
    kind, said = as_nobody(lambda: open_store(f"sqlite:///{public}/deep/store.db").url)
    assert kind == "StoreReadOnly"
    assert str(public) in said


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o555), (0o666, 0o555), (0o444, 0o777)])
def test_a_store_that_cannot_be_written_is_read(public: Path, file_mode: int, folder_mode: int) -> None:
    """What happened can still be looked at; nothing new can happen."""
    place = public / "store.db"
    with closing(open_store(f"sqlite:///{place}")) as store:
        store.record(event())
    place.chmod(file_mode)
    place.with_name("store.db.lock").unlink()
    public.chmod(folder_mode)

    def work() -> list[object]:
        with closing(open_store(f"sqlite:///{place}")) as seen:
            found: list[object] = [len(seen.audit_rows(0, 10))]
            try:
                seen.record(event())
            except StoreError as error:
                found.append(type(error).__name__)
            return found

    assert as_nobody(work) == [1, "StoreReadOnly"]


def test_a_server_that_only_reads_is_read(team: SharedStore, database18: str) -> None:
    """A standby, or a database set to read-only, answers; nothing new can happen."""
    team.record(event())
    with psycopg.connect(database18, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET default_transaction_read_only = on')
    with closing(open_store(database18)) as reader:
        assert len(reader.audit_rows(0, 10)) == 1
        refuses(StoreReadOnly, lambda: reader.record(event()))


def test_a_role_without_rights_is_told_so(database18: str) -> None:
    """The tables are not made, and the message says who refused."""
    with psycopg.connect(database18, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS store_guest")
        connection.execute("CREATE ROLE store_guest LOGIN PASSWORD 'guest'")
    guest = make_url(database18).set(username="store_guest", password="guest").render_as_string(hide_password=False)
    assert "permission denied" in str(refuses(StoreReadOnly, lambda: open_store(guest)))
    with psycopg.connect(database18, autocommit=True) as connection:
        connection.execute("DROP ROLE store_guest")


# -- full ---------------------------------------------------------------------------------------------------------------


def test_a_full_disk_refuses_the_record_and_loses_none(file: Path) -> None:
    """What was acknowledged is there, what was refused is not, and with space again it goes on."""
    store = open_store(f"sqlite:///{file}")
    pages = {"most": 100}

    def limit(connection: Any, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages['most']}")

    hooks.listen(store._storage._engine, "checkout", limit)
    assert refuses(StoreFull, lambda: fill(store)).retryable
    kept = verified(store)
    assert kept == gapless(store) > 10
    pages["most"] = 10_000
    assert store.record(event()) == kept + 1
    store.close()


def fill(store: SharedStore) -> None:
    """Record until it is refused."""
    while True:
        store.record(event(summary="x" * 2000))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StoreFull), ("53300", StoreUnavailable), ("57P01", StoreUnavailable), ("08006", StoreUnavailable),
        ("3D000", StoreUnavailable), ("40P01", StoreLocked), ("55P03", StoreLocked), ("25006", StoreReadOnly),
        ("42P01", StoreCorrupt), ("XX001", StoreCorrupt), ("22003", StoreError),
    ],
)  # fmt: skip
def test_every_trouble_of_the_server_has_its_error(state: str, kind: type[StoreError]) -> None:
    """By SQLSTATE, never by text, and without the password should the server repeat it."""
    url = make_url("postgresql+psycopg://alice:geheim@db:5432/store")
    error = postgresql.explain(psycopg.errors.lookup(state)("the server said geheim"), url)
    assert type(error) is kind
    assert "geheim" not in str(error)
    assert error.facts["native_code"] == state


# -- away ---------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    """The error can be retried."""
    url = f"postgresql://alice:geheim@127.0.0.1:{free_port()}/store"
    error = refuses(StoreUnavailable, lambda: open_store(url))
    assert error.retryable
    assert "geheim" not in str(error)


def test_connections_that_the_server_closed_are_replaced(team: SharedStore, database18: str) -> None:
    """After a restart of the server nobody has to restart a kernel."""
    team.record(event())
    throw_out(database18)
    assert team.record(event()) == 2


def test_a_connection_lost_in_a_change_leaves_nothing_of_it(team: SharedStore, database18: str) -> None:
    """The change is undone by the server, the next one works."""
    talk = session()
    team.add_session(talk, event())
    refuses(StoreUnavailable, lambda: interrupted_change(team, database18))
    team.append(message(talk.id))
    assert (verified(team), gapless(team)) == (1, 2)


def interrupted_change(store: SharedStore, database: str) -> None:
    with store._storage.writing() as connection:
        connection.execute(text("UPDATE chain_head SET audit_seq = 99"))
        throw_out(database)
        connection.execute(text("SELECT 1"))


def throw_out(database: str) -> None:
    """End all other connections to this database, as a restart does."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_watcher_outlives_its_connection(team: SharedStore, database18: str) -> None:
    """It connects again by itself, and misses nothing that happened meanwhile."""

    async def scene() -> list[int]:
        seen = []
        async with aclosing(team.watch(0)) as watching, asyncio.timeout(20):
            await asyncio.to_thread(team.record, event())
            seen.append((await anext(watching)).seq)
            await asyncio.to_thread(throw_out, database18)
            await asyncio.to_thread(team.record, event())
            seen.append((await anext(watching)).seq)
        return seen

    assert asyncio.run(scene()) == [1, 2]


# -- killed -------------------------------------------------------------------------------------------------------------


def write_until_killed(url: str, session_id: str) -> None:
    store = open_store(url)
    while True:
        store.record(event(), event())
        asked = added(store, S.APPROVED)
        store.claim(asked.id, "host-1", event())
        store.append(message(session_id))


@pytest.mark.parametrize("place", ["file", "server"])
def test_writers_killed_at_any_moment_leave_whole_changes(
    place: str, request: pytest.FixtureRequest, file: Path
) -> None:
    """After kill -9 of two writers, ten times over: every state has its audit and its word, nothing is half there."""
    url = request.getfixturevalue("database18") if place == "server" else f"sqlite:///{file}"
    talk, chance = session(), random.Random(4711)
    with closing(open_store(url)) as store:
        store.add_session(talk, event())
        for _ in range(10):
            kill_writers(store, url, talk.id, chance)
            check_whole(store, talk.id)


def kill_writers(store: SharedStore, url: str, session_id: str, chance: random.Random) -> None:
    """Start two writers, and end them without a warning in the midst of their work."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_until_killed, args=(url, session_id)) for _ in range(2)]
    for writer in writers:
        writer.start()
    let_write(store, chance.randint(1, 25))
    time.sleep(chance.random() * 0.02)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()


def let_write(store: SharedStore, entries: int) -> None:
    """Wait until others have made so many changes."""
    head, deadline = store.feed_head() + entries, time.monotonic() + 60
    while store.feed_head() < head:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def check_whole(store: SharedStore, session_id: str) -> None:
    """Count audit rows and feed entries against what the states and transcripts say must have happened."""
    found = store.approvals(limit=100_000)
    moves = sum(approval.version for approval in found)
    messages = [each.seq for each in store.messages(session_id)]
    kinds = [entry.topic for entry in store.feed(0, 1_000_000)]
    assert kinds.count("approval") == moves
    assert messages == list(range(1, kinds.count("message") + 1))
    assert verified(store) == moves + 2 * kinds.count("audit") + 1
    assert gapless(store) == len(kinds)
    assert store.check() == []


def test_nothing_of_the_store_is_for_others_to_read_after_a_kill(file: Path) -> None:
    """A left-over journal is as private as the store."""
    url, talk = f"sqlite:///{file}", session()
    with closing(open_store(url)) as store:
        store.add_session(talk, event())
        kill_writers(store, url, talk.id, random.Random(1))
    assert {stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()} == {0o600}
