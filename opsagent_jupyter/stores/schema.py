"""Making and upgrading the tables: one process does it, in one transaction, the others wait for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from opsagent_jupyter.errors import SchemaOutdated, SchemaTooNew, StoreCorrupt
from opsagent_jupyter.models import now
from opsagent_jupyter.stores.storage import Storage
from opsagent_jupyter.stores.tables import VERSION_TABLE, metadata

#: All revisions of the schema, oldest first. Kept here so that opening a current store need not load Alembic.
REVISIONS = ["0001", "0002", "0003", "0004", "0005"]
#: Where the steps are: a folder, or ``package:folder``.
STEPS = "opsagent_jupyter.stores:migrations"


def version(connection: Connection) -> str:
    """The revision of a store; empty when there is no store yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or ""  # noqa: S608 - a constant


def prepare(storage: Storage, *, upgrade: bool) -> None:
    """Make or upgrade the tables; ``SchemaTooNew``, or ``SchemaOutdated`` where upgrading is not wanted."""
    with storage.reading() as connection:
        have = version(connection)
    if have == REVISIONS[-1]:
        return
    refuse_newer(have)
    if have and not upgrade:
        raise SchemaOutdated(f"The store has schema {have}, this release needs {REVISIONS[-1]}.", have=have)
    migrate(storage)


def refuse_newer(have: str) -> None:
    if have and have not in REVISIONS:
        raise SchemaTooNew(f"The store has schema {have}, this release knows {REVISIONS[-1]}.", have=have)


def migrate(storage: Storage) -> None:
    """Bring the tables to the newest revision. Whoever comes second finds nothing to do."""
    with storage.writing() as connection:
        storage.exclude(connection)
        have = version(connection)
        if have == REVISIONS[-1]:
            return
        refuse_newer(have)
        if have:
            _safeguard(storage, have)
        else:
            _refuse_strangers(storage, connection)
        _run(connection)


def _safeguard(storage: Storage, have: str) -> None:
    """Keep the file as it was, beside it. PostgreSQL's administrators have backups of their own."""
    path = getattr(storage, "path", None)
    if path is not None:
        backup = path.with_name(f"{path.name}.{have}-{now():%Y%m%dT%H%M%S}.backup")
        backup.touch(mode=0o600, exist_ok=False)
        storage.backup(backup)


def _refuse_strangers(storage: Storage, connection: Connection) -> None:
    """A database of somebody else is no place for a store: a file never, a server's not where names collide."""
    found = set(inspect(connection).get_table_names())
    strangers = sorted(found if storage.kind == "sqlite" else found & set(metadata.tables))
    if strangers:
        raise StoreCorrupt(
            f"{storage.url} holds tables that are not ours ({', '.join(strangers[:5])}), so no store was made in it.",
            hint="Point OPSAGENT_STORE_URL at a new file or at a database or schema of its own.",
        )


def _run(connection: Connection) -> None:
    """Alembic reports its steps, and its own start, to whoever logs at INFO; a kernel should not."""
    log = logging.getLogger("alembic")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        from alembic import command

        command.upgrade(configuration(connection), "head")
    finally:
        log.setLevel(level)


def configuration(connection: Connection) -> Any:
    """Alembic's configuration, made in memory: an installed package has no alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", STEPS if ":" in STEPS else str(Path(STEPS)))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, version_table=VERSION_TABLE)
    return config
