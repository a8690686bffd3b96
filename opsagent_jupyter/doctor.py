"""One examination of an installation: what was found, and the fix where it is not well."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from opsagent_jupyter.cards import Card
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.plugin import Accounts
from opsagent_jupyter.stores.sqlite_library import sqlite3

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent
    from opsagent_jupyter.models import Health, Instance

#: Lowest releases without a known hole in what we use (their security advisories).
FLOORS = {"jupyter_server": (2, 20), "jupyterlab": (4, 6, 2), "ipykernel": (7,), "langchain_core": (1, 2, 5)}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    fix: str = ""


@dataclass(frozen=True, repr=False)
class Report(Card):
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing needs a fix."""
        return all(finding.ok for finding in self.findings)

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """One row a finding, with its fix below."""
        rows = [
            (f.name, f"{'✓' if f.ok else '✗'} {f.found}" + (f"\n→ {f.fix}" if f.fix and not f.ok else ""))
            for f in self.findings
        ]
        return ("All is well." if self.ok else "Something needs a fix."), rows


def examine(ops: OpsAgent) -> Report:
    """Look at packages, store, key, model, audit and databases."""
    checks = [_set_up(ops), *_packages(), _store(ops), _key(ops), _model(ops), _audit(ops), *_databases(ops)]
    return Report(tuple(checks))


def _set_up(ops: OpsAgent) -> Finding:
    return Finding("set-up", ok=True, found=f"{ops.settings.setup}: {ops.runtime.claim}")


def _packages() -> list[Finding]:
    found = []
    for name in ("opsagent_jupyter", "ipykernel", "jupyter_server", "jupyterlab", "langchain_core", "psycopg"):
        try:
            have = version(name)
        except PackageNotFoundError:
            optional = name not in ("ipykernel", "langchain_core", "opsagent_jupyter")
            fix = "" if optional else "pip install -U opsagent_jupyter"
            found.append(Finding(name, optional, "not installed", fix))
            continue
        numbers = tuple(int(part) for part in have.split(".")[:3] if part.isdigit())
        old = numbers < FLOORS.get(name, ())
        found.append(Finding(name, not old, have, f"pip install -U {name}" if old else ""))
    return found


def _store(ops: OpsAgent) -> Finding:
    store = ops.runtime.store
    journal = getattr(store, "journal_mode", "")
    detail = f", SQLite {sqlite3.sqlite_version} with journal mode {journal}" if journal else ""
    notices = tuple(getattr(store, "notices", ()))
    # A rollback journal is the safe choice where WAL is not: worth a word, nothing to fix.
    well = len(notices) <= (journal not in ("", "wal"))
    if wrong := store.check():
        found = "; ".join([f"{store.url}{detail}", *wrong])
        return Finding(
            "store", ok=False, found=found, fix="keep a copy of the store as it is, and compare it with a backup"
        )
    found = "; ".join([f"{store.url}{detail}", *notices])
    return Finding("store", well, found, "do what the note says")


def _key(ops: OpsAgent) -> Finding:
    vault = ops.runtime.vault
    unreadable = []
    for instance in ops.instances():
        for field, token in ops.runtime.store.credentials(instance.id).items():
            try:
                vault.decrypt(token, instance=instance.id, field=field)
            except OpsAgentError as error:
                unreadable.append(f"{instance.name}: {error}")
    source = f"key {getattr(vault, 'key_id', '')} from {getattr(vault, 'source', '')}"
    return Finding(
        "key", not unreadable, "; ".join([source, *unreadable]), "attach those databases again, or set the right key"
    )


def _model(ops: OpsAgent) -> Finding:
    name = ops.settings.model
    if name == "offline":
        return Finding(
            "model", find_spec("rapidfuzz") is not None, "offline (rules, no network)", "pip install rapidfuzz"
        )
    try:
        ops.runtime.open_model(name, [])
    except OpsAgentError as error:
        return Finding("model", ok=False, found=str(error), fix=error.hint or "set OPSAGENT_MODEL=offline")
    return Finding("model", ok=True, found=f"{name} (not called)")


def _audit(ops: OpsAgent) -> Finding:
    try:
        found = ops.verify()
    except OpsAgentError as error:
        return Finding("audit", ok=False, found=str(error), fix=error.hint)
    return Finding("audit", found.ok, str(found), "keep the store as it is and compare with a checkpoint or a backup")


def _databases(ops: OpsAgent) -> list[Finding]:
    instances = {instance.name: instance for instance in ops.instances()}
    return [_database(ops, health, instances.get(health.instance)) for health in ops.health()]


def _database(ops: OpsAgent, health: Health, instance: Instance | None) -> Finding:
    warnings = [*health.warnings]
    if health.ok and instance is not None and instance.read_only:
        warnings += ops.runtime.call(_excess(ops, instance))
    fix = f"attach it with a role that has only the rights it needs: `opsagent roles {health.instance}` prints its SQL"
    found = "; ".join([health.summary, *warnings])
    return Finding(health.instance, health.ok and not warnings, found, fix if health.ok else "see the message")


async def _excess(ops: OpsAgent, instance: Instance) -> tuple[str, ...]:
    """What the account of an instance that shall only read could change."""
    plugin = ops.runtime.plugins.plugin(instance.plugin)
    if not isinstance(plugin, Accounts):
        return ()
    try:
        async with ops.runtime.connections.use(instance) as connection:
            return await plugin.excess(connection)
    except OpsAgentError as error:
        return (f"what the role could change is not known: {error.message}",)
