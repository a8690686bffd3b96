"""A signed runbook lets pass what was signed, to the letter; whatever else is tried, a person is asked."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.api import Call, OpsAgent
from opsagent_jupyter.commands import tool_arguments
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.errors import (
    ConfigError,
    NotAllowedToSign,
    OpsAgentError,
    ReasonRequired,
    RunbookError,
    RunbookMalformed,
    VettingVoid,
)
from opsagent_jupyter.executor import Ask
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Actor, AuditEvent, Risk, new_id, now, sha256
from opsagent_jupyter.policy import Policy
from opsagent_jupyter.runbooks import cells, evidence, signing
from opsagent_jupyter.runbooks.steps import Place, name_vetting, run_step
from opsagent_jupyter.stores.sqlite_library import sqlite3
from opsagent_jupyter.vetting import Bound, Vetting, is_tame
from tests.ledger_plugin import Ledger
from tests.ledger_plugin import plugin as ledger

RUNBOOK, WHY = "a1b2c3d4e5f60718", "the nightly mark is harmless"
BOUNDS = ("text=blue|green", "count=1..3", "word~!?[a-z]{1,10}")
LINES = {
    "look": "ledger.list_marks --on={instance}",
    "add-mark": "ledger.add_mark --on={instance} --text={text} --count={count}",
    "add-mark-2": "ledger.add_mark --on={instance} --text={word} --count={count}",
}


def book(**other: str) -> cells.Notebook:
    """A runbook of a read and two changes."""
    lines = {**LINES, **other}
    head = "instance = 'books'\nserver = 'desk'\ntext = 'blue'\ncount = 1\nword = 'red'\nrunbook_vetting = \"\""
    calls = [
        cells.code(
            step, f"%opsagent --vars run {line} --step={{run.ref}}/{step}", step=step, kind="call", tool=line.split()[0]
        )
        for step, line in lines.items()
    ]
    title = cells.markdown("title", "# Marks")
    parameters = cells.code("parameters", head, tags=("parameters",))
    return cells.notebook([title, parameters, *calls], v=1, runbook=RUNBOOK, title="Marks")


def wished(**other: Any) -> signing.Wish:
    return signing.Wish(**{"bounds": BOUNDS, "reason": WHY, **other})


def drafted(ops: OpsAgent, actor: Actor | None = None, **other: Any) -> Vetting:
    return signing.draft(ops.runtime, actor or ops.actor, book(), wished(**other), tool_arguments)


def signed(ops: OpsAgent, **other: Any) -> Vetting:
    """The runbook with the signature of the person here."""
    return signing.sign(ops.runtime, drafted(ops, **other))


def called(ops: OpsAgent, vetting: str, step: str = "add-mark", run: str = "", **arguments: Any) -> Call:
    """A step as its cell calls it, in a run of its own for each signature."""
    run = run or sha256(vetting)[:12]
    name = "list_marks" if step == "look" else str(arguments.pop("tool", "add_mark"))
    on = str(arguments.pop("on", "books"))
    usual = {"look": {}, "add-mark": {"text": "blue", "count": 1}, "add-mark-2": {"text": "red", "count": 1}}
    given = arguments if name == "audit_marks" else {**usual.get(step, {}), **arguments}
    runbook = str(given.pop("runbook", RUNBOOK))
    name_vetting(ops, runbook, run, vetting)
    tool = ops.runtime.plugins.tool(name, "ledger")
    return run_step(ops, tool, on, Place(runbook, run, step), given, again=bool(given.pop("again", False)))


def marks(file: Path) -> list[str]:
    return Ledger("outside", str(file)).texts()


def asks(call: Call, why: str) -> None:
    """A person is asked, and told why the signature did not do."""
    approval = call.approval
    assert approval is not None
    assert approval.state is ApprovalState.PENDING
    assert "not pre-approved" in approval.reasons[-1]
    assert why in approval.reasons[-1]
    assert approval.computed_digest() == approval.digest
    assert approval.decided_by is None


def ready(ops: OpsAgent) -> str:
    """A signature, in a run whose reading step is done."""
    made = signed(ops).id
    assert called(ops, made, "look").status == "succeeded"
    return made


@pytest.fixture
def vetting(ops: OpsAgent) -> str:
    return ready(ops)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the office keeps its store and its ledger."""
    return tmp_path_factory.mktemp("office")


@pytest.fixture(scope="module")
def office(place: Path) -> Iterator[OpsAgent]:
    """An OpsAgent for the tests that leave it as it is; each signs for itself, and has a run of its own."""
    with OpsAgent(f"sqlite:///{place / 'opsagent.db'}") as agent:
        agent.runtime.plugins.add(ledger)
        agent.attach("ledger", "books", server="desk", environment="development", dsn=str(place / "ledger.db"))
        yield agent


@pytest.fixture
def unchanged(place: Path, office: OpsAgent) -> Iterator[str]:
    """A signature of the office; nothing may have taken effect when the test ends."""
    before = marks(place / "ledger.db")
    yield ready(office)
    assert marks(place / "ledger.db") == before


# -- what it lets pass ------------------------------------------------------------------------------------------------


def test_what_was_signed_runs_without_asking_and_says_by_whom(ops: OpsAgent, vetting: str, ledger_file: Path) -> None:
    """The decision is stored for the digest, with the signature as its evidence; card, audit and receipt name it."""
    call = called(ops, vetting).wait(30)
    assert call.status == "succeeded", call.summary
    assert marks(ledger_file) == ["blue"]
    approval = call.approval
    assert approval is not None
    assert approval.decided_by == ops.actor
    assert approval.evidence["vetted"]["id"] == vetting  # type: ignore[index, call-overload]
    assert "pre-approved through the runbook “Marks”, signed " in approval.reason
    assert "in advance, by a signed runbook" in call.summary
    row = next(
        json.loads(row.body)
        for row in ops.runtime.store.audit_page(before=None, limit=20, filters={"approval": approval.id})
        if json.loads(row.body)["type"] == "approval.approved"
    )
    assert (row["details"]["rule"], row["details"]["vetting"], row["digest"]) == ("vetted", vetting, approval.digest)
    made = book()
    evidence.seal(ops, made, sha256(vetting)[:12])
    told = dict(evidence.verify(made).proven)["add-mark"]
    assert f"pre-approved through signature {vetting[:8]} by {ops.actor.name}" in told
    assert "ran as approved" in told


@pytest.mark.parametrize("arguments", [{"text": "green"}, {"count": 3}, {"text": "green", "count": 2}])
def test_values_inside_the_bounds_pass(office: OpsAgent, arguments: dict[str, Any]) -> None:
    """One of the choices, a number in the range."""
    assert called(office, ready(office), **arguments).wait(30).status == "succeeded"


def test_a_second_run_and_a_second_step_pass_too(ops: OpsAgent, vetting: str, ledger_file: Path) -> None:
    """Each run goes through the steps in order, once."""
    for run in ("first", "second"):
        called(ops, vetting, "look", run)
        for step in ("add-mark", "add-mark-2"):
            assert called(ops, vetting, step, run).wait(30).status == "succeeded"
            assert called(ops, vetting, step, run).status == "succeeded"
    assert marks(ledger_file) == ["blue", "red", "blue", "red"]


# -- what it does not -------------------------------------------------------------------------------------------------

OTHER_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "a value that was not signed": ({"text": "red"}, "text is outside"),
    "a value in other letters": ({"text": "Blue"}, "text is outside"),
    "a value with a space": ({"text": "blue "}, "text is outside"),
    "a statement in a value": ({"text": "blue'); DELETE FROM mark --"}, "text is outside"),
    "a number below": ({"count": 0}, "count is outside"),
    "a number above": ({"count": 4}, "count is outside"),
    "an argument that the cell has not": ({"how": "slow"}, "how is outside"),
    "another step's id": ({"step": "add-mark-3", "text": "blue"}, "no step add-mark-3"),
    "the next step's arguments": ({"text": "red", "step": "add-mark"}, "text is outside"),
    "another tool": ({"tool": "audit_marks", "deep": True}, "was signed"),
    "another runbook": ({"runbook": "0000000000000000"}, "another runbook"),
    "a later step first": ({"step": "add-mark-2"}, "add-mark, which comes first"),
}


@pytest.mark.parametrize("what", OTHER_CALLS)
def test_any_other_call_asks(office: OpsAgent, unchanged: str, what: str) -> None:
    """A changed argument, step, tool, runbook or order."""
    arguments, why = OTHER_CALLS[what]
    asks(called(office, unchanged, **dict(arguments)), why)


def test_a_run_without_its_reading_step_asks(office: OpsAgent) -> None:
    """Exact steps are all of them."""
    asks(called(office, signed(office).id), "look, which comes first")


def test_a_step_passes_once_in_a_run(ops: OpsAgent, vetting: str, ledger_file: Path) -> None:
    """With other arguments, or asked anew on purpose, it is a person's again."""
    assert called(ops, vetting).wait(30).status == "succeeded"
    asks(called(ops, vetting, text="green"), "called in this run before")
    again = called(ops, vetting, again=True).approval
    assert again is not None
    assert again.state is ApprovalState.PENDING
    assert marks(ledger_file) == ["blue"]


def test_a_parameter_keeps_its_value_in_a_run(office: OpsAgent) -> None:
    """Two steps that share it cannot be given two, each inside the bound."""
    vetting = ready(office)
    assert called(office, vetting, count=2).wait(30).status == "succeeded"
    asks(called(office, vetting, "add-mark-2", count=1), "count had another value")


def test_a_step_after_one_that_failed_asks(ops: OpsAgent, ledger_file: Path) -> None:
    """What comes before has to have succeeded."""
    made = signing.sign(
        ops.runtime,
        signing.draft(
            ops.runtime, ops.actor, book(**{"add-mark": f"{LINES['add-mark']} --how=fail"}), wished(), tool_arguments
        ),
    )
    called(ops, made.id, "look")
    assert called(ops, made.id, how="fail").wait(30).status == "failed"
    asks(called(ops, made.id, "add-mark-2"), "has not succeeded")
    assert marks(ledger_file) == []


def test_a_risk_that_preflight_finds_asks(ops: OpsAgent, vetting: str, ledger_file: Path) -> None:
    """The word is inside its pattern; what it would do is critical."""
    assert called(ops, vetting).wait(30).status == "succeeded"
    call = called(ops, vetting, "add-mark-2", text="!wipe")
    asks(call, "the risk is critical")
    assert call.approval is not None
    assert call.approval.risk is Risk.CRITICAL
    assert marks(ledger_file) == ["blue"]


def test_another_version_of_the_tool_asks(ops: OpsAgent, vetting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was signed was that release's way to do it."""
    newer = dataclasses.replace(ledger.toolbox.tools["add_mark"], version="2")
    monkeypatch.setitem(ledger.toolbox.tools, "add_mark", newer)
    asks(called(ops, vetting), "version 1 was signed, this is ledger.add_mark version 2")


@pytest.mark.parametrize("how", ["another database", "attached anew", "another server"])
def test_another_database_asks(ops: OpsAgent, vetting: str, tmp_path: Path, how: str) -> None:
    """By another name, or by the same name when it was attached anew, or on another server."""
    name = "others" if how == "another database" else "books"
    if name == "books":
        ops.detach("books")
    server = "hall" if how == "another server" else "desk"
    ops.attach("ledger", name, server=server, environment="development", dsn=str(tmp_path / "other.db"))
    asks(called(ops, vetting, on=name), "no database that was signed")


POLICIES: dict[str, tuple[Policy, str, str]] = {
    "raises the level": (Policy(raise_to={"ledger.*": Risk.HIGH}), "personal", "the risk is high"),
    "always asks": (Policy(always_ask=("development/ledger.*",)), "personal", "asked for development/ledger"),
    "has other approvers": (Policy(approvers=("jupyter:*",)), "personal", "may not approve this"),
    "takes no signatures": (Policy(vetting_days=0), "personal", "longer than the policy"),
    "takes shorter ones": (Policy(vetting_days=7), "personal", "longer than the policy"),
    "wants four eyes": (Policy(four_eyes="medium"), "team", "second person"),
}


@pytest.mark.parametrize("what", POLICIES)
def test_the_policy_of_today_decides(ops: OpsAgent, vetting: str, ledger_file: Path, what: str) -> None:
    """Not that of the day on which it was signed."""
    ops.runtime.executor.policy, ops.runtime.executor.setup, why = POLICIES[what]
    asks(called(ops, vetting), why)
    assert marks(ledger_file) == []


def test_four_eyes_are_two_people(ops: OpsAgent) -> None:
    """Where the policy asks for a second person, another signer's signature is one."""
    bob = Actor(id="jupyter:bob", name="Bob", via="server", stable=True)
    ops.runtime.executor.policy, ops.runtime.executor.setup = Policy(four_eyes="medium"), "team"
    ops.actor = ops.actor.model_copy(update={"stable": True})
    for signer, state in ((bob, ApprovalState.APPROVED), (ops.actor, ApprovalState.PENDING)):
        made = signing.sign(ops.runtime, drafted(ops, signer))
        called(ops, made.id, "look")
        call = called(ops, made.id)
        assert call.approval is not None
        assert (call.approval.state is ApprovalState.PENDING) is (state is ApprovalState.PENDING)


def test_a_language_model_passes_by_no_signature(office: OpsAgent, unchanged: str) -> None:
    """Even when it names one, and the place of a step."""
    place = Place(RUNBOOK, "first", "add-mark")
    ask = Ask("ledger.add_mark", {"text": "blue"}, "books", vetting=unchanged, details=place.details("k"))
    agent = office.actor.model_copy(update={"agent": True})
    record = office.runtime.call(office.runtime.executor.submit(ask, agent))
    assert record.status == "waiting"
    assert "a language model asked" in office.approval(record.approval).reasons[-1]


def test_a_call_outside_a_runbook_passes_by_no_signature(office: OpsAgent, unchanged: str) -> None:
    """A signature is for steps."""
    ask = Ask("ledger.add_mark", {"text": "blue"}, "books", vetting=unchanged)
    record = office.runtime.call(office.runtime.executor.submit(ask, office.actor))
    assert record.status == "waiting"


def test_calls_at_random_pass_only_as_signed(office: OpsAgent) -> None:
    """A hundred calls around the signed one: what passes is inside every bound, and all of that passes."""
    vetting = signed(office).id
    rng, passed = random.Random(7), 0
    for number in range(100):
        run = f"run-{number}"
        text = rng.choice(["blue", "green", "blues", "", "gre en", "blue|green", "BLUE", "!blue"])
        count = rng.choice([-1, 0, 1, 2, 3, 4])
        step = rng.choice(["add-mark", "add-mark", "add-mark-2"])
        called(office, vetting, "look", run)
        call = called(office, vetting, step, run, text=text, count=count)
        inside = step == "add-mark" and text in ("blue", "green") and 1 <= count <= 3
        passed += inside
        assert call.approval is not None
        assert (call.approval.state is not ApprovalState.PENDING) is inside, (step, text, count)
        if inside:
            assert call.wait(30).status == "succeeded"
    assert passed >= 10


# -- its end ----------------------------------------------------------------------------------------------------------


def test_a_signature_that_was_taken_back_lets_nothing_pass(ops: OpsAgent, vetting: str) -> None:
    """From the next call on; taking it back twice is refused, and both are in the audit."""
    signing.revoke(ops.runtime, ops.actor, vetting[:8], "the table has grown")
    asks(called(ops, vetting), "took the signature back")
    with pytest.raises(VettingVoid):
        signing.revoke(ops.runtime, ops.actor, vetting, "")
    assert {"runbook.signed", "runbook.revoked"} <= set(ops.audit()["type"])


def test_a_signature_ends_by_itself(ops: OpsAgent) -> None:
    """After its time, and before it."""
    for start, end in ((-2, -1), (1, 2)):
        moved = {"signed_at": now() + timedelta(hours=start), "expires_at": now() + timedelta(hours=end)}
        made = signing.sign(ops.runtime, drafted(ops).model_copy(update=moved))
        run = f"run{end}".replace("-", "m")
        called(ops, made.id, "look", run)
        asks(called(ops, made.id, run=run), "held until")


def test_what_was_taken_back_before_the_run_is_not_run(store_url: str, ledger_file: Path) -> None:
    """Pre-approved while no host could run it; the host that comes judges the signature again."""
    with OpsAgent(store_url, executes=False) as first:
        first.runtime.plugins.add(ledger)
        first.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        made = signed(first).id
        called(first, made, "look")
        request = called(first, made).approval
        assert request is not None
        assert request.state is ApprovalState.APPROVED
        signing.revoke(first.runtime, first.actor, made, "not tonight")
    with OpsAgent(store_url, executes=False) as worker:
        worker.runtime.plugins.add(ledger)
        record = worker.runtime.call(worker.runtime.executor.resume(request.id))
        assert record is not None
        assert record.status == "refused"
        assert worker.approval(request.id).state is ApprovalState.STALE
    assert marks(ledger_file) == []


# -- who signs --------------------------------------------------------------------------------------------------------


def test_a_language_model_signs_nothing(ops: OpsAgent) -> None:
    """It is refused, audited, and nothing is kept; it takes nothing back either."""
    agent = ops.actor.model_copy(update={"agent": True})
    with pytest.raises(NotAllowedToSign):
        drafted(ops, agent)
    assert "runbook.denied" in set(ops.audit()["type"])
    assert ops.runtime.store.vettings() == []
    made = signed(ops)
    with pytest.raises(NotAllowedToSign):
        signing.revoke(ops.runtime, agent, made.id, "because")


@pytest.mark.parametrize(
    ("other", "error"),
    [({"reason": "ok"}, ReasonRequired), ({"days": 91}, NotAllowedToSign), ({"days": 0}, NotAllowedToSign)],
)
def test_signing_needs_a_reason_and_an_end(office: OpsAgent, other: dict[str, Any], error: type[OpsAgentError]) -> None:
    """As an approval of its own."""
    with pytest.raises(error):
        drafted(office, **other)


def test_who_is_no_approver_signs_nothing(ops: OpsAgent) -> None:
    """The policy names who may."""
    ops.runtime.policy = Policy(approvers=("jupyter:alice",))
    with pytest.raises(NotAllowedToSign):
        drafted(ops)


# -- what can be signed -----------------------------------------------------------------------------------------------

UNSIGNABLE: dict[str, str] = {
    "a second line": "ledger.add_mark --on={instance} --text={text}\nimport os #",
    "asked anew": "ledger.add_mark --on={instance} --text={text} --again",
    "another database": "ledger.add_mark --on=other --text={text}",
    "an attribute": "ledger.add_mark --on={instance} --text={text.name}",
    "put together": "ledger.add_mark --on={instance} --text=x{text}",
    "twice": "ledger.add_mark --on={instance} --text={text} --text=green",
    "no parameter": "ledger.add_mark --on={instance} --text={nothing}",
    "an open quotation": "ledger.add_mark --on={instance} --text='{text}",
    "superseding": "ledger.add_mark --on={instance} --text={text} --supersedes=abcd",
}


@pytest.mark.parametrize("what", UNSIGNABLE)
def test_a_cell_that_is_more_than_its_call_cannot_be_signed(office: OpsAgent, what: str) -> None:
    """What cannot be read to the letter is not vetted."""
    with pytest.raises((RunbookMalformed, ConfigError)):
        signing.draft(
            office.runtime, office.actor, book(**{"add-mark": UNSIGNABLE[what]}), wished(bounds=()), tool_arguments
        )


@pytest.mark.parametrize(
    "bound",
    ["text", "nothing=1", "instance=a|b", "count=5..1", "count~[0-9]+", "text=1..3", "word~(a+)+", "word~(", "word~",
     "runbook_vetting=x", "word~(?i)a", "word~a*b*c*d*e*", "server=hall"],
)  # fmt: skip
def test_a_bound_that_says_nothing_clear_is_refused(office: OpsAgent, bound: str) -> None:
    """Ranges are of whole numbers, patterns of texts, and tame."""
    with pytest.raises(ConfigError):
        drafted(office, bounds=(bound,))


def test_a_bound_admits_by_kind_and_as_a_whole() -> None:
    """True is not 1, a part of a text is not the text, and an empty bound admits nothing."""
    assert not Bound(choices=(1,)).admits(True)
    assert not Bound(least=0, most=1).admits(True)
    assert not Bound(least=0, most=9).admits(1.0)
    assert not Bound(pattern="[a-z]+").admits("ab\n")
    assert not Bound(pattern="[a-z]+").admits("é")
    assert not Bound(pattern="[a-z]+").admits([])
    assert not Bound(pattern="[a-z]+").admits(["ok", "NO"])
    assert Bound(pattern="[a-z]+").admits(["ok", "fine"])
    assert not Bound().admits("")
    assert not Bound(least=1).admits(2)
    assert is_tame("[a-z_]{1,40}")
    assert is_tame("nightly_(a|b)")
    assert not is_tame(r"(a)\1")


# -- the notebook -----------------------------------------------------------------------------------------------------


def test_any_other_cell_is_another_runbook(office: OpsAgent) -> None:
    """Changed, added, taken away or moved, of whatever kind; only values of parameters and what a run adds are free."""
    made, same = signed(office), book()
    same["cells"][1]["source"] = same["cells"][1]["source"].replace("'blue'", "'green'")
    cells.ours(same["cells"][2])["receipt"] = {"v": 1}
    assert signing.changed_cell(made, same) == ""
    for number in range(len(same["cells"])):
        for change in (_edited, _removed, _doubled, _moved):
            other = copy.deepcopy(book())
            change(other["cells"], number)
            if other != book():
                assert signing.changed_cell(made, other), (number, change.__name__)
    other = book()
    other["metadata"]["opsagent"]["runbook"] = "0000000000000000"
    assert signing.changed_cell(made, other)


def _edited(listed: list[cells.Cell], number: int) -> None:
    listed[number]["source"] += "\nmore = 1"


def _removed(listed: list[cells.Cell], number: int) -> None:
    listed.pop(number)


def _doubled(listed: list[cells.Cell], number: int) -> None:
    listed.insert(number, cells.code(f"new-{number}", "print(1)"))


def _moved(listed: list[cells.Cell], number: int) -> None:
    listed.append(listed.pop(number))


def test_a_file_that_changes_while_it_is_signed_is_not_signed(ops: OpsAgent, tmp_path: Path) -> None:
    """The person saw another one."""
    file = tmp_path / "marks.ipynb"
    cells.write(file, book())
    vetting = drafted(ops)
    cells.write(file, book(look="ledger.list_marks --on={instance} --delay=0"))
    with pytest.raises(RunbookError, match="changed"):
        signing.sign_file(ops.runtime, file, vetting)
    assert ops.runtime.store.vettings() == []


# -- the store --------------------------------------------------------------------------------------------------------


def written(place: Path, sql: str, *values: Any) -> None:
    """What somebody with a client does to the store."""
    with closing(sqlite3.connect(place / "opsagent.db")) as db, db:
        assert db.execute(sql, values).rowcount > 0


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bound": lambda body: body["steps"][1]["arguments"]["text"].update(choices=["blue", "red"]),
    "tool": lambda body: body["steps"][1].update(tool="ledger.audit_marks"),
    "version": lambda body: body["steps"][1].update(version="2"),
    "order": lambda body: body["steps"].reverse(),
    "step": lambda body: body["steps"].pop(0),
    "database": lambda body: body["targets"][0].update(instance_id="0" * 32),
    "signer": lambda body: body["signer"].update(id="os:mallory"),
    "agent": lambda body: body["signer"].update(agent=True),
    "reason": lambda body: body.update(reason="a quite other reason"),
    "expiry": lambda body: body.update(expires_at="2099-01-01T00:00:00Z"),
    "runbook": lambda body: body.update(runbook="0000000000000000"),
    "cells": lambda body: body["cells"].pop(),
    "title": lambda body: body.update(title="Other"),
    "nonce": lambda body: body.update(nonce="0" * 32),
    "seal": lambda body: body.update(seal=body["seal"][:-8] + "AAAAAAAA"),
    "no seal": lambda body: body.update(seal=""),
    "digest": lambda body: body.update(digest="0" * 64),
}


@pytest.mark.parametrize("again", [False, True], ids=["edited", "with its digest made anew"])
@pytest.mark.parametrize("what", FORGED)
def test_a_row_that_was_edited_lets_nothing_pass(
    office: OpsAgent, unchanged: str, place: Path, what: str, again: bool
) -> None:
    """Whatever of it was touched, even when its digest is made anew."""
    body = json.loads(office.runtime.store.vetting(unchanged).model_dump_json())
    FORGED[what](body)
    if again and what != "digest":
        body["digest"] = Vetting.model_validate(body).computed_digest()
    written(place, "UPDATE runbook_vettings SET body = ? WHERE id = ?", json.dumps(body), unchanged)
    call = called(office, unchanged)
    if again and what in ("seal", "no seal"):
        asks(call, "key of this installation")
    else:
        asks(call, "not pre-approved")


def test_a_signature_that_was_taken_back_is_not_set_back_by_hand(office: OpsAgent, unchanged: str, place: Path) -> None:
    """The audit knows that it ended."""
    before = office.runtime.store.vetting(unchanged).model_dump_json()
    signing.revoke(office.runtime, office.actor, unchanged, "")
    written(place, "UPDATE runbook_vettings SET body = ?, revoked_at = NULL WHERE id = ?", before, unchanged)
    assert office.runtime.store.vetting(unchanged).revoked_at is None
    asks(called(office, unchanged), "took the signature back")


def test_a_row_that_nobody_signed_lets_nothing_pass(office: OpsAgent, unchanged: str, place: Path) -> None:
    """A copy under another id, with its own digest, has no witness in the audit."""
    other = office.runtime.store.vetting(unchanged).model_copy(update={"id": new_id()})
    other = other.model_copy(update={"digest": other.computed_digest()})
    written(
        place,
        "INSERT INTO runbook_vettings SELECT ?, runbook, signed_at, NULL, ? FROM runbook_vettings LIMIT 1",
        other.id,
        other.model_dump_json(),
    )
    asks(called(office, other.id), "the audit knows nothing")


@pytest.mark.parametrize("seal", ["", "another key", "another signature's"])
def test_a_signature_made_without_the_key_lets_nothing_pass(
    office: OpsAgent, unchanged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: str
) -> None:
    """Somebody who can write the store, and its audit as well, has not the key of this installation."""
    forged = drafted(office)
    forged = forged.model_copy(update={"digest": forged.computed_digest()})
    if seal == "another key":
        monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", new_key())
        with OpsAgent(f"sqlite:///{tmp_path / 'elsewhere' / 'opsagent.db'}", executes=False) as mallory:
            token = mallory.runtime.vault.encrypt(forged.digest, instance=forged.id, field="vetting")
    else:
        token = office.runtime.store.vetting(unchanged).seal if seal else ""
    event = AuditEvent(type="runbook.signed", actor=office.actor, reason=WHY)
    office.runtime.store.add_vetting(forged.model_copy(update={"seal": token}), event)
    asks(called(office, forged.id), "key of this installation")


def test_an_audit_row_that_was_edited_is_no_witness(ops: OpsAgent, vetting: str, ledger_file: Path) -> None:
    """The chain's hash is looked at, not only the words."""
    written(
        ledger_file.parent / "store",
        "UPDATE plugin_audit_log SET body = replace(body, ?, ?) WHERE approval = ?",
        WHY,
        "another reason for this",
        vetting,
    )
    asks(called(ops, vetting), "audit's row about the signature was edited")


@pytest.mark.parametrize("name", ["", "0" * 32, "short", "' OR 1=1 --"])
def test_a_name_that_is_no_signature_lets_nothing_pass(office: OpsAgent, unchanged: str, name: str) -> None:
    """A notebook only names one; nothing is what it says."""
    call = called(office, name, run=f"named-{unchanged[:8]}")
    assert call.approval is not None
    assert call.approval.state is ApprovalState.PENDING
