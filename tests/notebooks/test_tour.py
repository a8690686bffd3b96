"""The tour runs without a person, tells its story, and keeps rows and secrets out of what is saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from opsagent_jupyter.demo.workload import Demo
from tests.kernels import ROOT
from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def shop() -> Iterator[Demo]:
    """The demo's shop."""
    with Demo() as demo:
        yield demo


@pytest.fixture(scope="module")
def done(shop: Demo, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The tour as it is saved after a run."""
    return executed("01-tour.ipynb", tmp_path_factory.mktemp("tour"), OPSAGENT_DEMO_DSN=shop.operator_dsn)


def test_the_tour_tells_its_story(done: Executed, shop: Demo) -> None:
    """Symptom, evidence, approval, effect and audit are all there, and no password."""
    for word in ("orders", "Seq Scan", "approved by", "orders_customer_id", "rejected by", "verifies"):
        assert word in done.said, f"{word!r} is not in the tour:\n{done.said}"
    assert shop.operator_dsn.split(":")[2].split("@")[0] not in done.saved


def test_every_card_shows_its_outcome_without_scripts(done: Executed) -> None:
    """The index that was built and the one that nobody wanted dropped, each with who decided."""
    require_outcomes(done, "succeeded", "rejected")
    for title in ("Create an index on orders", "Drop index customers_region_unused"):
        assert title in done.read


def test_the_demo_checks_itself() -> None:
    """``opsagent demo --check --json`` does the tour without a browser and exits 0."""
    done = subprocess.run(
        [sys.executable, "-m", "opsagent_jupyter.cli", "demo", "--check", "--json"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert all(step["ok"] for step in steps)
    assert sum("MongoDB" in step["name"] for step in steps) == 14
