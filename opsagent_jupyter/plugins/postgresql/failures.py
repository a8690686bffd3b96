"""The seam to the driver: what psycopg raises becomes an error of ours that says what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from opsagent_jupyter.errors import (
    AuthenticationFailed,
    Cancelled,
    ConfigError,
    DatabaseError,
    DeadlineExceeded,
    InvalidArguments,
    MalformedDsn,
    MissingRight,
    OpsAgentError,
    PreconditionFailed,
    TargetUnreachable,
    TlsRefused,
)

if TYPE_CHECKING:
    import psycopg

LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"
DUPLICATE_TABLE = "42P07"
NOT_PRELOADED = "55000"

_LOCKED_HINT = "Another session holds a lock on it: run get_locks to see which, and try again."

#: libpq reports why a connection failed as text only, so here, and only here, text decides. First match wins.
_REFUSALS: tuple[tuple[tuple[str, ...], type[OpsAgentError], str], ...] = (
    (("connection is bad:",), MalformedDsn, ""),
    (
        ("no pg_hba.conf entry",),
        AuthenticationFailed,
        "The server's pg_hba.conf has no line for this client; if it demands TLS, set sslmode=require.",
    ),
    (("ssl", "tls", "certificate"), TlsRefused, ""),
    (
        ('fatal: role ""', "authentication failed", "no password supplied", "is not permitted to log in"),
        AuthenticationFailed,
        "",
    ),
    (("permission denied for database",), AuthenticationFailed, "GRANT CONNECT ON DATABASE to this role."),
    (("too many", "remaining connection slots"), TargetUnreachable, "All connections are taken: free one."),
    (
        ("unsupported startup parameter",),
        TargetUnreachable,
        "This is a connection pooler. Attach the server itself: changes and cancelling need a session of their own.",
    ),
    (("starting up", "shutting down", "recovery"), TargetUnreachable, "The server starts or stops: ask again later."),
    (("does not exist",), TargetUnreachable, "Check the database and role names in the connection string."),
)  # fmt: skip


def refused(error: Exception, secrets: Sequence[str]) -> OpsAgentError:
    """Say why a connection could not be made; the server's words are kept, without a secret in them."""
    text = " ".join(str(error).partition("Multiple connection attempts failed")[0].split())
    text = _NOISE.sub("", text)
    for secret in secrets:
        # A short one only where it stands alone: letters that are missing everywhere would tell it.
        text = text.replace(secret, "***") if len(secret) > 3 else re.sub(rf"\b{re.escape(secret)}\b", "***", text)
    if "ProactorEventLoop" in text:
        return ConfigError("psycopg cannot work on this event loop.", hint="Run OpsAgent on a selector event loop.")
    kind, hint = _classified(text.lower())
    said = text.removeprefix("connection failed:").removeprefix("connection is bad:").strip()
    return kind(f"{kind().message.removesuffix('.')} ({said.removesuffix('.')}).", hint=hint or None)


def _classified(text: str) -> tuple[type[OpsAgentError], str]:
    text = re.sub(r'"[^"]*"', '""', text)
    for marks, kind, hint in _REFUSALS:
        if any(mark in text for mark in marks):
            return kind, hint
    return TargetUnreachable, ""


#: Numbers of the operating system, and libpq's own advice: ours says more.
_NOISE = re.compile(r"\[Errno -?\d+\] | Is the server running (on that host|locally) and accepting [\w/ ]+\?")


class Translated:
    """Lets the driver's errors out as errors of ours, the original as the cause; a read that the server cancelled after its
    time limit (milliseconds) as one that took too long. A class, because every read of every tool passes here."""

    __slots__ = ("_begun", "_limit")

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            return
        import psycopg

        ours = failed(error) if isinstance(error, psycopg.Error) else error
        if self._limit and isinstance(ours, Cancelled) and time.monotonic() - self._begun >= self._limit / 1000:
            ours = timed_out(self._limit / 1000)
        if ours is not error:
            raise ours from error


def failed(error: psycopg.Error) -> OpsAgentError:
    """Say what a failed statement means, by its SQLSTATE."""
    import psycopg

    state = error.sqlstate or ""
    said = " ".join((error.diag.message_primary or str(error)).split())
    if not state and isinstance(error, psycopg.DataError):  # the driver's own refusal: nothing was sent
        return InvalidArguments(f"PostgreSQL cannot take this value: {said}.", hint="Leave such characters out.")
    translate = _BY_STATE.get(state) or _BY_CLASS.get(state[:2], _database_error if state else _lost)
    return translate(state, said)


def _lost(state: str, said: str) -> OpsAgentError:
    return TargetUnreachable(f"The connection to the database server was lost: {said}", native_code=state)


def _missing_right(state: str, said: str) -> OpsAgentError:
    hint = "Let the owner or an administrator grant it, or attach a role that has it."
    return MissingRight(f"The database role lacks a right: {said}.", hint=hint, right=said, native_code=state)


def _canceled(state: str, said: str) -> OpsAgentError:
    return Cancelled(f"The server ended the statement: {said}.", native_code=state)


def _locked(state: str, said: str) -> OpsAgentError:
    return DatabaseError(f"The time to wait for a lock ran out: {said}.", hint=_LOCKED_HINT, native_code=state)


def _not_ready(state: str, said: str) -> OpsAgentError:
    return PreconditionFailed(f"The database refused: {said}.", native_code=state)


def _database_error(state: str, said: str) -> OpsAgentError:
    return DatabaseError(f"The database reported an error ({state}): {said}.", native_code=state)


_BY_STATE: dict[str, Callable[[str, str], OpsAgentError]] = {
    "42501": _missing_right,
    QUERY_CANCELED: _canceled,
    LOCK_NOT_AVAILABLE: _locked,
    NOT_PRELOADED: _not_ready,
}
_BY_CLASS: dict[str, Callable[[str, str], OpsAgentError]] = {"08": _lost, "57": _lost, "28": _missing_right}


def timed_out(seconds: float) -> DeadlineExceeded:
    """The error of a read that the server ended because it reached its time limit."""
    return DeadlineExceeded(
        f"The read reached its limit of {seconds:g} s and was cancelled in the database.", native_code=QUERY_CANCELED
    )
