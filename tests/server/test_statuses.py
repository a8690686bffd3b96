"""Every error has its status: the table is looked at as a whole, so that a new class cannot be forgotten."""

from __future__ import annotations

import inspect

import pytest

from opsagent_jupyter import errors
from opsagent_jupyter.server.statuses import STATUSES, status_of

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.OpsAgentError) and kind.__module__ == errors.__name__
]
FAMILIES = [kind for kind in CLASSES if kind.__base__ is errors.OpsAgentError]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status(kind: type[errors.OpsAgentError]):
    """The status of an error is one that says that something went wrong."""
    assert 400 <= status_of(kind) < 600


@pytest.mark.parametrize("family", FAMILIES, ids=lambda kind: kind.__name__)
def test_every_family_has_a_row_of_its_own(family: type[errors.OpsAgentError]):
    """Nothing gets its status from the root by accident: 500 is for what we did not foresee."""
    assert family in STATUSES


def test_the_table_has_no_row_that_says_what_the_parent_says():
    """A row that repeats its parent's would hide which ones differ."""
    rows = [kind for kind in STATUSES if kind is not errors.OpsAgentError and kind not in FAMILIES]
    assert [kind.__name__ for kind in rows if STATUSES[kind] == status_of(kind.__mro__[1])] == []


def test_what_a_person_asked_wrongly_is_never_the_servers_fault():
    """Refusals, decisions and requests end in the four hundreds: a proxy must not take them for a broken server."""
    for family in (errors.CallRefused, errors.ApprovalError, errors.SessionError, errors.RequestError):
        assert all(status_of(kind) < 500 for kind in CLASSES if issubclass(kind, family))
