"""The notebook on the audit runs without a person, answers its questions, and keeps rows and secrets out of what is saved."""

from __future__ import annotations

import pytest

from opsagent_jupyter.demo.workload import Demo
from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executed, str]:
    """The notebook after its run on the demo's shop, and the password of the shop."""
    with Demo() as demo:
        ran = executed("03-audit.ipynb", tmp_path_factory.mktemp("audit"), OPSAGENT_DEMO_DSN=demo.operator_dsn)
        return ran, demo.operator_dsn.split(":")[2].split("@")[0]


def test_the_audit_answers_the_usual_questions(done: tuple[Executed, str]) -> None:
    """Decisions, waits, changes and refusals of calls just made are in its tables; the log and its export verify."""
    ran, password = done
    for word in ("first look at the replicas", "0 calls have an unknown outcome", "verifies", "0 broken links"):
        assert word in ran.said, f"{word!r} is not in the notebook:\n{ran.said}"
    for word in (
        "postgresql.analyze_table medium", "the planner's figures are old", "call.invalid_arguments", "rejected",
    ):  # fmt: skip
        assert word in ran.read, word
    assert password not in ran.saved


def test_its_plots_and_cards_are_on_the_page_without_scripts(done: tuple[Executed, str]) -> None:
    """Two pictures, bars in a table, and the card of the request that was rejected."""
    ran, _ = done
    require_outcomes(ran, "succeeded", "rejected")
    assert ran.images() == 2
    assert "linear-gradient" in ran.page
