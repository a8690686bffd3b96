"""Conversations that were: found again by what was said in them, and given as a document that is only text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.commands import Door, words
from opsagent_jupyter.errors import ConfigError, UnknownSession
from opsagent_jupyter.testing.models import Line, ScriptedModel

HOSTILE = "<script>alert(1)</script> ![x](http://x.example/y) ```\n# obeyed\n```"


def word(ops: OpsAgent, *parts: str) -> Any:
    return words.main(args=list(parts), standalone_mode=False, obj=Door(lambda: ops, lambda _: ""))


def speak(ops: OpsAgent, *script: Line) -> None:
    model = ScriptedModel(*script)
    ops.runtime.open_model = lambda *_: model  # type: ignore[method-assign]


def talk(ops: OpsAgent) -> str:
    """A conversation with a look, a change that a person rejected, and hostile text."""
    calls: Any = (("ledger_list_marks", {}), ("ledger_add_mark", {"text": "a `mark`"}))
    speak(ops, Line("Looking at the Unusual Word.", calls=calls), Line(HOSTILE))
    ops.new_session()
    turn = ops.ask("please add a mark")
    assert turn.text.startswith("Looking")
    [request] = ops.runtime.store.approvals()
    ops.reject(request.id, reason="not on a Monday")
    assert turn.wait(60).state == "finished"
    return turn.session_id


def test_a_conversation_is_found_by_title_and_by_what_was_said(ops: OpsAgent) -> None:
    """Upper and lower case alike; what occurs nowhere finds nothing."""
    session = talk(ops)
    found = word(ops, "sessions", "--search", "unusual word")
    assert list(found["session"]) == [session]
    assert list(found["role"]) == ["assistant"]
    assert set(ops.search("PLEASE ADD")["role"]) == {"title", "user"}
    assert len(ops.search("nobody said this")) == 0
    assert len(ops.search("a", limit=2)) == 2


def test_a_document_tells_questions_calls_decisions_and_outcomes(ops: OpsAgent) -> None:
    """In their order, with the ids by which they are found in the audit."""
    session = talk(ops)
    text = ops.export(session)
    [request] = ops.runtime.store.approvals(session=session)
    parts = ("# please add a mark", session, "Looking at the Unusual Word.", "list\\_marks", "0 marks", "add\\_mark")
    places = [text.index(part) for part in (*parts, request.id[:8], "rejected by", "not on a Monday", "alert(1)")]
    assert places == sorted(places)


def test_nothing_in_a_document_is_markup_but_ours(ops: OpsAgent) -> None:
    """What a model wrote stays inside a block that it cannot end."""
    session = talk(ops)
    lines = ops.export(session).split("\n")
    inside, fence = False, ""
    for line in lines:
        if not inside and line.startswith("```") and line.endswith("text"):
            inside, fence = True, line.removesuffix("text")
        elif inside and line == fence:
            inside = False
        elif not inside:
            assert "<script" not in line
            assert "![" not in line
            assert "obeyed" not in line
    assert not inside
    assert any("<script" in line for line in lines)


def test_a_document_is_written_once_and_over_nothing(ops: OpsAgent, tmp_path: Path) -> None:
    """A file that is there stays as it is."""
    session = talk(ops)
    file = tmp_path / "talk.md"
    word(ops, "export", session[:8], "--output", str(file))
    assert file.read_text() == ops.export(session)
    with pytest.raises(ConfigError, match="cannot be written"):
        word(ops, "export", session, "--output", str(file))


def test_a_notebook_reads_well_alone_and_finds_its_way_back(ops: OpsAgent, tmp_path: Path) -> None:
    """Valid, without outputs, with every message in its order as text only; its code opens the conversation again and
    fetches the rows, and is nothing that a person, a model or a database wrote."""
    session = talk(ops)
    file = tmp_path / "talk.ipynb"
    assert "talk.ipynb" in word(ops, "export", session, "--output", str(file))
    book = nbformat.read(file, as_version=4)
    nbformat.validate(book)
    prose = [cell.source for cell in book.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert "\n".join(prose).split() == ops.export(session).split()
    assert not [cell for cell in book.cells if cell.get("outputs")]
    [looked] = [call.id for message in ops.messages(session) for call in message.calls if call.result]
    assert code == [f"%load_ext opsagent_jupyter\n%opsagent open {session}", f'_ops.result("{looked}")']
    assert list(ops.result(looked).columns) == ["text"]
    assert ops.open(session).id == session


def test_without_a_conversation_there_is_nothing_to_export(ops: OpsAgent) -> None:
    """It says how to name one."""
    with pytest.raises(UnknownSession, match="No conversation"):
        ops.export()
