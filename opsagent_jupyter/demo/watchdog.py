"""The watchdog of one embedded server: when its owner dies, it stops the server and removes the directory.

Run as a script, ``python -I -S watchdog.py DIRECTORY UID GID``, with the standard library only. Standard input is a
pipe that nobody but the owner holds open. Its first line says that the directory is made and given to the server's user;
each further line is the id of a process that the owner started for this server. End of file means that the owner is
gone, however it went.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

#: Seconds that a server is given after each of: fast shutdown, immediate shutdown, kill.
PATIENCE = 10.0
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGQUIT", "SIGKILL") if hasattr(signal, name))


def main(directory: Path, uid: int, gid: int) -> None:
    """Wait for the owner's end, then clear up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if not sys.stdin.readline():  # the owner died before it had made the directory, or before it had given it away
        with suppress(OSError):
            directory.rmdir()
        return
    drop_privileges(uid, gid)
    told = read_pids(sys.stdin)
    for pid in dict.fromkeys([*told, *postmaster_pids(directory)]):
        stop(pid, directory)
    remove(directory)


def drop_privileges(uid: int, gid: int) -> None:
    """Become the server's user: the watchdog needs no more rights than the server has."""
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def read_pids(lines: Iterable[str]) -> list[int]:
    """The process ids told before end of file; a line cut off by the owner's death is left out."""
    return [int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()]


def postmaster_pids(directory: Path) -> list[int]:
    """The servers that say themselves that they run below the directory: the owner may die before it could tell."""
    return read_pids(
        first_line
        for file in directory.glob("*/postmaster.pid")
        for first_line in file.read_text(errors="replace").splitlines(keepends=True)[:1]
    )


def stop(pid: int, directory: Path) -> None:
    """End one process of ours: fast, then immediate, then by force."""
    for number in STOP_SIGNALS:
        if not send(pid, directory, number):
            return
        if wait_until(lambda: not is_ours(pid, directory), PATIENCE):
            return


def send(pid: int, directory: Path, number: int) -> bool:
    """Signal a process if it is ours. A pidfd, where there is one, makes check and signal mean the same process."""
    if not hasattr(os, "pidfd_open"):
        if is_ours(pid, directory):
            os.kill(pid, number)
            return True
        return False
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if is_ours(pid, directory):
            signal.pidfd_send_signal(handle, number)
            return True
        return False
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def is_ours(pid: int, directory: Path) -> bool:
    """Whether the process names our directory on its command line.

    A process id is used again after its process ends; the directory's random name is not.
    """
    return os.fsencode(directory) in command_line(pid)


def command_line(pid: int) -> bytes:
    """What the process was started with; empty for one that has ended."""
    proc = Path("/proc", str(pid), "cmdline")
    if Path("/proc/self/cmdline").exists():
        try:
            return proc.read_bytes()
        except OSError:
            return b""
    listing = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
    return listing.stdout


def remove(directory: Path) -> None:
    """Remove the directory; again while a process that is just ending still writes into it."""

    def removed() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    wait_until(removed, PATIENCE)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
