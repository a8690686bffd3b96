"""The stores that run the conformance kit: both journal modes of SQLite, and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import Opening
from tests.conformance.openers import open_journal_store, open_wal_store

pytest.register_assert_rewrite("opsagent_jupyter.testing.store_kit")

SQLITE = {"sqlite-truncate": open_journal_store, "sqlite-wal": open_wal_store}


@pytest.fixture(params=[*SQLITE, "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """An empty place for a store, on each kind of database in turn."""
    if request.param == "postgresql":
        return Opening(open_store, request.getfixturevalue("database18"))
    return Opening(SQLITE[request.param], f"sqlite:///{tmp_path}/store/opsagent.db")
