"""A secret that a call makes is kept encrypted, shown once to one person on one screen, and is nowhere else."""

from __future__ import annotations

import json
import os
import pickle
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import comm
import ipywidgets
import pytest
from IPython.core.interactiveshell import InteractiveShell

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.commands import Door, words
from opsagent_jupyter.contracts import ONE_TIME
from opsagent_jupyter.errors import DecryptionFailed, SecretExpired, SecretMissing, SecretRevealed
from opsagent_jupyter.models import Approval
from opsagent_jupyter.notebook.completion import completions
from opsagent_jupyter.notebook.display import shown
from opsagent_jupyter.notebook.widgets import _VIEWS, ApprovalWidget
from opsagent_jupyter.stores.sqlite_library import sqlite3
from tests.kernels import ROOT
from tests.mint_plugin import MADE, plugin
from tests.unit.test_notebook_widgets import Wire, record, soon


@pytest.fixture
def ops(store_url: str, tmp_path: Path) -> Iterator[OpsAgent]:
    """An OpsAgent with a mint."""
    with OpsAgent(store_url) as opened:
        opened.runtime.plugins.add(plugin)
        opened.attach("mint", "coins", environment="development", dsn=str(tmp_path / "mint.db"))
        yield opened


def minted(ops: OpsAgent, how: str = "ok", status: str = "succeeded") -> Approval:
    """A request that was approved and has ended so."""
    call = ops.run("mint", how=how)
    ops.approve(call.record.approval)
    assert soon(lambda: call.status == status), call.summary
    approval = call.approval
    assert approval is not None
    return approval


def test_a_secret_is_bound_to_its_request(ops: OpsAgent) -> None:
    """Its token opens for no other request, also not for one that is put in its place in the store."""
    one, two = minted(ops), minted(ops)
    kept = ops.runtime.store.one_time_secrets()
    assert ops.runtime.vault.decrypt(kept[two.id], instance=two.id, field=ONE_TIME) == MADE[-1]
    with sqlite3.connect(ops.runtime.store.url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE one_time_secrets SET token = ? WHERE approval = ?", (kept[two.id], one.id))
    database.close()
    with pytest.raises(DecryptionFailed):
        ops.reveal(one.id)
    assert ops.reveal(two.id).show() == MADE[-1]


def test_what_shows_it_shows_itself_to_nobody(ops: OpsAgent) -> None:
    """No repr, format, pickle or JSON; the text comes by show() and in a with block."""
    taken = ops.reveal(minted(ops).id)
    with taken as text:
        assert text == taken.show() == MADE[-1]
    assert MADE[-1] not in f"{taken!r} {taken} {taken:s} {vars(type(taken))}"
    for spill in (pickle.dumps, json.dumps):
        with pytest.raises(TypeError):
            spill(taken)


def test_a_plugin_that_tells_its_secret_is_not_heard(ops: OpsAgent) -> None:
    """What a call says of its effect is cleaned of the secret that it has made itself."""
    approval = minted(ops, "leak")
    assert approval.effect is not None
    assert approval.effect.summary == "the number is ***"
    assert MADE[-1] not in approval.model_dump_json() + ops.audit().to_json(date_format="iso")


def test_an_unknown_end_keeps_the_secret_until_it_is_known(ops: OpsAgent) -> None:
    """A person who finds out that the call took effect makes it showable, one who finds the contrary deletes it."""
    one, two = minted(ops, "vanish", "unknown"), minted(ops, "vanish", "unknown")
    with pytest.raises(SecretMissing, match="unknown"):
        ops.reveal(one.id)
    ops.resolve(one.id, "succeeded", "the coin lies on the table")
    ops.resolve(two.id, "failed", "there is no coin on the table")
    assert ops.reveal(one.id).show() == MADE[-2]
    with pytest.raises(SecretMissing, match="deleted"):
        ops.reveal(two.id)


def test_a_failed_call_leaves_none(ops: OpsAgent) -> None:
    """Its row is gone when the failure is recorded."""
    approval = minted(ops, "fail", "failed")
    assert approval.evidence == {"pid": 7, "secret": "deleted"}
    assert ops.runtime.store.one_time_secrets() == {}


def test_a_host_that_cannot_keep_it_sends_nothing(ops: OpsAgent) -> None:
    """Without a key there is no secret, so the call fails before its first statement."""
    ops.runtime.executor.vault = None
    approval = minted(ops, status="failed")
    assert approval.effect is not None
    assert "nothing was sent" in approval.effect.summary
    assert approval.evidence == {}


def grown_old(ops: OpsAgent, approval: Approval) -> None:
    """Move the end of a secret's time into the past."""
    with sqlite3.connect(ops.runtime.store.url.removeprefix("sqlite:///")) as database:
        old = "2026-01-01T00:00:00.000000+00:00"
        database.execute("UPDATE one_time_secrets SET expires_at = ? WHERE approval = ?", (old, approval.id))
    database.close()


def test_the_sweep_deletes_what_nobody_asked_for(ops: OpsAgent) -> None:
    """With an audit event; what is still in time stays."""
    old, young = minted(ops), minted(ops)
    grown_old(ops, old)
    ops.runtime.call(ops.runtime.executor.sweep(timedelta(seconds=60)))
    assert list(ops.runtime.store.one_time_secrets()) == [young.id]
    assert list(ops.audit(approval=old.id)["type"])[-1] == "secret.expired"
    assert ops.approval(old.id).evidence["secret"] == "expired"


def test_who_asks_too_late_gets_nothing(ops: OpsAgent) -> None:
    """Also before any sweep: the secret is deleted instead of shown."""
    approval = minted(ops)
    grown_old(ops, approval)
    for _ in range(2):
        with pytest.raises(SecretExpired):
            ops.reveal(approval.id)
    assert ops.runtime.store.one_time_secrets() == {}
    assert list(ops.audit(approval=approval.id)["type"]).count("secret.expired") == 1


# -- the terminal -------------------------------------------------------------------------------------------------------


def opsagent(store_url: str, line: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own."""
    command = [sys.executable, "-c", "from opsagent_jupyter.cli.main import main; main()", *shlex.split(line)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPSAGENT_STORE_URL": store_url}
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.run(command, env=environment, text=True, check=False, timeout=60, **given)


def test_a_pipe_gets_it_only_where_that_is_said(ops: OpsAgent, store_url: str) -> None:
    """A redirected command refuses, and the secret is still kept; --stdout means it; --json is for programs."""
    one, two = minted(ops), minted(ops)
    refused = opsagent(store_url, f"reveal {one.id[:8]}")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--stdout" in refused.stderr
    assert opsagent(store_url, f"reveal {one.id[:8]} --stdout").stdout == f"{MADE[-2]}\n"
    assert json.loads(opsagent(store_url, f"--json reveal {two.id} --stdout").stdout)["secret"] == MADE[-1]
    again = opsagent(store_url, f"reveal {one.id} --stdout")
    assert (again.returncode, again.stdout) == (1, "")
    assert f"{ops.actor.name} was shown this secret" in again.stderr


def test_a_terminal_shows_it(ops: OpsAgent, store_url: str) -> None:
    """Where a person looks at it, and nothing else is saved."""
    approval = minted(ops)
    outside, inside = pty.openpty()
    assert opsagent(store_url, f"reveal {approval.id[:8]}", stdout=inside).returncode == 0
    os.close(inside)
    assert os.read(outside, 1000).decode().strip() == MADE[-1]
    os.close(outside)


def test_a_change_of_keys_takes_it_along(ops: OpsAgent, store_url: str) -> None:
    """The old key is gone, the secret can still be shown, also by a process that began before."""
    approval = minted(ops)
    before = ops.runtime.store.one_time_secrets()[approval.id]
    changed = opsagent(store_url, "key rotate")
    assert changed.returncode == 0, changed.stderr
    after = ops.runtime.store.one_time_secrets()[approval.id]
    assert before.split(".")[1] != after.split(".")[1]
    assert ops.reveal(approval.id).show() == MADE[-1]


# -- the notebook -------------------------------------------------------------------------------------------------------


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every widget of the test speaks over a wire."""
    monkeypatch.setattr(comm, "create_comm", Wire)
    yield
    ipywidgets.Widget.close_all()


def knows(wire: Wire, evidence: dict[str, object]) -> bool:
    return evidence in [event["approval"]["evidence"] for event in wire.events("approval:response")]


def test_a_click_shows_it_on_that_screen_alone(ops: OpsAgent, wires: None) -> None:
    """The other card of the request learns that it was shown, and no trait or record of either holds it."""
    approval = minted(ops)
    asking, other = (ApprovalWidget(ops.bridge, approval) for _ in range(2))
    asking.comm.ask(type="secret:reveal", id=approval.id)
    (told,) = soon(lambda: asking.comm.events("secret:shown"))
    assert (told["id"], told["text"]) == (approval.id, MADE[-1])
    for view in (asking, other):
        assert soon(partial(knows, view.comm, {"pid": 7, "secret": "revealed"}))
        saved = {name: value for name, value in view.get_state().items() if name not in ("_esm", "_css")}
        assert MADE[-1] not in repr(saved) + "".join(record(view))
    assert other.comm.events("secret:shown") == []
    other.comm.ask(type="secret:reveal", id=approval.id)
    assert soon(lambda: other.comm.events("error"))[0]["code"] == SecretRevealed.code
    assert asking.comm.events("secret:shown") == [told]


def test_the_magic_says_where_to_see_it(ops: OpsAgent) -> None:
    """It writes no secret into the notebook and takes none out of the store; afterwards it says that there is none."""
    approval = minted(ops)

    def said() -> str:
        door = Door(lambda: ops, lambda _: "")
        return str(words.main(args=["reveal", approval.id[:8]], standalone_mode=False, obj=door))

    first = said()
    assert f"opsagent reveal {approval.id[:8]}" in first
    assert f"%opsagent show {approval.id[:8]}" in first
    assert approval.id in ops.runtime.store.one_time_secrets()
    assert MADE[-1] not in first
    ops.reveal(approval.id)
    assert "keeps no password" in said()
    assert "reveal" in completions(ops, "%opsagent re")


def test_showing_a_request_with_a_secret_brings_the_live_card(ops: OpsAgent, wires: None) -> None:
    """A request that has ended is shown as text, but for one whose secret waits: its card has the button."""

    class Shell(InteractiveShell):
        kernel = None

    def shows_live(approval: Approval) -> bool:
        door = Door(lambda: ops, lambda _: "")
        before = set(_VIEWS)
        shown(Shell(), words.main(args=["show", approval.id], standalone_mode=False, obj=door), lambda: ops)
        return bool(set(_VIEWS) - before)

    assert shows_live(minted(ops))
    assert not shows_live(minted(ops, "fail", "failed"))
