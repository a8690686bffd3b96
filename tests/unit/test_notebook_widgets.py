"""The live views of a notebook: what they save, what they say without a kernel, and how commands get through."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comm
import ipywidgets
import pytest
from comm.base_comm import BaseComm

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.models import Approval
from opsagent_jupyter.notebook.widgets import WIDGET, ApprovalWidget, ChatWidget, LiveView, TurnWidget
from opsagent_jupyter.testing.models import Line, ScriptedModel
from tests.kernels import kernel

OURS = {"kind", "id", "summary", "version"}


class Wire(BaseComm):
    """A comm whose other end is this test."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        super().__init__(*arguments, **named)

    def publish_msg(self, msg_type: str, data: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg" and data.get("method") == "custom":
            self.sent.append(data["content"])

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [told["event"] for told in self.sent if told["event"]["type"] == kind]

    def ask(self, **command: Any) -> None:
        """What the screen sends."""
        content = {"v": 1, "command": command}
        self.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


@pytest.fixture(autouse=True)
def wires(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every widget of these tests speaks over a wire."""
    monkeypatch.setattr(comm, "create_comm", Wire)
    yield
    ipywidgets.Widget.close_all()


def waiting(ops: OpsAgent, text: str = "blue") -> Approval:
    approval = ops.run("ledger.add_mark", on="books", text=text).approval
    assert approval is not None
    return approval


def soon(holds: Callable[[], Any]) -> Any:
    """Wait up to fifteen seconds for something that another thread brings about."""
    limit = time.monotonic() + 15
    while not (found := holds()) and time.monotonic() < limit:
        time.sleep(0.02)
    return found


def scripted(ops: OpsAgent, text: str) -> None:
    """Make the model of this OpsAgent ask for a mark, and say afterwards that it is done."""
    model = ScriptedModel(Line("I propose this.", (("ledger_add_mark", {"text": text}),)), Line("It is done."))
    ops.runtime.open_model = lambda _name, _instances: model  # type: ignore[method-assign]


def record(view: LiveView) -> tuple[str, str]:
    bundle, _ = view._repr_mimebundle_()
    return bundle["text/html"], bundle["text/plain"]


def test_a_card_that_is_saved_while_it_waits_says_what_was_asked(ops: OpsAgent):
    """Without a kernel and without scripts the question, its target, its risk and its asker can be read."""
    view = ApprovalWidget(ops.bridge, waiting(ops))
    for text in record(view):
        for word in (
            "Add the mark blue",
            "books on desk",
            "development",
            "medium",
            "it writes",
            "waiting for a decision",
        ):
            assert word in text


def test_a_card_says_afterwards_who_decided_and_how_it_ended(ops: OpsAgent):
    """A decision at any door reaches the summary and the record by itself."""
    approval = waiting(ops)
    view = ApprovalWidget(ops.bridge, approval)
    ops.approve(approval.id, reason="the owner asked for it")
    assert soon(lambda: view.summary["state"] == "succeeded")
    assert view.summary["decided_by"] == ops.actor.name
    for text in record(view):
        assert "the mark blue is there" in text
        assert ops.actor.name in text
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)


def test_synced_state_is_an_id_and_a_summary_and_nothing_else(ops: OpsAgent):
    """What a notebook saves of a card holds no statement, no argument, no digest and no precondition."""
    approval = waiting(ops, "plum")
    view = ApprovalWidget(ops.bridge, approval)
    state = view.get_state()
    public = {name for name in state if not name.startswith("_")} - set(ipywidgets.DOMWidget().get_state())
    assert public == OURS
    saved = json.dumps({name: state[name] for name in OURS})
    for secret in (*approval.plan.statements, approval.digest, approval.nonce, "era", "INSERT"):
        assert secret not in saved


def test_a_record_is_text_in_a_fixed_template(ops: OpsAgent):
    """Markup, links and reordering characters of a database stay visible text."""
    evil = "<img src=x onerror=alert(1)>\u202e<a href='https://evil.example'>x</a>"
    page, text = record(ApprovalWidget(ops.bridge, waiting(ops, evil)))
    assert "&lt;img" in page
    assert "\u202e" not in page + text
    assert set(re.findall(r"<(\w+)", page)) <= {"div", "strong", "table", "tr", "th", "td", "br", "code"}
    assert set(re.findall(r"\s([\w-]+)=['\"]", re.sub(r">[^<]*<", "><", page))) <= {"style", "scope", "class"}


def respond(approval: Approval, decision: str, reason: str = "", digest: str = "") -> dict[str, object]:
    """A decision as the card sends it."""
    seen = {"version": approval.version, "digest": digest or approval.digest}
    return {"type": "approval:respond", "id": approval.id, "decision": decision, "reason": reason, **seen}


def test_a_decision_on_something_else_than_was_shown_is_refused(ops: OpsAgent):
    """A click on a card that showed another request decides nothing, and the audit has the attempt."""
    approval = waiting(ops)
    wire = ApprovalWidget(ops.bridge, approval).comm
    wire.ask(**respond(approval, "approve", digest="0" * 64))
    failure = soon(lambda: wire.events("error"))[0]
    assert (failure["code"], failure["about"]) == ("approval.not_as_shown", approval.id)
    assert ops.approval(approval.id).state == "pending"
    assert ops.audit(approval=approval.id, status="denied")["error_code"].tolist() == ["approval.not_as_shown"]


def test_a_click_decides_and_the_answer_comes_back(ops: OpsAgent):
    """A command of the screen reaches the gate; the card's next state comes back as an event."""
    approval = waiting(ops)
    wire = ApprovalWidget(ops.bridge, approval).comm
    wire.ask(**respond(approval, "reject", "not now"))
    answers = soon(lambda: [e for e in wire.events("approval:response") if e["approval"]["state"] == "rejected"])
    assert answers[0]["approval"]["decided_by"]["name"] == ops.actor.name


def test_a_late_click_is_told_what_was_decided(ops: OpsAgent):
    """Whoever comes second gets the code and the state, and changes nothing."""
    approval = waiting(ops)
    wire = ApprovalWidget(ops.bridge, approval).comm
    ops.reject(approval.id, reason="first")
    wire.ask(**respond(approval, "approve"))
    failure = soon(lambda: wire.events("error"))[0]
    assert (failure["code"], failure["about"]) == ("approval.already_decided", approval.id)
    assert ops.approval(approval.id).state == "rejected"


@pytest.mark.parametrize(
    "content",
    [None, [], {}, "x", {"v": 1}, {"v": 9, "command": {}}, {"v": 1, "command": {"type": "chat:shout", "id": "42"}}],
)
def test_a_broken_message_is_answered_with_an_error(ops: OpsAgent, content: Any):
    """Nothing that a screen sends disappears silently, and nothing of it ends the kernel's side."""
    wire = ApprovalWidget(ops.bridge, waiting(ops)).comm
    wire.handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert wire.events("error")[0]["code"].startswith("protocol")


def test_a_card_hears_of_its_own_request_only(ops: OpsAgent):
    """A notebook with many cards does not send each of them everything."""
    mine, other = waiting(ops, "mine"), waiting(ops, "other")
    wire = ApprovalWidget(ops.bridge, mine).comm
    ops.reject(other.id)
    ops.reject(mine.id)
    assert soon(lambda: [e for e in wire.events("approval:response") if e["approval"]["state"] == "rejected"])
    assert {event["approval"]["id"] for event in wire.events("approval:response")} == {mine.id}


def test_replies_are_pinned_off_the_shell_that_published_last(ops: OpsAgent):
    """On ipykernel 7.4 a click during a running cell is delivered only without this routing."""

    class Routed(Wire):
        def _reply_subshell_for(self, *_: Any) -> Any:
            raise AssertionError("the routing is still on")

    comm.create_comm = Routed  # type: ignore[assignment]  # put back by the fixture
    assert ApprovalWidget(ops.bridge, waiting(ops)).comm._reply_subshell_for is None


def test_a_turn_keeps_question_answer_calls_and_decisions_and_no_rows(ops: OpsAgent):
    """The record of a turn reads as a story; the rows that a tool found are not in it, nor in synced state."""
    ops.approve(waiting(ops, "row-4711").id)
    turn = ops.ask("list the marks", on="books", wait=10)
    view = TurnWidget(ops.bridge, turn)
    assert soon(lambda: "ledger.list_marks on books: succeeded" in record(view)[1])
    page, text = record(view)
    assert "list the marks" in page
    assert "answered" in text
    assert view.summary["question"] == "list the marks"
    assert "row-4711" not in json.dumps(view.summary)
    assert "row-4711" not in "".join(name + value for name, value in view.story()[1] if name == "Ran")


def test_a_turn_says_what_was_decided_in_it(ops: OpsAgent):
    """The card of a turn ends in its record, with who and how."""
    scripted(ops, "amber")
    turn = ops.ask("add a mark", on="books")
    view = TurnWidget(ops.bridge, turn)
    asked = soon(lambda: list(view.approvals.values()))[0]
    assert "waits for a decision" in soon(lambda: "waits" in record(view)[1] and record(view)[1])
    ops.approve(asked.id)
    assert soon(lambda: "the mark amber is there" in record(view)[1])
    assert soon(lambda: view.summary["state"] == "answered")


def test_a_turn_does_not_take_in_what_is_asked_later(ops: OpsAgent):
    """Two turns of one session keep their own words, calls and decisions."""
    first = ops.ask("list the marks", on="books", wait=10)
    view = TurnWidget(ops.bridge, first)
    second = ops.ask("count the marks with care", on="books", session=first.session_id, wait=10)
    assert soon(lambda: TurnWidget(ops.bridge, second)._calls())
    assert "audit_marks" not in record(view)[1]


def test_a_chat_saves_its_decisions_and_not_its_words(ops: OpsAgent):
    """The record of a chat names the session, how to open it, and what was decided in it."""
    scripted(ops, "jade")
    session = ops.new_session("books")
    view = ChatWidget(ops.bridge, session.id)
    ops.ask("add a mark", session=session.id)
    asked = soon(lambda: list(view.approvals.values()))[0]
    ops.reject(asked.id, reason="not in the sale")
    assert soon(lambda: "rejected by" in record(view)[1])
    assert f"%opsagent open {session.id[:8]}" in record(view)[1]
    assert set(view.summary) == {"title", "target", "model", "messages", "attach"}


def test_a_view_that_closes_does_not_end_the_record(ops: OpsAgent):
    """The screen's leave stops at the widget: the record goes on following the session."""
    session = ops.new_session("books")
    view = ChatWidget(ops.bridge, session.id)
    assert soon(lambda: view.session)
    view.comm.ask(type="chat:leave", session=session.id)
    view.comm.ask(type="approval:unsubscribe")
    ops.ask("list the marks", session=session.id, wait=10)
    assert soon(lambda: len(view.entries) >= 2)


SHOW = """
from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.notebook.widgets import ApprovalWidget
from tests.ledger_plugin import plugin
ops = OpsAgent({url!r}, kind="kernel")
ops.runtime.plugins.add(plugin)
ops.attach("ledger", "books", server="desk", environment="development", dsn={path!r})
call = ops.run("ledger.add_mark", on="books", text="opal")
ApprovalWidget(ops.bridge, call.approval)
"""


def test_a_view_is_two_outputs_in_a_kernel(store_url: str, ledger_file: Path):
    """The record comes first and is brought up to date after a decision; the widget's own output saves nothing."""
    with kernel() as running:
        shown = running.run(SHOW.format(url=store_url, path=str(ledger_file)))
        assert not shown.errors
        asked, live = shown.data
        assert "waiting for a decision" in asked["text/html"]
        assert WIDGET not in asked
        assert live[WIDGET]["model_id"]
        assert live["text/html"] == live["text/plain"] == ""
        decided = running.run("import time\nops.approve(call.approval.id)\ncall.wait(10)\ntime.sleep(0.5)")
        assert not decided.errors
        assert any("the mark opal is there" in data.get("text/html", "") for data in decided.data)
