"""A Jupyter server for all tests of a worker that need no settings of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.jupyter import Jupyter, jupyter


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A running server with one ledger attached."""
    with jupyter(tmp_path_factory.mktemp("jupyter")) as running:
        running.attach()
        yield running
