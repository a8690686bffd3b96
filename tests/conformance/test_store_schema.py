"""The tables come from migrations, and every way to meet an old, new or foreign schema ends well."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from opsagent_jupyter.errors import SchemaOutdated, SchemaTooNew, StoreCorrupt
from opsagent_jupyter.stores import migrations, schema
from opsagent_jupyter.stores.store import SharedStore, open_store
from opsagent_jupyter.stores.tables import metadata
from opsagent_jupyter.testing.store_kit import verified
from opsagent_jupyter.testing.store_samples import Opening, added, event

ROOT = Path(__file__).parents[2]
#: The newest revision, and that of a release to come.
NEWEST = schema.REVISIONS[-1]
NEXT = f"{int(NEWEST) + 1:04}"


@pytest.fixture
def store(opening: Opening) -> Iterator[SharedStore]:
    opened = opening()
    yield opened
    opened.close()


def sql(store: SharedStore, statement: str) -> None:
    """Change the store past its rules, as somebody with a client can."""
    with store._storage.writing() as connection:
        connection.execute(text(statement))


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release with one more migration, which adds a column; until it is entered nothing changes."""
    steps = tmp_path / "steps"
    shutil.copytree(Path(migrations.__file__).parent, steps, ignore=shutil.ignore_patterns("__pycache__"))
    (steps / "versions" / f"{NEXT}_more.py").write_text(
        textwrap.dedent(f"""
        import sqlalchemy as sa
        from alembic import op
        revision, down_revision = "{NEXT}", "{NEWEST}"
        def upgrade():
            with op.batch_alter_table("hosts") as hosts:
                hosts.add_column(sa.Column("mood", sa.Text, nullable=False, server_default="calm"))
        """)
    )
    return steps


def enter(steps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "STEPS", str(steps))
    monkeypatch.setattr(schema, "REVISIONS", [*schema.REVISIONS, NEXT])


def test_migrations_make_the_tables_that_the_code_declares(store: SharedStore) -> None:
    """From nothing to the newest revision: no table, column, type, index, key or nullability differs."""
    with store._storage.reading() as connection:
        options = {"compare_type": True, "version_table": schema.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, schema.VERSION_TABLE}


def test_the_code_knows_every_migration() -> None:
    """The list in the code, by which a newer store is recognised, is that of the files."""
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert [step.revision for step in script.walk_revisions()][::-1] == schema.REVISIONS


def test_a_current_store_is_opened_without_alembic(opening: Opening, store: SharedStore) -> None:
    """Alembic is loaded only to migrate: opening costs every kernel."""
    program = f"""if True:
        import sys
        from {opening.open.__module__} import {opening.open.__name__} as opener
        opener({opening.url!r}).close()
        print("alembic" in sys.modules)"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_migrations_are_quiet(opening: Opening) -> None:
    """Making a store prints nothing, also where the application logs everything."""
    program = f"""if True:
        import logging
        logging.basicConfig(level=logging.INFO)
        from {opening.open.__module__} import {opening.open.__name__} as opener
        opener({opening.url!r}).close()"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("", "")


def test_an_older_store_is_upgraded_with_all_its_rows(
    opening: Opening, store: SharedStore, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit still verifies afterwards, and a file is kept as it was."""
    asked = added(store)
    store.close()
    enter(next_release, monkeypatch)
    upgraded = opening()
    assert upgraded.schema_version == NEXT
    assert upgraded.approval(asked.id) == asked
    assert verified(upgraded) == 1
    upgraded.close()
    if upgraded.kind == "sqlite":
        check_backup(opening, asked.id, monkeypatch)


def test_rows_from_before_the_zones_are_found_by_them(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upgrade from schema 0004 notes what its rows hold, and what a process of the old release writes afterwards is
    noted as well."""
    with monkeypatch.context() as before:
        before.setattr(schema, "REVISIONS", schema.REVISIONS[: schema.REVISIONS.index("0004") + 1])
        before.setattr(command, "upgrade", lambda config, _, to=command.upgrade: to(config, "0004"))
        old = opening()
    for number in range(300):
        old.record(event(server=f"db-{number // 100}", instance="shop"))
    new = opening()
    old.record(event(server="db-9"))
    found = {server: new.audit_page(before=None, limit=500, filters={"server": server}) for server in ("db-1", "db-9")}
    assert [row.seq for row in found["db-1"]] == list(range(200, 100, -1))
    assert [row.seq for row in found["db-9"]] == [301]
    assert list(new.check()) == []
    sql(new, "DELETE FROM audit_zones WHERE server = 'db-1'")
    assert "Zones of the audit that lack what their rows have: 2." in " ".join(new.check())
    old.close()
    new.close()


def check_backup(opening: Opening, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(opening.url.removeprefix("sqlite:///")).parent
    (kept,) = folder.glob(f"opsagent.db.{NEWEST}-*.backup")
    assert kept.stat().st_mode & 0o777 == 0o600
    monkeypatch.undo()
    old = open_store(f"sqlite:///{kept}")
    assert (old.schema_version, old.approval(id).id) == (NEWEST, id)
    old.close()


def test_an_older_store_is_left_alone_where_that_is_asked(
    opening: Opening, store: SharedStore, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without leave to upgrade it says what it needs, and changes nothing."""
    store.close()
    enter(next_release, monkeypatch)
    with pytest.raises(SchemaOutdated, match=f"{NEWEST}.*{NEXT}"):
        open_store(opening.url, upgrade=False)
    monkeypatch.undo()
    opening().close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(
    opening: Opening, store: SharedStore, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps are one transaction, on SQLite too."""
    asked = added(store)
    store.close()
    step = next_release / "versions" / f"{NEXT}_more.py"
    step.write_text(step.read_text() + "    raise RuntimeError('power cut')\n")
    enter(next_release, monkeypatch)
    with pytest.raises(RuntimeError, match="power cut"):
        opening()
    monkeypatch.undo()
    same = opening()
    assert same.approval(asked.id) == asked
    with same._storage.reading() as connection:
        assert "mood" not in {column["name"] for column in inspect(connection).get_columns("hosts")}
    same.close()


def test_a_newer_store_is_refused(opening: Opening, store: SharedStore) -> None:
    """A store of a later release is not touched by this one."""
    sql(store, "UPDATE opsagent_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        opening()


def test_upgrading_a_current_store_changes_nothing(store: SharedStore) -> None:
    """`opsagent store upgrade` may be run at any time."""
    asked = added(store)
    store.upgrade()
    assert (store.schema_version, store.approval(asked.id)) == (schema.REVISIONS[-1], asked)


def test_a_database_of_somebody_else_is_not_made_a_store(opening: Opening) -> None:
    """Tables that are not ours are named, and stay as they are."""
    url = opening.url.replace("postgresql://", "postgresql+psycopg://")
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE plugins (theirs integer)"))
    with pytest.raises(StoreCorrupt, match="plugins"):
        opening()
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["plugins"]
    engine.dispose()


def test_a_backup_is_a_store_of_its_own(store: SharedStore, tmp_path: Path) -> None:
    """A copy of one moment, private, whole, and never over another file."""
    asked = added(store)
    store.record(event(summary="naïve"))
    target = store.backup(tmp_path / "copy.db")
    store.record(event())
    copy = open_store(f"sqlite:///{target}")
    assert copy.approval(asked.id) == asked
    assert copy.audit_rows(0, 10) == store.audit_rows(0, 2)
    assert (verified(copy), copy.check(), copy.log_id) == (2, [], store.log_id)
    copy.close()
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Exception, match="exists already"):
        store.backup(target)


def test_a_check_finds_what_was_taken_out(store: SharedStore) -> None:
    """Rows that are missing at the end, where the chain alone cannot show it, are found through the head."""
    for _ in range(3):
        store.record(event())
    assert store.check() == []
    sql(store, "DELETE FROM plugin_audit_log WHERE seq = 3")
    sql(store, "DELETE FROM change_feed WHERE seq = 2")
    assert len(store.check()) == 2


def test_the_migrations_are_in_the_wheel(tmp_path: Path) -> None:
    """An installed package makes its store from its own files, without a checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, env={**os.environ, "HATCH_BUILD_NO_HOOKS": "true"}, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(tmp_path / "site")!r})
        from opsagent_jupyter.stores.store import open_store, __file__ as where
        print(open_store("sqlite:///{tmp_path}/new/store.db").schema_version, where)"""
    answer = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    version, where = answer.stdout.split()
    assert (version, Path(where).is_relative_to(tmp_path)) == (schema.REVISIONS[-1], True)
