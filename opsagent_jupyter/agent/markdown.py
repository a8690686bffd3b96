"""A conversation as a Markdown document or a notebook: who asked what, what was called, what a person decided, what came
of it.

Whatever a person, a model or a database wrote stands in code blocks or is escaped: it is read as text in every viewer.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from opsagent_jupyter.agent.transcript import handle
from opsagent_jupyter.models import CallRecord, Message, Session


def document(session: Session, messages: Sequence[Message]) -> str:
    """The whole conversation, in order."""
    outcomes = {message.call: message for message in messages if message.role == "tool"}
    lines = [*_head(session), *(line for message in messages for line in _entry(message, outcomes))]
    return "\n".join(lines).rstrip() + "\n"


def notebook(session: Session, messages: Sequence[Message]) -> str:
    """The same as the JSON of a notebook that reads well without a kernel: a cell of prose for each message, no outputs.
    With a kernel that reaches the store it opens the conversation again, and fetches the rows of each result."""
    outcomes = {message.call: message for message in messages if message.role == "tool"}
    cells = [
        _prose("head", _head(session)),
        _code("open", f"%load_ext opsagent_jupyter\n%opsagent open {session.id[:32]}"),
    ]
    for message in messages:
        lines = list(_entry(message, outcomes))
        if lines:
            cells.append(_prose(f"message-{message.seq}", lines))
        cells += [_code(f"rows-{message.seq}-{n}", handle(call)) for n, call in enumerate(_kept(message, outcomes))]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _prose(id: str, lines: Iterable[str]) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": "\n".join(lines).rstrip()}


def _code(id: str, text: str) -> dict[str, Any]:
    return {"cell_type": "code", "execution_count": None, "id": id, "metadata": {}, "outputs": [], "source": text}


def _kept(message: Message, outcomes: dict[str, Message]) -> Iterator[str]:
    """The calls of a message that have rows in the store, by their ids."""
    for call in message.calls if message.role == "assistant" else ():
        answer = outcomes.get(call.id)
        if answer and answer.calls and answer.calls[0].result and answer.calls[0].result.tables:
            yield call.id


def _head(session: Session) -> Iterator[str]:
    yield f"# {_inline(session.title) or 'A conversation without a title'}"
    yield ""
    about = {
        "session": session.id,
        "database": session.instance,
        "server": session.server,
        "model": session.model,
        "begun by": session.created_by,
        "begun at": session.created_at.isoformat(timespec="seconds"),
    }
    yield from (f"- {name}: {_inline(value)}" for name, value in about.items() if value)
    yield ""


def _entry(message: Message, outcomes: dict[str, Message]) -> Iterator[str]:
    if message.role == "tool":
        return  # told at the call that it answers
    who = message.author or "The person" if message.role == "user" else "OpsAgent"
    broke = " (broke off)" if message.partial else ""
    yield f"## {_inline(who)}, {message.created_at.isoformat(timespec='seconds')}{broke}"
    yield ""
    if message.text.strip():
        yield from _block(message.text.strip())
    for call in message.calls:
        yield from _call(call, outcomes.get(call.id))


def _call(call: CallRecord, answer: Message | None) -> Iterator[str]:
    ended = answer.calls[0] if answer and answer.calls else call.model_copy(update={"summary": "not answered yet"})
    status = ended.status if answer else "waiting" if call.approval else call.status
    on = f" on {_inline(call.instance)}" if call.instance else ""
    yield f"**{_inline(call.requested or call.tool)}**{on}: {status}"
    yield ""
    given = [f"{name} = {value}" for name, value in call.arguments.items()]
    approval = ended.approval or call.approval
    told = [*given, *([f"request {approval[:8]}"] if approval else []), ended.summary]
    if ended.result and ended.result.summary != ended.summary:
        told.append(ended.result.summary)
    if ended.result and ended.result.tables:
        told += [f"{table.name}: {table.total} rows" for table in ended.result.tables]
        told.append(f"rows: {handle(call.id)}")
    yield from _block("\n".join(line for line in told if line))


def _block(text: str) -> Iterator[str]:
    """A code block that no text can end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    yield from (f"{fence}text", text, fence, "")


def _inline(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
