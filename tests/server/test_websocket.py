"""The socket: what a page is told, in which order, what it is told again after a cut, and what it is not let do."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websocket import ABNF, WebSocketBadStatusException, WebSocketException

from opsagent_jupyter.server import websocket as door
from tests.server.jupyter import RATES, Closed, Jupyter, Page, done, jupyter, refused, soon


def reject(server: Jupyter, request: dict[str, Any]) -> None:
    """Reject a request in a browser."""
    body = {"digest": request["digest"], "reason": "not now"}
    done(server.browser().post(f"api/approvals/{request['id']}/reject", json=body))


def told(page: Page, last: int) -> list[tuple[int, str]]:
    """The changes that a page is told of, up to one of them."""
    found = []
    while not found or found[-1][0] < last:
        event = page.next()
        if event["seq"] and event["type"] != "hello":
            found.append((event["seq"], event["type"]))
    return found


def newest(server: Jupyter) -> int:
    """The feed's newest seq."""
    return int(done(server.program().get("api/health"))["feed"])


def test_a_request_and_its_decision_appear_while_they_happen(server: Jupyter):
    """A page that watches sees both, with their place in the feed."""
    page = server.page()
    began = page.hello()["seq"]
    page.send("approval:subscribe")
    page.until("approval:list")
    request = server.ask()
    assert page.until("approval:request")["approval"]["id"] == request["id"]
    reject(server, request)
    event = page.until("approval:response")
    assert (event["approval"]["state"], event["seq"] > began) == ("rejected", True)


def test_a_page_that_comes_back_is_told_what_it_missed_and_nothing_twice(server: Jupyter):
    """After a cut the changes follow in the feed's order, those before it not, and then it goes on live."""
    page = server.page()
    page.hello()
    page.send("approval:subscribe")
    first = server.ask("seen")
    page.until("approval:request")
    page.cut()
    witness = server.page()
    witness.hello(since=page.seen)
    reject(server, first)
    second = server.ask("missed")
    last = newest(server)
    told(witness, last)  # from here on nothing of it is news any more
    again = server.page()
    welcome = again.hello(since=page.seen)
    assert (welcome["resumed"], welcome["seq"]) == (True, page.seen)
    events = told(again, last)
    assert events == sorted(set(events))
    assert [kind for _, kind in events if kind.startswith("approval")] == ["approval:response", "approval:request"]
    reject(server, second)
    assert again.until("approval:response")["seq"] > last


@pytest.mark.parametrize("since", [10**9, 2**53 - 1])
def test_a_page_of_another_store_begins_anew(server: Jupyter, since: int):
    """A seq that the feed has not reached belongs to another store, so the page is told to start over."""
    welcome = server.page().hello(since=since)
    assert (welcome["resumed"], welcome["seq"]) == (False, newest(server))


def test_what_is_attached_its_health_and_its_calls_appear(server: Jupyter):
    """A sidebar sees a database come and go, how it is, and what runs on it, whoever started it."""
    page = server.page()
    page.hello()
    page.send("plugin:subscribe")
    assert page.until("plugin:status", name="books")["instance"]["server"] == "desk"
    assert page.until("plugin:health")["health"]["ok"]
    server.attach("ledger2")
    assert page.until("plugin:status", name="ledger2")["status"] == "attached"
    run = {"tool": "list_marks", "arguments": {}}
    done(server.program().post("api/servers/desk/plugins/ledger2/execute", json=run))
    event = page.until("plugin:tool_executed")
    assert (event["instance"], event["tool"], event["status"]) == ("ledger2", "ledger.list_marks", "succeeded")
    done(server.program().delete("api/servers/desk/plugins/ledger2"))
    assert page.until("plugin:status", name="ledger2")["status"] == "detached"


def test_a_conversation_streams_to_every_page_that_joined(server: Jupyter):
    """What one page asks, two pages see: the words, the call, and the end of the turn."""
    session = done(server.program().post("api/sessions", json={"instance": "books"}))["id"]
    pages = [server.page(), server.page()]
    for page in pages:
        page.hello()
        page.send("chat:join", session=session, since=0)
        page.until("chat:joined")
    pages[0].send("chat:message", session=session, text="list the marks")
    for page in pages:
        events = [page.next()]
        while events[-1].get("kind") != "finished":
            events.append(page.next())
        assert [event["on"] for event in events if event["type"] == "chat:typing"][:2] == [True, False]
        assert {event["call"]["tool"] for event in events if "call" in event} == {"ledger.list_marks"}
        assert "list the marks" in {event["message"]["text"] for event in events if event["type"] == "chat:message"}
    said = done(server.program().get(f"api/sessions/{session}/messages"))["items"]
    assert [message["role"] for message in reversed(said)] == ["user", "assistant", "tool", "assistant"]


def test_what_is_asked_over_rest_streams_on_the_socket(server: Jupyter):
    """One product, two doors."""
    session = done(server.program().post("api/sessions", json={"instance": "books"}))["id"]
    page = server.page()
    page.hello()
    page.send("chat:join", session=session, since=0)
    page.until("chat:joined")
    begun = server.program().post(f"api/sessions/{session}/messages", json={"text": "list the marks"})
    assert begun.status_code == 202
    assert page.until("chat:event", kind="finished")["turn"] == begun.json()["turn"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not json", "protocol"),
        ('{"v": 1, "command": {"type": "chat:shout"}}', "protocol.unknown_message"),
        ('{"v": 9, "command": {"type": "approval:subscribe"}}', "protocol.version_mismatch"),
        ('{"v": 1, "command": {"type": "approval:get", "id": "ffffffff"}}', "approval.unknown"),
        ('{"v": 1, "command": {"type": "chat:join", "session": "ffffffff", "since": 0}}', "session.unknown"),
    ],
)
def test_a_message_that_cannot_be_done_is_answered_and_the_socket_lives(server: Jupyter, text: str, code: str):
    """A wrong message gets an error with a code, and the next one is heard."""
    page = server.page()
    page.socket.send(text)
    assert page.until("error")["code"] == code
    assert page.hello()["type"] == "hello"


def test_a_message_that_is_too_large_ends_the_socket(server: Jupyter):
    """A page that sends half a megabyte is no page of ours."""
    page = server.page()
    page.hello()
    with pytest.raises((Closed, OSError, WebSocketException)) as end:  # the line may break before the code is read
        shout(page)
    assert not isinstance(end.value, Closed) or end.value.args[0] == 1009
    assert server.page().hello()["type"] == "hello"


def shout(page: Page) -> None:
    """Send more than a command may be, and listen."""
    page.socket.send("x" * (door.LARGEST_COMMAND + 1))
    page.until("nothing")


def read_on(page: Page) -> None:
    """Read until the socket ends."""
    while True:
        page.next()


def test_a_client_that_does_not_read_is_cut_off_and_can_resume(tmp_path: Path):
    """Its backlog is bounded; the close says to come again, and nothing is lost by it."""
    with jupyter(tmp_path, *RATES, "--LedgerServer.backlog=20") as server:
        server.attach()
        for number in range(12):
            server.ask(f"mark {number} {'x' * 2_000}")
        page = server.page(sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),))
        began = page.hello()["seq"]
        for _ in range(300):
            page.send("approval:subscribe")
        time.sleep(1)  # it does not read, while the answers pile up
        with pytest.raises(Closed) as end:
            read_on(page)
        assert end.value.args[0] == door.SLOW
        assert server.page().hello(since=began)["resumed"]


def test_a_silent_socket_is_kept_alive(tmp_path: Path):
    """Pings pass while nothing is said, so that no proxy closes the line."""
    with jupyter(tmp_path, *RATES, "--LedgerServer.heartbeat=2") as running:
        page = running.page()
        page.hello()
        pings = 0
        while pings < 2:
            pings += page.socket.recv_data(control_frame=True)[0] == ABNF.OPCODE_PING


@pytest.fixture
def brief(tmp_path: Path) -> Iterator[Jupyter]:
    """A server with little patience for many requests."""
    with jupyter(tmp_path, "--LedgerServer.requests_per_minute=30", "--LedgerServer.burst=12") as running:
        yield running


def test_who_asks_too_often_is_told_when_to_come_again(brief: Jupyter):
    """Over REST by 429 and Retry-After, on the socket by an error; a moment later it is let in again."""
    browser = brief.browser()
    answers = [browser.get("api/version") for _ in range(20)]
    assert answers[0].status_code == 200
    late = answers[-1]
    refused(late, 429, "request.too_many")
    assert 1 <= int(late.headers["Retry-After"]) <= 3
    page = soon(lambda: _admitted(brief, browser))
    for _ in range(20):
        page.send("approval:subscribe")
    assert page.until("error")["code"] == "request.too_many"
    assert soon(lambda: browser.get("api/version").status_code == 200)


def _admitted(server: Jupyter, browser: Any) -> Page | None:
    try:
        return server.page(browser)
    except WebSocketBadStatusException as error:
        return None if error.status_code == 429 else pytest.fail(str(error))


def test_a_server_that_stops_says_so(tmp_path: Path):
    """Every page is told that the server goes away, and the server ends in order."""
    with jupyter(tmp_path) as running:
        page = running.page()
        page.hello()
        running._process.terminate()
        with pytest.raises(Closed) as end:
            page.until("nothing")
        assert end.value.args[0] == door.STOPPING
        assert running._process.wait(20) == 0
        assert json.loads((tmp_path / "routes.json").read_text())
