"""What cannot be done is said in JSON: a code, a message and what to do; and a broken store breaks no Jupyter server."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from opsagent_jupyter.server.rest import LARGEST_BODY
from tests.server.jupyter import BASE, Jupyter, done, jupyter, refused, soon

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "servers", b"{", 400, "request.invalid"),
        ("POST", "servers", b"[]", 400, "request.invalid"),
        ("POST", "servers", b"\xff\xfe", 400, "request.invalid"),
        ("POST", "servers", b"", 400, "request.invalid"),
        ("POST", "servers", b'{"name": "a b"}', 400, "request.invalid"),
        ("POST", "servers", b'{"name": "\\ud800"}', 400, "request.invalid"),
        ("POST", "servers", b'{"name": "a", "more": 1}', 400, "request.invalid"),
        ("POST", "servers", b"[" * 100_000, 400, "request.invalid"),
        ("POST", "servers", b'"' + b"x" * LARGEST_BODY + b'"', 413, "request.too_large"),
        ("GET", "servers/nowhere/plugins", None, 404, "plugin.unknown_server"),
        ("GET", "servers/desk/plugins/nothing", None, 404, "plugin.unknown_instance"),
        ("DELETE", "servers/desk/plugins/nothing", None, 404, "plugin.unknown_instance"),
        ("GET", "sessions/ffffffff", None, 404, "session.unknown"),
        ("GET", "sessions/%F4%8F%BF%BF%F4%8F%BF%BF/messages", None, 404, "session.unknown"),
        ("GET", "approvals/ffffffff", None, 404, "approval.unknown"),
        ("GET", "approvals/%00%00%00%00", None, 404, "approval.unknown"),
        ("GET", "approvals/%ff", None, 400, "request.invalid"),
        ("GET", "approvals?state=perhaps", None, 400, "request.invalid"),
        ("GET", "audit?since=yesterday", None, 400, "request.invalid"),
        ("GET", "audit?since=2026-11-01T00:00:00", None, 400, "request.invalid"),
        ("GET", "audit?colour=red", None, 400, "request.invalid"),
        ("GET", "audit?risk=low&risk=high", None, 400, "request.invalid"),
        ("POST", "sessions", b'{"instance": "nothing"}', 404, "plugin.unknown_instance"),
        ("POST", "servers/desk/plugins", b'{"plugin": "ledger", "name": "b2"}', 400, "credential"),
        ("POST", "servers/desk/plugins", b'{"plugin": "nothing", "name": "b2", "dsn": "x"}', 404, "plugin.unknown"),
        ("POST", "servers/desk/plugins", b'{"plugin": "ledger", "name": "b2", "dsn": "a://b"}', 422,
         "execution.malformed_dsn"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_its_code(
    server: Jupyter, method: str, path: str, body: bytes | None, status: int, code: str
):
    """The status and the code say what was wrong."""
    refused(server.program().request(method, f"api/{path}", content=body, headers=JSON), status, code)


def test_a_body_that_is_not_said_to_be_json_is_refused(server: Jupyter):
    """A form of another page is no request."""
    refused(server.program().post("api/servers", content=b'{"name": "a"}'), 400, "request.invalid")


def test_a_refusal_never_repeats_a_secret(server: Jupyter):
    """A connection string in a wrong place or of a wrong kind comes back in no answer, and stands in no log."""
    for body in (
        {"plugin": "ledger", "name": "hunter2 hunter2", "dsn": "postgresql://u:hunter2@h/d"},
        {"plugin": "ledger", "name": "b", "dsn": ["hunter2"]},
        {"plugin": "postgresql", "name": "b", "dsn": "postgresql://u:hunter2@127.0.0.1:1/d"},
        {"plugin": "ledger", "name": "b", "dsn_env": "postgresql://u:hunter2@h/d"},
    ):
        answer = server.program().post("api/servers/desk/plugins", json=body)
        assert answer.status_code >= 400
        assert "hunter2" not in answer.text
    assert "hunter2" not in server.log()


def test_no_answer_holds_a_credential(server: Jupyter):
    """An attached database is shown by its settings; its connection string is nowhere."""
    path = str(server.folder / "secret-place.db")
    body = {"plugin": "ledger", "name": "secretive", "dsn": path}
    places = ("servers", "servers/desk/plugins", "servers/desk/plugins/secretive", "audit")
    answers = [server.program().post("api/servers/desk/plugins", json=body)]
    answers += [server.program().get(f"api/{where}") for where in places]
    assert all(answer.is_success and path not in answer.text for answer in answers)
    done(server.program().delete("api/servers/desk/plugins/secretive"))


def test_a_connection_is_tried_out_and_not_kept(server: Jupyter):
    """A form's button asks whether it works, before anything is stored."""
    body = {"plugin": "ledger", "name": "tried", "dsn": str(server.folder / "tried.db"), "keep": False}
    assert done(server.program().post("api/servers/desk/plugins", json=body))["health"]["ok"]
    refused(server.program().get("api/servers/desk/plugins/tried"), 404, "plugin.unknown_instance")


@pytest.mark.parametrize("kind", ["broken", "of another kind"])
def test_a_broken_store_breaks_no_jupyter_server(tmp_path: Path, kind: str):
    """Jupyter serves on, what needs no store answers, and the rest says what to do; once repaired it works."""
    place = tmp_path / "store" / "opsagent.db"
    place.parent.mkdir()
    place.write_bytes(b"this is no database, but a text that is long enough to be looked at" * 100)
    url = {} if kind == "broken" else {"OPSAGENT_STORE_URL": "mysql://nowhere/x"}
    with jupyter(tmp_path, **url) as running:
        expected = (503, "store.corrupt") if kind == "broken" else (400, "config")
        for path in ("servers", "approvals", "audit", "sessions", "health"):
            assert refused(running.program().get(f"api/{path}"), *expected)["hint"]
        assert done(running.program().get("api/version"))["version"]
        page = running.page()
        assert page.until("error")["code"] == expected[1]
        assert httpx.get(f"{running.origin}{BASE}api").status_code == 200
        if kind == "broken":
            os.unlink(place)  # noqa: PTH108 - as an operator does
            soon(lambda: running.program().get("api/servers").status_code == 200)
