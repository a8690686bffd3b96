"""How smooth the sidebar and the audit are in a real JupyterLab, in headless Chromium, with a full store behind them.

Run as ``python -m tests.bench.sidebar [--small] [--keep FOLDER]``; prints JSON. Figures, not a test. The store is the one of
``tests.bench.lists``. Each step has its time to the last frame, the longest gap between two frames, the longest task, how
long tasks above 50 ms held the page, and the processor time of the page's main thread, which other programs of the machine
do not change; all in milliseconds. The last figure is the number of elements that our screens have when the step is over.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from opsagent_jupyter.contracts import Store
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.models import Message
from opsagent_jupyter.stores.store import open_store
from opsagent_jupyter.testing.store_samples import added, event, message, session
from tests.bench.lists import fill
from tests.browser.lab import Lab, browser, enable

WATCH = """() => {
  const seen = window.opsagentFrames = {gap: 0, held: 0, longest: 0, last: performance.now()};
  new PerformanceObserver(list => {
    for (const {duration} of list.getEntries()) {
      seen.held += duration; seen.longest = Math.max(seen.longest, duration);
    }
  }).observe({type: 'longtask'});
  const frame = now => {
    seen.gap = Math.max(seen.gap, now - seen.last); seen.last = now; requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""
START = "() => { Object.assign(window.opsagentFrames, {gap: 0, held: 0, longest: 0, last: performance.now()}); }"
END = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => {
  const {gap, held, longest} = window.opsagentFrames;
  const elements = document.querySelectorAll('.oa-root *').length;
  done({gap: Math.round(gap), held: Math.round(held), longest: Math.round(longest), elements});
}, 100)))"""
SCROLL = """async box => {
  for (let step = 0; step < 60; step++) {
    box.scrollTop += box.clientHeight / 4;
    await new Promise(requestAnimationFrame);
  }
}"""


class Watched:
    """A page whose frames are watched, step by step."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sidebar = page.locator("#opsagent-sidebar")
        self.found: dict[str, dict[str, int]] = {}
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
        self._devtools.send("Performance.enable")
        page.evaluate(WATCH)

    def step(self, name: str, act: Callable[[], object]) -> None:
        """Do something and note how smooth that was."""
        self.page.evaluate(START)
        begun, busy = time.perf_counter(), self._busy()
        act()
        took = round((time.perf_counter() - begun) * 1000)
        seen = self.page.evaluate(END)
        self.found[name] = {"took": took, "processor": round((self._busy() - busy) * 1000), **seen}
        sys.stderr.write(f"{name}: {self.found[name]}\n")

    def _busy(self) -> float:
        metrics = self._devtools.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def tab(self, name: str) -> None:
        self.sidebar.get_by_role("tab", name=name).click()

    def command(self, name: str) -> None:
        self.page.evaluate("name => window.jupyterapp.commands.execute(name).then(() => null)", f"opsagent:{name}")


def press(button: Locator, times: int, rows: Locator) -> None:
    """Press a button that brings more rows, each time when the last have come; a small store has fewer."""
    for _ in range(times):
        before = rows.count()
        if not button.is_visible():
            return
        button.click()
        expect(rows.nth(before)).to_be_attached(timeout=30_000)


def look_around(watched: Watched) -> None:
    """Each tab with its lists, then the audit."""
    page, sidebar = watched.page, watched.sidebar
    lines, chats = sidebar.locator(".oa-line"), sidebar.locator(".oa-session")
    watched.step(
        "open", lambda: (watched.command("open"), expect(sidebar.locator(".oa-instance").last).to_be_visible())
    )
    watched.step("chats", lambda: (watched.tab("Chats"), expect(chats.nth(40)).to_be_attached()))
    watched.step("more chats, 5 times", lambda: press(sidebar.get_by_role("button", name="Show more"), 5, chats))
    transcript = sidebar.locator(".oa-transcript")
    watched.step(
        "a chat",
        lambda: (chats.first.click(), expect(transcript.locator(".oa-turn").nth(90)).to_be_attached(timeout=30_000)),
    )
    watched.step("scroll the chat", lambda: transcript.evaluate(SCROLL))
    watched.step("the queue", lambda: (watched.tab("Waiting"), expect(lines.first).to_be_visible()))
    watched.step("scroll the queue", lambda: sidebar.locator(".oa-panel-waiting").evaluate(SCROLL))
    more = sidebar.get_by_role("button", name="Show more")
    watched.step("more of the queue, 5 times", lambda: press(more, 5, lines))
    watched.step(
        "a card",
        lambda: (lines.first.get_by_role("button").click(), expect(sidebar.locator(".oa-card")).to_be_visible()),
    )
    watched.step("idle beside the queue, 5 s", lambda: page.wait_for_timeout(5000))
    look_at_audit(watched)


def look_at_audit(watched: Watched) -> None:
    """The newest events, earlier ones, a filter, a search."""
    page = watched.page
    audit = page.locator(".oa-audit")
    rows = audit.locator("tbody tr")

    def open_all() -> None:
        watched.command("audit")
        audit.get_by_role("combobox", name="Time").select_option("all")
        expect(audit.get_by_text("the newest 200 events")).to_be_visible(timeout=60_000)

    watched.step("the audit", open_all)
    watched.step("scroll the audit", lambda: audit.locator(".oa-records").evaluate(SCROLL))
    more = audit.get_by_role("button", name="Show earlier events")

    def go_back() -> None:
        for number in range(400, 1400, 200):
            more.click()
            expect(audit.get_by_text(f"the newest {number} events")).to_be_visible(timeout=60_000)

    watched.step("earlier events, 5 times", go_back)
    watched.step("scroll 1,200 events", lambda: audit.locator(".oa-records").evaluate(SCROLL))
    watched.step(
        "an event in full", lambda: (rows.nth(3).click(), expect(audit.locator(".oa-details")).to_be_visible())
    )
    others = audit.locator("tbody .oa-risk:not(.oa-is-critical)")

    def narrow() -> None:
        audit.get_by_role("combobox", name="Risk").select_option("critical")
        expect(others).to_have_count(0, timeout=60_000)

    watched.step("a filter", narrow)


def happen(store: Store, times: int) -> None:
    """Things that every screen shows: requests, chats and records, twenty a second."""
    for number in range(times):
        added(store, session="")
        store.add_session(session(title=f"Session of now {number}"), event("session.opened"))
        store.record(event("call.outcome", status="succeeded", tool="postgresql.get_locks", summary=f"now {number}"))
        time.sleep(0.05)


def arrivals(watched: Watched, store: Store) -> None:
    """Things happen while the queue, a chat and the audit are on the screen."""
    watched.page.locator(".oa-audit").get_by_role("button", name="Clear filters").click()
    watched.step("200 arrivals, queue and audit shown", lambda: happen(store, 200))
    watched.tab("Chats")
    begun = session(title="long")
    store.add_session(begun, event("session.opened"))
    for number in range(100):
        store.append(message(begun.id, f"What is slow since {number}? " * 5))
    watched.sidebar.get_by_role("button", name="All chats").click()
    watched.sidebar.locator(".oa-session").filter(has_text="long").first.click()

    def talk() -> None:
        for number in range(100):
            text = f"**Answer {number}**: `orders` is slow.\n\n- one\n- two\n" * 5
            store.append(Message(session=begun.id, seq=0, role="assistant", text=text))
            time.sleep(0.02)

    watched.step("100 messages arrive in a chat", talk)


def measure(folder: Path) -> dict[str, dict[str, int]]:
    """The figures of each step."""
    environment = {"OPSAGENT_STORE_URL": f"sqlite:///{folder / 'full.db'}", "PLUGIN_ENCRYPTION_KEY": new_key()}
    with tempfile.TemporaryDirectory() as scratch, browser() as chromium:
        place = Path(scratch)
        lab = Lab(place, {**environment, **enable(place)}, base_url="/user/someone/")
        store = open_store(environment["OPSAGENT_STORE_URL"])
        try:
            page = chromium.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{lab.url}lab?token={lab.token}&reset")
            page.wait_for_function("window.jupyterapp", timeout=60_000)
            page.evaluate("window.jupyterapp.restored.then(() => null)")
            watched = Watched(page)
            watched.step("JupyterLab alone, 5 s", lambda: page.wait_for_timeout(5000))
            look_around(watched)
            arrivals(watched, store)
            return watched.found
        finally:
            store.close()
            lab.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(sys.argv[sys.argv.index("--keep") + 1]) if "--keep" in sys.argv else Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "full.db").exists():
            fill(home / "full.db", 0.01 if "--small" in sys.argv else 1.0)
        sys.stdout.write(json.dumps(measure(home), indent=2) + "\n")
