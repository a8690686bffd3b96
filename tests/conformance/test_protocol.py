"""The protocol is one: pydantic, the committed schema, the golden files and the wire agree."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from opsagent_jupyter import protocol
from opsagent_jupyter.errors import ProtocolError, UnknownMessage, VersionMismatch
from opsagent_jupyter.models import Result, Table

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "js/src/protocol/schema.json"
GOLDEN = Path(__file__).parent / "protocol"
GOOD = sorted((GOLDEN / "good").glob("*.json"))
BAD = sorted((GOLDEN / "bad").glob("*.json"))


def parse(text: str) -> protocol.Command | protocol.Event:
    content = json.loads(text)
    is_command = isinstance(content, dict) and "command" in content
    return protocol.parse_command(text) if is_command else protocol.parse_event(text)


def types(union: object) -> set[str]:
    members = get_args(get_args(union)[0])
    return {member.model_fields["type"].default for member in members}


def test_the_committed_schema_is_what_the_models_say():
    """Whoever changes a message runs ``python -m opsagent_jupyter.protocol`` and ``npm run protocol``."""
    assert SCHEMA.read_text("utf-8") == protocol.schema_text()


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_is_read_and_said_again_unchanged(path: Path):
    """Reading a message and sending it on loses nothing and adds nothing."""
    text = path.read_text("utf-8")
    message = parse(text)
    said = (
        protocol.envelope(message)  # type: ignore[arg-type]
        if "event" in json.loads(text)
        else {"v": protocol.WIRE, "command": json.loads(message.model_dump_json())}
    )
    assert said == json.loads(text)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused(path: Path):
    """A message that is not exactly what it should be is refused, with what to do."""
    with pytest.raises(ProtocolError) as refusal:
        parse(path.read_text("utf-8"))
    assert refusal.value.hint


@pytest.mark.parametrize(("union", "side"), [(protocol.Command, "command"), (protocol.Event, "event")])
def test_every_message_has_a_golden_file(union: object, side: str):
    """A new kind of message cannot be added without an example that both languages read."""
    seen = {
        content[side]["type"] for content in map(json.loads, (p.read_text("utf-8") for p in GOOD)) if side in content
    }
    assert seen == types(union)


def test_a_refusal_never_repeats_what_was_sent():
    """A password that was typed into the wrong field must not come back in an error."""
    text = json.dumps(
        {"v": 1, "command": {"type": "chat:join", "session": "hunter2-secret", "since": "hunter2-secret"}}
    )
    with pytest.raises(ProtocolError) as refusal:
        protocol.parse_command(text)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"v": 2, "command": {"type": "approval:subscribe"}}', VersionMismatch),
        ('{"v": 1, "command": {"type": "chat:shout"}}', UnknownMessage),
        ("not json", ProtocolError),
        ("", ProtocolError),
    ],
)
def test_what_is_wrong_has_its_own_code(text: str, error: type[ProtocolError]):
    """A screen can tell an old page from a broken message."""
    with pytest.raises(ProtocolError) as refusal:
        protocol.parse_command(text)
    assert type(refusal.value) is error


def test_a_text_longer_than_a_message_may_be_is_refused():
    """A hundred thousand characters are a message; one more is not."""
    command = {"type": "chat:message", "session": "5e55", "text": "x" * 100_000}
    assert protocol.parse_command(json.dumps({"v": 1, "command": command})).type == "chat:message"
    with pytest.raises(ProtocolError):
        protocol.parse_command(json.dumps({"v": 1, "command": {**command, "text": "x" * 100_001}}))


def test_numbers_that_javascript_would_round_travel_as_text():
    """A 64-bit query id arrives digit by digit, a NaN arrives as null, and what fits stays a number."""
    row = (2**53 - 1, 2**53, -(2**53), 6171028316093571523, 0.5, math.nan, math.inf, True, None)
    table = Table(name="ids", columns=tuple("abcdefghi"), rows=(row,), total=1)
    sent = protocol.envelope(protocol.ResultRead(call="c", result=Result(summary="", tables=(table,))))
    arrived = json.loads(json.dumps(sent, allow_nan=False))["event"]["result"]["tables"][0]["rows"][0]
    assert arrived == [
        9007199254740991,
        "9007199254740992",
        "-9007199254740992",
        "6171028316093571523",
        0.5,
        None,
        None,
        True,
        None,
    ]
