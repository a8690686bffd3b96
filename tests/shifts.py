"""Which worker runs what, in which order: a pytest plugin, loaded by ``pytest_plugins = ["tests.shifts"]``.

Several workers share the tests (``pytest -n``). A file stays with one worker. So do the files that need the same rare
servers, which then start once instead of once a worker. What takes long comes first, so that nobody waits for it at
the end. Without workers only the last part counts: what was collected stays, so the garbage collector leaves it alone.
"""

from __future__ import annotations

import gc
from fnmatch import fnmatch

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

#: Files that one worker runs one after the other, by what they share.
TOGETHER = {
    "servers of every major of PostgreSQL": (
        "tests/integration/test_postgresql_every_major.py",
        "tests/integration/test_postgresql_accounts.py",
        "tests/integration/test_postgresql_create_user.py",
        "tests/integration/test_postgresql_drop_user.py",
        "tests/integration/test_postgresql_grants.py",
    ),
    "replica sets of MongoDB": ("tests/integration/test_mongodb_*.py",),
}
#: What takes long, the longest first; the rest follows.
LONGEST = (
    *(file for files in TOGETHER.values() for file in files),
    "tests/notebooks/*",
    "tests/browser/test_jupyterlab_sidebar.py",
    "tests/browser/*",
    "tests/integration/test_bad_input.py",
    "tests/integration/test_postgresql_failures.py",
    "tests/faults/*",
    "tests/server/test_openapi.py",
    "tests/integration/*",
    "tests/adversarial/*",
    "tests/server/*",
)


def file_of(id: str) -> str:
    """The file of a test, by its id."""
    return id.partition("::")[0]


def shift(file: str) -> str:
    """What a worker takes as one piece of work: a file, or all that shares servers with it."""
    for name, files in TOGETHER.items():
        if any(fnmatch(file, pattern) for pattern in files):
            return name
    return file


def rank(file: str) -> int:
    """The place in the order of work; files of the same rank keep the order that they came in."""
    return next((place for place, pattern in enumerate(LONGEST) if fnmatch(file, pattern)), len(LONGEST))


class Shifts(LoadFileScheduling):
    """Hands out files, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return shift(file_of(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shifts | None:
    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False  # by number of tests, which says little
    return Shifts(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The order of work, once whoever mixes the tests is done; within a file it stays."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(file_of(item.nodeid)))


def pytest_collection_finish() -> None:
    """With five thousand tests in memory each look at all objects would take half a second."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()
