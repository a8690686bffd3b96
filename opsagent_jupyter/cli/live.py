"""A turn at a terminal while it happens: the words as they come, and each call of a tool as it begins and ends."""

from __future__ import annotations

import sys
from typing import Any

import click

from opsagent_jupyter import protocol
from opsagent_jupyter.api import Turn
from opsagent_jupyter.cards import visible
from opsagent_jupyter.cli.render import turn_end
from opsagent_jupyter.models import CallRecord

#: States of a call that are told at once; what waits for a person follows as a card.
_BEGUN, _MARKS = "running", {"succeeded": "✓", "waiting": "…"}


class Live:
    """Listens to the events of a host that runs one turn, and prints them. Told on the runtime's thread."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._said = ""
        self._open_line = False

    @staticmethod
    def wanted(*, json: bool) -> bool:
        """Whether somebody looks on: a program wants one answer, at the end."""
        return not json and sys.stdout.isatty()

    def __call__(self, event: Any) -> None:
        """One event of the host."""
        match event:
            case protocol.TurnEvent(kind="delta"):
                self._say(event.text)
            case protocol.ToolExecution():
                self._tell(event.call)

    def rest(self, turn: Turn) -> str:
        """What of a turn's answer is still to be printed when it has ended."""
        spoken = turn.said.split() == self._said.split()
        text = turn_end(turn, said="" if spoken else turn.said)
        self._break()
        return visible(text)

    def _say(self, text: str) -> None:
        click.echo(visible(text), nl=False)
        self._said += text
        self._open_line = not text.endswith("\n")

    def _tell(self, call: CallRecord) -> None:
        if self._told.get(call.id) == call.status:
            return
        self._told[call.id] = call.status
        self._break()
        self._said += "\n"
        place = f" on {call.instance}" if call.instance else ""
        mark = "▸" if call.status == _BEGUN else _MARKS.get(call.status, "✗")
        end = "" if call.status == _BEGUN else f": {call.status}"
        click.echo(visible(f"{mark} {call.tool}{place}{end}"))

    def _break(self) -> None:
        """Begin a new line unless one is begun."""
        if self._open_line:
            click.echo()
        self._open_line = False
