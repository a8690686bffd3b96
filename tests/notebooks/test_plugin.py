"""The notebook on writing a plugin: the plugin that it builds works, changes only what was approved, and conforms."""

from __future__ import annotations

import pytest

from tests.notebooks.pages import Executed, executed, require_outcomes


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook after its run."""
    return executed("05-plugin.ipynb", tmp_path_factory.mktemp("plugin"))


def test_the_plugin_is_built_used_and_conforms(done: Executed) -> None:
    """It attaches, reads, waits for a person and changes; the kit accepts it, and finds what is wrong with a careless one."""
    for word in (
        "SCAN part: it reads every row", "SEARCH part USING INDEX part_maker_id_idx", "part_maker_id_idx is there",
        "sqlite conforms", "0 failed", "sqlite does not conform", "the database was changed although no note could be kept",
    ):  # fmt: skip
        assert word in done.said, f"{word!r} is not in the notebook:\n{done.said}"
    assert "not tried" not in done.said


def test_every_card_shows_its_outcome_without_scripts(done: Executed) -> None:
    """One request was carried out, one rejected; the page says both, and the statement that ran with its undo."""
    require_outcomes(done, "succeeded", "rejected")
    for word in ('CREATE INDEX "part_maker_id_idx" ON "part" ("maker_id")', 'DROP INDEX "part_maker_id_idx"'):
        assert word in done.read
