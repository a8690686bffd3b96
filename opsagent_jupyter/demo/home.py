"""The private directory and the processes of one embedded server, watched so that nothing outlives its owner."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from opsagent_jupyter.demo.binaries import Binaries
from opsagent_jupyter.errors import DemoError

#: Seconds that initdb or pg_basebackup may take.
PROGRAM_LIMIT = 120.0
#: Seconds after a fast shutdown until the immediate one, and from there until the process is killed.
STOP_LIMIT = 10.0

_LOG_TAIL = 2_000


@dataclass(frozen=True)
class ServerUser:
    """The operating-system user that a server runs as when we are root, whom PostgreSQL refuses."""

    name: str
    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """`postgres`, else `nobody`, when we are root; None for an ordinary user. No user is ever created."""
    if os.name != "posix":
        raise DemoError(
            "The embedded database runs on Linux and macOS only.",
            hint="Attach a PostgreSQL server of your own instead.",
        )
    if os.geteuid() != 0:
        return None
    import pwd  # not on Windows

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise DemoError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as.",
        hint="Run this as an ordinary user.",
    )


class Home:
    """One server's directory (0700), its user, and a watchdog that clears both away when this process dies."""

    def __init__(self, prefix: str = "opsagent-pg-") -> None:
        self.user = server_user()
        self.path = Path(scratch_directory(self.user)).resolve() / f"{prefix}{secrets.token_hex(8)}"
        # The watchdog is there before the directory: an owner that dies between the two leaves nothing behind.
        self._watchdog = self._watch()
        self._owner = os.getpid()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        _homes.add(self)

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; a forked child of the owner must leave it alone."""
        return os.getpid() == self._owner

    def write(self, name: str, text: str) -> Path:
        """A new file that only the server's user can read."""
        path = self.path / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            self._give(file.fileno())
            file.write(text)
        return path

    def run(self, command: Iterable[str | Path]) -> None:
        """Run a program to its end as the server's user; its output is part of the error when it fails."""
        log = self.path / "program.log"
        process = self.spawn(command, log)
        try:
            code = process.wait(PROGRAM_LIMIT)
        except subprocess.TimeoutExpired:
            raise _failed(process, f"did not end within {PROGRAM_LIMIT:.0f} s", log) from None
        finally:
            process.kill()
            process.wait()
        if code != 0:
            raise _failed(process, f"failed with exit status {code}", log)

    def spawn(self, command: Iterable[str | Path], log: Path) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, in its own session: Ctrl-C in a terminal or notebook is not for it."""
        with os.fdopen(_append_to(log), "ab") as output:
            process = self._popen([str(word) for word in command], output)
        self._tell(process.pid)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a server: fast shutdown, after STOP_LIMIT immediate shutdown, then by force."""
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT)
                return

    def close(self) -> None:
        """Remove the directory and let the watchdog go."""
        if not self.is_ours:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self.drop_pipe()
        with suppress(subprocess.TimeoutExpired):
            self._watchdog.wait(STOP_LIMIT)

    def drop_pipe(self) -> None:
        """Close our end of the watchdog's pipe."""
        if self._watchdog.stdin:
            self._watchdog.stdin.close()

    def usable(self, binaries: Binaries) -> Binaries:
        """The same programs, copied into this directory if the server's user cannot run them where they are."""
        if self._can_run(binaries):
            return binaries
        bindir = copy_programs(binaries.bindir, self.path / "programs")
        self._give_tree(self.path / "programs")
        return Binaries(bindir, binaries.version, binaries.source)

    def _make(self) -> None:
        self.path.mkdir(mode=0o700)
        if self.user:
            os.chown(self.path, self.user.uid, self.user.gid)
        self._say("made")

    def _watch(self) -> subprocess.Popen[bytes]:
        uid, gid = (self.user.uid, self.user.gid) if self.user else (os.geteuid(), os.getegid())
        script = Path(__file__).with_name("watchdog.py")
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(script), str(self.path), str(uid), str(gid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )

    def _popen(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.path,
                env=self._environment(os.environ),
                start_new_session=True,
                umask=0o077,
                **self._identity(),
            )
        except OSError as error:
            name = self.user.name if self.user else "this user"
            raise DemoError(f"{command[0]} cannot be run as {name}: {error.strerror}.") from error

    def _environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """PG* variables are meant for the user's own servers, and root's home is closed to the server's user."""
        kept = {name: value for name, value in inherited.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return kept | {"HOME": str(self.path), "LC_ALL": "C"}

    def _identity(self) -> dict[str, Any]:
        return {"user": self.user.uid, "group": self.user.gid, "extra_groups": []} if self.user else {}

    def _can_run(self, binaries: Binaries) -> bool:
        if self.user is None:
            return True
        command = [binaries.program("initdb"), "--version"]
        try:
            tried = subprocess.run(command, cwd="/", capture_output=True, check=False, timeout=10, **self._identity())
        except OSError:
            return False
        return tried.returncode == 0

    def _give(self, descriptor: int) -> None:
        if self.user:
            os.fchown(descriptor, self.user.uid, self.user.gid)

    def _give_tree(self, root: Path) -> None:
        if self.user is None:
            return
        for parent, _, files in os.walk(root):
            for path in (Path(parent), *(Path(parent, name) for name in files)):
                os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)

    def _tell(self, pid: int) -> None:
        self._say(str(pid))

    def _say(self, line: str) -> None:
        pipe = self._watchdog.stdin
        with suppress(OSError):  # a watchdog that somebody killed is no reason to fail: stop() and atexit remain
            if pipe:
                pipe.write(f"{line}\n".encode())


def copy_programs(bindir: Path, target: Path) -> Path:
    """Copy an installation, with the folder of libraries that a wheel keeps beside its package; return the new bindir.

    The programs look for both relative to themselves, so the copy keeps the last two folders of the path.
    """
    prefix, package = bindir.parent, bindir.parent.parent
    copied = target / package.name / prefix.name
    for part in (bindir.name, "lib", "lib64", "share"):
        if (prefix / part).is_dir():
            shutil.copytree(prefix / part, copied / part, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return copied / bindir.name


def scratch_directory(user: ServerUser | None) -> str:
    """The first temporary directory that the server's user can enter; permissions of others are never changed."""
    candidates = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp"))  # noqa: S108
    for candidate in candidates:
        if user is None or can_enter(Path(candidate).resolve(), user):
            return candidate
    raise DemoError(
        f"User {user.name if user else ''} can enter none of {', '.join(candidates)}.",
        hint="Set TMPDIR to a directory that everybody can enter, or run this as an ordinary user.",
    )


def can_enter(path: Path, user: ServerUser) -> bool:
    """Whether the mode bits let the user pass through every folder of the path; unknown counts as no."""
    try:
        return all(_passable(folder.stat(), user) for folder in (path, *path.parents))
    except OSError:
        return False


def tail(log: Path) -> str:
    """The end of a log, for an error message."""
    try:
        return log.read_text(errors="replace")[-_LOG_TAIL:].strip()
    except OSError:
        return ""


def _append_to(log: Path) -> int:
    """Open without following a link: as root we write into a directory that the server's user can write to."""
    return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _passable(state: os.stat_result, user: ServerUser) -> bool:
    if state.st_uid == user.uid:
        return bool(state.st_mode & stat.S_IXUSR)
    if state.st_gid == user.gid:
        return bool(state.st_mode & stat.S_IXGRP)
    return bool(state.st_mode & stat.S_IXOTH)


def _failed(process: subprocess.Popen[bytes], how: str, log: Path) -> DemoError:
    arguments = process.args
    program = Path(str(arguments[0] if isinstance(arguments, list) else arguments)).name
    return DemoError(f"{program} {how}: {tail(log) or 'it said nothing.'}")


_homes: weakref.WeakSet[Home] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked child: close the copies of the pipes, or the watchdogs would wait for this child too."""
    for home in _homes:
        home.drop_pipe()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
