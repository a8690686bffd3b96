"""REST: this host, the plugins, the servers and what is attached to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from opsagent_jupyter.api import connection_secret, require_name
from opsagent_jupyter.credentials import Secret
from opsagent_jupyter.errors import (
    ConfigError,
    CredentialError,
    ExecutionError,
    InstanceExists,
    MissingExtra,
    OpsAgentError,
    UnknownInstance,
    UnknownPlugin,
    UnknownServer,
)
from opsagent_jupyter.executor import Ask
from opsagent_jupyter.models import CallRecord, Health, Instance
from opsagent_jupyter.names import near
from opsagent_jupyter.plugin import Tool
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.bodies import (
    Attached,
    Attachment,
    Condition,
    Detached,
    Execution,
    NewServer,
    PluginSummary,
    Server,
    ToolSummary,
)
from opsagent_jupyter.server.paging import Page, Paging, key_of, page_of
from opsagent_jupyter.server.routes import Asked, Nothing, Routes

routes = Routes()


@routes.get("health")
async def get_health(asked: Asked[Nothing, Nothing]) -> Condition:
    """How this host is: its store, its set-up, its model."""
    runtime = asked.runtime
    return Condition(
        ok=True,
        version=version("opsagent_jupyter"),
        setup=runtime.settings.setup,
        claim=runtime.claim,
        store=runtime.store.url,
        store_kind=runtime.store.kind,
        notices=runtime.store.notices,
        model=runtime.settings.model,
        feed=await asyncio.to_thread(runtime.store.feed_head),
    )


@routes.get("plugins")
async def list_plugins(asked: Asked[Nothing, Nothing]) -> Page[PluginSummary]:
    """The kinds of integration that are installed."""
    names = asked.runtime.plugins.names()
    return Page(items=tuple(await asyncio.to_thread(lambda: [summary_of(asked.runtime, name) for name in names])))


def summary_of(runtime: Runtime, name: str) -> PluginSummary:
    """A plugin, also one that cannot be used: its client library is missing, or it is broken."""
    try:
        plugin = runtime.plugins.plugin(name)
    except OpsAgentError as error:
        return PluginSummary(name=name, version="", tools=0, missing=str(error))
    except Exception as error:  # noqa: BLE001  # a plugin is foreign code: one that does not load hides no other
        return PluginSummary(name=name, version="", tools=0, missing=f"It does not load ({type(error).__name__}).")
    return PluginSummary(name=name, version=plugin.version, tools=len(plugin.toolbox.tools))


@routes.get("servers")
async def list_servers(asked: Asked[Paging, Nothing]) -> Page[Server]:
    """The servers by name, each with what is attached to it and how that was when it was last asked."""
    store, query = asked.runtime.store, asked.query
    names = sorted(await asyncio.to_thread(store.servers))
    if query.cursor:
        last = str(key_of(query.cursor, str)[0])
        names = [name for name in names if name > last]
    instances = await asyncio.to_thread(store.instances)
    known = asked.runtime.known_health
    return page_of([server_of(name, instances, known) for name in names[: query.limit + 1]], query.limit, "name")


def server_of(name: str, instances: Sequence[Instance], known: Mapping[str, Health]) -> Server:
    """A server with its part of all instances."""
    own = tuple(instance for instance in instances if instance.server == name)
    return Server(name=name, plugins=own, health=tuple(known[i.name] for i in own if i.name in known))


@routes.post("servers", status=HTTPStatus.CREATED)
async def add_server(asked: Asked[Nothing, NewServer]) -> Server:
    """Make a server known; nothing happens when it is already."""
    runtime, name = asked.runtime, asked.body.name
    event = runtime.event("server.added", asked.actor, server=name)
    await asyncio.to_thread(runtime.store.add_server, name, event)
    return server_of(name, await asyncio.to_thread(runtime.store.instances), runtime.known_health)


async def require_server(runtime: Runtime, name: str) -> None:
    """Raise ``UnknownServer``, which names near matches."""
    known = await asyncio.to_thread(runtime.store.servers)
    if name not in known:
        raise UnknownServer(f"There is no server {name!r}{near(name, known)}.", hint="POST api/servers adds one.")


async def instance_of(asked: Asked[Any, Any]) -> Instance:
    """The instance that a path names, by id or by name, on the server that it names."""
    server, key = asked.path["server"], asked.path["id"]
    await require_server(asked.runtime, server)
    instance = await asyncio.to_thread(asked.runtime.store.instance, key)
    if instance.server != server:
        raise UnknownInstance(
            f"No database {key!r} is attached to {server}.", hint=f"It is attached to {instance.server}."
        )
    return instance


@routes.get("servers/{server}/plugins", UnknownServer)
async def list_instances(asked: Asked[Paging, Nothing]) -> Page[Instance]:
    """What is attached to a server, by name."""
    server, query = asked.path["server"], asked.query
    await require_server(asked.runtime, server)
    last = str(key_of(query.cursor, str)[0]) if query.cursor else ""
    attached = await asyncio.to_thread(asked.runtime.store.instances)
    found = [instance for instance in attached if instance.server == server and instance.name > last]
    return page_of(sorted(found, key=lambda instance: instance.name), query.limit, "name")


@routes.post(
    "servers/{server}/plugins",
    UnknownPlugin,
    MissingExtra,
    InstanceExists,
    CredentialError,
    ConfigError,
    ExecutionError,
    status=HTTPStatus.CREATED,
)
async def attach(asked: Asked[Nothing, Attachment]) -> Attached:
    """Attach a database: its connection is tried, then kept encrypted; with ``keep`` false it is only tried."""
    runtime, body, server = asked.runtime, asked.body, asked.path["server"]
    require_name("server", server)
    dsn = body.dsn.get_secret_value() if body.dsn else None
    secret = Secret(connection_secret(dsn, body.dsn_env, body.service))
    if not body.keep:
        health = await runtime.connections.try_out(body.plugin, body.name, secret)
        return Attached(instance=None, health=health)
    instance = Instance(
        name=body.name, server=server, plugin=body.plugin, environment=body.environment, read_only=body.read_only
    )
    health = await runtime.attach(instance, secret, asked.actor)
    return Attached(instance=await asyncio.to_thread(runtime.store.instance, body.name), health=health)


@routes.get("servers/{server}/plugins/{id}", UnknownServer, UnknownInstance)
async def get_instance(asked: Asked[Nothing, Nothing]) -> Instance:
    """An attached database, by id or by name."""
    return await instance_of(asked)


@routes.delete("servers/{server}/plugins/{id}", UnknownServer, UnknownInstance)
async def detach(asked: Asked[Nothing, Nothing]) -> Detached:
    """Forget an attached database and its credentials."""
    instance = await instance_of(asked)
    return Detached(instance=await asked.runtime.detach(instance.name, asked.actor))


@routes.get("servers/{server}/plugins/{id}/health", UnknownServer, UnknownInstance)
async def get_instance_health(asked: Asked[Nothing, Nothing]) -> Health:
    """Ask an attached database how it is; what goes wrong is the answer."""
    return await asked.runtime.health(await instance_of(asked))


@routes.get("servers/{server}/plugins/{id}/tools", UnknownServer, UnknownInstance, UnknownPlugin)
async def list_tools(asked: Asked[Nothing, Nothing]) -> Page[ToolSummary]:
    """The tools of an attached database."""
    instance = await instance_of(asked)
    return Page(items=tuple(tool_summary(tool) for tool in asked.runtime.plugins.tools(instance.plugin)))


def tool_summary(tool: Tool) -> ToolSummary:
    """A tool as a screen needs it."""
    return ToolSummary(
        name=tool.name,
        full_name=tool.full_name,
        summary=tool.summary,
        risk=tool.risk,
        changes=tool.changes,
        arguments=tool.schema(),
    )


@routes.post("servers/{server}/plugins/{id}/execute", UnknownServer, UnknownInstance)
async def execute(asked: Asked[Nothing, Execution]) -> CallRecord:
    """Take one call through the gate. What it comes to is the record: also a refusal, or an approval that it waits for."""
    instance, body = await instance_of(asked), asked.body
    ask = Ask(
        body.tool,
        dict(body.arguments),
        instance.name,
        session=body.session,
        dry_run=body.dry_run,
        supersedes=body.supersedes,
    )
    return await asked.runtime.run(ask, asked.actor)
