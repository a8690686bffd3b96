"""Nothing below ``opsagent/`` answers a stranger: the routes are those that the application has, not a list kept by hand."""

from __future__ import annotations

import json
import re

import pytest
from websocket import WebSocketBadStatusException

from opsagent_jupyter.server.interface import ROUTES
from tests.server.jupyter import BASE, Jupyter, refused

METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD")


def addresses(server: Jupyter) -> list[str]:
    """A path for each pattern of the running application."""
    found = json.loads((server.folder / "routes.json").read_text())
    filled = [re.sub(r"\(\?P<\w+>[^)]*\)", "a", pattern) for pattern in found]
    return [path.replace("(?:/.*)?", "/x").replace("\\", "").rstrip("$") for path in filled]


def test_the_application_has_every_route_of_the_table(server: Jupyter):
    """What is tested below is the whole interface, and the socket."""
    found = set(addresses(server))
    table = {re.sub(r"{\w+}", "a", f"{BASE}opsagent/api/{route.path}") for route in ROUTES}
    assert found == {*table, f"{BASE}opsagent/ws", f"{BASE}opsagent/x"}


@pytest.mark.parametrize("credentials", ["none", "wrong token", "wrong cookie", "wrong token in the query"])
def test_every_route_refuses_a_stranger(server: Jupyter, credentials: str):
    """No method at any path answers without a token or a login, and the refusal is JSON that says what to do."""
    headers = {"wrong token": {"Authorization": "token guessed"}, "wrong cookie": {"Cookie": "username=guessed"}}
    query = "?token=guessed" if credentials == "wrong token in the query" else ""
    stranger = server.stranger()
    for path in addresses(server):
        for method in METHODS:
            address = f"{server.origin}{path}{query}"
            answer = stranger.request(method, address, headers=headers.get(credentials, {}))
            assert answer.status_code in (403, 405), (method, path, answer.status_code)
            if method == "GET" and "/api/" in path:
                refused(answer, 403, "request.not_authenticated")


def test_the_socket_refuses_a_stranger(server: Jupyter):
    """A handshake without token and login ends with 403."""
    with pytest.raises(WebSocketBadStatusException) as refusal:
        server.page(server.stranger())
    assert refusal.value.status_code == 403


def test_a_program_with_the_token_may_look(server: Jupyter):
    """The token opens what is read."""
    assert server.program().get("api/servers").json()["items"][0]["name"] == "desk"


def test_what_is_no_route_is_said_in_json(server: Jupyter):
    """A wrong path and a wrong method have codes, too."""
    program = server.program()
    refused(program.get("api/nothing"), 404, "request.unknown_route")
    refused(program.delete("api/version"), 405, "request.method")
    refused(program.request("PUT", "api/servers"), 405, "request.method")
