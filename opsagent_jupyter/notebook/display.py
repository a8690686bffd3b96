"""How answers are shown in a notebook: live where they live, readable for ever where they do not."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from IPython.display import display

from opsagent_jupyter.api import Call, OpsAgent, Turn
from opsagent_jupyter.cards import ApprovalCard, Card, offers, rows_html, visible
from opsagent_jupyter.lifecycle import OPEN
from opsagent_jupyter.models import Result, Session


def shown(shell: Any, value: Any, ops: Callable[[], OpsAgent]) -> Any:
    """Show calls, turns and sessions at once, also when they are assigned; return the value either way."""
    _register(shell)
    if isinstance(value, Turn):
        display(turn_view(ops(), value))
        _hush(shell, value)
    elif isinstance(value, Call):
        display(call_view(ops(), value))
        _hush(shell, value)
    elif isinstance(value, ApprovalCard) and _lives(value) and hasattr(shell, "kernel"):
        from opsagent_jupyter.notebook.widgets import ApprovalWidget

        display(ApprovalWidget(ops().bridge, value.approval))
        _hush(shell, value)
    elif isinstance(value, Session):
        from opsagent_jupyter.notebook.widgets import ChatWidget

        display(ChatWidget(ops().bridge, value.id))
        return None
    elif isinstance(value, Card) and type(value).__module__.startswith("opsagent_jupyter.runbooks"):
        from opsagent_jupyter.notebook.progress import run_view

        if (view := run_view(ops(), value)) is not None:
            view.show()
            _hush(shell, value)
    return Sentence(value) if isinstance(value, str) else value


def _lives(card: ApprovalCard) -> bool:
    """Whether a person can still do something with a request: decide it, or be shown the secret that its call made."""
    return card.approval.state in OPEN or card.approval.evidence.get("secret") == "kept"


class Sentence(str):
    """A text that a cell shows without quotation marks around it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return visible(self)


def _register(shell: Any) -> None:
    """Teach this shell to show calls and turns: not again in the cell whose magic has shown them, then on every request."""
    formatter = shell.display_formatter.ipython_display_formatter
    formatter.for_type(Call, _show_again(lambda call: call_view(call.ops, call)))
    formatter.for_type(Turn, _show_again(lambda turn: turn_view(turn.ops, turn)))
    for module, name in (("runs", "Begun"), ("progress", "Progress")):
        formatter.for_type_by_name(f"opsagent_jupyter.runbooks.{module}", name, _show_again(Whole))
    formatter.for_type(ApprovalCard, _show_again(Whole))
    shell.display_formatter.formatters["text/plain"].for_type_by_name(
        "opsagent_jupyter.audit.verification", "Verification", lambda value, printer, _: printer.text(str(value))
    )


#: What a magic has shown in the cell that runs, by ``id``.
_SHOWN: set[int] = set()


def _hush(shell: Any, value: Call | Turn | Card) -> None:
    """In this cell it has been shown, so the cell's own output is nothing; the next cell may ask for it again."""

    def speak(*_: Any) -> None:
        shell.events.unregister("post_run_cell", speak)
        _SHOWN.discard(id(value))

    _SHOWN.add(id(value))
    shell.events.register("post_run_cell", speak)


def _show_again(view: Callable[[Any], Any]) -> Callable[[Any], None]:
    def show(value: Any) -> None:
        if id(value) not in _SHOWN:
            display(view(value))

    return show


class Whole:
    """A card as text and HTML, statements included: what `print` shows, on display."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def __repr__(self) -> str:
        return str(self._card)

    def _repr_html_(self) -> str:
        return self._card._repr_html_()


def turn_view(ops: OpsAgent, turn: Turn) -> Any:
    """The live view of a turn: its text, calls and cards."""
    from opsagent_jupyter.notebook.widgets import TurnWidget

    return TurnWidget(ops.bridge, turn)


def call_view(ops: OpsAgent, call: Call) -> Any:
    """A card for a call that needed a person, else its answer."""
    approval = call.approval
    if approval is not None:
        from opsagent_jupyter.notebook.widgets import ApprovalWidget

        return ApprovalWidget(ops.bridge, approval)
    return Answer(call)


class Answer:
    """The static answer of a call. Rows stay out of the saved notebook: ``call.frame`` has them."""

    def __init__(self, call: Call) -> None:
        self.record = call.record

    def __repr__(self) -> str:
        record, result = self.record, self.record.result
        lines = [record.summary if record.status == "succeeded" else f"✗ {record.status}: {record.summary}"]
        if result is not None:
            lines += [f"  · {text}" for text in result.highlights]
            lines += [result.tree] if result.tree else []
            lines += [f"  ({note})" for note in result.notes]
            lines += [f"  → %{line}" for line in offers(result, record.instance)]
            lines += [where_rows_are(result)] if result.tables else []
        return visible("\n".join(lines))

    def _repr_html_(self) -> str:
        record, result = self.record, self.record.result
        took = f"{record.milliseconds:.0f} ms" if record.milliseconds else ""
        head = rows_html(
            f"{record.tool} on {record.instance}", [("Status", f"{record.status} {took}"), ("", record.summary)]
        )
        return head + (result_html(result, record.instance) if result is not None else "")


def result_html(result: Result, on: str) -> str:
    """Points, plan tree, notes and ready calls of a result, all as text; no rows."""
    points = "".join(f"<li>{html.escape(visible(text))}</li>" for text in result.highlights)
    tree = (
        f"<pre style='overflow:auto;font-family:monospace'>{html.escape(visible(result.tree))}</pre>"
        if result.tree
        else ""
    )
    notes = [*result.notes, *([where_rows_are(result)] if result.tables else [])]
    small = "".join(f"<div style='opacity:.7;font-size:90%'>{html.escape(visible(note))}</div>" for note in notes)
    calls = "".join(f"<li><code>{html.escape(visible(f'%{line}'))}</code></li>" for line in offers(result, on))
    said = f"<ul style='margin:4px 0'>{points}</ul>{tree}{small}" if points else tree + small
    return f"{said}<div>Possible next steps</div><ul style='margin:4px 0'>{calls}</ul>" if calls else said


def where_rows_are(result: Result) -> str:
    """Say how many rows there are and how to get at them."""
    parts = [f"{table.total} {'row' if table.total == 1 else 'rows'} of {table.name}" for table in result.tables]
    return f"{', '.join(parts)}: call.frame has them; they are not saved in the notebook."
