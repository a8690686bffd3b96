"""The first ``%opsagent`` of a kernel: an answer at once, which fills itself in when store and databases have been asked.

Nothing heavy is imported here: what the card needs is loaded beside the person who is reading it.
"""

from __future__ import annotations

import contextvars
import html
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle, display

if TYPE_CHECKING:
    from opsagent_jupyter.api import OpsAgent
    from opsagent_jupyter.cards import StatusCard

WORKING = "OpsAgent is looking at its store and at the attached databases …"


class FirstStatus:
    """A status that is being collected. ``card`` waits for it; the cell does not."""

    def __init__(self, ops: Callable[[], OpsAgent]) -> None:
        self._ops = ops
        self._card: StatusCard | None = None
        self._error: Exception | None = None
        self._handle: DisplayHandle | None = display(Text(WORKING), display_id=True)
        # A thread of its own context: only so does its display stay in this cell.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._collect,), name="opsagent-first", daemon=True)
        self._thread.start()

    @property
    def card(self) -> StatusCard:
        """The status, once it is known; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._card is not None  # the thread has ended without an error
        return self._card

    def _collect(self) -> None:
        try:
            from opsagent_jupyter.cards import status_of

            self._card = status_of(self._ops())
            shown: Any = self._card
        except Exception as error:  # noqa: BLE001  # nobody else would hear of it: the thread is its own host
            self._error = error
            shown = Text(f"✗ {error}")
        if self._handle is not None:
            self._handle.update(shown)

    def __repr__(self) -> str:
        return str(self.card)

    def _ipython_display_(self) -> None:
        """It is on display already."""


class Text:
    """A plain text that a notebook shows as text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return f"<div>{html.escape(self._text)}</div>"
