"""The seam to the driver: what pymongo raises becomes an error of ours that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opsagent_jupyter.errors import (
    AuthenticationFailed,
    Cancelled,
    ConfigError,
    DatabaseError,
    DeadlineExceeded,
    InvalidArguments,
    MissingRight,
    OpsAgentError,
    PreconditionFailed,
    TargetUnreachable,
    TlsRefused,
)

UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
ILLEGAL_OPERATION = 20
NAMESPACE_NOT_FOUND = 26
INDEX_NOT_FOUND = 27
MAX_TIME_EXPIRED = 50
NO_REPLICATION = 76
ON_A_VIEW = 166
INTERRUPTED = 11601
DUPLICATE_KEY = 11000
UNKNOWN_FIELD = 40415
NOT_PRIMARY = (189, 10107, 11602, 13435, 13436)

#: Characters of the server's own words that are kept.
SAID = 400

#: Which built-in roles allow an action; measured one by one on a server with authentication.
ROLES: Mapping[str, str] = {
    "explain": "read on the database (readWrite to explain a write)",
    "find": "read on the database",
    "aggregate": "read on the database",
    "count": "read on the database",
    "insert": "readWrite on the database",
    "update": "readWrite on the database",
    "delete": "readWrite on the database",
    "remove": "readWrite on the database",
    "distinct": "read on the database",
    "listIndexes": "read on the database",
    "listCollections": "read on the database",
    "listDatabases": "clusterMonitor on admin",
    "indexStats": "clusterMonitor on admin",
    "collStats": "read on the database, or clusterMonitor on admin",
    "dbStats": "read on the database, or clusterMonitor on admin",
    "inprog": "clusterMonitor on admin",
    "serverStatus": "clusterMonitor on admin",
    "replSetGetStatus": "clusterMonitor on admin",
    "replSetGetConfig": "clusterMonitor on admin",
    "profiler": "clusterMonitor on admin, or dbAdmin on the database",
    "profile": "dbAdmin on the database",
    "createIndexes": "dbAdmin on the database",
    "dropIndexes": "dbAdmin on the database",
    "collMod": "dbAdmin on the database",
    "compact": "dbAdmin on the database",
    "reIndex": "dbAdmin on the database",
    "validate": "dbAdmin on the database",
    "killOp": "hostManager on admin",
    "createUser": "userAdmin on the database",
    "dropUser": "userAdmin on the database",
    "usersInfo": "userAdmin on the database",
    "rolesInfo": "userAdmin on the database",
    "grantRolesToUser": "userAdmin on the database",
    "revokeRolesFromUser": "userAdmin on the database",
}

AUTH_HINT = "Check user, password and authSource (often ?authSource=admin), then attach again."
TLS_HINT = "Check tls=true, tlsCAFile and the server's certificate; a server without TLS wants no tls option."
PRIMARY_HINT = "Attach the whole replica set (?replicaSet=NAME, no directConnection), or its primary."
DEADLINE_HINT = "Run get_current_ops to see what it waited on; an index may make it fast."


def refused(error: Exception, secrets: Sequence[str]) -> OpsAgentError:
    """Say why a connection could not be made; the server's words are kept, without a secret in them."""
    found = failed(error)
    if isinstance(found, MissingRight | AuthenticationFailed):
        return AuthenticationFailed(hint=AUTH_HINT)
    text = found.message
    for secret in secrets:
        # A short one only where it stands alone: letters that are missing everywhere would tell it.
        text = text.replace(secret, "***") if len(secret) > 3 else re.sub(rf"\b{re.escape(secret)}\b", "***", text)
    return type(found)(text, hint=found.hint, **found.facts)


@contextmanager
def refusing(secrets: Sequence[str]) -> Iterator[None]:
    """Let what goes wrong while connecting out as an error of ours, without a cause: its frames hold the secret."""
    from bson.errors import BSONError
    from pymongo.errors import PyMongoError

    try:
        yield
        return
    except (PyMongoError, BSONError, OSError) as error:
        found = refused(error, secrets)
    raise found


@contextmanager
def translated(action: str = "") -> Iterator[None]:
    """Let the driver's errors out as errors of ours; ``action`` names the right that a refusal is about."""
    from bson.errors import BSONError
    from pymongo.errors import PyMongoError

    try:
        yield
    except (PyMongoError, BSONError, OSError) as error:
        raise failed(error, action) from error


def code_of(error: BaseException) -> int:
    """The server's code; 0 when there is none. NotPrimaryError keeps its code in the details only."""
    details = getattr(error, "details", None)
    found = (details.get("code") if isinstance(details, Mapping) else None) or getattr(error, "code", None)
    return found if isinstance(found, int) else 0


def said_of(error: BaseException) -> str:
    """The server's words: one line, cut, and without the values of a document."""
    details = getattr(error, "details", None)
    text = str((details or {}).get("errmsg") or error) if isinstance(details, Mapping) else str(error)
    text = " ".join(text.partition(", full error:")[0].partition(", Timeout:")[0].split())
    text = re.sub(r"(dup key: )\{.*\}", r"\1{…}", text)
    return (text if len(text) <= SAID else text[: SAID - 1] + "…").rstrip(".")


def failed(error: BaseException, action: str = "") -> OpsAgentError:
    """Say what a failed command means: by its code, or by the driver's kind of failure."""
    from bson.errors import BSONError
    from pymongo import errors

    said, code = said_of(error), code_of(error)
    if isinstance(error, BSONError | errors.InvalidName | errors.DocumentTooLarge):  # nothing was sent
        return InvalidArguments(f"MongoDB cannot take this value: {said}.", hint="Leave such characters out.")
    if isinstance(error, errors.OperationFailure | errors.NotPrimaryError) and code:
        return _by_code(code, said, action)
    if isinstance(error, errors.ConnectionFailure | OSError):
        return _unreachable(said)
    if isinstance(error, errors.ConfigurationError | errors.InvalidURI):
        return ConfigError(f"pymongo cannot use the connection string: {said}.", hint="Correct it and attach again.")
    return DatabaseError(f"MongoDB reported an error: {said}.", native_code=str(code or ""))


def _unreachable(said: str) -> OpsAgentError:
    """The driver reports why no server could be reached as text only, so here, and only here, text decides."""
    low = said.lower()
    if any(mark in low for mark in ("ssl", "tls", "certificate")):
        return TlsRefused(f"Client and server do not agree on TLS ({said}).", hint=TLS_HINT)
    if "replica set" in low and "name" in low:
        return TargetUnreachable(f"No member of that replica set was found ({said}).", hint="Check replicaSet=NAME.")
    if "no primary" in low or "no replica set members match selector" in low:
        return TargetUnreachable(
            f"The replica set has no primary now ({said}).", hint="Run get_repl_status to see why."
        )
    return TargetUnreachable(f"The database server does not answer ({said}).")


def _by_code(code: int, said: str, action: str) -> OpsAgentError:
    if code in NOT_PRIMARY:
        return PreconditionFailed("This member is not the primary.", hint=PRIMARY_HINT, native_code=str(code))
    return _BY_CODE.get(code, _database_error)(code, said, action)


def missing_right(action: str, place: str = "") -> MissingRight:
    """The refusal of an action that the user's roles do not allow, with the role that would."""
    role = ROLES.get(action, "")
    where = f" on {place}" if place else ""
    hint = f"Grant the user {role}, or attach a user that has it." if role else "Grant a role that allows it."
    return MissingRight(
        f"The user lacks a right: {action or 'this command'}{where}.",
        hint=hint,
        right=action,
        role=role,
        native_code=str(UNAUTHORIZED),
    )


def _refused_right(code: int, said: str, action: str) -> OpsAgentError:
    """The server repeats the whole command in its refusal, values included: only place and name are kept."""
    found = re.match(r"not authorized on (\S+) to execute command \{ \"?(\w+)\"?:", said)
    place, command = (found[1], found[2]) if found else ("", "")
    if "requires authentication" in said:
        return AuthenticationFailed("The server wants a user and a password.", hint=AUTH_HINT, native_code=str(code))
    return missing_right(action or command, place)


def _not_authenticated(code: int, said: str, action: str) -> OpsAgentError:  # noqa: ARG001  # one signature for all
    return AuthenticationFailed(hint=AUTH_HINT, native_code=str(code))


def _timed_out(code: int, said: str, action: str) -> OpsAgentError:  # noqa: ARG001
    return DeadlineExceeded(
        "The command reached its time limit and was ended by the server.", hint=DEADLINE_HINT, native_code=str(code)
    )


def _interrupted(code: int, said: str, action: str) -> OpsAgentError:  # noqa: ARG001
    return Cancelled(f"The server ended the command: {said}.", native_code=str(code))


def _illegal(code: int, said: str, action: str) -> OpsAgentError:  # noqa: ARG001
    return PreconditionFailed(f"The server refused: {said}.", native_code=str(code))


def _database_error(code: int, said: str, action: str) -> OpsAgentError:  # noqa: ARG001
    return DatabaseError(f"MongoDB reported an error ({code}): {said}.", native_code=str(code))


_BY_CODE: dict[int, Callable[[int, str, str], OpsAgentError]] = {
    UNAUTHORIZED: _refused_right,
    AUTHENTICATION_FAILED: _not_authenticated,
    MAX_TIME_EXPIRED: _timed_out,
    INTERRUPTED: _interrupted,
    11600: _interrupted,  # InterruptedAtShutdown
    ILLEGAL_OPERATION: _illegal,
    NO_REPLICATION: _illegal,
}


def no_answer(seconds: float) -> TargetUnreachable:
    """The error of a read that neither the server nor its own time limit ended."""
    return TargetUnreachable(f"The database server did not answer within {seconds:g} s.")


def code_in(error: OpsAgentError) -> int:
    """The server's code of an error of ours; 0 when there is none."""
    text: Any = error.facts.get("native_code", "")
    return int(text) if str(text).lstrip("-").isdigit() else 0
