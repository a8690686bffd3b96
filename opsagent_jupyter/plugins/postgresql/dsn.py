"""Connection strings: what in them may be shown, and what must never be."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl, quote, unquote

from opsagent_jupyter.errors import MalformedDsn, MissingExtra
from opsagent_jupyter.models import Json

EXTRA = "postgresql"

_SHOWN = ("service", "sslmode", "sslrootcert", "target_session_attrs")
_SECRET = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_TLS_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def driver() -> ModuleType:
    """Return psycopg, loaded on first use; ``MissingExtra`` when it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra(
            f"The PostgreSQL client library psycopg cannot be loaded: {error}.",
            hint=f'Install it: pip install "opsagent_jupyter[{EXTRA}]".',
            extra=EXTRA,
        ) from None
    return psycopg


def parameters(dsn: str) -> dict[str, str]:
    """Return a connection string's parameters; ``MalformedDsn`` without a word of it, for it may hold a password."""
    driver()
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    if not dsn.strip():
        raise MalformedDsn("The connection string is empty.")
    _refuse_foreign_scheme(dsn)
    try:
        found = conninfo_to_dict(dsn)
    except ProgrammingError:
        raise _unreadable(dsn) from None
    return _checked({key: str(value) for key, value in found.items() if value is not None})


def _unreadable(dsn: str) -> MalformedDsn:
    if "://" in dsn:
        return MalformedDsn(
            "The connection URL cannot be read.",
            hint="Write postgresql://user@host:5432/database, with special characters of a password percent-encoded: "
            "%25 for a percent sign, %40 for an at sign, %2F for a slash.",
        )
    if "=" in dsn:
        return MalformedDsn(
            "The key=value pairs of the connection string cannot be read, or PostgreSQL does not know one of the keys.",
            hint="Write host=... dbname=... user=..., with values that hold spaces or quotes between single quotes.",
        )
    return MalformedDsn("The connection string is neither a URL nor key=value pairs.")


def _refuse_foreign_scheme(dsn: str) -> None:
    scheme = re.match(r"\s*([A-Za-z][A-Za-z0-9.]*)(\+[a-z0-9]+)?://", dsn)
    if scheme and (scheme[2] or scheme[1] not in ("postgresql", "postgres")):
        raise MalformedDsn(f"The connection string begins with {scheme[0].strip()}, which PostgreSQL does not know.")


def _checked(found: dict[str, str]) -> dict[str, str]:
    for port in filter(None, found.get("port", "").split(",")):
        if not (port.strip().isdigit() and 0 < int(port) < 65536):
            raise MalformedDsn("The port in the connection string is not a number from 1 to 65535.")
    if found.get("sslmode", "prefer") not in _TLS_MODES:
        raise MalformedDsn(f"The sslmode in the connection string is not one of {', '.join(sorted(_TLS_MODES))}.")
    if not found.get("connect_timeout", "0").lstrip("-").isdigit():
        raise MalformedDsn("The connect_timeout in the connection string is not a whole number of seconds.")
    return found


def describe(dsn: str) -> dict[str, Json]:
    """Return the settings that are no secrets: host, port, database, user, and how TLS is asked for."""
    found = parameters(dsn)
    known = {**service_entries(found.get("service", "")), **found}
    shown: dict[str, Json] = {
        "host": known.get("host") or known.get("hostaddr") or os.environ.get("PGHOST") or "local",
        "port": known.get("port") or os.environ.get("PGPORT") or "5432",
        "database": known.get("dbname") or os.environ.get("PGDATABASE") or known.get("user", ""),
        "user": known.get("user") or os.environ.get("PGUSER") or "",
    }
    return shown | {key: known[key] for key in _SHOWN if known.get(key)}


def elsewhere(dsn: str, database: str) -> str:
    """Return the connection string for another database of the same server."""
    given = parameters(dsn)
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **{**given, "dbname": database})


def redactions(dsn: str) -> tuple[str, ...]:
    """Return every secret text of a connection string, raw, decoded and encoded, the longest first."""
    try:
        found = parameters(dsn)
    except MalformedDsn:
        found = {}
    entries = service_entries(found.get("service", ""))
    decoded = [source[key] for source in (found, entries) for key in _SECRET if source.get(key)]
    decoded += filter(None, [os.environ.get("PGPASSWORD")])
    raw = _raw_secrets(dsn)
    texts = {*decoded, *raw, *map(unquote, raw), *(quote(text, safe="") for text in decoded)}
    return tuple(sorted(filter(None, texts), key=lambda text: (-len(text), text)))


def _raw_secrets(dsn: str) -> list[str]:
    """Secrets as they stand in the text, even when the text as a whole cannot be read."""
    user = re.match(r"\s*[^\s:/?#]+://[^:@/?#]*:([^@]*)@", dsn)
    pairs = re.findall(rf"(?:[?&]|\b)(?:{'|'.join(_SECRET)})\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)", dsn)
    pairs += [value for key, value in parse_qsl(dsn.partition("?")[2]) if key in _SECRET]
    return [*([user[1]] if user else []), *pairs, *(re.sub(r"\\(.)", r"\1", pair.strip("'")) for pair in pairs)]


def service_entries(service: str) -> dict[str, str]:
    """Return what the connection service file says of a service; nothing when there is no such file or section."""
    for path in _service_files() if service else ():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if (entries := _section(text, service)) is not None:
            return entries
    return {}


def _service_files() -> list[Path]:
    places = [os.environ.get("PGSERVICEFILE") or str(Path.home() / ".pg_service.conf")]
    if folder := os.environ.get("PGSYSCONFDIR"):
        places.append(f"{folder}/pg_service.conf")
    return [Path(place) for place in places]


def _section(text: str, service: str) -> dict[str, str] | None:
    entries: dict[str, str] | None = None
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            if entries is not None:
                break
            entries = {} if line == f"[{service}]" else None
        elif entries is not None and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            entries[key.strip()] = value.strip()
    return entries
