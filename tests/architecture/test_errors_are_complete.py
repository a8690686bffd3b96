"""Every error can be told apart by a stable code, and says what happened."""

import inspect
import re

import pytest

from opsagent_jupyter import errors

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, Exception) and member.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_error_has_its_own_message_and_code(error):
    """A class states its docstring, which is its message, and its code itself; it inherits neither."""
    assert issubclass(error, errors.OpsAgentError)
    assert (vars(error).get("__doc__") or "").strip()
    assert re.fullmatch(r"[a-z]+(\.[a-z_]+)?", vars(error)["code"])


def test_codes_are_unique():
    """No two error classes share a code."""
    codes = [error.code for error in CLASSES]
    assert sorted(codes) == sorted(set(codes))
