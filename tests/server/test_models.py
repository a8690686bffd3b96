"""The models that can be chosen: by name, with what they lack, and never with a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.jupyter import Jupyter, done, jupyter, refused

KEY = "sk-very-secret-1234567890"


def test_the_offline_model_can_always_be_chosen(server: Jupyter):
    """Without a key and without a network."""
    items = {item["name"]: item for item in done(server.program().get("api/models"))["items"]}
    assert items["offline"] == {
        "name": "offline", "provider": "offline", "origin": "offline", "ready": True, "missing": ""
    }  # fmt: skip


def test_the_sessions_own_model_stands_first_and_says_what_it_lacks(server: Jupyter):
    """A session with another model keeps it in the list; a session that is not there is an error."""
    session = done(server.program().post("api/sessions", json={"instance": "books", "model": "xai:grok"}))["id"]
    first = done(server.program().get(f"api/models?session={session}"))["items"][0]
    assert (first["name"], first["origin"], first["ready"]) == ("xai:grok", "used", False)
    assert "langchain-xai" in first["missing"]
    assert "XAI_API_KEY" in first["missing"]
    refused(server.program().get("api/models?session=ffffffff"), 404, "session.unknown")


@pytest.mark.parametrize("key", ["", KEY])
def test_a_key_is_said_to_be_there_and_is_not_told(tmp_path: Path, key: str):
    """Whether the configured model can be used follows from its extra and its key; the key itself is nowhere."""
    with jupyter(tmp_path, OPSAGENT_MODEL="openai:gpt-test", OPENAI_API_KEY=key) as server:
        answer = server.program().get("api/models")
        found = done(answer)
        assert found["items"][0]["name"] == "openai:gpt-test"
        assert found["items"][0]["origin"] == "configured"
        openai = next(one for one in found["providers"] if one["name"] == "openai")
        assert openai["key"] is bool(key)
        assert found["items"][0]["ready"] is (openai["installed"] and bool(key))
        assert KEY not in answer.text
