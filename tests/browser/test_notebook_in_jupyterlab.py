"""The notebook in a real JupyterLab and a real browser: ask, see the card, decide, and outlive the kernel."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Browser, expect

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.workload import Demo
from tests.browser.lab import Lab, Notebook, browser

pytestmark = pytest.mark.browser

START = """%load_ext opsagent_jupyter
%opsagent attach postgresql shop --server demo --environment staging --dsn-env OPSAGENT_DEMO_DSN"""
ASK_INDEX = "fix = %opsagent ask create an index on orders for customer_id"
#: Where pictures of each state go, when somebody wants to look at them.
PICTURES = os.environ.get("OPSAGENT_TEST_PICTURES", "")


@pytest.fixture(scope="module")
def shop() -> Iterator[Demo]:
    """The demo's shop."""
    with Demo() as demo:
        yield demo


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for the module."""
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def lab(shop: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab below a base URL, on the shop."""
    folder = tmp_path_factory.mktemp("lab")
    environment = {
        "OPSAGENT_STORE_URL": f"sqlite:///{folder / 'store' / 'opsagent.db'}",
        "PLUGIN_ENCRYPTION_KEY": new_key(),
        "OPSAGENT_DEMO_DSN": shop.operator_dsn,
        "OPSAGENT_LEASE_SECONDS": "3",
    }
    running = Lab(folder, environment, base_url="/user/someone/")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def notebook(chromium: Browser, lab: Lab) -> Iterator[Notebook]:
    """A page whose every request stays on this machine."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    outside: list[str] = []
    page.on(
        "request", lambda r: outside.append(r.url) if not r.url.startswith((lab.url, "data:", "blob:", "ws:")) else None
    )
    opened = Notebook(page)
    yield opened
    context.close()
    assert not [url for url in outside if "127.0.0.1" not in url], outside
    own = [text for text in opened.complaints if "opsagent" in text.lower() or "widget" in text.lower()]
    assert not own, own


def picture(notebook: Notebook, name: str) -> None:
    """Keep a picture of the page in both themes."""
    if not PICTURES:
        return
    Path(PICTURES).mkdir(parents=True, exist_ok=True)
    for theme in ("Light", "Dark"):
        notebook.theme(f"JupyterLab {theme}")
        notebook.page.wait_for_timeout(400)
        notebook.page.screenshot(path=f"{PICTURES}/{name}-{theme.lower()}.png")
    notebook.theme("JupyterLab Light")


def indexes(shop: Demo) -> dict[str, bool]:
    """The indexes on orders(customer_id): name to validity."""
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        rows = db.execute(
            "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = 'orders'::regclass AND pg_get_indexdef(i.indexrelid) LIKE '%(customer_id)%'"
        ).fetchall()
    return dict(rows)


@pytest.fixture
def no_index(shop: Demo) -> Iterator[None]:
    """The shop as it was: no index on orders(customer_id), before and after."""
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        for name in indexes(shop):
            db.execute(f'DROP INDEX "{name}"')
        yield
        for name in indexes(shop):
            db.execute(f'DROP INDEX "{name}"')


def test_the_chat_streams_an_answer_that_names_the_slow_statements(notebook: Notebook, lab: Lab) -> None:
    """``show me slow queries`` shows its tool call and the statements of the shop."""
    lab.write("chat.ipynb", START, "%opsagent chat")
    notebook.open(lab, "chat.ipynb")
    notebook.run(0)
    notebook.run(1)
    view = notebook.view(1)
    box = view.get_by_role("textbox", name=re.compile("message", re.IGNORECASE))
    box.fill("show me slow queries")
    box.press("Enter")
    expect(view.get_by_text("get_slow_queries").first).to_be_visible(timeout=20_000)
    expect(view.get_by_text("FROM orders WHERE customer_id = $1").first).to_be_visible(timeout=20_000)
    picture(notebook, "chat")


def test_a_card_is_approved_by_mouse_and_the_index_is_there(
    notebook: Notebook, lab: Lab, shop: Demo, no_index: None
) -> None:
    """The card shows the statement, its lock and its undo; after the click it shows who and what came of it."""
    lab.write("mouse.ipynb", START, ASK_INDEX)
    notebook.open(lab, "mouse.ipynb")
    notebook.run(0)
    notebook.run(1)
    card = notebook.view(1).locator(".oa-card-pending")
    expect(card).to_be_visible(timeout=20_000)
    for text in ("CREATE INDEX CONCURRENTLY", "DROP INDEX CONCURRENTLY", "SHARE UPDATE EXCLUSIVE", "staging"):
        expect(card.get_by_text(text).first).to_be_visible()
    assert indexes(shop) == {}
    picture(notebook, "card-pending")
    card.locator("[data-decision=approve]").click()
    done = notebook.view(1).locator(".oa-card-succeeded")
    expect(done).to_be_visible(timeout=30_000)
    expect(done).to_contain_text(re.compile("Approved by", re.IGNORECASE))
    assert list(indexes(shop).values()) == [True]
    expect(notebook.view(1)).to_contain_text(re.compile("index", re.IGNORECASE), timeout=20_000)
    picture(notebook, "card-succeeded")


def test_a_card_is_approved_by_keyboard(notebook: Notebook, lab: Lab, shop: Demo, no_index: None) -> None:
    """A medium card that has the focus takes the key A."""
    lab.write("keys.ipynb", START, ASK_INDEX)
    notebook.open(lab, "keys.ipynb")
    notebook.run(0)
    notebook.run(1)
    card = notebook.view(1).locator(".oa-card-pending")
    expect(card).to_be_visible(timeout=20_000)
    card.focus()
    notebook.page.keyboard.press("a")
    expect(notebook.view(1).locator(".oa-card-succeeded")).to_be_visible(timeout=30_000)
    assert list(indexes(shop).values()) == [True]


def test_a_rejected_card_says_who_and_nothing_runs(notebook: Notebook, lab: Lab, shop: Demo, no_index: None) -> None:
    """The reason is on the card, too."""
    lab.write("reject.ipynb", START, ASK_INDEX)
    notebook.open(lab, "reject.ipynb")
    notebook.run(0)
    notebook.run(1)
    card = notebook.view(1).locator(".oa-card-pending")
    card.locator(".oa-reason").fill("not during the sale")
    card.locator("[data-decision=reject]").click()
    done = notebook.view(1).locator(".oa-card-rejected")
    expect(done).to_be_visible(timeout=20_000)
    expect(done).to_contain_text("not during the sale")
    assert indexes(shop) == {}
    picture(notebook, "card-rejected")


def test_a_card_expires_before_the_eyes(notebook: Notebook, lab: Lab, shop: Demo, no_index: None) -> None:
    """Nobody decides, the countdown ends, the card says so and nothing runs."""
    lab.write("expire.ipynb", "import os; os.environ['OPSAGENT_PENDING_SECONDS'] = '6'\n" + START, ASK_INDEX)
    notebook.open(lab, "expire.ipynb")
    notebook.run(0)
    notebook.run(1)
    expect(notebook.view(1).locator(".oa-card-expired")).to_be_visible(timeout=30_000)
    assert indexes(shop) == {}
    picture(notebook, "card-expired")


def test_a_click_works_while_a_cell_blocks(notebook: Notebook, lab: Lab, shop: Demo, no_index: None) -> None:
    """A cell that waits for the decision ends by the click on the card below another cell."""
    lab.write("blocked.ipynb", START, ASK_INDEX, "print(fix.wait(60).calls[-1].status)")
    notebook.open(lab, "blocked.ipynb")
    notebook.run(0)
    notebook.run(1)
    card = notebook.view(1).locator(".oa-card-pending")
    expect(card).to_be_visible(timeout=20_000)
    notebook.start(2)
    notebook.page.wait_for_timeout(1500)
    card.locator("[data-decision=approve]").click()
    notebook.said(2)
    assert "succeeded" in str(notebook.outputs(2))
    assert list(indexes(shop).values()) == [True]


def test_a_pending_card_outlives_its_kernel_and_runs_once(
    notebook: Notebook, lab: Lab, shop: Demo, no_index: None
) -> None:
    """The kernel is killed; in the new one the request is shown, approved, and run once."""
    lab.write(
        "killed.ipynb", START, ASK_INDEX, "print(fix.calls[-1].approval.id)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "%load_ext opsagent_jupyter\nfrom pathlib import Path\nid = Path('request.txt').read_text()\n%opsagent --vars show {id}",
        "%opsagent --vars approve {id} --wait 60",
    )  # fmt: skip
    notebook.open(lab, "killed.ipynb")
    for cell in (0, 1, 2):
        notebook.run(cell)
    request = notebook.outputs(2)[0]["text"].strip()
    (lab.folder / "request.txt").write_text(request)
    notebook.start(3)
    notebook.page.wait_for_timeout(4000)
    notebook.restart()
    notebook.run(4)
    assert "waiting for a decision" in str(notebook.outputs(4))
    notebook.run(5)
    assert "built and valid" in str(notebook.outputs(5))
    assert list(indexes(shop).values()) == [True]
    picture(notebook, "after-the-kernel")


def test_a_saved_notebook_reads_without_a_kernel_and_holds_no_rows(
    notebook: Notebook, lab: Lab, shop: Demo, no_index: None
) -> None:
    """What was asked and decided is in plain outputs; no password, no statement of the card is in the widget state."""
    lab.write("saved.ipynb", START, ASK_INDEX)
    notebook.open(lab, "saved.ipynb")
    notebook.run(0)
    notebook.run(1)
    card = notebook.view(1).locator(".oa-card-pending")
    expect(card).to_be_visible(timeout=20_000)
    card.locator("[data-decision=reject]").click()
    expect(notebook.view(1).locator(".oa-card-rejected")).to_be_visible(timeout=20_000)
    time.sleep(1)
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.wait_for_timeout(2000)
    saved = (lab.folder / "saved.ipynb").read_text()
    assert "rejected by" in saved
    assert "Create an index" in saved
    assert shop.operator_dsn.split(":")[2].split("@")[0] not in saved
