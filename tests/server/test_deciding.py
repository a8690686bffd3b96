"""A decision needs a person: a browser's login, its XSRF token, and the digest of what the screen showed."""

from __future__ import annotations

import httpx
import pytest

from tests.server.jupyter import Jupyter, Page, done, refused, soon

ACTS = ("approve", "reject", "revoke")


def decide(client: httpx.Client, request: dict[str, str], act: str = "approve", **more: str) -> httpx.Response:
    """Decide over REST, as the request was shown."""
    return client.post(f"api/approvals/{request['id']}/{act}", json={"digest": request["digest"], **more})


def state_of(server: Jupyter, request: dict[str, str]) -> str:
    """Where a request stands."""
    return str(done(server.program().get(f"api/approvals/{request['id']}"))["state"])


def denials(server: Jupyter, request: dict[str, str]) -> list[str]:
    """The codes of the attempts on a request that the audit has."""
    found = done(server.program().get("api/audit?status=denied&limit=200"))["items"]
    events = [entry["event"] for entry in found]
    about = [e for e in events if request["id"] in (e["approval"], e["details"].get("asked_for"))]
    return [event["error_code"] for event in about]


@pytest.mark.parametrize("token", [False, True], ids=["cookie", "cookie and token"])
def test_a_person_in_a_browser_decides(server: Jupyter, token: bool):
    """A login and its XSRF token approve, whether the page sends the token beside them or not; then it runs."""
    request = server.ask("from a browser")
    assert decide(server.browser(token=token), request).json()["decided_by"]["via"] == "server"
    soon(lambda: state_of(server, request) == "succeeded")


@pytest.mark.parametrize("act", ACTS)
def test_a_token_alone_decides_nothing(server: Jupyter, act: str):
    """Whoever only holds the token is told why not, and the attempt is in the audit."""
    request = server.ask()
    told = refused(decide(server.program(), request, act), 403, "request.session_required")
    assert "browser" in told["message"]
    assert state_of(server, request) == "pending"
    assert denials(server, request) == ["request.session_required"]


def test_a_token_in_the_query_decides_nothing(server: Jupyter):
    """The other way to send a token is no person either."""
    request = server.ask()
    path = f"api/approvals/{request['id']}/approve?token={server.token}"
    refused(server.stranger().post(path, json={"digest": request["digest"]}), 403, "request.session_required")


def test_a_token_may_take_back_its_own_request(server: Jupyter):
    """Withdrawing makes nothing run, so whoever asked can do it."""
    request = server.ask()
    assert decide(server.program(), request, "withdraw").json()["state"] == "withdrawn"


@pytest.mark.parametrize("token", [False, True], ids=["cookie", "cookie and token"])
@pytest.mark.parametrize("value", [None, "", "guessed"], ids=["missing", "empty", "wrong"])
def test_a_login_without_its_xsrf_token_decides_nothing(server: Jupyter, token: bool, value: str | None):
    """Another page can make a browser send its cookies, but it cannot read them."""
    request, browser = server.ask(), server.browser(token=token)
    del browser.headers["X-XSRFToken"]
    if value is not None:
        browser.headers["X-XSRFToken"] = value
    refused(decide(browser, request), 403, "request.cross_site")
    assert state_of(server, request) == "pending"


@pytest.mark.parametrize("header", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}], ids=str)
def test_another_sites_page_decides_nothing(server: Jupyter, header: dict[str, str]):
    """Not even with the token, for which Jupyter itself checks no origin."""
    request, browser = server.ask(), server.browser(token=True)
    answer = browser.post(f"api/approvals/{request['id']}/approve", json={"digest": request["digest"]}, headers=header)
    refused(answer, 403, "request.session_required")
    assert state_of(server, request) == "pending"


@pytest.mark.parametrize("act", [*ACTS, "withdraw"])
def test_a_decision_on_something_else_than_was_shown_is_refused(server: Jupyter, act: str):
    """The digest that the page saw has to be the request's own."""
    request, other = server.ask("one"), server.ask("another")
    answer = decide(server.browser(), {**request, "digest": other["digest"]}, act)
    refused(answer, 409, "approval.not_as_shown")
    assert state_of(server, request) == "pending"
    assert denials(server, request) == ["approval.not_as_shown"]


def test_a_decision_without_a_digest_is_no_decision(server: Jupyter):
    """A page that does not say what it showed decides nothing."""
    request = server.ask()
    answer = server.browser().post(f"api/approvals/{request['id']}/approve", json={"reason": "because I say so"})
    refused(answer, 400, "request.invalid")
    assert state_of(server, request) == "pending"


def test_who_comes_second_is_told_who_was_first(server: Jupyter):
    """Two browsers decide: one decision counts."""
    request = server.ask()
    done(decide(server.browser(), request, "reject", reason="not now"))
    told = refused(decide(server.browser(), request), 409, "approval.already_decided")
    assert "rejected" in told["message"]


def test_a_critical_request_needs_a_reason(server: Jupyter):
    """The policy's rules are the gate's, not this door's."""
    request = server.ask("!grave")
    refused(decide(server.browser(), request), 422, "approval.reason_required")
    done(decide(server.browser(), request, reason="the owner asked for it, ticket 42"))


def test_on_the_socket_a_token_alone_decides_nothing(server: Jupyter):
    """The same rule on the other door: the answer says why, and the attempt is in the audit."""
    request = server.ask()
    page = server.page()
    page.hello()
    page.respond(request)
    assert page.until("error")["code"] == "request.session_required"
    assert state_of(server, request) == "pending"
    assert denials(server, request) == ["request.session_required"]


@pytest.mark.parametrize("token", [False, True], ids=["cookie", "cookie and token"])
def test_on_the_socket_a_person_decides(server: Jupyter, token: bool):
    """A page with a login behind it decides, and sees what comes of it."""
    request = server.ask()
    page = server.page(server.browser(), token=token)
    page.hello()
    page.respond(request)
    soon(lambda: page.until("approval:response")["approval"]["state"] in ("approved", "executing", "succeeded"))
    soon(lambda: state_of(server, request) == "succeeded")


def test_on_the_socket_another_sites_page_decides_nothing(server: Jupyter):
    """Jupyter lets a page of another site connect when it has the token; it looks on."""
    request = server.ask()
    page: Page = server.page(server.browser(), token=True, origin="https://evil.example")
    page.hello()
    page.respond(request)
    assert page.until("error")["code"] == "request.session_required"
    assert state_of(server, request) == "pending"
