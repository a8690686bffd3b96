"""Answers as text for a terminal and as JSON for a program."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from pydantic import BaseModel

from opsagent_jupyter.api import Call, Turn
from opsagent_jupyter.cards import ApprovalCard, visible
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Result


def as_text(value: Any) -> str:
    """A value as a person reads it; control characters of databases are spelled out."""
    if isinstance(value, Call):
        return visible(call_text(value))
    if isinstance(value, Turn):
        return visible(turn_text(value))
    if isinstance(value, dict):
        return as_json(value)
    if hasattr(value, "to_string"):
        rows = value.reset_index() if value.index.name else value
        return visible(rows.to_string(index=False) if len(rows) else f"nothing ({', '.join(map(str, rows.columns))})")
    return visible(str(value))


def call_text(call: Call) -> str:
    """Summary, points, plan and rows of a call; the card of one that waits."""
    record, approval = call.record, call.approval
    if approval is not None and record.result is None:
        return str(ApprovalCard(approval, call.ops.runtime.claim))
    lines = [record.summary]
    if record.result is not None:
        lines += result_lines(record.result)
    return "\n".join(lines)


def result_lines(result: Result) -> list[str]:
    """What stands below the summary of a result."""
    import pandas as pd

    lines = [f"  · {text}" for text in result.highlights]
    lines += [result.tree] if result.tree else []
    for table in result.tables:
        cells = pd.DataFrame([list(row) for row in table.rows], columns=list(table.columns))
        lines += ["", f"{table.name} ({table.total})", cells.to_string(index=False) if table.rows else "  none"]
    return lines + [f"  ({note})" for note in result.notes]


def turn_text(turn: Turn) -> str:
    """The calls, the answer, and what waits."""
    lines = [f"{call.tool}: {call.status}" for call in turn.calls]
    lines += ["", turn.said] if turn.said else []
    if turn.error is not None:
        lines += [f"✗ {turn.error}"]
    waiting = [call.approval for call in turn.calls if call.status == "waiting"]
    lines += ["", *(str(ApprovalCard(a, turn.ops.runtime.claim)) for a in waiting if a is not None)]
    return "\n".join(lines).strip()


def as_json(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(plain(value), ensure_ascii=False, indent=2, default=str)


def plain(value: Any) -> Any:
    """A value as JSON-shaped Python."""
    if isinstance(value, OpsAgentError):
        return {"error": {"code": value.code, "message": value.message, "hint": value.hint}}
    if isinstance(value, Call):
        return plain(value.record) | {"request": value.record.approval}
    if isinstance(value, Turn):
        answer = {"session": value.session_id, "turn": value.id, "state": value.state, "text": value.said}
        return answer | {
            "calls": [plain(call) for call in value.calls],
            "error": plain(value.error) if value.error else None,
        }
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "to_json"):
        rows = value.reset_index() if value.index.name else value
        return json.loads(rows.to_json(orient="records", date_format="iso", default_handler=str))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)} | _verdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _verdict(value: Any) -> dict[str, Any]:
    return {"ok": value.ok} if hasattr(value, "ok") else {}
