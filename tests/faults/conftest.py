"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from tests.postgres import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def shared_store(request: pytest.FixtureRequest, store_url: str) -> Iterator[str]:
    """The URL of a store of each kind."""
    if request.param == "sqlite":
        yield store_url
        return
    server: EmbeddedPostgres = request.getfixturevalue("pg18")
    with new_database(server) as dsn:
        yield dsn.replace("postgresql://", "postgresql+psycopg://", 1)
