"""The triage of PostgreSQL runs without a person, mends what it finds, and keeps rows and secrets out of what is saved."""

from __future__ import annotations

import pytest

from opsagent_jupyter.demo.workload import Demo
from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executed, str]:
    """The notebook after its run on the demo's shop, and the password of the shop."""
    with Demo() as demo:
        demo.wait_for_standby()
        folder = tmp_path_factory.mktemp("postgresql")
        ran = executed("02-postgresql.ipynb", folder, OPSAGENT_DEMO_DSN=demo.operator_dsn)
        return ran, demo.operator_dsn.split(":")[2].split("@")[0]


def test_what_was_wrong_is_found_mended_and_gone(done: tuple[Executed, str]) -> None:
    """The blocker, the missing index, the bloat and the useless indexes are named first, and gone in the second answer."""
    ran, password = done
    for word in (
        "idle in transaction", "No session waits for a lock", "CREATE INDEX CONCURRENTLY orders_customer_id_idx",
        "dead rows removed", "customers_name_uq is gone", "orders_created_at_dup is gone", "verifies",
    ):  # fmt: skip
        assert word in ran.said, f"{word!r} is not in the notebook:\n{ran.said}"
    for row in (
        "gone high blocked_session", "gone high missing_index orders.customer_id", "gone high bloat order_items",
        "gone medium invalid_index customers_name_uq", "still there medium inactive_slot old_replica_slot",
    ):  # fmt: skip
        assert row in ran.read, row
    assert password not in ran.saved


def test_every_card_shows_its_outcome_without_scripts(done: tuple[Executed, str]) -> None:
    """Six requests were carried out; each card and both pictures are on the page."""
    ran, _ = done
    require_outcomes(ran, "succeeded")
    for title in (
        "Terminate pid",
        "Create an index on orders",
        "Vacuum order_items",
        "Drop invalid index customers_name_uq",
    ):
        assert title in ran.read
    assert ran.images() == 2
