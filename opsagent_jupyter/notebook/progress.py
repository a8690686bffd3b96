"""The progress of a runbook's run below a cell: static HTML and text, brought up to date while the kernel lives.

It needs no widget: every front end shows it, and a notebook that ran without a person keeps it as it stood at the end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any

from IPython.display import DisplayHandle, display

from opsagent_jupyter import protocol
from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.cards import rows_html, rows_text
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.redaction import place_of
from opsagent_jupyter.runbooks.progress import Progress
from opsagent_jupyter.runbooks.runs import Begun

log = logging.getLogger("opsagent_jupyter")
#: Events after which a step may stand otherwise.
TELLING = (protocol.ApprovalRequested, protocol.ApprovalChanged, protocol.ToolExecuted)


#: The views of this kernel, one a run.
_SHOWN: dict[tuple[str, str], RunView] = {}


class RunView:
    """One record of a run, kept up to date. A later view of the same run takes its place."""

    def __init__(self, ops: OpsAgent, progress: Progress, head: Begun | None = None) -> None:
        self._runtime = ops.runtime
        self._progress = progress
        self._head = head
        self._lock = threading.Lock()
        self._handle: DisplayHandle | None = None
        self._recorded: dict[str, str] = {}
        self._asked = self._late = False
        self._forget: Callable[[], None] = lambda: None

    def show(self) -> None:
        """Display the record, and follow the run from now on."""
        key = (self._progress.runbook, self._progress.run)
        if (before := _SHOWN.get(key)) is not None:
            before.close()
        _SHOWN[key] = self
        self._recorded = self._static()
        self._handle = display(self._recorded, raw=True, display_id=True)
        self._forget = self._runtime.listen(self._heard)

    def close(self) -> None:
        """Follow no longer; what is shown stays."""
        self._forget()

    def refresh(self, *, in_cell: bool = False) -> None:
        """Send the record when it has changed; at the end of a cell once more what was sent while none ran, because a run
        without a person listens to its cells only."""
        static = self._static()
        with self._lock:
            if self._handle is None or (static == self._recorded and not (in_cell and self._late)):
                return
            self._recorded, self._late = static, not in_cell
            Context().run(self._handle.update, static, raw=True)

    def _static(self) -> dict[str, str]:
        redact = self._runtime.redactor.redact
        title, rows = self._progress.again(self._runtime.store).content()
        if self._head is not None:
            rows = [*self._head.content()[1], *rows]
        clean = [(redact(name), redact(text)) for name, text in rows]
        return {
            "text/html": f"<div class='oa-run'>{rows_html(redact(title), clean)}</div>",
            "text/plain": rows_text(redact(title), clean),
        }

    def _heard(self, event: protocol.Event) -> None:
        """On the runtime's thread: the store is read on another, and once for many events."""
        if isinstance(event, TELLING) and not self._asked:
            self._asked = True
            asyncio.ensure_future(self._told())  # noqa: RUF006  # it ends by itself

    async def _told(self) -> None:
        await asyncio.sleep(0.1)
        self._asked = False
        try:
            await asyncio.to_thread(self.refresh)
        except OpsAgentError as error:
            log.warning("the progress of a run could not be read: %s", error.message)
        except Exception as error:  # noqa: BLE001  # it must not reach the runtime
            log.error("the progress of a run could not be shown: %s", place_of(error))  # noqa: TRY400


def republish() -> None:
    """Bring every record up to date from the cell that ends now."""
    for view in list(_SHOWN.values()):
        try:
            view.refresh(in_cell=True)
        except OpsAgentError as error:
            log.warning("the progress of a run could not be read: %s", error.message)


def run_view(ops: OpsAgent, value: Any) -> RunView | None:
    """The view of what begins a run, or of a run's progress; None for anything else."""
    if isinstance(value, Begun):
        return RunView(ops, Progress(value.runbook, value.run), value)
    return RunView(ops, value) if isinstance(value, Progress) else None
