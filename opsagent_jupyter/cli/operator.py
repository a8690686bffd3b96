"""What an operator does from a shell: keys, the store, the audit, a worker, the demo."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsagent_jupyter.commands import Door, audit_archive, audit_export, audit_filters, audit_prune, checkpoint_of
from opsagent_jupyter.config import load_settings
from opsagent_jupyter.contracts import ONE_TIME
from opsagent_jupyter.credentials import new_key, renew, retire, rotate
from opsagent_jupyter.errors import CredentialError
from opsagent_jupyter.stores.store import open_store

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent


@click.group()
def key() -> None:
    """Make and change the key that encrypts credentials."""


@key.command("new")
def key_new() -> str:
    """Print a new key for PLUGIN_ENCRYPTION_KEY."""
    return new_key()


@key.command("rotate")
@click.pass_obj
def key_rotate(door: Door) -> str:
    """Encrypt all credentials with a new key: the first of PLUGIN_ENCRYPTION_KEY=new,old, or one made where it is kept."""
    ops = door.ops()
    store, vault = ops.runtime.store, renew(ops.runtime.vault)
    tokens = {instance.id: store.credentials(instance.id) for instance in store.instances()}
    secrets = {approval: {ONE_TIME: token} for approval, token in store.one_time_secrets().items()}
    details = {"instances": len(tokens), "secrets": len(secrets), "key": vault.key_id}
    event = ops.runtime.event("key.rotated", ops.actor, details=details)
    renewed = {approval: fields[ONE_TIME] for approval, fields in rotate(vault, secrets).items()}
    store.replace_credentials(rotate(vault, tokens), event, renewed)
    ops.runtime.model_keys.recrypt(vault)
    retire(vault)
    kept = "the old one can go from PLUGIN_ENCRYPTION_KEY" if vault.path is None else "the old one is gone"
    many = "The connection of 1 database is" if len(tokens) == 1 else f"The connections of {len(tokens)} databases are"
    return f"{many} encrypted with the key {vault.key_id} now; {kept}."


@click.command()
@click.argument("id")
@click.option("--stdout", is_flag=True, help="Print it where no terminal is: into a pipe or a file.")
@click.pass_context
def reveal(context: click.Context, id: str, stdout: bool) -> Any:  # noqa: FBT001  # click passes options as arguments
    """Show the password of a new user: once, to the person who asked for it or approved it."""
    if not (stdout or sys.stdout.isatty()):
        raise CredentialError(
            "Standard output is no terminal, so the secret was not shown; it is still kept.",
            hint="Run this in a terminal, or add --stdout if it is to go into a pipe or a file.",
        )
    ops: OpsAgent = context.obj.ops()
    approval = ops.approval(id)
    with ops.reveal(approval.id) as text:
        if context.meta.get("json"):
            return {"request": approval.id, "secret": text}
        click.echo(text)
    return None


@click.group()
def audit() -> None:
    """Query, verify, export, archive and prune the audit."""


@audit.command("query")
@click.argument("sql", default="")
@audit_filters
@click.option("--limit", type=int, default=None)
@click.option("--archives", default=None, help="The folder of what was pruned, to be read too.")
@click.pass_obj
def audit_query(door: Door, /, sql: str, **filters: Any) -> Any:
    """Run a SELECT over the view audit, or filter."""
    ops = door.ops()
    return (
        ops.audit_sql(sql, filters["archives"])
        if sql
        else ops.audit(**{name: value for name, value in filters.items() if value is not None})
    )


@audit.command("verify")
@click.option("--checkpoint", type=click.Path(dir_okay=False), default=None, help="One that was kept elsewhere.")
@click.option(
    "--archives", default=None, help="The folder of what was pruned, to be verified as one chain with the rest."
)
@click.pass_obj
def audit_verify(door: Door, checkpoint: str | None, archives: str | None) -> Any:
    """Recompute the chain; exit 1 and name the first bad row when it is broken."""
    return door.ops().verify(checkpoint_of(checkpoint) if checkpoint else None, archives)


@audit.command("checkpoint")
@click.pass_obj
def audit_checkpoint(door: Door) -> Any:
    """Print count and head of the chain, to be kept where this user cannot write."""
    return door.ops().reader.checkpoint()


for _word in (audit_export, audit_archive, audit_prune):
    audit.add_command(_word)


@click.group("store")
def store_group() -> None:
    """Upgrade and back up the shared store."""


@store_group.command("upgrade")
def store_upgrade() -> str:
    """Bring the store to the schema of this release; a backup is made first."""
    store = open_store(load_settings().resolved_store_url())
    try:
        return f"{store.url} has schema {store.schema_version}."
    finally:
        store.close()


@store_group.command("backup")
@click.argument("file", type=click.Path(dir_okay=False))
def store_backup(file: str) -> str:
    """Write a consistent copy of the store to FILE."""
    store = open_store(load_settings().resolved_store_url())
    try:
        store.backup(Path(file))
    finally:
        store.close()
    return f"The store is copied to {file}. Keep the key too: without it the credentials cannot be read."


@click.command()
@click.pass_obj
def worker(door: Door) -> str:
    """Run what gets approved, until this process is told to end."""
    from opsagent_jupyter.api import OpsAgent

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ops = OpsAgent(kind="worker", store_url=door.ops().settings.store_url)
    click.echo(f"Worker {os.getpid()} runs what is approved in {ops.runtime.store.url}.", err=True)
    ended.wait()
    ops.close()
    return "The worker has ended in order."


@click.command()
@click.option("--check", is_flag=True, help="Do the tour without a browser and exit 0 only if every step held.")
@click.option("--json", "json_", is_flag=True, help="With --check: print the steps as JSON.")
@click.option("--no-browser", is_flag=True, help="Start JupyterLab without opening a browser.")
@click.option("--port", type=int, default=0, help="Port of JupyterLab; a free one by default.")
def demo(check: bool, json_: bool, no_browser: bool, port: int) -> Any:  # noqa: FBT001  # click passes options so
    """Start a sick embedded PostgreSQL and open JupyterLab on the tour."""
    from opsagent_jupyter.cli import tour

    if check:
        return tour.check(as_json=json_)
    tour.open_lab(browser=not no_browser, port=port)
    return None


COMMANDS: tuple[click.Command, ...] = (key, reveal, audit, store_group, worker, demo)
