"""The turn through real provider clients: the wire protocols of OpenAI, Anthropic and Ollama, and how they break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from opsagent_jupyter.agent import loop
from opsagent_jupyter.agent.providers import open_model
from opsagent_jupyter.models import CallRecord, Instance, Message, Plan, Result, Risk
from opsagent_jupyter.plugin import Arg, Toolbox
from tests.model_server import Server, Turn, serving

toolbox = Toolbox("postgresql", version="1")
SHOP = Instance(name="shop", server="demo", plugin="postgresql")
KEY = "sk-test-0123456789abcdef0123456789"


@toolbox.read(phrases=("show the indexes of {table}",))
async def list_indexes(db: Any, table: Annotated[str, Arg("table name", slot="table")] = "") -> Result:
    """List indexes with their usage."""
    raise AssertionError("langchain ran a tool by itself")


@toolbox.change(Risk.MEDIUM, phrases=("create an index on {table} for {columns}",))
async def create_index(
    db: Any,
    table: Annotated[str, Arg("table name", slot="table")],
    columns: Annotated[list[str], Arg("columns, in order", slot="columns")],
) -> Plan:
    """Create an index."""
    raise AssertionError("langchain ran a tool by itself")


class Gate:
    """Answers reads, parks changes, counts both."""

    def __init__(self) -> None:
        self.requests: list[loop.ToolRequest] = []

    async def __call__(self, request: loop.ToolRequest) -> CallRecord:
        self.requests.append(request)
        waits = request.tool.endswith("create_index")
        return CallRecord(
            id=request.id,
            tool=request.tool,
            arguments=request.arguments,
            instance=request.on,
            risk=Risk.LOW,
            status="waiting" if waits else "succeeded",
            approval="abcdef0123456789" if waits else "",
            result=None if waits else Result(summary="orders has two indexes"),
        )


def opened(server: Server, provider: str) -> Any:
    if provider == "openai":
        return open_model("openai:gpt-test", base_url=f"{server.url}/v1", api_key=KEY)
    if provider == "anthropic":
        return open_model("anthropic:claude-test", base_url=server.url, api_key=KEY)
    return open_model("ollama:qwen-test", base_url=server.url)


def turn(model: Any, gate: Gate, *, seconds: float = 20, transcript: Sequence[Message] = ()) -> list[loop.AgentEvent]:
    async def collect() -> list[loop.AgentEvent]:
        events = loop.run(
            model=model,
            tools=tuple(toolbox.tools.values()),
            instances=(SHOP,),
            focus="shop",
            transcript=transcript or [Message(session="s", seq=1, role="user", text="indexes of orders?")],
            dispatch=gate,
            limits=loop.TurnLimits(seconds=seconds),
        )
        try:
            return [event async for event in events]
        finally:
            await closed(model)

    return asyncio.run(collect())


async def closed(model: Any) -> None:
    """End a client's connections before its event loop ends."""
    if hasattr(model, "root_async_client"):
        await model.root_async_client.close()
    elif model._llm_type.startswith("anthropic"):
        await model._async_client.close()
    else:
        await model._async_client._client.aclose()


each = pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
LOOK = ("postgresql_list_indexes", '{"table": "orders"}')
CHANGE = ("postgresql_create_index", '{"table": "orders", "columns": ["customer_id"]}')


@each
def test_a_call_an_answer_and_the_text_travel_over_the_wire(provider: str) -> None:
    """Tools are declared, the split arguments arrive whole, the result goes back, the answer streams."""
    gate = Gate()
    with serving(Turn(calls=(LOOK,)), Turn("Two indexes there.")) as server:
        events = turn(opened(server, provider), gate)
    assert [(request.tool, request.arguments) for request in gate.requests] == [
        ("postgresql.list_indexes", {"table": "orders"})
    ]
    assert isinstance(events[-1], loop.Finished)
    assert events[-1].text.strip() == "Two indexes there."
    assert sum(isinstance(event, loop.TextDelta) for event in events) >= 3
    declared = {entry.get("function", entry)["name"] for entry in server.requests[0]["tools"]}
    assert declared == {"postgresql_list_indexes", "postgresql_create_index"}
    told = server.requests[1]["messages"][-1]
    assert told["role"] == ("user" if provider == "anthropic" else "tool")
    assert "orders has two indexes" in str(told["content"])


@each
def test_a_change_parks_and_a_new_process_resumes_it_from_the_transcript(provider: str) -> None:
    """What the second server reads is a valid history: question, call, outcome."""
    gate = Gate()
    with serving(Turn(calls=(CHANGE,))) as server:
        events = turn(opened(server, provider), gate)
    assert events[-1] == loop.Parked(("abcdef0123456789",))
    [request] = gate.requests
    asked = CallRecord(
        id=request.id,
        tool=request.tool,
        arguments=request.arguments,
        instance="shop",
        risk=Risk.MEDIUM,
        status="running",
    )
    outcome = asked.model_copy(update={"status": "succeeded", "summary": "index orders_customer_id_idx is valid"})
    transcript = [
        Message(session="s", seq=1, role="user", text="create it"),
        Message(session="s", seq=2, role="assistant", calls=(asked,)),
        Message(session="s", seq=3, role="tool", call=request.id, text=loop.tool_text(outcome)),
    ]
    with serving(Turn("It is there.")) as server:
        events = turn(opened(server, provider), Gate(), transcript=transcript)
    assert isinstance(events[-1], loop.Finished)
    roles = [message["role"] for message in server.requests[0]["messages"]]
    assert roles == (
        ["user", "assistant", "user"] if provider == "anthropic" else ["system", "user", "assistant", "tool"]
    )
    assert "index orders_customer_id_idx is valid" in str(server.requests[0]["messages"][-1]["content"])


def test_an_openai_stream_that_ends_early_makes_no_call() -> None:
    """Half of the arguments, or all of them without the end mark: neither is run."""
    for pieces in (3, 4):
        gate = Gate()
        with serving(Turn(calls=(LOOK,), stops_after=pieces), Turn("Once more?")) as server:
            events = turn(opened(server, "openai"), gate)
        assert gate.requests == [], pieces
        assert isinstance(events[-1], loop.Finished), pieces


def test_an_anthropic_stream_that_ends_early_makes_no_call() -> None:
    """Half of the arguments, all of them without the end, and the end without its mark."""
    for pieces in (3, 4, 5):
        gate = Gate()
        with serving(Turn(calls=(LOOK,), stops_after=pieces), Turn("Once more?")) as server:
            events = turn(opened(server, "anthropic"), gate)
        assert gate.requests == [], pieces
        assert isinstance(events[-1], loop.Finished | loop.Failed), pieces


def test_an_ollama_stream_that_ends_early_makes_no_call() -> None:
    """The call came, the end mark did not."""
    gate = Gate()
    with serving(Turn(calls=(LOOK,), stops_after=1), Turn("Once more?")) as server:
        events = turn(opened(server, "ollama"), gate)
    assert gate.requests == []
    assert isinstance(events[-1], loop.Finished | loop.Failed)


FAULTS = {
    "wrong key": (
        Turn(status=401, body=json.dumps({"error": {"message": f"Incorrect key {KEY}"}})),
        "model.unavailable",
    ),
    "forbidden": (Turn(status=403, body="{}"), "model.unavailable"),
    "no such model": (
        Turn(status=404, body=json.dumps({"error": {"message": "model gpt-test not found"}})),
        "model.refused",
    ),
    "bad request": (Turn(status=400, body=json.dumps({"error": {"message": "bad tool schema"}})), "model.refused"),
    "too long": (
        Turn(status=400, body=json.dumps({"error": {"message": "maximum context length is 8192 tokens"}})),
        "model.refused",
    ),
    "too fast": (Turn(status=429, body=json.dumps({"error": {"message": "rate limit"}})), "model.unavailable"),
    "server fault": (Turn(status=500, body="<html>oops</html>"), "model.unavailable"),
    "overloaded": (Turn(status=503, body=""), "model.unavailable"),
    "no JSON": (Turn(body="Have a nice day"), "model.nonsense"),
    "empty": (Turn(body="{}"), "model.nonsense"),
    "silent": (Turn("never heard", silent=3), "call.turn_limit"),
}


@each
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_provider_ends_the_turn_in_plain_words_without_the_key(provider: str, fault: str) -> None:
    """A stable code, a sentence, a hint; no traceback, no key, nothing run."""
    broken, code = FAULTS[fault]
    gate = Gate()
    with serving(broken) as server:
        events = turn(opened(server, provider), gate, seconds=1 if fault == "silent" else 30)
    last = events[-1]
    assert isinstance(last, loop.Failed)
    assert last.error.code == code, str(last.error)
    assert last.error.hint
    assert KEY not in f"{last.error} {last.error!r} {last.error.__cause__!r} {last.error.facts}"
    assert gate.requests == []


@each
def test_a_server_that_is_not_there_is_unavailable(provider: str) -> None:
    """Nothing listens on that port any more."""
    with serving(Turn("gone")) as server:
        model = opened(server, provider)
    events = turn(model, Gate())
    assert events[-1].error.code == "model.unavailable"  # type: ignore[union-attr]


@each
def test_the_model_never_gets_the_key_in_its_words_and_the_client_sends_it_only_as_a_header(provider: str) -> None:
    """Neither prompt nor transcript holds it."""
    with serving(Turn("Fine.")) as server:
        turn(opened(server, provider), Gate())
    assert KEY not in json.dumps(server.requests)
    sent = [name for name, value in server.headers[0].items() if KEY in value]
    assert len(sent) == (0 if provider == "ollama" else 1), sent
