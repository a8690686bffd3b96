"""Model servers on the loopback that speak the streaming protocols of OpenAI, Anthropic, Google, Bedrock
and Ollama, and break on demand. What a client of OpenAI's sends is held against the provider's rules."""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One answer of a server."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments as JSON text)"""
    status: int = 200
    body: str = ""
    """Sent as it is, in place of a stream."""
    stops_after: int | None = None
    """The connection ends after so many pieces."""
    silent: float = 0.0
    """Seconds before the first byte."""
    pause: float = 0.0
    """Seconds before each piece."""
    headers: tuple[tuple[str, str], ...] = ()
    tokens: tuple[int, int] = (5, 9)
    """(read, written) as the provider counts them."""


@dataclass
class Server:
    """A running server: its address, its script, and what it was asked."""

    url: str
    script: Sequence[Turn] | Callable[[dict[str, Any]], Turn]
    """One answer after the other, the last one again and again; or what answers a request."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was wrong with requests of OpenAI's protocol."""
    hung_up: int = 0
    """Answers whose client was gone before their end."""

    def answer(self, asked: dict[str, Any]) -> Turn:
        """What is said to a request."""
        if callable(self.script):
            return self.script(asked)
        return self.script[min(len(self.requests), len(self.script)) - 1]


def openai_faults(asked: dict[str, Any]) -> Iterator[str]:
    """Where a request breaks the rules of chat completions, stricter than the provider: each call has exactly one answer,
    directly after the message that made it and in its order; roles are right; nothing is empty; ids are used once."""
    messages = asked["messages"]
    declared = {tool["function"]["name"] for tool in asked.get("tools", ())}
    roles = [message["role"] for message in messages]
    if roles[:2] != ["system", "user"] or roles.count("system") != 1:
        yield f"it begins with {roles[:2]}"
    if roles[-1] not in ("user", "tool"):
        yield f"it ends with a message of the {roles[-1]}"
    ids = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    if len(set(ids)) != len(ids):
        yield f"an id of a call is used twice: {ids}"
    open_: list[str] = []
    for place, message in enumerate(messages):
        yield from (f"message {place}: {fault}" for fault in _message_faults(message, open_, declared))
    if open_:
        yield f"nobody answers {open_}"


def _message_faults(message: dict[str, Any], open_: list[str], declared: set[str]) -> Iterator[str]:
    """What is wrong with one message after which the calls in ``open_`` wait for their answers."""
    calls = message.get("tool_calls") or []
    if not message.get("content") and not calls:
        yield "it says nothing"
    if message["role"] == "tool":
        if not open_ or message["tool_call_id"] != open_.pop(0):
            yield f"it answers {message['tool_call_id']}, which is not the next open call"
        return
    if open_:
        yield f"a {message['role']} message comes before the answers to {open_}"
    open_[:] = [call["id"] for call in calls]
    if calls and message["role"] != "assistant":
        yield "only the assistant makes calls"
    for call in calls:
        name = call["function"]["name"]
        if call["type"] != "function" or not re.fullmatch(r"[\w-]{1,64}", name) or name not in declared:
            yield f"there is no function {name!r}"
        if not isinstance(json.loads(call["function"]["arguments"]), dict):
            yield f"the arguments of {name} are no object"


def openai_pieces(turn: Turn, model: str) -> Iterator[bytes]:
    def piece(delta: dict[str, Any], end: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    yield piece({"role": "assistant", "content": ""})
    for word in turn.text.split():
        yield piece({"content": f"{word} "})
    for place, (name, arguments) in enumerate(turn.calls):
        function = {"name": name, "arguments": ""}
        yield piece({"tool_calls": [{"index": place, "id": "call_1", "type": "function", "function": function}]})
        for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield piece({"tool_calls": [{"index": place, "function": {"arguments": half}}]})
    yield piece({}, "tool_calls" if turn.calls else "stop")
    usage = {"prompt_tokens": turn.tokens[0], "completion_tokens": turn.tokens[1], "total_tokens": sum(turn.tokens)}
    last = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [], "usage": usage}
    yield b"data: " + json.dumps(last).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def ollama_pieces(turn: Turn, model: str) -> Iterator[bytes]:
    def piece(message: dict[str, Any], **more: Any) -> bytes:
        body = {"model": model, "created_at": "2026-11-01T00:00:00Z", "done": False, **more}
        return json.dumps({**body, "message": {"role": "assistant", "content": "", **message}}).encode() + b"\n"

    for word in turn.text.split():
        yield piece({"content": f"{word} "})
    for name, arguments in turn.calls:
        yield piece({"tool_calls": [{"function": {"name": name, "arguments": json.loads(arguments)}}]})
    yield piece({}, done=True, done_reason="stop", eval_count=turn.tokens[1], prompt_eval_count=turn.tokens[0])


def google_pieces(turn: Turn, model: str) -> Iterator[bytes]:
    def piece(parts: list[dict[str, Any]], **more: Any) -> bytes:
        usage = {"promptTokenCount": turn.tokens[0], "candidatesTokenCount": turn.tokens[1]}
        usage["totalTokenCount"] = sum(turn.tokens)
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
        body = {"candidates": [candidate], "modelVersion": model, **({"usageMetadata": usage} if more else {})}
        return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"

    for word in turn.text.split():
        yield piece([{"text": f"{word} "}])
    for name, arguments in turn.calls:
        yield piece([{"functionCall": {"name": name, "args": json.loads(arguments)}}])
    yield piece([{"text": ""}], finishReason="STOP")


def bedrock_pieces(turn: Turn, model: str) -> Iterator[bytes]:
    def piece(kind: str, **body: Any) -> bytes:
        names = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
        headers = b"".join(
            struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
            for name, value in names.items()
        )
        payload = json.dumps(body).encode()
        head = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
        message = head + struct.pack("!I", zlib.crc32(head)) + headers + payload
        return message + struct.pack("!I", zlib.crc32(message))

    yield piece("messageStart", role="assistant")
    for word in turn.text.split():
        yield piece("contentBlockDelta", delta={"text": f"{word} "}, contentBlockIndex=0)
    for place, (name, arguments) in enumerate(turn.calls, 1):
        yield piece(
            "contentBlockStart", start={"toolUse": {"toolUseId": "tool_1", "name": name}}, contentBlockIndex=place
        )
        for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield piece("contentBlockDelta", delta={"toolUse": {"input": half}}, contentBlockIndex=place)
        yield piece("contentBlockStop", contentBlockIndex=place)
    yield piece("messageStop", stopReason="tool_use" if turn.calls else "end_turn")
    usage = {"inputTokens": turn.tokens[0], "outputTokens": turn.tokens[1], "totalTokens": sum(turn.tokens)}
    yield piece("metadata", usage=usage, metrics={"latencyMs": 1})


def anthropic_pieces(turn: Turn, model: str) -> Iterator[bytes]:
    def piece(kind: str, **more: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()

    usage = {"input_tokens": turn.tokens[0], "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    yield piece("message_start", message={**message, "stop_reason": None, "stop_sequence": None})
    if turn.text:
        yield piece("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for word in turn.text.split():
            yield piece("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "})
        yield piece("content_block_stop", index=0)
    for place, (name, arguments) in enumerate(turn.calls, int(bool(turn.text))):
        block = {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}}
        yield piece("content_block_start", index=place, content_block=block)
        for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield piece("content_block_delta", index=place, delta={"type": "input_json_delta", "partial_json": half})
        yield piece("content_block_stop", index=place)
    end = {"stop_reason": "tool_use" if turn.calls else "end_turn", "stop_sequence": None}
    yield piece("message_delta", delta=end, usage={"input_tokens": turn.tokens[0], "output_tokens": turn.tokens[1]})
    yield piece("message_stop")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        told: Server = self.server.told
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told.requests.append(asked)
        told.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.path.endswith("/chat/completions"):
            told.faults += openai_faults(asked)
        turn = told.answer(asked)
        time.sleep(turn.silent)
        try:
            if turn.body or turn.status != 200:
                self._whole(turn)
            else:
                self._stream(turn, str(asked.get("model", "gemini-test")))
        except ConnectionError:  # that is what some tests are about
            told.hung_up += 1
        self.close_connection = True

    def _whole(self, turn: Turn) -> None:
        body = turn.body.encode()
        self.send_response(turn.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in turn.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, turn: Turn, model: str) -> None:
        pieces = self._protocol()(turn, model)
        self.send_response(200)
        self.send_header("content-type", self._kind())
        self.send_header("connection", "close")
        self.end_headers()
        for number, piece in enumerate(pieces):
            if number == turn.stops_after:
                return
            time.sleep(turn.pause)
            self.wfile.write(piece)
            self.wfile.flush()

    def _kind(self) -> str:
        if self.path.endswith("/converse-stream"):
            return "application/vnd.amazon.eventstream"
        return "application/x-ndjson" if self.path.startswith("/api/") else "text/event-stream"

    def _protocol(self) -> Callable[[Turn, str], Iterator[bytes]]:
        if self.path.startswith("/api/"):
            return ollama_pieces
        if ":streamGenerateContent" in self.path:
            return google_pieces
        if self.path.endswith("/converse-stream"):
            return bedrock_pieces
        return anthropic_pieces if self.path.endswith("/messages") else openai_pieces

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(*script: Turn, answer: Callable[[dict[str, Any]], Turn] | None = None) -> Iterator[Server]:
    """Run a server for a while: it says what the script has, or what ``answer`` makes of each request."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    told = Server(f"http://127.0.0.1:{server.server_port}", answer or list(script))
    server.told = told
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
