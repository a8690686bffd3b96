"""The turn through real provider clients: the wire protocols of OpenAI, Anthropic and Ollama, and how they break."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from opsagent_jupyter.agent import loop, providers
from opsagent_jupyter.agent.providers import close_model, open_model
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


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What AWS tools take from the environment."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)


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
    if provider == "bedrock":
        return open_model("bedrock:eu.anthropic.claude-sonnet-4-20250514-v1:0", base_url=server.url)
    if provider == "google":
        return open_model("google:gemini-test", base_url=server.url, api_key=KEY)
    return open_model("ollama:qwen-test", base_url=server.url)


def turn(
    model: Any,
    gate: Gate,
    *,
    seconds: float = 60,
    transcript: Sequence[Message] = (),
    spent: list[loop.Usage] | None = None,
    **limits: Any,
) -> list[loop.AgentEvent]:
    async def collect() -> list[loop.AgentEvent]:
        events = loop.run(
            model=model,
            tools=tuple(toolbox.tools.values()),
            instances=(SHOP,),
            focus="shop",
            transcript=transcript or [Message(session="s", seq=1, role="user", text="indexes of orders?")],
            dispatch=gate,
            limits=loop.TurnLimits(seconds=seconds, **limits),
            spend=lambda usage: spent.append(usage) if spent is not None else None,
        )
        try:
            return [event async for event in events]
        finally:
            await close_model(model)

    return asyncio.run(collect())


def heard(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation as a server got it."""
    return request.get("messages") or request["contents"]  # type: ignore[no-any-return]


def declared(request: dict[str, Any]) -> set[str]:
    """The names of the tools that a server was told of."""
    listed = request.get("tools") or request["toolConfig"]["tools"]
    tools = [part for tool in listed for part in tool.get("functionDeclarations", [tool])]
    return {tool.get("function", tool.get("toolSpec", tool))["name"] for tool in tools}


ROLES = {
    "openai": ["system", "user", "assistant", "tool"],
    "ollama": ["system", "user", "assistant", "tool"],
    "anthropic": ["user", "assistant", "user"],
    "google": ["user", "model", "user"],
    "bedrock": ["user", "assistant", "user"],
}
each = pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "bedrock", "ollama"])
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
    assert declared(server.requests[0]) == {"postgresql_list_indexes", "postgresql_create_index"}
    assert "orders has two indexes" in str(heard(server.requests[1])[-1])


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
    roles = [message["role"] for message in heard(server.requests[0])]
    assert roles == ROLES[provider]
    assert "index orders_customer_id_idx is valid" in str(heard(server.requests[0])[-1])


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
    if (provider, fault) == (
        "bedrock",
        "empty",
    ):  # its frames have lengths and checksums: its client sees a broken line
        code = "model.unavailable"
    gate = Gate()
    with serving(broken) as server:
        events = turn(opened(server, provider), gate, seconds=1 if fault == "silent" else 60, retries=0)
    last = events[-1]
    assert isinstance(last, loop.Failed)
    assert last.error.code == code, str(last.error)
    assert last.error.hint
    assert KEY not in f"{last.error} {last.error!r} {last.error.__cause__!r} {last.error.facts}"
    assert gate.requests == []


@each
def test_a_provider_that_says_nothing_for_long_is_told_as_that_and_asked_once(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own patience ends, long before the turn's: it is no fault of the person's, and asking again would wait
    as long again."""
    monkeypatch.setattr(providers, "PATIENCE", 1.0)
    monkeypatch.setattr(providers, "_PATIENCES", iter([0.7]))
    with serving(Turn("never heard", silent=4)) as server:
        events = turn(opened(server, provider), Gate())
    error = events[-1].error  # type: ignore[union-attr]
    assert error.code == "model.unavailable"
    assert "did not answer in time" in str(error)
    assert len(server.requests) == 1


@each
def test_a_provider_that_is_too_busy_says_so_and_what_to_do(provider: str) -> None:
    """In words that need no knowledge of HTTP."""
    with serving(Turn(status=429, body="{}")) as server:
        events = turn(opened(server, provider), Gate(), retries=0)
    text = str(events[-1].error)  # type: ignore[union-attr]
    assert "asks to slow down, or the quota is used up" in text
    assert "Wait a little and ask again, or use --model offline" in text


@each
def test_a_server_that_is_not_there_is_unavailable(provider: str) -> None:
    """Nothing listens on that port any more."""
    with serving(Turn("gone")) as server:
        model = opened(server, provider)
    events = turn(model, Gate(), retries=0)
    assert events[-1].error.code == "model.unavailable"  # type: ignore[union-attr]


@each
def test_the_model_never_gets_the_key_in_its_words_and_the_client_sends_it_only_as_a_header(provider: str) -> None:
    """Neither prompt nor transcript holds it."""
    with serving(Turn("Fine.")) as server:
        turn(opened(server, provider), Gate())
    assert KEY not in json.dumps(server.requests)
    sent = [name for name, value in server.headers[0].items() if KEY in value]
    assert len(sent) == (0 if provider in ("ollama", "bedrock") else 1), sent


# -- asking again -----------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_is_busy_or_broken_is_asked_again(provider: str, status: int) -> None:
    """The person only sees the answer that came."""
    with serving(Turn(status=status, body="{}"), Turn("All is well.")) as server:
        events = turn(opened(server, provider), Gate())
    assert isinstance(events[-1], loop.Finished)
    assert len(server.requests) == 2


@each
def test_a_provider_that_stays_broken_is_asked_a_few_times_only(provider: str) -> None:
    """No client of a provider tries again on top of ours."""
    with serving(Turn(status=500, body="{}")) as server:
        events = turn(opened(server, provider), Gate(), retries=1)
    assert events[-1].error.code == "model.unavailable"  # type: ignore[union-attr]
    assert len(server.requests) == 2


@each
def test_what_a_provider_refuses_is_not_asked_again(provider: str) -> None:
    """A wrong key does not get right by trying."""
    with serving(Turn(status=401, body="{}")) as server:
        turn(opened(server, provider), Gate())
    assert len(server.requests) == 1


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_time_that_the_provider_names_is_waited_for(provider: str) -> None:
    """``Retry-After`` goes before our own pause."""
    started = time.monotonic()
    with serving(Turn(status=429, body="{}", headers=(("retry-after", "1.5"),)), Turn("Fine.")) as server:
        events = turn(opened(server, provider), Gate())
    assert isinstance(events[-1], loop.Finished)
    assert time.monotonic() - started >= 1.5


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_time_that_is_longer_than_the_turn_is_said_at_once(provider: str) -> None:
    """Nobody waits an hour for an answer that cannot come any more."""
    with serving(Turn(status=429, body="{}", headers=(("retry-after", "3600"),))) as server:
        events = turn(opened(server, provider), Gate())
    assert "3600 seconds" in str(events[-1].error)  # type: ignore[union-attr]
    assert len(server.requests) == 1


# -- answers that are not whole, and models that do not stop ----------------------------------------------------------


@each
def test_an_answer_without_an_end_is_partial_and_goes_on_when_asked(provider: str) -> None:
    """It is no finished answer; the model reads what it had said and the wish to go on."""
    with serving(Turn("Two indexes are unused, and", stops_after=3)) as server:
        events = turn(opened(server, provider), Gate())
    [said] = [event for event in events if isinstance(event, loop.Said)]
    assert said.partial
    assert said.text.startswith("Two")
    error = events[-1].error  # type: ignore[union-attr]
    assert error.code == ("model.unavailable" if provider == "bedrock" else "model.cut_off")  # as above
    assert "go on" in error.hint or provider == "bedrock"
    transcript = [
        Message(session="s", seq=1, role="user", text="which are unused?"),
        Message(session="s", seq=2, role="assistant", text=said.text, partial=True),
        Message(session="s", seq=3, role="user", text="go on"),
    ]
    with serving(Turn("one is large.")) as server:
        events = turn(opened(server, provider), Gate(), transcript=transcript)
    assert isinstance(events[-1], loop.Finished)
    assert said.text.split()[0] in str(heard(server.requests[0])[-2])
    assert "go on" in str(heard(server.requests[0])[-1])


@each
def test_bad_calls_over_the_wire_are_answered_and_not_run(provider: str) -> None:
    """An unknown tool and a wrong type reach the gate as they are, which refuses them; the turn goes on."""
    gate = Gate()
    calls = (("postgresql_drop_everything", "{}"), ("postgresql_create_index", '{"table": 7, "columns": "a"}'))
    with serving(Turn(calls=calls), Turn("I cannot do that.")) as server:
        events = turn(opened(server, provider), gate)
    assert isinstance(events[-1], loop.Finished | loop.Parked)
    assert sorted(request.tool for request in gate.requests) == [
        "postgresql.create_index",
        "postgresql_drop_everything",
    ]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_malformed_arguments_over_the_wire_are_not_run(provider: str) -> None:
    """Half of a JSON object, as text: the model is told, and the gate is not asked."""
    gate = Gate()
    with serving(Turn(calls=(("postgresql_list_indexes", '{"table": "or'),)), Turn("Sorry.")) as server:
        events = turn(opened(server, provider), gate)
    assert gate.requests == []
    assert isinstance(events[-1], loop.Finished | loop.Failed)


@each
def test_a_model_that_calls_for_ever_is_stopped(provider: str) -> None:
    """The very same call is made three times, then the turn ends with a reason."""
    gate = Gate()
    with serving(Turn(calls=(LOOK,))) as server:
        events = turn(opened(server, provider), gate)
    assert len(gate.requests) == 3
    assert events[-1].error.code == "call.turn_limit"  # type: ignore[union-attr]


# -- tokens -----------------------------------------------------------------------------------------------------------


@each
def test_the_tokens_that_a_provider_counts_are_told(provider: str) -> None:
    """Per asking: what was read and what was written."""
    spent: list[loop.Usage] = []
    with serving(Turn(calls=(LOOK,), tokens=(120, 7)), Turn("Two.", tokens=(200, 11))) as server:
        turn(opened(server, provider), Gate(), spent=spent)
    assert [(one.input_tokens, one.output_tokens, one.estimated) for one in spent] == [(120, 7, 0), (200, 11, 0)]


@each
def test_a_turn_ends_at_its_limit_of_tokens_with_every_call_answered(provider: str) -> None:
    """What was asked for in the last message is still done; the model is not asked again."""
    gate = Gate()
    with serving(Turn(calls=(LOOK,), tokens=(900, 100))) as server:
        events = turn(opened(server, provider), gate, tokens=1000)
    assert len(server.requests) == 1
    assert len(gate.requests) == 1
    assert "its limit of 1000 tokens" in str(events[-1].error)  # type: ignore[union-attr]
    assert any(isinstance(event, loop.ToolSaid) for event in events)
