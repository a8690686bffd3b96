"""The triage of MongoDB runs without a person, tells its story, and keeps documents and secrets out of what is saved."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from opsagent_jupyter.demo.storefront import MongoDemo
from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executed, str]:
    """The notebook after its run on the demo's storefront, and the password of the storefront."""
    with MongoDemo() as demo:
        folder = tmp_path_factory.mktemp("mongodb")
        ran = executed("02-mongodb.ipynb", folder, OPSAGENT_DEMO_MONGODB_URI=demo.operator_uri)
        return ran, str(urlsplit(demo.operator_uri).password)


def test_the_storefront_is_diagnosed_and_mended(done: tuple[Executed, str]) -> None:
    """Findings, evidence, approval, effect and audit are all there, and no document or password."""
    ran, password = done
    for word in ("is unreachable", "COLLSCAN", "IXSCAN", "approved by", "is hidden", "verifies"):
        assert word in ran.said, f"{word!r} is not in the notebook:\n{ran.said}"
    for word in ("critical member_unreachable", "medium missing_ttl", "gone medium redundant_index"):
        assert word in ran.read, word
    assert password not in ran.saved
    assert "Harbour Street" not in ran.saved


def test_every_card_shows_its_outcome_without_scripts(done: tuple[Executed, str]) -> None:
    """The index that was built and the one that was hidden: each card and the picture are on the page."""
    ran, _ = done
    require_outcomes(ran, "succeeded")
    for title in ("Create an index on orders", "Hide index status_1"):
        assert title in ran.read
    assert ran.images() == 1
