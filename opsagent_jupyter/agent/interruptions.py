"""What a turn leaves behind when its host ends in the middle of it: an exchange without an end, calls without an answer,
and what the audit knows of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from opsagent_jupyter.models import AuditEvent, AuditRow, CallRecord, Message, now

#: Records of the audit that tell the end of a call that needed no decision.
ENDS = frozenset({"call.outcome", "call.refused"})
#: What a call is told that was open when its turn or its host ended, by how far it had come: (status, code, words).
NOT_ASKED = ("cancelled", "call.interrupted", "its turn ended before it came to the gate; it was not run")
PLANNED = ("cancelled", "call.interrupted", "its host ended before a person could be asked; nothing was run")
STARTED = ("unknown", "host.lost", "its host ended while it ran; it only reads, so it changed nothing")


def unanswered(transcript: Sequence[Message]) -> list[CallRecord]:
    """The calls that have no answer yet, in order."""
    answered = {message.call for message in transcript if message.role == "tool"}
    asked = [call for message in transcript if message.role == "assistant" for call in message.calls]
    return [call for call in asked if call.id not in answered]


def with_requests(transcript: Sequence[Message], requests: Mapping[str, str]) -> list[Message]:
    """The transcript in which calls that wait for a person name their request (call id -> request id): a message is written
    before its calls are made, so it knows of none itself."""

    def named(call: CallRecord) -> CallRecord:
        return call.model_copy(update={"approval": requests[call.id]}) if call.id in requests else call

    return [
        message.model_copy(update={"calls": tuple(named(call) for call in message.calls)})
        if message.role == "assistant"
        else message
        for message in transcript
    ]


def is_unfinished(transcript: Sequence[Message], waiting: AbstractSet[str]) -> bool:
    """Whether the last exchange has no end: nobody answered the person, or said anything to what came back from the calls.
    While one of its calls is ``waiting`` for a person (call ids), it has one for now."""
    told = [message for message in transcript if message.role != "assistant" or message.text or message.calls]
    if not told or (told[-1].role == "assistant" and not told[-1].calls):
        return False
    begins = max((place for place, message in enumerate(told) if message.role == "user"), default=0)
    return not any(call.id in waiting for call in unanswered(told[begins:]))


def traces(rows: Iterable[AuditRow], calls: AbstractSet[str]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """What the audit has about these calls: call id -> type of record -> the record."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        body = json.loads(row.body)
        if body["call"] in calls:
            found.setdefault(body["call"], {})[body["type"]] = body
    return found


def end_of(call: CallRecord, trace: Mapping[str, Mapping[str, Any]]) -> CallRecord:
    """How an open call that waits for nobody ended, as far as the audit knows. What may have run is unknown."""
    for kind in ENDS & trace.keys():
        told = trace[kind]
        status, code, words = told["status"], told["error_code"], told["summary"]
        if status == "succeeded":
            words += " (the rest of this answer was lost with the host that had it)"
        break
    else:
        status, code, words = STARTED if "call.intent" in trace else PLANNED if "call.requested" in trace else NOT_ASKED
        words = f"no answer: {words}"
    return CallRecord.model_validate({**call.model_dump(), "status": status, "error_code": code, "summary": words})


def missing_record(record: CallRecord, trace: Mapping[str, Mapping[str, Any]], host: str) -> AuditEvent | None:
    """The end that the audit lacks for a call whose beginning it has; None when it lacks nothing."""
    begun = trace.get("call.intent") or trace.get("call.requested")
    if begun is None or ENDS & trace.keys():
        return None
    ended = {
        "type": "call.outcome",
        "status": record.status,
        "error_code": record.error_code,
        "at": now(),
        "host": host,
    }
    kept = {name: value for name, value in begun.items() if name in AuditEvent.model_fields}
    return AuditEvent.model_validate({**kept, **ended, "summary": record.summary})
