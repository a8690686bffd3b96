"""Between the approval and the run somebody edits the store: whatever they touch of what was approved, nothing runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.errors import DigestMismatch, UnknownTool
from opsagent_jupyter.models import Actor, Approval, Plan, Target
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.testing.store_samples import request
from tests.ledger_plugin import Ledger, plugin

#: What becomes of a request after it was made; everything else a person approves, so it has to be bound.
LIFE = {
    "id", "digest", "state", "version", "use_by", "decided_by", "decided_at", "reason", "host", "claimed_at",
    "evidence", "effect", "ended_at",
}  # fmt: skip
BOUND = sorted(set(Approval.model_fields) - LIFE)
NESTED: dict[str, list[str]] = {
    "arguments": ["text", "how", "count"],
    "target": sorted(Target.model_fields),
    "plan": sorted(Plan.model_fields),
    "requester": sorted(Actor.model_fields),
}
PATHS = [(name, part) for name in BOUND for part in ("", *NESTED.get(name, ())) if part or name not in NESTED]
#: Fields that take only some words.
OTHER = {
    "risk": "high", "plan.risk": "low", "target.environment": "production", "requester.via": "cli",
    "plan.execution": "once", "plan.comparison": {"before": 2.0, "after": 1.0, "note": "cheaper"},
    "created_at": "2020-01-01T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z", "arguments.count": 2,
    "origins": [{"argument": "text", "kind": "model", "text": "one"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpsAgent, Path, Path]]:
    """A host that runs nothing by itself, its store file and its ledger."""
    folder = tmp_path_factory.mktemp("swap")
    ledger, store = folder / "ledger.db", folder / "opsagent.db"
    with OpsAgent(f"sqlite:///{store}", executes=False) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger))
        yield ops, store, ledger


def approved(ops: OpsAgent, text: str = "one", **arguments: Any) -> str:
    """The id of an approved request."""
    call = ops.run("add_mark", text=text, **arguments)
    ops.approve(call.record.approval)
    return call.record.approval


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list):
        return [*value, *(value[:1] or ["x"])]
    return {**value, "x": "x"}


def edit(store: Path, request_id: str, path: tuple[str, str], *, forge: bool) -> None:
    """Change one field of the row; a forger computes the digest anew."""
    with closing(sqlite3.connect(store, timeout=30)) as db, db:
        body = json.loads(db.execute("SELECT body FROM approval_requests WHERE id = ?", (request_id,)).fetchone()[0])
        name, part = path
        holder, key = (body[name], part) if part else (body, name)
        word = ".".join(filter(None, path))
        holder[key] = OTHER[word] if word in OTHER else changed(holder[key])
        if forge:
            body["digest"] = Approval.model_validate(body).computed_digest()
        db.execute("UPDATE approval_requests SET body = ? WHERE id = ?", (json.dumps(body), request_id))


def test_every_field_of_a_request_is_bound_or_belongs_to_its_later_life() -> None:
    """A new field that is neither fails here."""
    bound = set(json.loads(request().bound())) - {"v"}
    assert bound == set(BOUND)
    assert set(Approval.model_fields) >= LIFE


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(filter(None, path)))
def test_an_edited_request_ends_stale_and_nothing_runs(
    books: tuple[OpsAgent, Path, Path], path: tuple[str, str]
) -> None:
    """The digest no longer fits."""
    ops, store, ledger = books
    request_id = approved(ops, count=1, how="ok")
    edit(store, request_id, path, forge=False)
    record = ops.runtime.call(ops.runtime.executor.resume(request_id))
    assert record is not None
    assert (record.status, record.error_code) == ("refused", DigestMismatch.code)
    assert str(ops.approval(request_id).state) == "stale"
    assert Ledger("outside", str(ledger)).texts() == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(filter(None, path)))
def test_a_forged_digest_runs_nothing_either(books: tuple[OpsAgent, Path, Path], path: tuple[str, str]) -> None:
    """The audit knows the digest that was approved; some edits do not even get so far."""
    ops, store, ledger = books
    request_id = approved(ops, count=1, how="ok")
    edit(store, request_id, path, forge=True)
    with suppress(UnknownTool):  # a host that knows no such tool leaves it alone until its time is over
        record = ops.runtime.call(ops.runtime.executor.resume(request_id))
        assert record is not None
        assert record.status == "refused"
    assert str(ops.approval(request_id).state) == ("approved" if path == ("tool", "") else "stale")
    assert Ledger("outside", str(ledger)).texts() == []


def test_an_edit_between_the_last_check_and_the_claim_is_noticed(
    books: tuple[OpsAgent, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim itself compares, in its transaction, with what was checked before it."""
    ops, store, ledger = books
    request_id = approved(ops)
    claim = ops.runtime.store.claim

    def edited(*arguments: Any) -> Approval | None:
        edit(store, request_id, ("plan", "statements"), forge=True)
        return claim(*arguments)

    monkeypatch.setattr(ops.runtime.store, "claim", edited)
    record = ops.runtime.call(ops.runtime.executor.resume(request_id))
    assert record is not None
    assert record.error_code == DigestMismatch.code
    assert Ledger("outside", str(ledger)).texts() == []
