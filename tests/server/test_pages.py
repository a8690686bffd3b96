"""Pages: walking a list by its cursors gives every row once, also while others come, and a made-up cursor gives nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.models import AuditEvent, Message, Session
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import ALICE, event, request
from tests.server.jupyter import Jupyter, done, jupyter, refused

COUNT = 23
MOMENT = datetime(2026, 11, 1, tzinfo=UTC)


def fill(url: str) -> str:
    """Rows of every list; some were made in the same moment. Returns the session that has the messages."""
    store = open_store(url)
    for number in range(COUNT):
        made = MOMENT + timedelta(seconds=number // 5)
        asked = request(created_at=made, expires_at=datetime(2030, 1, 1, tzinfo=UTC))
        store.add_approval(asked, event("approval.pending"))
        session = Session(title=str(number), created_at=made, updated_at=made)
        store.add_session(session, event("session.opened"))
        store.add_server(f"host-{number:02}", AuditEvent(type="server.added", actor=ALICE))
    for number in range(COUNT):
        store.append(Message(session=session.id, seq=0, role="user", text=str(number)))
    store.close()
    return session.id


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jupyter, str]]:
    """A server whose lists are longer than a page."""
    folder: Path = tmp_path_factory.mktemp("full")
    (folder / "store").mkdir()
    session = fill(f"sqlite:///{folder / 'store' / 'opsagent.db'}")
    with jupyter(folder) as running:
        yield running, session


def walked(server: Jupyter, path: str, between: Callable[[], object] = lambda: None) -> list[dict[str, Any]]:
    """All rows of a list, seven at a time; something may happen between two pages."""
    rows: list[dict[str, Any]] = []
    cursor, sign = "", "&" if "?" in path else "?"
    while True:
        page = done(server.program().get(f"api/{path}{sign}limit=7&cursor={cursor}"))
        assert len(page["items"]) <= 7
        rows += page["items"]
        cursor = page["next"]
        if not cursor:
            return rows
        between()


LISTS = {
    "servers": lambda row: row["name"],
    "sessions": lambda row: row["id"],
    "approvals": lambda row: row["id"],
    "approvals?state=pending": lambda row: row["id"],
    "approvals?state=all": lambda row: row["id"],
    "audit": lambda row: row["seq"],
    "audit?status=pending": lambda row: row["seq"],
    "audit?since=2020-01-01T00:00:00Z": lambda row: row["seq"],
    "audit?actor=Alice": lambda row: row["seq"],
    "messages": lambda row: row["seq"],
}


@pytest.mark.parametrize("path", LISTS)
def test_walking_a_list_gives_every_row_once(full: tuple[Jupyter, str], path: str):
    """Nothing is skipped and nothing comes twice, also among rows of one moment."""
    server, session = full
    address = f"sessions/{session}/messages" if path == "messages" else path
    keys = [LISTS[path](row) for row in walked(server, address)]
    assert len(keys) == len(set(keys)) >= COUNT
    single = done(server.program().get(f"api/{address}{'&' if '?' in address else '?'}limit=200"))
    assert [LISTS[path](row) for row in single["items"]] == keys


def test_rows_that_come_meanwhile_disturb_no_walk(full: tuple[Jupyter, str]):
    """New rows stand before the first page; the walk goes on where it was."""
    server, session = full
    before = [row["seq"] for row in walked(server, f"sessions/{session}/messages")]
    store = open_store(server.store_url)
    more = lambda: store.append(Message(session=session, seq=0, role="user", text="later"))  # noqa: E731
    during = [row["seq"] for row in walked(server, f"sessions/{session}/messages", more)]
    store.close()
    assert during == before


@pytest.mark.parametrize("path", ["servers", "sessions", "approvals", "audit", "messages"])
@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzFd!", "W10", "WyIyMDI2IiwgMV0", "%00", "WzEsMiwzXQ", "é"])
def test_a_made_up_cursor_is_refused(full: tuple[Jupyter, str], path: str, cursor: str):
    """A cursor is a page's own word; anything else is an error with a code, never the first page again."""
    server, session = full
    address = f"sessions/{session}/messages" if path == "messages" else path
    refused(server.program().get(f"api/{address}?cursor={cursor}"), 400, "request.cursor")


@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "1.5", ""])
def test_a_page_has_between_one_and_two_hundred_rows(full: tuple[Jupyter, str], limit: str):
    """More would be no page."""
    refused(full[0].program().get(f"api/audit?limit={limit}"), 400, "request.invalid")
