"""What the doctor says of a store that somebody has changed past its rules."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.doctor import Finding, examine


def of_store(ops: OpsAgent) -> Finding:
    """The doctor's word on the store."""
    (found,) = (check for check in examine(ops).findings if check.name == "store")
    return found


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM audit_zones", "Zones of the audit that lack what their rows have: 1."),
        ("DELETE FROM change_feed WHERE seq = 1", "The feed has 1 rows up to 2, its head says 2."),
        ("UPDATE chain_head SET audit_hash = 'x'", "is not the one that the head names"),
    ],
)
def test_a_store_that_does_not_fit_itself_is_named(ops: OpsAgent, statement: str, said: str) -> None:
    """Nothing of it would be seen in the lists, which just leave rows out."""
    assert of_store(ops).ok
    with ops.runtime.store._storage.writing() as connection:
        connection.execute(text(statement))
    found = of_store(ops)
    assert not found.ok
    assert said in found.found
    assert found.found.startswith(ops.runtime.store.url)
    assert "backup" in found.fix
