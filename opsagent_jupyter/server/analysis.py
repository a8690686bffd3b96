"""The audit of this server's store as DuckDB answers: one question at a time, and the check of the chain beside them.

The check takes ten seconds and more on a million records, so no question waits for it: only the carrying into the copy,
which excludes readers, is done in turn. While the check has the copy open, a question reads it too, and what is not
carried yet comes from the store.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from opsagent_jupyter.errors import AuditError, OpsAgentError
from opsagent_jupyter.models import now
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.bodies import ChainCheck, Checking

if TYPE_CHECKING:
    from opsagent_jupyter.audit.selection import AuditSelection

T = TypeVar("T")
log = logging.getLogger("opsagent_jupyter")

#: Seconds after which a result is looked at again although nothing was added: a row may have been edited in its place.
KEPT = 600.0
#: Seconds between two checks while records are added, and how many times its own length a check pauses at least.
PAUSE, SHARE = 15.0, 10.0


class Analysis:
    """One per runtime. Its methods belong to the runtime's loop; the check has a thread of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._turn = asyncio.Lock()
        self._file = threading.Lock()
        self._reader: AuditSelection | None = None
        self._check: ChainCheck | None = None
        self._failure = ""
        self._head = ""
        self._running = False
        self._ended, self._lasted = 0.0, 0.0

    async def ask(self, question: Callable[[AuditSelection], T]) -> T:
        """Ask the audit; two questions at once would only keep each other from the file."""
        async with self._turn:
            return await asyncio.to_thread(self._asked, question)

    def _asked(self, question: Callable[[AuditSelection], T]) -> T:
        with self._file:
            return question(self._selection())

    def _selection(self) -> AuditSelection:
        if self._reader is None:
            from opsagent_jupyter.audit.projection import DuckProjection  # DuckDB and pandas, when first used
            from opsagent_jupyter.audit.selection import AuditSelection

            store = self._runtime.store
            self._reader = AuditSelection(store, DuckProjection(store, self._runtime.settings.audit_path))
        return self._reader

    def _carried(self) -> AuditSelection:
        """The audit with its copy up to date: whatever a question then has to carry is quickly done, and the check finds
        the copy free to read. A log that cannot be carried is for the check to explain."""
        with self._file:
            audit = self._selection()
            with suppress(AuditError):
                audit.forget()
            return audit

    async def checking(self) -> Checking:
        """What is known of the chain; begins a check when that is old."""
        head = (await asyncio.to_thread(self._runtime.store.audit_head))[1]
        if self._is_due(head):
            self._running, self._head = True, head
            threading.Thread(target=self._verify, name="opsagent-audit-check", daemon=True).start()
        last = self._check
        return Checking(
            running=self._running, current=last is not None and last.head == head, last=last, failure=self._failure
        )

    def _is_due(self, head: str) -> bool:
        if self._running:
            return False
        if self._check is None and not self._failure:
            return True
        since = time.monotonic() - self._ended
        return since > KEPT or (head != self._head and since > max(PAUSE, SHARE * self._lasted))

    def _verify(self) -> None:
        began = time.monotonic()
        try:
            found = self._carried().verify()
            self._check = ChainCheck(
                checked_at=now(), ok=found.ok, rows=found.rows, head=found.head, first_bad=found.first_bad,
                problems=found.problems, notes=found.notes,
            )  # fmt: skip
            self._failure = ""
        except OpsAgentError as error:
            self._failure = self._runtime.redactor.redact(error.message)
        except Exception as error:  # the thread's boundary: a bug is said, not lost
            log.exception("the check of the audit failed")
            self._failure = (
                f"The check failed inside ({type(error).__name__}); the log of the Jupyter server says where."
            )
        finally:
            self._ended = time.monotonic()
            self._lasted = self._ended - began
            self._running = False


_analyses: WeakKeyDictionary[Runtime, Analysis] = WeakKeyDictionary()


def analysis_of(runtime: Runtime) -> Analysis:
    """The analysis of a runtime's store, made when first asked for."""
    if runtime not in _analyses:
        _analyses[runtime] = Analysis(runtime)
    return _analyses[runtime]
