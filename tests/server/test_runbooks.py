"""Runbooks over REST: how their steps stand, and signatures, which a person takes back and a token does not."""

from __future__ import annotations

from contextlib import closing

import pytest

from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import event, vetting
from tests.server.jupyter import Jupyter, done, refused


@pytest.fixture
def signature(server: Jupyter) -> str:
    """The id of a signature in the server's store."""
    made = vetting(seal="v1.sealed.token")
    with closing(open_store(server.store_url)) as store:
        store.add_vetting(made, event("runbook.signed"))
    return made.id


def test_steps_are_listed_as_they_stand(server: Jupyter):
    """Of a run, of a runbook or of all, in the order in which they were asked for."""
    details = [{"runbook": "shown", "run": run, "step": step} for run in ("one", "two") for step in ("look", "do")]
    with closing(open_store(server.store_url)) as store:
        for number, place in enumerate(details):
            store.record(event(call=f"c{number}", status="running", tool="ledger.list_marks", details=place))
    program = server.program()
    found = done(program.get("api/runbooks/steps?runbook=shown"))["items"]
    assert [(step["run"], step["step"], step["state"]) for step in found] == [
        ("one", "look", "running"), ("one", "do", "running"), ("two", "look", "running"), ("two", "do", "running"),
    ]  # fmt: skip
    only = done(program.get("api/runbooks/steps?runbook=shown&run=two&limit=1"))["items"]
    assert [step["call"] for step in only] == ["c3"]
    refused(program.get("api/runbooks/steps?limit=0"), 400, "request.invalid")


def test_a_person_takes_a_signature_back(server: Jupyter, signature: str):
    """In a browser, by its id or its beginning, once; its seal is told to nobody."""
    browser = server.browser()
    (shown,) = (item for item in done(browser.get("api/runbooks/signatures"))["items"] if item["id"] == signature)
    assert (shown["seal"], shown["revoked_by"]) == ("", None)
    answer = browser.post(f"api/runbooks/signatures/{signature[:10]}/revoke", json={"reason": "it has grown"})
    ended = done(answer)
    assert (ended["revoked_for"], ended["revoked_by"]["via"], ended["seal"]) == ("it has grown", "server", "")
    answer = browser.post(f"api/runbooks/signatures/{signature}/revoke", json={})
    refused(answer, 422, "runbook.vetting_void")
    refused(browser.post("api/runbooks/signatures/ffff/revoke", json={}), 404, "runbook.vetting_unknown")


def test_a_token_alone_takes_no_signature_back(server: Jupyter, signature: str):
    """As it decides nothing else."""
    answer = server.program().post(f"api/runbooks/signatures/{signature}/revoke", json={})
    refused(answer, 403, "request.session_required")
    with closing(open_store(server.store_url)) as store:
        assert store.vetting(signature).revoked_at is None
