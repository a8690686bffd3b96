"""Attached databases in the store: their servers, their plugins, their encrypted credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from opsagent_jupyter.errors import InstanceExists, StoreCorrupt, UnknownInstance
from opsagent_jupyter.models import AuditEvent, Instance, Json, canonical
from opsagent_jupyter.names import near
from opsagent_jupyter.stores import one_time
from opsagent_jupyter.stores.documents import document
from opsagent_jupyter.stores.ledger import Change, Driver
from opsagent_jupyter.stores.tables import agent_plugins, plugins, servers

A = agent_plugins
#: Every call through the gate asks it.
_KNOWN_AS = select(A.c.name, A.c.body).where(or_(A.c.name == bindparam("known"), A.c.id == bindparam("known")))


class _Row(NamedTuple):
    name: str
    body: str


def instance_of(row: Any) -> Instance:
    try:
        return _read(row.body)
    except ValueError as error:
        raise StoreCorrupt(f"The instance {row.name} cannot be read: {error}.") from None


@lru_cache(maxsize=256)
def _read(body: str) -> Instance:
    """An instance from its document; every call needs one, and the documents rarely change."""
    return Instance.model_validate_json(body)


def known(driver: Driver, name: str) -> Instance | None:
    """Return an instance by name, or else by id; None when there is none."""
    rows = [_Row._make(row) for row in driver.rows(_KNOWN_AS, {"known": name})]
    return instance_of(min(rows, key=lambda row: row.name != name)) if rows else None


def find(connection: Connection, name: str) -> Instance:
    """Return an instance by name, or else by id."""
    found = known(Driver.of(connection), name)
    if found is None:
        raise UnknownInstance(
            f"No database {name!r} is attached{near(name, names(connection))}.",
            hint="`%opsagent servers` lists what is attached; `%opsagent attach postgresql|mongodb NAME` attaches one.",
        )
    return found


def names(connection: Connection) -> Sequence[str]:
    return connection.execute(select(A.c.name).order_by(A.c.name)).scalars().all()


def all_of(connection: Connection) -> Sequence[Instance]:
    return [instance_of(row) for row in connection.execute(select(A).order_by(A.c.name))]


def servers_of(connection: Connection) -> Sequence[str]:
    return connection.execute(select(servers.c.name).order_by(servers.c.name)).scalars().all()


def add(change: Change, instance: Instance, credentials: Mapping[str, str], event: AuditEvent) -> None:
    if instance.name in names(change.connection):
        raise InstanceExists(f"A database {instance.name!r} is attached already.")
    _know(change, instance)
    row = {name: getattr(instance, name) for name in ("id", "name", "server", "plugin")}
    row |= {"body": document(instance), "credentials": canonical(dict(credentials))}
    change.connection.execute(insert(A).values(row))
    change.audit(event)
    change.announce("instance", instance.name, "attached")


def _know(change: Change, instance: Instance) -> None:
    """Make the rows that an instance refers to; the head is locked, so nobody else does at the same time."""
    if change.connection.execute(select(plugins.c.name).where(plugins.c.name == instance.plugin)).first() is None:
        define(change, instance.plugin, "", {})
    if instance.server not in servers_of(change.connection):
        _begin(change, instance.server)


def _begin(change: Change, server: str) -> None:
    change.connection.execute(insert(servers).values(name=server, created_at=change.at))
    change.announce("server", server, "added")


def add_server(change: Change, name: str, event: AuditEvent) -> None:
    if name not in servers_of(change.connection):
        _begin(change, name)
        change.audit(event)


def define(change: Change, name: str, version: str, definition: Mapping[str, Json]) -> None:
    """Keep what a plugin offers, as the host that has it installed says."""
    values = {"version": version, "definition": canonical(dict(definition)), "updated_at": change.at}
    if change.connection.execute(update(plugins).where(plugins.c.name == name).values(values)).rowcount == 0:
        change.connection.execute(insert(plugins).values(name=name, **values))


def definitions(connection: Connection) -> dict[str, dict[str, Json]]:
    rows = connection.execute(select(plugins).order_by(plugins.c.name))
    return {row.name: {"version": row.version, **json.loads(row.definition)} for row in rows}


def remove(change: Change, name: str, event: AuditEvent) -> None:
    instance = find(change.connection, name)
    change.connection.execute(delete(A).where(A.c.id == instance.id))
    change.audit(event)
    change.announce("instance", instance.name, "detached")


def credentials(connection: Connection, id: str) -> dict[str, str]:
    found = connection.execute(select(A.c.credentials).where(A.c.id == id)).scalar_one_or_none()
    if found is None:
        raise UnknownInstance(f"No database with the id {id!r} is attached.")
    return dict(json.loads(found))


def recrypt(
    change: Change, tokens: Mapping[str, Mapping[str, str]], event: AuditEvent, secrets: Mapping[str, str]
) -> None:
    for key, fields in tokens.items():
        name = change.connection.execute(select(A.c.name).where(A.c.id == key)).scalar_one_or_none()
        if name is None:
            raise UnknownInstance(f"No database with the id {key!r} is attached.")
        change.connection.execute(update(A).where(A.c.id == key).values(credentials=canonical(dict(fields))))
        change.announce("instance", name, "recrypted")
    one_time.recrypt(change.connection, secrets)
    change.audit(event)
