"""What is special about a store on a server: its passwords, its durability, its versions, its neighbours."""

from __future__ import annotations

import traceback
from contextlib import closing

import psycopg
import pytest
from psycopg import sql

from opsagent_jupyter.errors import StoreUnavailable
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_kit import verified
from opsagent_jupyter.testing.store_samples import added, event


def test_every_supported_release_holds_a_store(database: str) -> None:
    """Made, written, read and closed on each major version."""
    with closing(open_store(database)) as store:
        asked = added(store)
        assert (verified(store), store.check(), store.approval(asked.id)) == (1, [], asked)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme_is_understood(database18: str, scheme: str) -> None:
    """People paste what other tools print."""
    with closing(open_store(database18.replace("postgresql", scheme, 1))) as store:
        assert store.url.startswith("postgresql+psycopg://postgres@127.0.0.1:")


def test_the_password_is_nowhere_to_be_seen(database18: str) -> None:
    """Not in the URL for the eye, not in a repr, not in an error or its traceback."""
    secret = psycopg.conninfo.conninfo_to_dict(database18)["password"]
    with closing(open_store(database18)) as store:
        assert secret not in f"{store.url} {store!r} {store._storage._writer!r}"
    with pytest.raises(StoreUnavailable) as caught:
        open_store(database18.replace(secret, "wr0ng-" + secret))
    said = "".join(traceback.format_exception(caught.value))
    assert secret not in said
    assert caught.value.facts["native_code"] in {"28P01", "08"}


def test_options_of_the_url_are_used_and_not_shown(database18: str) -> None:
    """A schema of its own is one option away: its tables are there and nowhere else."""
    with psycopg.connect(database18) as connection:
        connection.execute("CREATE SCHEMA team")
    with closing(open_store(database18 + "?options=-csearch_path%3Dteam")) as store:
        store.record(event())
        assert "team" not in store.url
    with psycopg.connect(database18) as connection:
        (count,) = connection.execute("SELECT count(*) FROM team.plugin_audit_log").fetchone()
    assert count == 1


def test_two_stores_share_a_database_without_hearing_each_other(database18: str) -> None:
    """Each has its own schema, log and channel."""
    with psycopg.connect(database18) as connection:
        connection.execute("CREATE SCHEMA a; CREATE SCHEMA b")
    urls = [f"{database18}?options=-csearch_path%3D{name}" for name in "ab"]
    with closing(open_store(urls[0])) as one, closing(open_store(urls[1])) as two:
        one.record(event())
        assert (one.audit_head()[0], two.audit_head()[0]) == (1, 0)
        assert one.log_id != two.log_id


@pytest.mark.parametrize(("given", "used"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_commits_are_durable_where_the_default_is_not(database18: str, given: str, used: str) -> None:
    """A relaxed synchronous_commit is tightened, a stricter one is kept."""
    with psycopg.connect(database18) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = {}").format(name, sql.Literal(given)))
    with closing(open_store(database18)) as store, store._storage.writing() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == used


def test_a_server_in_another_time_zone_keeps_the_same_moments(database18: str) -> None:
    """Times are moments, whatever zone and date style the server shows them in."""
    with psycopg.connect(database18) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET timezone = 'Asia/Kathmandu'").format(name))
    with closing(open_store(database18)) as store:
        asked = added(store)
        assert store.approvals()[0].created_at == asked.created_at
        assert store.feed(0)[0].at.utcoffset().total_seconds() == 0
