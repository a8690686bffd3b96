"""Answers as text for a terminal and as JSON for a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from opsagent_jupyter.api import Call, Turn
from opsagent_jupyter.cards import ApprovalCard, finding_lines, is_findings, offers, one_line, visible
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Result, Table

#: Characters of a table's cell.
WIDEST = 80
#: What of the audit a terminal has room for; --json has all of it.
AUDIT = ("seq", "time", "type", "status", "risk", "tool", "instance", "actor_name", "summary")


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
        if set(AUDIT) < set(rows.columns):
            rows = rows[list(AUDIT)]
        return visible(table_text(list(rows.columns), rows.to_numpy().tolist()))
    return visible(str(value))


def call_text(call: Call) -> str:
    """Summary, points, plan and rows of a call; the card of one that waits."""
    record, approval = call.record, call.approval
    if approval is not None and record.result is None:
        return str(ApprovalCard(approval, call.ops.runtime.claim))
    lines = [record.summary]
    if record.result is not None:
        lines += result_lines(record.result, record.instance)
    return "\n".join(lines)


def result_lines(result: Result, on: str) -> list[str]:
    """What stands below the summary of a result; findings as a list with their calls, other tables as rows."""
    listed = any(map(is_findings, result.tables))
    lines = [] if listed else [f"  · {text}" for text in result.highlights]
    lines += [result.tree] if result.tree else []
    for table in result.tables:
        lines += ["", *(finding_lines(table, result.suggestions, on) if is_findings(table) else _sheet(table))]
    lines += [f"  ({note})" for note in result.notes]
    return lines + ([] if listed else [f"  → {text}" for text in offers(result, on)])


def _sheet(table: Table) -> list[str]:
    heads = [f"{name} ({table.units[name]})" if name in table.units else name for name in table.columns]
    return [f"{table.name} ({table.total})", table_text(heads, table.rows)]


def table_text(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Rows in columns for a terminal: numbers to the right, texts to the left, the long ones cut."""
    if not rows:
        return f"nothing ({', '.join(map(str, columns))})"
    numeric = [all(isinstance(row[n], int | float) or row[n] is None for row in rows) for n in range(len(columns))]
    cells = [[cell_text(cell) for cell in line] for line in (columns, *rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def cell_text(cell: object) -> str:
    """One value on one line; what is missing is empty."""
    if cell is None or cell != cell or str(cell) == "NaT":  # noqa: PLR0124  # NaN differs from itself
        return ""
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S}"
    text = one_line(str(cell))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def turn_text(turn: Turn) -> str:
    """The calls, the answer, and what waits."""
    lines = [f"{call.tool}: {call.status}" for call in turn.calls]
    return "\n".join([*lines, "", turn_end(turn, turn.said)]).strip()


def turn_end(turn: Turn, said: str) -> str:
    """The answer, why there is none, and what waits."""
    lines = [said] if said else []
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
