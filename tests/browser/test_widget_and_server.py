"""A card below a cell, in a JupyterLab that has the server extension: it can be decided while its kernel is busy or gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psycopg
import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.workload import Demo
from opsagent_jupyter.models import Approval
from opsagent_jupyter.stores.store import open_store
from tests.browser.lab import Lab, Notebook, browser, enable

pytestmark = pytest.mark.browser

START = """%load_ext opsagent_jupyter
%opsagent attach postgresql shop --server demo --environment staging --dsn-env OPSAGENT_DEMO_DSN"""
ASK_INDEX = "fix = %opsagent ask create an index on orders for customer_id"
NUMBER = "import os; print(fix.calls[-1].approval.id, os.getpid())"


@pytest.fixture(scope="module")
def shop() -> Iterator[Demo]:
    """The demo's shop."""
    with Demo() as demo:
        yield demo


@pytest.fixture(scope="module")
def lab(shop: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab below a base URL, with the server extension, on the kernels' store."""
    folder = tmp_path_factory.mktemp("lab")
    environment = {
        "OPSAGENT_STORE_URL": f"sqlite:///{folder / 'store' / 'opsagent.db'}",
        "PLUGIN_ENCRYPTION_KEY": new_key(),
        "OPSAGENT_DEMO_DSN": shop.operator_dsn,
        "OPSAGENT_LEASE_SECONDS": "3",
        **enable(folder),
    }
    running = Lab(folder, environment, base_url="/user/someone/")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def no_index(shop: Demo) -> None:
    """The shop as it was: no index on orders(customer_id)."""
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        db.execute("DROP INDEX IF EXISTS orders_customer_id_idx")


class Sockets:
    """The page's sockets to OpsAgent's server: the sidebar has one, and all cells together another."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._greeted: list[WebSocket] = []
        page.on("websocket", self._opened)

    def _opened(self, socket: WebSocket) -> None:
        if socket.url.endswith("/opsagent/ws"):
            socket.once("framereceived", lambda _: self._greeted.append(socket))

    def both(self) -> None:
        """Wait until both were greeted."""
        for _ in range(200):
            if len(self._greeted) == 2:
                return
            self._page.wait_for_timeout(100)
        raise AssertionError(f"{len(self._greeted)} sockets were greeted")


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """A notebook's page which complains of nothing of ours."""
    chromium: Browser
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        opened = Notebook(context.new_page())
        yield opened
        context.close()
    assert not [text for text in opened.complaints if "opsagent" in text.lower()], opened.complaints


def asked(notebook: Notebook, lab: Lab, name: str, *more: str) -> tuple[str, int]:
    """Ask for an index in a new notebook; the request's id and the kernel's process."""
    sockets = Sockets(notebook.page)
    lab.write(name, START, ASK_INDEX, NUMBER, *more)
    notebook.open(lab, name)
    for cell in (0, 1, 2):
        notebook.run(cell)
    expect(notebook.view(1).locator(".oa-card-pending")).to_be_visible(timeout=20_000)
    sockets.both()
    request, process = notebook.outputs(2)[0]["text"].split()
    return request, int(process)


def stored(lab: Lab, request: str) -> Approval:
    """The request as the store has it."""
    store = open_store(f"sqlite:///{lab.folder / 'store' / 'opsagent.db'}")
    try:
        return store.approval(request)
    finally:
        store.close()


def test_a_busy_kernel_keeps_no_decision_waiting(notebook: Notebook, lab: Lab) -> None:
    """A cell sleeps; the card beside it is rejected through the server, which knows the browser's user."""
    request, _ = asked(notebook, lab, "busy.ipynb", "import time; time.sleep(300)")
    notebook.start(3)
    notebook.page.wait_for_timeout(1500)
    card = notebook.view(1).locator(".oa-card-pending")
    card.locator(".oa-reason").fill("not now")
    card.locator("[data-decision=reject]").click()
    expect(notebook.view(1).locator(".oa-card-rejected")).to_be_visible(timeout=20_000)
    decided = stored(lab, request)
    assert (decided.state, decided.reason) == ("rejected", "not now")
    assert decided.decided_by is not None
    assert decided.decided_by.via == "server"
    assert notebook.count(3) is None, "the cell has ended, so the kernel was not busy"


def test_a_dead_kernel_keeps_no_decision_waiting(notebook: Notebook, lab: Lab) -> None:
    """The kernel is killed; its card is approved through the server, which runs what was approved, and the card shows it."""
    request, process = asked(notebook, lab, "dead.ipynb")
    os.kill(process, signal.SIGKILL)
    dialog = notebook.page.locator(".jp-Dialog")
    dialog.locator("button").last.click(timeout=30_000)
    expect(dialog).to_have_count(0)
    notebook.view(1).locator(".oa-card-pending [data-decision=approve]").click()
    expect(notebook.view(1).locator(".oa-card-succeeded")).to_be_visible(timeout=60_000)
    decided = stored(lab, request)
    assert decided.state == "succeeded"
    assert decided.decided_by is not None
    assert decided.decided_by.via == "server"
