"""MongoDB through the doors that people use: attached, asked, and run through the gate, with no secret left behind."""

from __future__ import annotations

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import AuthenticationFailed, MalformedDsn


def test_a_database_is_attached_read_and_asked(store_url, mongo_auth):
    """Health, a read by its name, a question in words, and a refusal that names the role."""
    with OpsAgent(store_url) as ops:
        ops.attach("mongodb", "docs", server="demo", environment="development", dsn=mongo_auth.uri_of("reader"))
        call = ops.run("mongodb.list_collections", on="docs")
        assert call.status == "succeeded"
        assert "orders" in call.summary
        turn = ops.ask("which indexes does orders have?", on="docs")
        assert [each.tool for each in turn.calls] == ["mongodb.list_indexes"]
        refused = ops.run("mongodb.get_collection_stats", on="docs", collection="ordrs")
        assert (refused.status, "did you mean orders" in refused.summary) == ("refused", True)
        audit = ops.audit()
        assert mongo_auth.passwords["reader"] not in audit.to_csv()
        assert set(audit["tool"]) >= {"mongodb.list_collections", "mongodb.list_indexes"}


def test_a_wrong_password_or_string_is_refused_when_attaching(store_url, mongo_auth):
    """Nothing is stored, and the message says what to do without the secret."""
    with OpsAgent(store_url) as ops:
        wrong = mongo_auth.server.uri_for("shop", "reader", "hunter2-canary")
        with pytest.raises(AuthenticationFailed) as refusal:
            ops.attach("mongodb", "docs", server="demo", dsn=wrong)
        assert "hunter2" not in str(refusal.value)
        with pytest.raises(MalformedDsn) as refusal:
            ops.attach("mongodb", "docs", server="demo", dsn="mongodb://ann:hunter2-canary@h:99999/")
        assert "hunter2" not in str(refusal.value)
        assert ops.instances() == []
