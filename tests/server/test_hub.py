"""Behind a hub: people have names, JupyterLab sends their token beside the login, and a token alone still decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server.jupyter import RATES, Jupyter, Page, done, jupyter, refused


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A server whose users come from a hub."""
    provider = "--ServerApp.identity_provider_class=tests.server.authority.Hub"
    with jupyter(tmp_path_factory.mktemp("hub"), *RATES, provider) as running:
        body = {"plugin": "ledger", "name": "books", "dsn": str(running.folder / "books.db")}
        done(alice(running, login=True).post("api/servers/desk/plugins", json=body))
        yield running


def alice(server: Jupyter, *, login: bool, token: bool = False, xsrf: str = "a") -> httpx.Client:
    """Alice: by her browser's login, by her token, or by both, as JupyterLab behind a hub sends them."""
    client = server.stranger()
    client.cookies.update({"_xsrf": "a", **({"hub-login": "Alice"} if login else {})})
    client.headers.update({"X-XSRFToken": xsrf, "Origin": server.origin, "Sec-Fetch-Site": "same-origin"})
    if token:
        client.headers["Authorization"] = "token Alice"
    return client


def asked(server: Jupyter) -> dict[str, Any]:
    """A request that waits."""
    person = alice(server, login=True)
    run = {"tool": "add_mark", "arguments": {"text": "x"}}
    call = done(person.post("api/servers/desk/plugins/books/execute", json=run))
    return done(person.get(f"api/approvals/{call['approval']}"))


def approve(client: httpx.Client, request: dict[str, Any]) -> httpx.Response:
    """Approve as the request was shown."""
    return client.post(f"api/approvals/{request['id']}/approve", json={"digest": request["digest"]})


@pytest.mark.parametrize("token", [False, True], ids=["login", "login and token"])
def test_whoever_is_logged_in_at_the_hub_decides(hub: Jupyter, token: bool):
    """The name in the audit is the hub's, and it is one name however the request came."""
    person = alice(hub, login=True, token=token)
    assert done(person.get("api/identity"))["decides"]
    decided = done(approve(person, asked(hub)))["decided_by"]
    assert (decided["id"], decided["name"], decided["stable"]) == ("jupyter:alice", "Alice", True)


def test_a_hubs_token_alone_decides_nothing(hub: Jupyter):
    """It stands for the same name, and for no person before a screen; what a page would send beside it does not help."""
    program = alice(hub, login=False, token=True)
    told = done(program.get("api/identity"))
    assert (told["actor"]["id"], told["decides"]) == ("jupyter:alice", False)
    refused(approve(program, asked(hub)), 403, "request.session_required")


def test_behind_a_hub_a_login_still_proves_that_its_page_is_ours(hub: Jupyter):
    """With the token beside the login Jupyter itself asks for no XSRF token; OpsAgent does."""
    refused(approve(alice(hub, login=True, token=True, xsrf="other"), asked(hub)), 403, "request.cross_site")


@pytest.mark.parametrize(("login", "code"), [(True, ""), (False, "request.session_required")])
def test_on_the_socket_behind_a_hub_only_a_login_decides(hub: Jupyter, login: bool, code: str):
    """Whether the token comes with the address or not."""
    request = asked(hub)
    page: Page = hub.page(alice(hub, login=login), origin=hub.origin, header=["Authorization: token Alice"])
    page.hello()
    page.respond(request)
    if code:
        assert page.until("error")["code"] == code
    else:
        assert page.until("approval:response")["approval"]["decided_by"]["id"] == "jupyter:alice"
