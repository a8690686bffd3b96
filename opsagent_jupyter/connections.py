"""The live connections of a host, one per instance, and the secrets that must not leave it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from opsagent_jupyter.contracts import Plugins, Store, Vault
from opsagent_jupyter.credentials import Secret
from opsagent_jupyter.errors import OpsAgentError, OutcomeUnknown, PluginError, TargetUnreachable
from opsagent_jupyter.models import Catalog, Health, Instance, Json
from opsagent_jupyter.plugin import Connection, Facts, Limits
from opsagent_jupyter.redaction import Redactor

log = logging.getLogger("opsagent_jupyter")

#: The field under which an instance's connection string is kept, encrypted.
DSN = "dsn"


class LiveConnections:
    """Lends connections by instance; lives on the runtime's loop."""

    def __init__(self, store: Store, plugins: Plugins, vault: Vault, limits: Limits, redactor: Redactor) -> None:
        self._store = store
        self._plugins = plugins
        self._vault = vault
        self._limits = limits
        self._redactor = redactor
        self._open: dict[str, Connection] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    def redact(self, text: str) -> str:
        """Strike every known secret, and what looks like one, out of a text."""
        return self._redactor.redact(text)

    def all_clean(self, texts: Collection[str]) -> bool:
        """Whether none of these texts holds a secret; False may also mean that each has to be looked at by itself."""
        return self._redactor.all_clean(texts)

    @asynccontextmanager
    async def use(self, instance: Instance) -> AsyncIterator[Connection]:
        """Lend the instance's connection, opening it first when there is none; a broken one is not lent again."""
        connection = await self._connected(instance)
        try:
            yield connection
        except (TargetUnreachable, OutcomeUnknown):
            if self._open.get(instance.id) is connection:  # not one that was opened meanwhile
                await self.drop(instance.id)
            raise

    async def _connected(self, instance: Instance) -> Connection:
        if instance.id in self._open:
            return self._open[instance.id]
        async with self._opening.setdefault(instance.id, asyncio.Lock()):
            if instance.id not in self._open:
                self._open[instance.id] = await self._connect(instance)
            return self._open[instance.id]

    async def _connect(self, instance: Instance) -> Connection:
        plugin = self._plugins.plugin(instance.plugin)
        tokens = await asyncio.to_thread(self._store.credentials, instance.id)
        secret = Secret(self._vault.decrypt(tokens[DSN], instance=instance.id, field=DSN))
        with own_errors(instance.plugin):
            self._redactor.add(*plugin.redactions(secret.reveal()))
            return await plugin.connect(instance.name, secret.reveal(), self._limits)

    async def health(self, instance: Instance) -> Health:
        """Ask an instance how it is."""
        async with self.use(instance) as connection:
            with own_errors(instance.plugin):
                return await connection.health()

    async def catalog(self, instance: Instance) -> Catalog:
        """The names in an instance."""
        async with self.use(instance) as connection:
            with own_errors(instance.plugin):
                return await connection.catalog()

    async def facts(self, instance: Instance) -> Mapping[str, Json]:
        """What a database says of itself for a language model; nothing where its plugin has no such facts."""
        plugin = self._plugins.plugin(instance.plugin)
        if not isinstance(plugin, Facts):
            return {}
        async with self.use(instance) as connection:
            with own_errors(instance.plugin):
                return await plugin.facts(connection)

    def describe(self, plugin: str, secret: Secret) -> dict[str, Json]:
        """The settings of a connection string that are no secrets."""
        with own_errors(plugin):
            return self._plugins.plugin(plugin).describe(secret.reveal())

    async def try_out(self, plugin: str, name: str, secret: Secret) -> Health:
        """Connect once with a secret that is not stored yet, and ask for its health."""
        kind = self._plugins.plugin(plugin)
        with own_errors(plugin):
            self._redactor.add(*kind.redactions(secret.reveal()))
            connection = await kind.connect(name, secret.reveal(), self._limits)
            try:
                return await connection.health()
            finally:
                await connection.close()

    async def drop(self, instance_id: str) -> None:
        """Close an instance's connection; the next use opens a new one."""
        connection = self._open.pop(instance_id, None)
        if connection is not None:
            try:
                await connection.close()
            except Exception as error:  # noqa: BLE001  # foreign code; what matters is that it is not lent again
                log.warning("a connection did not close well (%s)", type(error).__name__)

    async def close(self) -> None:
        """Close them all."""
        for instance_id in list(self._open):
            await self.drop(instance_id)


@contextmanager
def own_errors(plugin: str) -> Iterator[None]:
    """Let a plugin's own bug out as an error of ours: its frames and its text may hold the connection string."""
    try:
        yield
    except OpsAgentError:
        raise
    except Exception as error:  # noqa: BLE001  # foreign code: whatever it raises is a bug of the plugin
        kind = type(error).__name__
    else:
        return
    raise PluginError(
        f"The plugin {plugin} failed inside ({kind}).", hint="This is a fault of the plugin; nothing was changed."
    )
