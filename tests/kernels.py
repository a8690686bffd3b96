"""Real kernels for tests: start, run code, read outputs, interrupt, kill."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[1]
#: How often a kernel is started before a test gives up.
STARTS = 3


@dataclass
class Ran:
    """What a cell said."""

    text: str = ""
    errors: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


class Kernel:
    """One kernel process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        for attempt in range(STARTS):
            try:
                self._begin(environment)
            except RuntimeError:  # its ports are chosen first and bound later: another kernel may have taken one
                self._client.stop_channels()
                self._manager.cleanup_resources()
                if attempt == STARTS - 1:
                    raise
            else:
                return

    def _begin(self, environment: Mapping[str, str]) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def run(self, code: str, timeout: float = 60) -> Ran:
        """Run a cell to its end."""
        return self.collect(self._client.execute(code), timeout)

    def start(self, code: str) -> str:
        """Start a cell and return at once; ``collect`` reads it."""
        return str(self._client.execute(code))

    def collect(self, id: str, timeout: float = 60) -> Ran:
        """Read the outputs of a cell until it is idle."""
        ran, started = Ran(), time.perf_counter()
        while time.perf_counter() - started < timeout:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != id:
                continue
            if self._take(ran, message["msg_type"], message["content"]):
                ran.seconds = time.perf_counter() - started
                return ran
        raise TimeoutError(f"the cell did not end within {timeout} s; so far: {ran.text}")

    def _take(self, ran: Ran, kind: str, content: dict[str, Any]) -> bool:
        if kind == "stream":
            ran.text += content["text"]
        elif kind in ("execute_result", "display_data", "update_display_data"):
            ran.data.append(content["data"])
            ran.text += str(content["data"].get("text/plain", "")) + "\n"
        elif kind == "error":
            ran.errors.append("\n".join(content["traceback"]))
        return kind == "status" and content["execution_state"] == "idle"

    def interrupt(self) -> None:
        """What the stop button does."""
        self._manager.interrupt_kernel()

    def kill(self) -> None:
        """End the process as ``kill -9`` does."""
        process = self._manager.provisioner.process  # type: ignore[union-attr]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End the kernel in order."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=False)


@contextmanager
def kernel(**environment: str) -> Iterator[Kernel]:
    """A kernel that is gone afterwards, however the test ends."""
    running = Kernel(environment)
    try:
        yield running
    finally:
        running.stop()
