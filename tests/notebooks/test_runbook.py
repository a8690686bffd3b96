"""The notebook on runbooks: it makes one, runs it to its gate, has another process decide, resumes, and proves it."""

from __future__ import annotations

import pytest

from opsagent_jupyter.demo.workload import Demo
from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executed, str]:
    """The notebook after its run on the demo's shop, and the password of the shop."""
    with Demo() as demo:
        ran = executed("04-runbook.ipynb", tmp_path_factory.mktemp("runbook"), OPSAGENT_DEMO_DSN=demo.operator_dsn)
        return ran, demo.operator_dsn.split(":")[2].split("@")[0]


def test_a_runbook_is_made_waits_is_resumed_and_proven(done: tuple[Executed, str]) -> None:
    """Export, wait, a decision in another process, resume without repeating, evidence that verifies and cannot be forged."""
    ran, password = done
    for word in (
        "with 3 steps", "The runbook is waiting", "ANALYZE public.carts", "The runbook is done",
        "1 change of carts is in the audit", "verifies", "ran as approved", "EvidenceTampered",
        "NobodyToSign",
    ):  # fmt: skip
        assert word in ran.said, f"{word!r} is not in the notebook:\n{ran.said}"
    assert password not in ran.saved


def test_every_card_shows_its_outcome_without_scripts(done: tuple[Executed, str]) -> None:
    """The runbook's own text, how each run ended and what is proven are on the page, and nothing of it asks for more."""
    ran, _ = done
    require_outcomes(ran, "succeeded")
    for word in ("runbook_wait", "The runbook is done.", "analyze-table-check", "shipments is analysed in"):
        assert word in ran.read, word
