"""The order in which workers take the tests names files that are there."""

from __future__ import annotations

import pytest

from tests.kernels import ROOT
from tests.shifts import LONGEST, TOGETHER, rank, shift


@pytest.mark.parametrize("pattern", LONGEST)
def test_each_place_in_the_order_is_taken(pattern: str) -> None:
    """A file that was renamed would go to the end unseen."""
    assert list(ROOT.glob(pattern))


def test_files_that_share_servers_are_one_piece_of_work() -> None:
    """All others are their own, and come later."""
    pieces = {shift(str(file.relative_to(ROOT))) for file in (ROOT / "tests").rglob("test_*.py")}
    assert set(TOGETHER) <= pieces
    assert shift("tests/unit/test_policy.py") == "tests/unit/test_policy.py"
    assert rank("tests/unit/test_policy.py") > rank("tests/integration/test_postgresql_every_major.py")
