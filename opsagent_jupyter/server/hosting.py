"""The runtime of a Jupyter server: opened when somebody first asks, closed when the server stops."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from opsagent_jupyter.errors import OpsAgentError, StoreError
from opsagent_jupyter.runtime import Runtime

T = TypeVar("T")
log = logging.getLogger("opsagent_jupyter")

#: Seconds during which a failed start is not tried again: a broken store must not be opened for every request.
PAUSE = 2.0
#: Seconds that a stopping server waits for the calls it is running.
LAST_WAIT = 60.0


class Hosting:
    """Holds the runtime; its methods belong to the server's own loop, which they never block."""

    def __init__(self, opener: Callable[[], Runtime]) -> None:
        self._opener = opener
        self._opening = asyncio.Lock()
        self._runtime: Runtime | None = None
        self._failure: OpsAgentError | None = None
        self._failed_at = 0.0
        self._closed = False

    @property
    def opened(self) -> Runtime | None:
        """The runtime, when there is one already."""
        return self._runtime

    async def runtime(self) -> Runtime:
        """The runtime, opened when there is none; raises what keeps it from opening."""
        if self._runtime is not None:
            return self._runtime
        async with self._opening:
            if self._closed:
                raise StoreError("This Jupyter server is stopping.", hint="Start it again.")
            if self._runtime is None:
                self._runtime = await self._open()
            return self._runtime

    async def _open(self) -> Runtime:
        if self._failure is not None and time.monotonic() < self._failed_at + PAUSE:
            raise self._failure
        try:
            return await asyncio.to_thread(self._opener)
        except OpsAgentError as error:
            self._failure, self._failed_at = error.with_traceback(None), time.monotonic()
            log.warning("OpsAgent cannot start: %s", error)
            raise
        except Exception as error:
            log.exception("OpsAgent failed to start")
            text = f"OpsAgent failed to start ({type(error).__name__}); the log of the Jupyter server says where."
            self._failure, self._failed_at = OpsAgentError(text), time.monotonic()
            raise self._failure from None

    async def run(self, runtime: Runtime, work: Coroutine[Any, Any, T]) -> T:
        """Do work on the runtime's loop; cancelling the caller cancels it there."""
        return await asyncio.wrap_future(runtime.submit(work))

    async def close(self) -> None:
        """Close the runtime, which waits for what it is running: at most ``LAST_WAIT``, then it is left to its probe.

        The thread is a daemon: the pool's threads would be waited for at the end of the process, however long that takes.
        """
        self._closed = True
        async with self._opening:
            if self._runtime is None:
                return
            closing = threading.Thread(target=self._runtime.close, name="opsagent-close", daemon=True)
            closing.start()
            limit = time.monotonic() + LAST_WAIT
            while closing.is_alive() and time.monotonic() < limit:  # noqa: ASYNC110 - a thread rings no bell at its end
                await asyncio.sleep(0.05)
            if closing.is_alive():
                log.warning("OpsAgent is still running a call; what becomes of it is read back by the next host.")
