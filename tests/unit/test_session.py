"""One conversation on real stores, hosts and screens: its turns take turns, and its transcript stays true and whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage

from opsagent_jupyter import protocol
from opsagent_jupyter.agent.transcript import Reading
from opsagent_jupyter.api import OpsAgent, Turn
from opsagent_jupyter.errors import OpsAgentError, SessionBusy
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import AuditEvent, CallRecord, Message, Risk
from opsagent_jupyter.testing.models import Line, ScriptedModel
from tests.ledger_plugin import Ledger, plugin

#: What opens the model of each host, by the host's id.
VOICES: dict[str, Callable[[], Any]] = {}
ADD = Line("Adding.", calls=(("ledger_add_mark", {"text": "one"}),))
WORDS = Line("one two three four five six seven eight nine ten", pause=0.15)


def host(store_url: str, *script: Line, executes: bool = False) -> OpsAgent:
    """A host whose model says these lines."""
    ops = OpsAgent(store_url, executes=executes, lease_seconds=0.9)
    ops.runtime.plugins.add(plugin)
    ops.runtime.open_model = lambda *_: VOICES[ops.runtime.host.id]()  # type: ignore[method-assign]
    speak(ops, *script)
    return ops


def speak(ops: OpsAgent, *script: Line) -> None:
    """Give a host a model that says these lines from now on."""
    model = ScriptedModel(*(script or (Line("Nothing to say."),)))
    VOICES[ops.runtime.host.id] = lambda: model


@pytest.fixture
def ops(store_url: str, ledger_file: Path) -> Iterator[OpsAgent]:
    """A host that runs what is approved, with a database."""
    with host(store_url, executes=True) as found:
        found.attach("ledger", "books", server="desk", environment="development", dsn=str(ledger_file))
        yield found


def eventually(true: Callable[[], bool]) -> None:
    """Wait for it, at most ten seconds."""
    limit = time.monotonic() + 10
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def said(ops: OpsAgent, session: str) -> list[tuple[str, str]]:
    """Role and first line of each message."""
    return [(message.role, message.text.partition("\n")[0]) for message in ops.messages(session)]


def require_valid(transcript: Sequence[Message]) -> None:
    """Every call is answered exactly once, directly after the message that made it, as providers demand."""
    history = Reading({tool.full_name: tool for tool in plugin.toolbox.tools.values()}, ()).history(transcript)
    for place, message in enumerate(history):
        if isinstance(message, AIMessage) and message.tool_calls:
            after = history[place + 1 : place + 1 + len(message.tool_calls)]
            assert all(isinstance(answer, ToolMessage) for answer in after)
            assert [call["id"] for call in message.tool_calls] == [answer.tool_call_id for answer in after]  # type: ignore[union-attr]
    answered = [message.call for message in transcript if message.role == "tool"]
    assert len(answered) == len(set(answered))


def speaking(turn: Turn, text: str) -> None:
    """Wait until the model has come so far."""
    eventually(lambda: text in turn._turn.text)


def parked(ops: OpsAgent) -> Turn:
    """A turn that waits for a person."""
    speak(ops, ADD, Line("It is done."))
    turn = ops.ask("add a mark")
    assert turn.text == "Adding."
    assert turn.state == "parked"
    return turn


def request(ops: OpsAgent) -> str:
    """The id of the one request."""
    (found,) = ops.runtime.store.approvals()
    return found.id


# -- turns ------------------------------------------------------------------------------------------------------------


def test_turns_of_a_session_come_one_after_another(ops: OpsAgent) -> None:
    """Three questions at once: each is answered before the next is asked."""
    speak(ops, *(Line(f"Answer {number} is this.", pause=0.05) for number in range(3)))
    turns = [ops.ask(f"question {number}") for number in range(3)]
    assert [turn.text for turn in turns] == [f"Answer {number} is this." for number in range(3)]
    roles = [message.role for message in ops.messages(turns[0].session_id)]
    assert roles == ["user", "assistant"] * 3


def test_two_hosts_do_not_work_on_one_session_at_once(ops: OpsAgent, store_url: str) -> None:
    """The second is told that it is busy, and writes nothing."""
    speak(ops, WORDS)
    turn = ops.ask("count")
    speaking(turn, "two")
    with host(store_url, Line("I am here too.")) as other:
        late = other.ask("me too", session=turn.session_id)
        assert isinstance(late.error, SessionBusy)
        assert turn.text.endswith("ten")
        assert [role for role, _ in said(ops, turn.session_id)] == ["user", "assistant"]
        assert other.ask("and now?", session=turn.session_id).text == "I am here too."


def test_a_host_that_lost_its_lease_stops(ops: OpsAgent) -> None:
    """After a long sleep another host may be at work: two must not write one transcript."""
    speak(ops, Line(" ".join(map(str, range(200))), pause=0.1))
    turn = ops.ask("count")
    speaking(turn, "1")
    store, me = ops.runtime.store, ops.runtime.host.id
    store.release_session(turn.session_id, me)
    assert store.lease_session(turn.session_id, "another", 30) == "free"
    assert turn.wait(5).state == "cancelled"
    assert [role for role, _ in said(ops, turn.session_id)] == ["user"]


def test_a_host_that_lost_its_lease_does_not_take_it_back_in_the_middle(ops: OpsAgent) -> None:
    """Another host came, wrote, and went while it slept: what it had read is old, and it ends without a word."""
    speak(ops, Line(" ".join(map(str, range(200))), pause=0.1))
    turn = ops.ask("count")
    speaking(turn, "1")
    store, me = ops.runtime.store, ops.runtime.host.id
    store.release_session(turn.session_id, me)
    assert turn.wait(5).state == "cancelled"
    assert [role for role, _ in said(ops, turn.session_id)] == ["user"]


def test_an_answer_that_is_being_stored_when_the_turn_is_cancelled_is_stored_once(ops: OpsAgent) -> None:
    """The end of the turn waits for it, and sees that the call has its answer."""
    speak(ops, Line("Looking.", calls=(("ledger_list_marks", {}),)), Line("Fine."))
    store, storing = ops.runtime.store, threading.Event()
    append = store.append

    def slowly(message: Message, *more: Any) -> Message:
        if message.role == "tool":
            storing.set()
            time.sleep(0.5)
        return append(message, *more)

    store.append = slowly  # type: ignore[method-assign]
    turn = ops.ask("look")
    assert storing.wait(10)
    turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    assert [role for role, _ in said(ops, turn.session_id)] == ["user", "assistant", "tool"]
    assert ops.ask("and?").text == "Fine."
    require_valid(ops.messages(turn.session_id))


def test_a_request_that_came_after_its_call_was_answered_is_taken_back(ops: OpsAgent) -> None:
    """Its host had been taken for dead, and another one had told the model that nothing was run: so nothing may be."""
    turn = parked(ops)
    speak(ops, WORDS)
    counting = ops.ask("count")
    speaking(counting, "two")
    asked = ops.runtime.store.approval(request(ops))
    told = Message(session=turn.session_id, seq=0, role="tool", text="not run", call=asked.call)
    ops.runtime.store.append(told)
    counting.cancel()
    eventually(lambda: ops.approval(asked.id).state is ApprovalState.WITHDRAWN)
    assert "went on without it" in ops.approval(asked.id).reason


# -- hosts that end in the middle -------------------------------------------------------------------------------------


def left(ops: OpsAgent, *messages: Message) -> str:
    """A session as a host leaves it that is killed in a turn: its lease is not given back."""
    store = ops.runtime.store
    session = ops.new_session("books").id
    assert store.lease_session(session, "dead", 60) == "free"
    for message in messages:
        store.append(message.model_copy(update={"session": session}), "dead")
    store.release_session(session, "dead")
    store.lease_session(session, "dead", 0.01)
    time.sleep(0.02)
    return session


def message(role: Any, text: str = "", *calls: CallRecord) -> Message:
    return Message(session="", seq=0, role=role, text=text, calls=calls)


def asked(id: str, tool: str = "ledger.list_marks") -> CallRecord:
    return CallRecord(id=id, tool=tool, arguments={}, instance="books", risk=Risk.LOW, status="running")


def test_a_question_whose_host_was_lost_is_answered_by_the_next_one_that_opens_it(ops: OpsAgent) -> None:
    """Also when the host is opened before the lease of the dead one has run out."""
    session = left(ops, message("user", "anybody there?"))
    ops.runtime.store.lease_session(session, "dead", 1.0)
    speak(ops, Line("Yes, now."), Line("Twice."))
    ops.open(session)
    eventually(lambda: said(ops, session)[-1] == ("assistant", "Yes, now."))
    ops.open(session)
    time.sleep(0.5)
    assert len(ops.messages(session)) == 2


def test_what_has_an_end_is_not_gone_on_with(ops: OpsAgent) -> None:
    """An answer whose host died just after it, and a turn that was cancelled: opening them asks the model nothing."""
    speak(ops, Line("Looking.", calls=(("ledger_list_marks", {"delay": 30}),)), Line("Nobody wants this."))
    turn = ops.ask("look")
    eventually(lambda: bool(turn._turn.calls))
    turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    answered = left(ops, message("user", "hello"), message("assistant", "Hello."))
    for session in (turn.session_id, answered):
        before = said(ops, session)
        assert ops.runtime.call(ops.runtime.conversation(session).resume(ops.actor)) is None
        assert said(ops, session) == before


def test_a_message_after_the_loss_of_a_host_comes_after_what_broke_off(ops: OpsAgent) -> None:
    """The model reads: the question, the call, that it has no answer, then what is asked now."""
    session = left(ops, message("user", "look"), message("assistant", "Looking.", asked("m_0")))
    speak(ops, Line("I can look again."))
    assert ops.ask("and?", session=session).text == "I can look again."
    assert [role for role, _ in said(ops, session)] == ["user", "assistant", "tool", "user", "assistant"]
    require_valid(ops.messages(session))


def test_each_call_of_a_lost_host_is_told_as_the_audit_knows_it(ops: OpsAgent) -> None:
    """Never at the gate: not run. Begun, and nobody saw the end: unknown. Ended before it was told: that end. The audit
    has an end for each beginning, and no call is made again."""
    calls = [asked(f"m_{number}") for number in range(5)]
    session = left(ops, message("user", "look"), message("assistant", "", *calls))
    agent = ops.actor.model_copy(update={"agent": True})
    base = {"actor": agent, "session": session, "tool": "ledger.list_marks", "instance": "books", "server": "desk"}
    for kind, call, status, summary in (
        ("call.intent", "m_1", "running", ""), ("call.intent", "m_2", "running", ""),
        ("call.outcome", "m_2", "succeeded", "3 marks"), ("call.requested", "m_3", "planning", ""),
        ("call.refused", "m_4", "refused", "not here"),
    ):  # fmt: skip
        ops.runtime.store.record(AuditEvent(type=kind, call=call, status=status, summary=summary, **base))
    speak(ops, Line("I see."))
    ops.open(session)
    eventually(lambda: said(ops, session)[-1] == ("assistant", "I see."))
    told = {message.call: message.calls[0] for message in ops.messages(session) if message.role == "tool"}
    assert [told[call.id].status for call in calls] == ["cancelled", "unknown", "succeeded", "cancelled", "refused"]
    words = [told[call.id].summary for call in calls]
    parts = ("was not run", "only reads", "3 marks (the rest of this answer was lost", "nothing was run", "not here")
    assert all(part in text for part, text in zip(parts, words, strict=True))
    audit = ops.audit(session=session)
    ends = audit[audit["type"].isin(["call.outcome", "call.refused"])]
    assert sorted(zip(ends["call"], ends["status"], strict=True)) == [
        ("m_1", "unknown"), ("m_2", "succeeded"), ("m_3", "cancelled"), ("m_4", "refused"),
    ]  # fmt: skip
    assert list(audit[audit["type"] == "call.intent"]["call"]).count("m_1") == 1
    require_valid(ops.messages(session))


def test_a_parked_turn_whose_host_was_lost_still_waits(ops: OpsAgent, ledger_file: Path) -> None:
    """Nothing is asked of the model before the decision; then another host tells it the outcome, once."""
    turn = parked(ops)
    store = ops.runtime.store
    store.lease_session(turn.session_id, "dead", 0.01)
    time.sleep(0.02)
    assert ops.runtime.call(ops.runtime.conversation(turn.session_id).resume(ops.actor)) is None
    ops.approve(request(ops))
    eventually(lambda: said(ops, turn.session_id)[-1] == ("assistant", "It is done."))
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]
    require_valid(ops.messages(turn.session_id))


def test_a_later_question_is_gone_on_with_though_an_earlier_request_waits(ops: OpsAgent) -> None:
    """Only the exchange that the request belongs to waits for it."""
    turn = parked(ops)
    store = ops.runtime.store
    store.lease_session(turn.session_id, "dead", 30)
    store.append(message("user", "meanwhile?").model_copy(update={"session": turn.session_id}), "dead")
    store.lease_session(turn.session_id, "dead", 0.01)
    speak(ops, Line("It still waits."))
    ops.open(turn.session_id)
    eventually(lambda: said(ops, turn.session_id)[-1] == ("assistant", "It still waits."))
    require_valid(ops.messages(turn.session_id))


def test_a_bug_in_the_middle_of_a_turn_ends_it_as_failed(ops: OpsAgent, caplog: pytest.LogCaptureFixture) -> None:
    """The screens hear of it, the secret in the bug is not told, and the session goes on."""
    seen: list[protocol.Event] = []
    ops.runtime.listen(seen.append)

    secret = "password=hunter2"

    def broken() -> Any:
        raise ZeroDivisionError(secret)

    VOICES[ops.runtime.host.id] = broken
    turn = ops.ask("hello")
    assert isinstance(turn.error, OpsAgentError)
    assert turn.state == "failed"
    kinds = [event.kind for event in seen if isinstance(event, protocol.TurnEvent)]
    assert kinds == ["started", "failed"]
    assert secret not in str([*seen, turn.error, caplog.text])
    speak(ops, Line("Here I am."))
    assert ops.ask("again").text == "Here I am."


# -- cancelling -------------------------------------------------------------------------------------------------------


def test_cancelling_keeps_what_was_said_until_then(ops: OpsAgent) -> None:
    """The part is in the transcript, marked as one."""
    speak(ops, WORDS, Line("Yes."))
    turn = ops.ask("count")
    speaking(turn, "three")
    assert turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    last = ops.messages(turn.session_id)[-1]
    assert (last.role, last.partial) == ("assistant", True)
    assert last.text.startswith("one two three")
    assert not last.text.endswith("ten")
    assert ops.ask("go on").text == "Yes."


def test_cancelling_a_later_message_does_not_repeat_the_earlier_ones(ops: OpsAgent) -> None:
    """Only what is not in the transcript yet is kept."""
    speak(ops, Line("Looking.", calls=(("ledger_list_marks", {}),)), WORDS)
    turn = ops.ask("count")
    speaking(turn, "two")
    turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    texts = [message.text for message in ops.messages(turn.session_id) if message.role == "assistant"]
    assert texts[0] == "Looking."
    assert texts[1].startswith("one two")
    require_valid(ops.messages(turn.session_id))


def test_cancelling_a_call_leaves_a_transcript_that_the_next_turn_can_use(ops: OpsAgent) -> None:
    """The call gets one answer, which does not claim that it never reached the gate."""
    speak(ops, Line("Looking.", calls=(("ledger_list_marks", {"delay": 30}),)), Line("Fine."))
    turn = ops.ask("look")
    eventually(lambda: bool(turn._turn.calls))
    time.sleep(0.2)
    turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    assert [text for role, text in said(ops, turn.session_id) if role == "assistant"] == ["Looking."]
    assert "cancelled" in list(ops.audit()["status"])
    assert ops.ask("and?").text == "Fine."
    require_valid(ops.messages(turn.session_id))
    (answer,) = [message.text for message in ops.messages(turn.session_id) if message.role == "tool"]
    assert "books: cancelled" in answer
    assert "not run" not in answer


def test_a_turn_that_is_cancelled_while_its_request_is_made_leaves_the_request_to_its_person(ops: OpsAgent) -> None:
    """It is not told as never asked for: once it is decided, the model hears what became of it."""
    speak(ops, ADD, Line("So it is done."))
    store, adding = ops.runtime.store, threading.Event()
    add = store.add_approval

    def slowly(*arguments: Any) -> None:
        adding.set()
        time.sleep(0.5)
        add(*arguments)

    store.add_approval = slowly  # type: ignore[method-assign]
    turn = ops.ask("add a mark")
    assert adding.wait(10)
    turn.cancel()
    eventually(lambda: turn.state == "cancelled")
    assert [role for role, _ in said(ops, turn.session_id)] == ["user", "assistant"]
    ops.approve(request(ops))
    eventually(lambda: said(ops, turn.session_id)[-1] == ("assistant", "So it is done."))
    require_valid(ops.messages(turn.session_id))


# -- decisions --------------------------------------------------------------------------------------------------------


def test_a_parked_turn_goes_on_by_itself_after_the_decision(ops: OpsAgent, ledger_file: Path) -> None:
    """One run, one answer of the tool, one of the model."""
    turn = parked(ops)
    ops.approve(request(ops))
    assert turn.wait(10).state == "finished"
    assert turn.text == "Adding.\n\nIt is done."
    assert [role for role, _ in said(ops, turn.session_id)] == ["user", "assistant", "tool", "assistant"]
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]
    require_valid(ops.messages(turn.session_id))


def test_many_screens_that_join_after_a_decision_resume_it_once(store_url: str, ledger_file: Path) -> None:
    """Three hosts with two screens each open the session at the same moment."""
    with host(store_url, executes=False) as asking:
        asking.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        session, request_id = parked(asking).session_id, request(asking)
    with host(store_url) as worker, ExitStack() as stack:
        worker.approve(request_id)
        worker.runtime.call(worker.runtime.executor.resume(request_id))
        assert worker.approval(request_id).state is ApprovalState.SUCCEEDED
        assert len(worker.messages(session)) == 2
        hosts = [stack.enter_context(host(store_url, Line("It is done."))) for _ in range(3)]
        links = [each.bridge.connect(lambda _: None) for each in hosts for _ in range(2)]
        start = threading.Barrier(len(links))

        def join(link: Any) -> None:
            start.wait()
            link.handle(protocol.Join(session=session, since=0))

        threads = [threading.Thread(target=join, args=(link,)) for link in links]
        for thread in threads:
            thread.start()
        eventually(lambda: len(worker.messages(session)) == 4)
        time.sleep(1)
        assert [role for role, _ in said(worker, session)] == ["user", "assistant", "tool", "assistant"]
        require_valid(worker.messages(session))
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_a_new_message_while_a_request_is_pending_keeps_the_transcript_valid(ops: OpsAgent, ledger_file: Path) -> None:
    """The call stays unanswered until it is decided; then its outcome comes as a note, and the model speaks again."""
    speak(ops, ADD, Line("The request still waits."), Line("Now it is done."))
    first = ops.ask("add a mark")
    assert first.text == "Adding."
    assert ops.ask("what now?").text == "The request still waits."
    *_, waiting, question = VOICES[ops.runtime.host.id]().read[-1]
    assert waiting.text == f"waiting for a person's decision (request {request(ops)[:8]}); not run yet"
    assert (waiting.status, question.text) == ("success", "what now?")
    require_valid(ops.messages(first.session_id))
    ops.approve(request(ops))
    eventually(lambda: said(ops, first.session_id)[-1] == ("assistant", "Now it is done."))
    roles = [role for role, _ in said(ops, first.session_id)]
    assert roles == ["user", "assistant", "user", "assistant", "tool", "assistant"]
    require_valid(ops.messages(first.session_id))
    assert Ledger("outside", str(ledger_file)).texts() == ["one"]


def test_a_decision_while_a_turn_runs_is_answered_after_it(ops: OpsAgent) -> None:
    """The two do not mix."""
    turn = parked(ops)
    speak(ops, WORDS, Line("And it is done."))
    counting = ops.ask("count")
    speaking(counting, "two")
    ops.approve(request(ops))
    assert counting.text.endswith("ten")
    eventually(lambda: said(ops, turn.session_id)[-1][1] == "And it is done.")
    roles = [role for role, _ in said(ops, turn.session_id)]
    assert roles == ["user", "assistant", "user", "assistant", "tool", "assistant"]


def test_the_lease_of_a_dead_host_only_delays_the_answer(ops: OpsAgent) -> None:
    """The decision comes while the lease of a host that died still runs; the answer comes when it is over."""
    turn = parked(ops)
    assert ops.runtime.store.lease_session(turn.session_id, "dead", 1.5)
    ops.approve(request(ops))
    eventually(lambda: said(ops, turn.session_id)[-1] == ("assistant", "It is done."))


def test_a_rejection_is_told_to_the_model_once(ops: OpsAgent, ledger_file: Path) -> None:
    """Nothing runs, and the model hears why."""
    turn = parked(ops)
    ops.reject(request(ops), reason="not before the weekend")
    assert turn.wait(10).state == "finished"
    (answer,) = [message for message in ops.messages(turn.session_id) if message.role == "tool"]
    assert "not before the weekend" in answer.text
    assert Ledger("outside", str(ledger_file)).texts() == []


# -- what a session is known by ---------------------------------------------------------------------------------------


def test_a_session_has_its_first_question_for_a_title(ops: OpsAgent) -> None:
    """In one line of at most 80 characters, without secrets, and later questions do not change it."""
    ops.runtime.redactor.add("hunter2-secret")
    speak(ops, Line("Fine."))
    turn = ops.ask("how is\n  the hunter2-secret " + "very " * 40 + "slow shop?")
    assert turn.text == "Fine."
    title = turn.session.title
    assert title.startswith("how is the ")
    assert len(title) <= 80
    assert "hunter2" not in title
    assert ops.ask("and now?").text == "Fine."
    assert ops.session(turn.session_id).title == title
    assert title in set(ops.sessions()["title"])
