"""Connection strings: what in them may be shown, and what must never be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus

from opsagent_jupyter.errors import MalformedDsn, MissingExtra
from opsagent_jupyter.models import Json

EXTRA = "mongodb"
PLAIN, SEEDED = "mongodb://", "mongodb+srv://"
FORM = "Write mongodb://user@host:27017/database, with ?replicaSet=NAME for a replica set, or mongodb+srv://user@host/."

#: Options worth a look, by the lower case in which they are compared.
_SHOWN = {
    name.lower(): name
    for name in ("replicaSet", "authSource", "authMechanism", "readPreference", "directConnection", "tls", "ssl", "tlsCAFile")
}  # fmt: skip
_SECRET = ("password", "tlscertificatekeyfilepassword", "authmechanismproperties", "proxypassword")
#: Options that only a seed list has; the driver refuses them in a plain string.
_SEED_ONLY = ("srvservicename", "srvmaxhosts")


def driver() -> ModuleType:
    """Return pymongo, loaded on first use; ``MissingExtra`` when it is not installed."""
    try:
        import pymongo
    except ImportError as error:
        raise MissingExtra(
            f"The MongoDB client library pymongo cannot be loaded: {error}.",
            hint=f'Install it: pip install "opsagent_jupyter[{EXTRA}]".',
            extra=EXTRA,
        ) from None
    return pymongo


@dataclass(frozen=True)
class Parts:
    """A connection string taken apart by its punctuation alone; nothing is looked up."""

    scheme: str
    login: str
    hosts: tuple[str, ...]
    database: str
    options: tuple[tuple[str, str], ...]
    """Names in lower case with their decoded values, in order."""

    @property
    def user(self) -> str:
        return unquote_plus(self.login.partition(":")[0])

    def option(self, name: str) -> str:
        """The first value of an option; empty when it is not there."""
        return next((value for key, value in self.options if key == name.lower()), "")


def parse(uri: str) -> Parts:
    """Take a connection string apart and check it; ``MalformedDsn`` without a word of it, for it may hold a password."""
    text = uri.strip()
    if not text:
        raise MalformedDsn("The connection string is empty.", hint=FORM)
    scheme = next((each for each in (PLAIN, SEEDED) if text.lower().startswith(each)), "")
    if not scheme:
        raise MalformedDsn("The connection string does not begin with mongodb:// or mongodb+srv://.", hint=FORM)
    parts = _split(scheme, text[len(scheme) :])
    _check(parts, text)
    return parts


def _split(scheme: str, rest: str) -> Parts:
    place, _, query = rest.partition("?")
    # a slash of a password that was not encoded stands before the last @
    head, at, tail = place.rpartition("@")
    hosts, _, database = tail.partition("/")
    options = tuple((key.lower(), value) for key, value in parse_qsl(query.replace(";", "&"), keep_blank_values=True))
    return Parts(
        scheme=scheme,
        login=head if at else "",
        hosts=tuple(host for host in hosts.split(",") if host),
        database=unquote_plus(database),
        options=options,
    )


def _check(parts: Parts, text: str) -> None:
    if not parts.hosts:
        raise MalformedDsn("The connection string names no host.", hint=FORM)
    if parts.scheme == SEEDED and (len(parts.hosts) > 1 or ":" in parts.hosts[0] or parts.hosts[0].count(".") < 2):
        raise MalformedDsn(
            "A mongodb+srv:// string takes exactly one host, with its domain and without a port.",
            hint="Write mongodb+srv://user@cluster.example.net/database, or list the hosts after mongodb://.",
        )
    if re.search(r"[/?#\[\]]|:.*:|@", parts.login) or re.search(r"%(?![0-9A-Fa-f]{2})", parts.login):
        raise _unreadable("user name or password")
    _let_the_driver_check(parts, text)


def _let_the_driver_check(parts: Parts, text: str) -> None:
    driver()
    from pymongo.errors import ConfigurationError, InvalidURI
    from pymongo.uri_parser import parse_uri

    plain = PLAIN + text[len(parts.scheme) :]
    if parts.scheme == SEEDED:  # a seed list would be looked up; what it says is checked as if it were plain
        plain = re.sub(rf"(?i)(?<=[?&])(?:{'|'.join(_SEED_ONLY)})=[^&]*&?", "", plain).rstrip("?&")
    try:
        parse_uri(plain)
    except (InvalidURI, ConfigurationError, ValueError, TypeError) as error:
        raise _unreadable(_suspect(str(error), parts)) from None


def _suspect(said: str, parts: Parts) -> str:
    """The part that the driver complains of, named by us: its own words may hold the value."""
    option = next((key for key, _ in parts.options if re.search(rf"\b{re.escape(key)}\b", said.lower())), "")
    if option:
        return f"option {option!r}" if re.fullmatch(r"[a-z]{1,40}", option) else "options"
    return "port" if "port" in said.lower() else "database name" if "database" in said.lower() else "form"


def _unreadable(what: str) -> MalformedDsn:
    return MalformedDsn(
        f"The connection string cannot be read: look at its {what}.",
        hint=f"{FORM} Special characters of a user name or password are percent-encoded: %40 for an at sign, "
        "%3A for a colon, %2F for a slash, %25 for a percent sign.",
    )


def quoted(text: str) -> str:
    """A text percent-encoded for any place of a connection string."""
    return quote(text, safe="")


def describe(uri: str) -> dict[str, Json]:
    """Return the settings that are no secrets: host, port, database, user, and how members and TLS are asked for."""
    parts = parse(uri)
    hosts = [_host_port(host, parts.scheme) for host in parts.hosts]
    ports = {port for _, port in hosts}
    alone = len(ports) == 1
    shown: dict[str, Json] = {
        "host": ",".join(host if alone else f"{host}:{port}" for host, port in hosts),
        "port": ports.pop() if alone else "",
        "database": parts.database,
        "user": parts.user,
    }
    options = {_SHOWN[key]: value for key, value in parts.options if key in _SHOWN}
    return shown | ({"srv": "true"} if parts.scheme == SEEDED else {}) | options


def _host_port(host: str, scheme: str) -> tuple[str, str]:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return unquote_plus(host), "" if scheme == SEEDED or host.endswith(".sock") else "27017"
    return unquote_plus(name), port


def redactions(uri: str) -> tuple[str, ...]:
    """Return every secret text of a connection string, raw, decoded and encoded, the longest first."""
    raw = _raw_secrets(uri)
    decoded = {unquote_plus(text) for text in raw} | {part for text in raw for part in _properties(unquote_plus(text))}
    texts: set[str] = {*raw, *decoded, *(quoted(text) for text in decoded)}
    return tuple(sorted(filter(None, texts), key=lambda text: (-len(text), text)))


def _raw_secrets(uri: str) -> list[str]:
    """Secrets as they stand in the text, even when the text as a whole cannot be read."""
    text = re.sub(r"^\s*[^\s:/?#]+://", "", uri)
    place, _, query = text.partition("?")
    # every reading of a password that was not encoded: up to the last @ before the options, and up to the first
    logins = [place.rpartition("@")[0], place.partition("@")[0] if "@" in place else "", text.rpartition("@")[0]]
    secrets = [login.partition(":")[2] for login in logins]
    pairs = [pair.partition("=") for pair in re.split(r"[&;?]", query)]
    return [*filter(None, secrets), *(value for key, _, value in pairs if key.lower() in _SECRET and value)]


def _properties(text: str) -> list[str]:
    """The values of authMechanismProperties: ``AWS_SESSION_TOKEN:...``."""
    found: list[Any] = re.findall(r"[A-Z_]+:([^,]+)", text) if re.match(r"[A-Z_]+:", text) else []
    return [str(value) for value in found]
