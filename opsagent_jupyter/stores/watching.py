"""Watching the feed: a thread waits for commits, the event loop reads what they brought."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

from opsagent_jupyter.errors import StoreError
from opsagent_jupyter.models import FeedEntry

#: Entries that are read at a time.
PAGE = 500
#: Seconds until a store that did not answer is asked again.
PATIENCE = 1.0


class Pulse(threading.Thread):
    """Rings whenever something may have been committed, and once at its start."""

    def __init__(self, changes: Callable[[threading.Event], Iterator[None]], ring: Callable[[], object]) -> None:
        super().__init__(name="opsagent-watch", daemon=True)
        self.stopping = threading.Event()
        self.failure: StoreError | None = None
        self._changes = changes
        self._ring = ring

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._beat()
        finally:
            self.stop()

    def _beat(self) -> None:
        """Ring as long as all is well. A store that is away for a while is waited for; other trouble ends the watching."""
        try:
            for _ in self._changes(self.stopping):
                self._ring()
        except StoreError as error:
            if error.retryable:
                self.stopping.wait(PATIENCE)
            else:
                self.failure = error
                self.stopping.set()

    def stop(self) -> None:
        self.stopping.set()
        self._ring()


def ring(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    """Ring a bell of another thread's loop; when that is closed, nobody hears any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(bell.set)


class Watch:
    """The watches of one store, so that closing it ends them."""

    def __init__(
        self,
        read: Callable[[int, int], Sequence[FeedEntry]],
        changes: Callable[[threading.Event], Iterator[None]],
    ) -> None:
        self._read = read
        self._changes = changes
        self._pulses: set[Pulse] = set()

    async def entries(self, after: int) -> AsyncIterator[FeedEntry]:
        """Yield entries with seq > after as they are committed, until cancelled or closed."""
        bell = asyncio.Event()
        pulse = Pulse(self._changes, partial(ring, asyncio.get_running_loop(), bell))
        self._pulses.add(pulse)
        pulse.start()
        try:
            while True:
                await bell.wait()
                bell.clear()
                full = True
                while full and not pulse.stopping.is_set():
                    batch = await self._next(after)
                    for entry in batch:
                        yield entry
                        after = entry.seq
                    full = len(batch) == PAGE  # what comes after a page that is not full rings again
                if pulse.failure:
                    raise pulse.failure
                if pulse.stopping.is_set():
                    return
        finally:
            self._pulses.discard(pulse)
            pulse.stop()

    async def _next(self, after: int) -> Sequence[FeedEntry]:
        while True:
            try:
                return await asyncio.to_thread(self._read, after, PAGE)
            except StoreError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(PATIENCE)

    def close(self) -> None:
        """End all watches and wait a moment for their connections to close."""
        pulses = list(self._pulses)
        for pulse in pulses:
            pulse.stop()
        for pulse in pulses:
            pulse.join(2.0)
