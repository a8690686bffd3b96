"""One turn of the agent: langchain's real loop, a scripted model, and a gate that records what reached it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any, Literal

import httpx
import pytest
from langchain_core.messages import AIMessage, ToolMessage

from opsagent_jupyter.agent import loop
from opsagent_jupyter.agent.loop import ToolRequest, TurnLimits
from opsagent_jupyter.errors import (
    AnswerCutOff,
    InvalidArguments,
    ModelNonsense,
    ModelUnavailable,
    OpsAgentError,
    StoreFull,
    TurnLimit,
)
from opsagent_jupyter.models import CallRecord, CallStatus, Instance, Message, Plan, Result, Risk
from opsagent_jupyter.plugin import Arg, Tool, Toolbox
from opsagent_jupyter.testing.models import Line, ScriptedModel

toolbox = Toolbox("postgresql", version="1")
SHOP = Instance(name="shop", server="demo", plugin="postgresql")
BILLING = Instance(name="billing", server="demo", plugin="postgresql")


@toolbox.read(phrases=("show the indexes of {table}",))
async def list_indexes(db: Any, table: Annotated[str, Arg("table name", slot="table")] = "") -> Result:
    """List indexes with their usage."""
    raise AssertionError("langchain ran a tool by itself")


@toolbox.change(Risk.MEDIUM, phrases=("create an index on {table} for {columns}",))
async def create_index(
    db: Any,
    table: Annotated[str, Arg("table name", slot="table")],
    columns: Annotated[list[str], Arg("columns, in order", slot="columns")],
    how: Annotated[Literal["concurrently", "plain"], Arg("locking")] = "concurrently",
) -> Plan:
    """Create an index."""
    raise AssertionError("langchain ran a tool by itself")


TOOLS = tuple(toolbox.tools.values())


class Recorder:
    """A gate that validates as the executor does, runs nothing, and remembers every call that reached it."""

    def __init__(self, *, answers: Sequence[str] = (), pause: float = 0, error: OpsAgentError | None = None) -> None:
        self.requests: list[ToolRequest] = []
        self.pause = pause
        self.error = error
        self.cancelled = 0
        self.found = answers or ("two indexes",)

    async def __call__(self, request: ToolRequest) -> CallRecord:
        self.requests.append(request)
        try:
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        tool = toolbox.tools.get(request.tool.rpartition(".")[2])
        if tool is None or tool.full_name != request.tool:
            return self.record(request, "refused", summary="there is no such tool", requested=request.tool)
        try:
            tool.parse(request.arguments)
        except InvalidArguments as error:
            return self.record(request, "refused", summary=str(error), error_code=error.code)
        if tool.changes:
            return self.record(request, "waiting", approval=f"approval-{len(self.requests)}")
        return self.record(
            request, "succeeded", result=Result(summary=self.found[min(len(self.requests), len(self.found)) - 1])
        )

    def record(self, request: ToolRequest, status: CallStatus, **values: Any) -> CallRecord:
        known: dict[str, Any] = {"risk": Risk.LOW, "summary": "", **values}
        return CallRecord(
            id=request.id, tool=request.tool, arguments=request.arguments, instance=request.on, status=status, **known
        )


def said(text: str) -> list[Message]:
    return [Message(session="s", seq=1, role="user", text=text)]


def turn(
    model: Any,
    gate: Recorder,
    *,
    transcript: Sequence[Message] = (),
    instances: Sequence[Instance] = (SHOP,),
    tools: Sequence[Tool] = TOOLS,
    limits: TurnLimits = TurnLimits(),  # noqa: B008  frozen
    focus: str = "shop",
    caps: loop.Caps = loop.Caps(),  # noqa: B008  frozen
) -> list[loop.AgentEvent]:
    async def collect() -> list[loop.AgentEvent]:
        events = loop.run(
            model=model,
            tools=tools,
            instances=instances,
            focus=focus,
            transcript=transcript or said("hello"),
            dispatch=gate,
            limits=limits,
            caps=caps,
        )
        return [event async for event in events]

    return asyncio.run(collect())


def of(kind: type, events: Sequence[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_an_answer_streams_is_said_once_and_finishes_the_turn() -> None:
    """Text arrives in pieces, then whole, then the turn ends with it."""
    events = turn(ScriptedModel(Line("All is well here.")), Recorder())
    assert "".join(event.text for event in of(loop.TextDelta, events)) == "All is well here."
    assert [event.text for event in of(loop.Said, events)] == ["All is well here."]
    assert events[-1] == loop.Finished("All is well here.")


def test_a_model_that_does_not_stream_is_heard_as_well() -> None:
    """A client without streaming gives its text in one piece, and its calls are made."""
    gate = Recorder()
    script = (Line("Looking.", calls=(("postgresql_list_indexes", {"table": "orders"}),)), Line("Two."))
    events = turn(ScriptedModel(*script, disable_streaming=True), gate)
    assert [event.text for event in of(loop.TextDelta, events)] == ["Looking.", "Two."]
    assert [request.arguments for request in gate.requests] == [{"table": "orders"}]


def test_every_call_goes_through_dispatch_and_its_answer_back_to_the_model() -> None:
    """The gate gets full name, arguments and database; the model reads the fenced result."""
    gate = Recorder()
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {"table": "orders"}),)), Line("Two indexes."))
    events = turn(model, gate)
    [request] = gate.requests
    assert (request.tool, request.arguments, request.on) == ("postgresql.list_indexes", {"table": "orders"}, "shop")
    kinds = [type(event).__name__ for event in events if not isinstance(event, loop.TextDelta)]
    assert kinds == ["Said", "Called", "Answered", "ToolSaid", "Said", "Finished"]
    answer = model.read[1][-1]
    assert isinstance(answer, ToolMessage)
    assert "two indexes" in str(answer.text)
    assert answer.tool_call_id == request.id


def test_tools_are_declared_without_a_function_and_in_the_names_models_may_write() -> None:
    """Declarations are bare schemas: no title, no key of ours, no way to run anything."""
    model = ScriptedModel(Line("ok"))
    turn(model, Recorder())
    declared = {entry["function"]["name"]: entry["function"] for entry in model.declared}
    assert set(declared) == {"postgresql_list_indexes", "postgresql_create_index"}
    schema = declared["postgresql_create_index"]["parameters"]
    assert schema["required"] == ["table", "columns"]
    assert "x-slot" not in str(schema)
    assert "title" not in schema
    assert "on" not in schema["properties"]
    assert "person approved" in declared["postgresql_create_index"]["description"]


def test_with_two_databases_a_call_says_which_and_the_one_in_focus_is_the_default() -> None:
    """``on`` is offered as a choice, is taken out of the arguments, and falls back to the focus."""
    gate = Recorder()
    calls = (("postgresql_list_indexes", {"on": "billing"}), ("postgresql_list_indexes", {}))
    model = ScriptedModel(Line(calls=calls), Line("done"))
    turn(model, gate, instances=(SHOP, BILLING))
    assert model.declared[0]["function"]["parameters"]["properties"]["on"]["enum"] == ["shop", "billing"]
    assert sorted(request.on for request in gate.requests) == ["billing", "shop"]
    assert all("on" not in request.arguments for request in gate.requests)


def test_without_focus_a_call_that_names_no_database_is_asked_back_not_passed_on() -> None:
    """Which database is never guessed."""
    gate = Recorder()
    events = turn(
        ScriptedModel(Line(calls=(("postgresql_list_indexes", {}),)), Line("which one?")),
        gate,
        instances=(SHOP, BILLING),
        focus="",
    )
    assert gate.requests == []
    assert "say which database" in of(loop.ToolSaid, events)[0].text


def test_a_call_that_waits_parks_the_turn_and_the_model_is_not_asked_again() -> None:
    """The turn ends with the request's id; no tool message is stored for the waiting call."""
    gate = Recorder()
    model = ScriptedModel(Line(calls=(("postgresql_create_index", {"table": "orders", "columns": ["customer_id"]}),)))
    events = turn(model, gate)
    assert events[-1] == loop.Parked(("approval-1",))
    assert of(loop.ToolSaid, events) == []
    assert len(model.read) == 1


def test_siblings_of_a_waiting_call_finish_before_the_turn_parks() -> None:
    """A read beside a change is answered and stored; both changes are asked for; then the turn ends."""
    change = {"table": "orders", "columns": ["customer_id"]}
    calls = (
        ("postgresql_create_index", change),
        ("postgresql_list_indexes", {"table": "orders"}),
        ("postgresql_create_index", {**change, "columns": ["created_at"]}),
    )
    gate = Recorder(pause=0.02)
    events = turn(ScriptedModel(Line(calls=calls)), gate)
    assert isinstance(events[-1], loop.Parked)
    assert len(events[-1].approvals) == 2
    assert len(of(loop.Answered, events)) == 3
    assert len(of(loop.ToolSaid, events)) == 1


def test_a_turn_resumes_from_a_transcript_that_ends_in_tool_messages() -> None:
    """The model reads question, call and outcome in a valid order and goes on from there; nothing is run again."""
    gate = Recorder()
    parked = turn(
        ScriptedModel(Line(calls=(("postgresql_create_index", {"table": "orders", "columns": ["a"]}),))), gate
    )
    [request] = gate.requests
    record = gate.record(request, "succeeded", summary="index orders_a_idx is valid")
    transcript = [
        *said("create it"),
        Message(session="s", seq=2, role="assistant", calls=(gate.record(request, "running"),)),
        Message(session="s", seq=3, role="tool", call=request.id, text=loop.tool_text(record)),
    ]
    model = ScriptedModel(lambda messages: Line(f"It is there: {messages[-1].status}"))
    events = turn(model, gate, transcript=transcript)
    assert isinstance(parked[-1], loop.Parked)
    assert events[-1] == loop.Finished("It is there: success")
    assert [type(message).__name__ for message in model.read[0]] == [
        "SystemMessage", "HumanMessage", "AIMessage", "ToolMessage",
    ]  # fmt: skip
    assert len(gate.requests) == 1


def test_a_transcript_that_ends_in_an_answer_is_not_answered_again() -> None:
    """Two hosts that resume one after the other do not ask for the same change twice."""
    transcript = [*said("create it"), Message(session="s", seq=2, role="assistant", text="Done.")]
    model = ScriptedModel(Line("never said"))
    assert turn(model, Recorder(), transcript=transcript) == [loop.Finished("Done.")]
    assert model.read == []


def test_a_resumed_turn_may_park_again() -> None:
    """The next change after an outcome waits like the first."""
    gate = Recorder()
    request = ToolRequest("m_0", "postgresql.create_index", {"table": "orders", "columns": ["a"]}, "shop")
    done = loop.tool_text(gate.record(request, "succeeded", summary="done"))
    transcript = [
        *said("two indexes please"),
        Message(session="s", seq=2, role="assistant", calls=(gate.record(request, "running"),)),
        Message(session="s", seq=3, role="tool", call="m_0", text=done),
    ]
    model = ScriptedModel(Line(calls=(("postgresql_create_index", {"table": "orders", "columns": ["b"]}),)))
    assert isinstance(turn(model, gate, transcript=transcript)[-1], loop.Parked)


@pytest.mark.parametrize(
    "arguments",
    ['{"table": "or', '{"table": }', "[1, 2]", '"orders"', "{} {}", '{"table": NaN}', "{'table': 'orders'}"],
)
def test_malformed_arguments_are_answered_as_an_error_and_never_reach_the_gate(arguments: str) -> None:
    """What is no JSON object is no call, also where the client library would have completed it."""
    gate = Recorder()
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", arguments),)), Line("sorry"))
    events = turn(model, gate)
    assert gate.requests == []
    assert of(loop.ToolSaid, events)[0].text.startswith("not run: ")
    answer = model.read[1][-1]
    assert isinstance(answer, ToolMessage)
    assert answer.status == "error"
    assert events[-1] == loop.Finished("sorry")


@pytest.mark.parametrize("ends", ["", "length", "max_tokens", "content_filter"])
def test_no_call_of_a_message_that_was_cut_off_is_made(ends: str) -> None:
    """Even when its arguments happen to be valid JSON: more may have been meant to follow."""
    gate = Recorder()
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {"table": "orders"}),), ends=ends), Line("again?"))
    events = turn(model, gate)
    assert gate.requests == []
    assert "not run" in of(loop.ToolSaid, events)[0].text


def test_an_unknown_tool_and_a_wrong_type_are_refusals_that_the_model_reads() -> None:
    """They go to the gate as written, which refuses and records them; the turn goes on."""
    gate = Recorder()
    calls = (("postgresql_drop_everything", {}), ("postgresql_create_index", {"table": 7, "columns": "a"}))
    model = ScriptedModel(Line(calls=calls), Line("I cannot do that."))
    events = turn(model, gate)
    assert [record.record.status for record in of(loop.Answered, events)] == ["refused", "refused"]
    assert events[-1] == loop.Finished("I cannot do that.")
    assert all(message.status == "error" for message in model.read[1][-2:] if isinstance(message, ToolMessage))


def test_ids_are_ours_so_a_model_that_repeats_its_ids_collides_with_nothing() -> None:
    """``call_1`` twice in one message and again in the next are three different calls."""
    gate = Recorder()
    pair = tuple(("postgresql_list_indexes", {"table": name}) for name in ("a", "b"))
    script = (Line(calls=pair, ids=("call_1", "call_1")), Line(calls=pair[:1], ids=("call_1",)), Line("done"))
    turn(ScriptedModel(*script), gate)
    ids = [request.id for request in gate.requests]
    assert len(set(ids)) == 3
    assert all("call_1" not in id_ and len(id_) <= 40 for id_ in ids)


def test_the_very_same_call_is_run_three_times_at_most_and_then_ends_the_turn() -> None:
    """A model in a circle is told once that the answer stays the same, and then stopped."""
    gate = Recorder()
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {"table": "orders"}),)))
    events = turn(model, gate)
    assert len(gate.requests) == 3
    assert isinstance(events[-1], loop.Failed)
    assert isinstance(events[-1].error, TurnLimit)
    assert "over and over" in str(events[-1].error)


def test_a_turn_ends_at_its_limit_of_calls_with_every_call_answered() -> None:
    """Different calls without end are cut at the limit, and the transcript stays whole."""
    gate = Recorder()
    counter = iter(range(100))
    model = ScriptedModel(lambda _: Line(calls=(("postgresql_list_indexes", {"table": f"t{next(counter)}"}),)))
    events = turn(model, gate, limits=TurnLimits(calls=5))
    asked = {request.id for event in of(loop.Said, events) for request in event.calls}
    assert len(gate.requests) == 5
    assert asked == {event.call_id for event in of(loop.ToolSaid, events)}
    assert isinstance(events[-1].error, TurnLimit)


def test_a_hundred_calls_in_one_message_are_cut_to_the_limit() -> None:
    """What exceeds the limit is neither run nor stored."""
    gate = Recorder()
    calls = tuple(("postgresql_list_indexes", {"table": f"t{number}"}) for number in range(100))
    events = turn(ScriptedModel(Line(calls=calls)), gate)
    assert len(gate.requests) == 20
    assert len(of(loop.Said, events)[0].calls) == 20
    assert isinstance(events[-1].error, TurnLimit)


@pytest.mark.parametrize(
    "line",
    [
        Line(calls=(("postgresql_list_indexes", {}),) * 10_000),
        Line("word " * 100_000),
        Line(calls=(("postgresql_list_indexes", {"table": "x" * 500_000}),)),
    ],
    ids=["calls", "text", "argument"],
)
def test_a_message_without_end_is_broken_off_while_it_is_sent(line: Line) -> None:
    """Neither ten thousand calls nor megabytes of text keep the kernel busy; nothing is run."""
    gate = Recorder()
    events = turn(ScriptedModel(line), gate)
    assert gate.requests == []
    assert isinstance(events[-1].error, ModelNonsense)


def test_a_turn_ends_at_its_limit_of_time_and_the_running_call_is_cancelled() -> None:
    """The call's task is cancelled, so that the executor can cancel the statement; the open call is answered."""
    gate = Recorder(pause=30)
    events = turn(
        ScriptedModel(Line("Looking.", calls=(("postgresql_list_indexes", {}),))), gate, limits=TurnLimits(seconds=0.3)
    )
    assert gate.cancelled == 1
    assert len(of(loop.ToolSaid, events)) == 1
    assert "0.3 seconds" in str(events[-1].error)


def test_a_model_that_stays_silent_in_mid_sentence_leaves_its_text_as_partial() -> None:
    """What was said before the limit is kept and marked."""
    events = turn(ScriptedModel(Line("One two three four", pause=0.15)), Recorder(), limits=TurnLimits(seconds=0.35))
    [partial] = of(loop.Said, events)
    assert partial.partial
    assert partial.text.startswith("One ")
    assert isinstance(events[-1].error, TurnLimit)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (httpx.ConnectError("refused"), "model.unavailable"),
        (httpx.ReadTimeout("slow"), "model.unavailable"),
        (KeyError("choices"), "model.nonsense"),
        (ModelUnavailable("down"), "model.unavailable"),
    ],
)
def test_a_provider_that_breaks_ends_the_turn_with_one_of_our_errors_and_keeps_the_text(
    raised: Exception, code: str
) -> None:
    """Whatever a client raises in the middle of a message, the turn ends in a defined state."""
    events = turn(ScriptedModel(Line("Half an ans", error=raised)), Recorder())
    assert of(loop.Said, events)[0].partial
    assert isinstance(events[-1], loop.Failed)
    assert events[-1].error.code == code


@pytest.mark.parametrize("ends", ["", "length", "max_tokens", "content_filter"])
def test_an_answer_that_was_cut_off_does_not_finish_the_turn(ends: str) -> None:
    """It is kept as partial, and the person is told how to go on."""
    events = turn(ScriptedModel(Line("Half an answer, and", ends=ends)), Recorder())
    [said_] = of(loop.Said, events)
    assert said_.partial
    assert isinstance(events[-1].error, AnswerCutOff)
    assert "go on" in str(events[-1].error)


def test_a_session_over_its_budget_is_not_answered_and_says_why() -> None:
    """The model is not asked even once; the tokens of earlier turns count."""
    model = ScriptedModel(Line("never said"))
    events = turn(model, Recorder(), limits=TurnLimits(session_tokens=1000, spent=1000))
    assert model.read == []
    assert "OPSAGENT_SESSION_TOKENS" in str(events[-1].error)


def test_a_model_that_does_not_count_is_guessed_high() -> None:
    """A budget holds for it, too: what is not known is rounded up."""
    counter = iter(range(100))
    gate = Recorder()
    model = ScriptedModel(lambda _: Line(calls=(("postgresql_list_indexes", {"table": f"t{next(counter)}"}),)))
    events = turn(model, gate, limits=TurnLimits(tokens=1500))
    assert 1 <= len(gate.requests) < 5
    assert "1500 tokens" in str(events[-1].error)


def test_an_empty_answer_is_nonsense_not_success() -> None:
    """Neither text nor a call: the person is told so."""
    events = turn(ScriptedModel(Line("  ")), Recorder())
    assert isinstance(events[-1].error, ModelNonsense)


def test_when_the_gate_itself_cannot_work_the_turn_fails() -> None:
    """No audit, no operation: the model is not asked to go on after that."""
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {}),)), Line("never said"))
    events = turn(model, Recorder(error=StoreFull()))
    assert isinstance(events[-1].error, StoreFull)
    assert len(model.read) == 1
    assert len(of(loop.ToolSaid, events)) == 1


def test_a_refusal_that_is_raised_is_an_answer_like_any_other() -> None:
    """A gate that raises a refusal, not returns it, ends no turn."""
    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {}),)), Line("I see."))
    events = turn(model, Recorder(error=InvalidArguments("no such column")))
    assert events[-1] == loop.Finished("I see.")
    assert "call.invalid_arguments" in of(loop.ToolSaid, events)[0].text


def test_a_bug_in_the_gate_is_not_swallowed() -> None:
    """An error that is none of ours reaches the host, which logs it."""

    async def broken(request: ToolRequest) -> CallRecord:
        raise ZeroDivisionError

    model = ScriptedModel(Line(calls=(("postgresql_list_indexes", {}),)))
    with pytest.raises(ZeroDivisionError):
        turn(model, broken)  # type: ignore[arg-type]


def cancelled_while(model: Any, gate: Recorder, reached: Callable[[Any], bool]) -> list[loop.AgentEvent]:
    async def scenario() -> list[loop.AgentEvent]:
        seen: list[loop.AgentEvent] = []
        ready = asyncio.Event()

        async def read() -> None:
            async for event in loop.run(
                model=model, tools=TOOLS, instances=(SHOP,), focus="shop", transcript=said("hi"), dispatch=gate
            ):
                seen.append(event)
                if reached(event):
                    ready.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(ready.wait(), 5)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []
        return seen

    return asyncio.run(scenario())


def test_cancelling_in_mid_answer_leaves_the_text_so_far_and_no_task_behind() -> None:
    """The reader has the pieces; nothing goes on in the background."""
    seen = cancelled_while(
        ScriptedModel(Line("one two three four five six", pause=0.04)),
        Recorder(),
        lambda event: isinstance(event, loop.TextDelta),
    )
    text = "".join(event.text for event in of(loop.TextDelta, seen))
    assert text.startswith("one ")
    assert of(loop.Said, seen) == []


def test_cancelling_in_a_call_cancels_the_call() -> None:
    """The gate sees the cancellation, and can pass it to the database."""
    gate = Recorder(pause=30)
    cancelled_while(
        ScriptedModel(Line(calls=(("postgresql_list_indexes", {}),))),
        gate,
        lambda event: isinstance(event, loop.Called),
    )
    assert gate.cancelled == 1


def test_what_is_said_is_stored_before_its_calls_are_made() -> None:
    """The reader is done with a message before the gate gets its first call."""
    order: list[str] = []

    async def gate(request: ToolRequest) -> CallRecord:
        order.append("call")
        return Recorder().record(request, "succeeded", summary="ok")

    async def scenario() -> None:
        model = ScriptedModel(Line("Looking.", calls=(("postgresql_list_indexes", {}),)), Line("done"))
        async for event in loop.run(
            model=model, tools=TOOLS, instances=(SHOP,), focus="shop", transcript=said("hi"), dispatch=gate
        ):
            if isinstance(event, loop.Said | loop.ToolSaid):
                await asyncio.sleep(0.02)
                order.append("stored")

    asyncio.run(scenario())
    assert order == ["stored", "call", "stored", "stored"]


TRACED = """
import asyncio
from opsagent_jupyter.agent import loop
from opsagent_jupyter.models import Message
from opsagent_jupyter.testing.models import Line, ScriptedModel

async def main():
    said = [Message(session="s", seq=1, role="user", text="a secret question")]
    events = loop.run(model=ScriptedModel(Line("fine")), tools=(), instances=(), focus="", transcript=said, dispatch=None)
    print([type(event).__name__ async for event in events][-1])

asyncio.run(main())
"""


def test_nothing_is_traced_whatever_the_environment_says() -> None:
    """A person who traces their own work to a service does not send their databases along."""
    reached: list[str] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_error(404)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        traced = {
            "LANGSMITH_TRACING": "true",
            "LANGSMITH_API_KEY": "not-a-key",
            "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{service.server_port}",
        }
        done = subprocess.run(
            [sys.executable, "-c", TRACED], env={**os.environ, **traced}, capture_output=True, text=True, check=True
        )
        service.shutdown()
        thread.join(5)
    assert done.stdout.strip() == "Finished"
    assert reached == []


def test_the_prompt_names_the_databases_and_never_a_connection() -> None:
    """Name, kind, environment and rights are told; settings are not."""
    model = ScriptedModel(Line("ok"))
    instance = SHOP.model_copy(update={"read_only": True, "settings": {"host": "db7.internal", "user": "app"}})
    turn(model, Recorder(), instances=(instance,))
    prompt = str(model.read[0][0].text)
    assert "shop: postgresql on server demo, production, read-only" in prompt
    assert "db7.internal" not in prompt


def test_content_blocks_of_calls_are_dropped_so_that_ids_agree() -> None:
    """Some clients keep a call's block in the content too; it would name the model's own id."""
    blocks = [{"type": "text", "text": "Looking."}, {"type": "tool_use", "id": "toolu_1", "name": "x", "input": {}}]
    from opsagent_jupyter.agent.replies import settled, wishes

    message = AIMessage(content=blocks, tool_calls=[{"id": "toolu_1", "name": "x", "args": {}}])
    taken = wishes(message, None, "m")
    kept = settled(message, taken)
    assert kept.content == [{"type": "text", "text": "Looking."}]
    assert [call["id"] for call in kept.tool_calls] == ["m_0"]
