"""Three rights, asked of Jupyter's authorizer at every door; and four eyes where people have names of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from opsagent_jupyter.server.interface import ROUTES
from opsagent_jupyter.server.rights import Right
from tests.server.jupyter import RATES, Jupyter, done, jupyter, refused, soon


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server whose authorizer allows what the test writes."""
    folder = tmp_path_factory.mktemp("guarded")
    authorizer = "--ServerApp.authorizer_class=tests.server.authority.WrittenRights"
    with jupyter(folder, *RATES, authorizer) as running:
        allow(running, *Right)
        running.attach()
        yield running


def allow(server: Jupyter, *rights: Right) -> None:
    """Write which rights everybody has from now on."""
    said = [f"{right.action} {right.resource}" for right in rights]
    (server.folder / "rights.json").write_text(json.dumps(said))


@pytest.mark.parametrize("right", list(Right), ids=lambda right: right.name)
def test_a_route_is_closed_without_its_right(guarded: Jupyter, right: Right):
    """Every route of the table asks for its own right: with all the others it stays closed."""
    allow(guarded, *(other for other in Right if other is not right))
    browser = guarded.browser()
    for route in (route for route in ROUTES if route.right is right):
        path = f"api/{route.path.replace('{server}', 'desk').replace('{id}', 'books')}"
        refused(browser.request(route.method, path, json={}), 403, "request.not_authorized")


@pytest.mark.parametrize(
    ("rights", "command", "code"),
    [
        ([Right.READ], {"type": "chat:join", "session": "", "since": 0}, "request.not_authorized"),
        ([Right.READ], {"type": "chat:message", "session": "a", "text": "x"}, "request.not_authorized"),
        ([Right.READ], {"type": "chat:cancel", "session": "a"}, "request.not_authorized"),
        ([Right.READ, Right.OPERATE], {"type": "approval:resolve", "id": "a", "state": "failed", "reason": ""},
         "request.not_authorized"),
        ([Right.READ, Right.OPERATE], {"type": "chat:cancel", "session": "a"}, None),
        ([Right.READ], {"type": "approval:subscribe"}, None),
    ],
)  # fmt: skip
def test_a_command_on_the_socket_needs_its_right(
    guarded: Jupyter, rights: list[Right], command: dict[str, Any], code: str | None
):
    """Whoever may look is connected; each command is asked about by itself."""
    allow(guarded, *rights)
    page = guarded.page(guarded.browser())
    page.hello()
    page.send(**command)
    page.send("chat:shout")
    assert page.until("error")["code"] == (code or "protocol.unknown_message")


@pytest.mark.parametrize("decision", ["approve", "reject", "revoke"])
def test_whoever_may_not_approve_decides_on_no_door(guarded: Jupyter, decision: str):
    """The right to operate asks, and decides nothing."""
    allow(guarded, Right.READ, Right.OPERATE)
    request = guarded.ask()
    browser = guarded.browser()
    answer = browser.post(f"api/approvals/{request['id']}/{decision}", json={"digest": request["digest"]})
    refused(answer, 403, "request.not_authorized")
    page = guarded.page(browser)
    page.hello()
    page.respond(request, decision)
    assert page.until("error")["code"] == "request.not_authorized"
    assert done(browser.get(f"api/approvals/{request['id']}"))["state"] == "pending"


def test_without_the_right_to_read_there_is_no_socket(guarded: Jupyter):
    """The handshake ends with 403."""
    allow(guarded, Right.OPERATE, Right.APPROVE)
    with pytest.raises(Exception, match="403"):
        guarded.page(guarded.browser())


def test_whoever_asks_is_told_what_they_may_do(guarded: Jupyter):
    """A screen can hide what would be refused."""
    allow(guarded, Right.READ, Right.APPROVE)
    told = done(guarded.browser().get("api/identity"))
    assert (told["rights"], told["decides"]) == (["opsagent:read", "opsagent:approve"], True)
    assert done(guarded.program().get("api/identity"))["decides"] is False
    assert told["actor"]["stable"] is False


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server of a team, whose people have names."""
    named = "--ServerApp.identity_provider_class=tests.server.authority.Named"
    with jupyter(tmp_path_factory.mktemp("team"), *RATES, named, OPSAGENT_SETUP="team") as running:
        body = {"plugin": "ledger", "name": "books", "dsn": str(running.folder / "books.db")}
        done(person(running, "alice").post("api/servers/desk/plugins", json=body))
        yield running


def person(server: Jupyter, name: str) -> httpx.Client:
    """A browser of somebody whom the identity provider knows."""
    client = server.stranger()
    client.cookies.update({"who": name, "_xsrf": "a"})
    client.headers.update({"X-XSRFToken": "a", "Origin": server.origin})
    return client


def grave(server: Jupyter, name: str) -> dict[str, Any]:
    """A critical request of somebody."""
    run = {"tool": "add_mark", "arguments": {"text": "!grave"}}
    call = done(person(server, name).post("api/servers/desk/plugins/books/execute", json=run))
    return done(person(server, name).get(f"api/approvals/{call['approval']}"))


def approve(server: Jupyter, request: dict[str, Any], name: str) -> httpx.Response:
    """Approve a request as somebody."""
    body = {"digest": request["digest"], "reason": "the owner asked for it, ticket 42"}
    return person(server, name).post(f"api/approvals/{request['id']}/approve", json=body)


def test_people_with_names_are_stable(team: Jupyter):
    """An identity provider of one's own knows its users, so two names are two people."""
    assert done(person(team, "Alice").get("api/identity"))["actor"] == {
        "id": "jupyter:alice", "name": "Alice", "via": "server", "agent": False, "stable": True
    }  # fmt: skip


@pytest.mark.parametrize("alias", ["alice", "ALICE", "aLiCe"])
def test_nobody_is_their_own_second_pair_of_eyes(team: Jupyter, alias: str):
    """A capital letter makes no second person."""
    request = grave(team, "alice")
    refused(approve(team, request, alias), 403, "approval.not_allowed")


def test_a_second_person_approves_what_is_critical(team: Jupyter):
    """With another name it goes through, and the audit names both."""
    request = grave(team, "alice")
    assert done(approve(team, request, "bob"))["decided_by"]["id"] == "jupyter:bob"
    soon(lambda: done(person(team, "bob").get(f"api/approvals/{request['id']}"))["state"] == "succeeded")
    events = done(person(team, "bob").get(f"api/audit?approval={request['id']}"))["items"]
    people = {entry["event"]["actor"]["id"] for entry in events}
    assert {"jupyter:alice", "jupyter:bob"} <= people
