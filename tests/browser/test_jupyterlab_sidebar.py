"""The sidebar and the audit in a real JupyterLab: from a server to a chat, a call, an approval, and its record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, WebSocketRoute, expect

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.workload import Demo
from opsagent_jupyter.models import (
    Actor,
    AuditEvent,
    CallRecord,
    Message,
    Result,
    Risk,
    Session,
    Suggestion,
    Table,
    new_id,
)
from opsagent_jupyter.stores.store import open_store
from tests.browser.lab import Lab, Notebook, browser, enable
from tests.kernels import ROOT

pytestmark = pytest.mark.browser

AXE = ROOT / "js" / "node_modules" / "axe-core" / "axe.min.js"
ASK_INDEX = "create an index on orders for customer_id"
#: Where pictures of each screen go, when somebody wants to look at them.
PICTURES = os.environ.get("OPSAGENT_TEST_PICTURES", "")
THEMES = ("Light", "Dark")
#: A text that is hard to read in every theme.
PLANT = """() => {
  const text = document.createElement('p');
  text.id = 'planted'; text.style.color = '#888'; text.style.background = '#999'; text.textContent = 'hard to read';
  document.querySelector('.oa-sidebar').append(text);
}"""


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
def axe() -> str:
    """The accessibility checker's script, which comes with the front end's development packages."""
    subprocess.run([sys.executable, str(ROOT / "js" / "hatch_build.py")], check=True)
    return AXE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lab(shop: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab below a base URL, with the server extension."""
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


class Sidebar:
    """The sidebar of one page, by what a person reads on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.node = page.locator("#opsagent-sidebar")

    def command(self, name: str) -> None:
        """Run one of the extension's commands."""
        self.page.evaluate("name => window.jupyterapp.commands.execute(name).then(() => null)", f"opsagent:{name}")

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.node.get_by_role("button", name=name)

    def tab(self, name: str) -> None:
        self.node.get_by_role("tab", name=re.compile(name)).click()

    def attach(self, dsn: str) -> None:
        """Attach the shop through the form, unless it is attached."""
        self.tab("Servers")
        # whatever is attached is told right after the connection
        expect(self.node.get_by_text("personal set-up")).to_be_visible(timeout=30_000)
        self.page.wait_for_timeout(1000)
        if self.button(re.compile("shop")).count():
            return
        self.button(re.compile("Attach a database")).click()
        place = urlsplit(dsn)
        fields = {
            "Name": "shop", "Server": "demo", "Host": place.hostname or "", "Port": str(place.port),
            "Database": place.path.lstrip("/"), "User": unquote(place.username or ""),
        }  # fmt: skip
        for name, value in fields.items():
            self.node.locator("form").get_by_role("textbox", name=name, exact=True).or_(
                self.node.locator("form").get_by_role("combobox", name=name, exact=True)
            ).fill(value)
        self.node.get_by_label("Password").fill(unquote(place.password or ""))
        self.node.get_by_label("Environment").select_option("staging")
        self.button("Test and attach").click()
        expect(self.button(re.compile("shop"))).to_be_visible(timeout=30_000)

    def new_chat(self) -> Locator:
        """Begin a chat on the shop; its message box."""
        self.tab("Servers")
        self.button(re.compile("shop")).first.click()
        self.button("New chat").click()
        box = self.node.get_by_role("textbox", name="Message")
        expect(box).to_be_visible(timeout=20_000)
        return box

    def say(self, box: Locator, text: str) -> None:
        """Send a message; while a turn runs the text stays in its box."""
        box.fill(text)
        expect(self.node.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=60_000)
        box.press("Enter")
        expect(box).to_have_value("")


@pytest.fixture
def page(chromium: Browser, lab: Lab) -> Iterator[Page]:
    """An empty JupyterLab whose every request stays on this machine and which complains of nothing of ours."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    outside: list[str] = []
    complaints: list[str] = []
    opened.on("request", lambda request: outside.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.goto(f"{lab.url}lab?token={lab.token}&reset")
    opened.wait_for_function("window.jupyterapp", timeout=60_000)
    opened.evaluate("window.jupyterapp.restored.then(() => null)")
    yield opened
    context.close()
    assert not [url for url in outside if not url.startswith((lab.url, "data:", "blob:"))], outside
    assert not [text for text in complaints if "opsagent" in text.lower()], complaints


@pytest.fixture
def sidebar(page: Page, shop: Demo) -> Sidebar:
    """The sidebar, with the shop attached."""
    opened = Sidebar(page)
    opened.command("open")
    opened.attach(shop.operator_dsn)
    return opened


@pytest.fixture
def no_index(shop: Demo) -> Iterator[None]:
    """The shop as it was: no index on orders(customer_id), before and after."""
    drop_indexes(shop)
    yield
    drop_indexes(shop)


def drop_indexes(shop: Demo) -> None:
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        for name in indexes(shop):
            db.execute(f'DROP INDEX "{name}"')


def indexes(shop: Demo) -> Sequence[str]:
    """The valid indexes on orders(customer_id)."""
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        found = db.execute(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = 'orders'::regclass AND i.indisvalid AND pg_get_indexdef(i.indexrelid) LIKE '%(customer_id)%'"
        )
        return [name for (name,) in found]


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page in both themes and on a narrow window."""
    if not PICTURES:
        return
    Path(PICTURES).mkdir(parents=True, exist_ok=True)
    for theme in THEMES:
        change_theme(page, theme)
        page.screenshot(path=f"{PICTURES}/sidebar-{name}-{theme.lower()}.png")
    change_theme(page, "Light")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.wait_for_timeout(500)
    page.screenshot(path=f"{PICTURES}/sidebar-{name}-1024.png")
    page.set_viewport_size({"width": 1440, "height": 900})


def export(page: Page, audit: Locator, kind: str, name: str, beginning: bytes) -> None:
    """Export what is shown, and look at the file."""
    with page.expect_download() as download:
        audit.get_by_role("button", name=f"Export {kind}").click()
    assert download.value.suggested_filename == name
    assert Path(download.value.path()).read_bytes().startswith(beginning)


def change_theme(page: Page, theme: str) -> None:
    script = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme}).then(() => null)"
    page.evaluate(script, f"JupyterLab {theme}")
    page.wait_for_function(
        "dark => (document.body.dataset.jpThemeLight === 'false') === dark",
        arg=theme.startswith("Dark"),
        timeout=20_000,
    )
    page.wait_for_timeout(500)


def test_the_walk_from_a_server_over_chat_and_approval_to_the_audit(
    sidebar: Sidebar, page: Page, shop: Demo, no_index: None
) -> None:
    """Sidebar, server, new session, chat, tool, approval, audit: each step on a real database."""
    expect(sidebar.node.get_by_text("up", exact=True)).to_be_attached(timeout=20_000)
    picture(page, "servers")
    box = sidebar.new_chat()
    sidebar.say(box, "show me slow queries")
    expect(sidebar.node.get_by_text("get_slow_queries").first).to_be_visible(timeout=30_000)
    expect(sidebar.node.get_by_text("FROM orders WHERE customer_id = $1").first).to_be_visible(timeout=30_000)
    picture(page, "chat")

    sidebar.say(box, ASK_INDEX)
    card = sidebar.node.locator(".oa-card-pending")
    expect(card).to_be_visible(timeout=30_000)
    expect(page.locator(".oa-status")).to_have_text("OpsAgent: 1 waiting")
    assert indexes(shop) == []
    sidebar.tab("Waiting")
    sidebar.button("Open").click()
    picture(page, "waiting")
    expect(card.get_by_text("CREATE INDEX CONCURRENTLY").first).to_be_visible()
    card.locator("[data-decision=approve]").click()
    expect(page.locator(".oa-status")).to_have_text("OpsAgent", timeout=30_000)
    sidebar.tab("Chats")
    done = sidebar.node.locator(".oa-card-succeeded")
    expect(done).to_contain_text(re.compile("Approved by"), timeout=30_000)
    assert len(indexes(shop)) == 1

    sidebar.button(re.compile("Audit")).click()
    audit = page.locator(".oa-audit")
    expect(audit.get_by_role("row").filter(has_text="create_index").filter(has_text="succeeded").first).to_be_visible(
        timeout=20_000
    )
    audit.get_by_role("combobox", name="Risk").select_option("medium")
    expect(audit.get_by_role("row").filter(has_text="get_slow_queries")).to_have_count(0, timeout=20_000)
    expect(audit.get_by_role("row").filter(has_text="create_index").first).to_be_visible()
    audit.get_by_role("combobox", name="Risk").select_option("")
    audit.get_by_role("searchbox").fill("FROM orders WHERE customer_id")
    expect(audit.get_by_role("row").filter(has_text="session.opened")).to_have_count(0, timeout=20_000)
    audit.get_by_role("searchbox").fill("")
    expect(audit.get_by_text(re.compile(r"Chain verified: \d+ records"))).to_be_visible(timeout=30_000)
    export(page, audit, "CSV", "audit.csv", b"seq,event_id,time")
    export(page, audit, "Parquet", "audit.parquet", b"PAR1")
    audit.get_by_role("row").filter(has_text="create_index").first.locator("button").click()
    expect(audit.get_by_role("complementary")).to_contain_text("CREATE INDEX CONCURRENTLY", timeout=20_000)
    picture(page, "audit")


def test_a_card_changes_on_both_sides_wherever_it_is_answered(
    sidebar: Sidebar, page: Page, lab: Lab, shop: Demo, no_index: None
) -> None:
    """Asked in a notebook, announced and answered in the sidebar; asked there again, answered in the notebook."""
    start = "%load_ext opsagent_jupyter"
    ask = f"fix = %opsagent ask --on shop {ASK_INDEX}"
    lab.write("both.ipynb", start, ask, ask)
    page.evaluate(
        "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", "both.ipynb"
    )
    notebook = Notebook(page)
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 2", timeout=60_000)
    notebook.idle()
    notebook.run(0)
    notebook.run(1)
    expect(notebook.view(1).locator(".oa-card-pending")).to_be_visible(timeout=30_000)
    toast = page.get_by_role("alert").filter(has_text="Approval needed")
    expect(toast).to_be_visible(timeout=20_000)
    toast.get_by_role("button", name="Open").click()
    card = sidebar.node.locator(".oa-card-pending")
    card.locator(".oa-reason").fill("not during the sale")
    card.locator("[data-decision=reject]").click()
    expect(notebook.view(1).locator(".oa-card-rejected")).to_contain_text("not during the sale", timeout=20_000)

    notebook.run(2)
    expect(notebook.view(2).locator(".oa-card-pending")).to_be_visible(timeout=30_000)
    expect(page.locator(".oa-status")).to_have_text("OpsAgent: 1 waiting", timeout=20_000)
    notebook.view(2).locator("[data-decision=approve]").click()
    expect(page.locator(".oa-status")).to_have_text("OpsAgent", timeout=30_000)
    expect(notebook.view(2).locator(".oa-card-succeeded")).to_be_visible(timeout=30_000)
    sidebar.tab("Chats")
    sidebar.node.locator(".oa-session").filter(has_text="index on orders").first.click()
    expect(sidebar.node.locator(".oa-card-succeeded").first).to_be_visible(timeout=20_000)
    assert len(indexes(shop)) == 1


def test_a_cell_is_asked_about_and_a_call_becomes_a_cell(sidebar: Sidebar, page: Page, lab: Lab) -> None:
    """The source goes to the message box, unsent; the result does not go; a call comes back as a cell, not run."""
    lab.write("ask.ipynb", "rows = 'secret ' + 'result'\nprint(rows)")
    page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", "ask.ipynb")
    notebook = Notebook(page)
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 0", timeout=60_000)
    notebook.idle()
    notebook.run(0)
    sidebar.command("ask-about-cell")
    box = sidebar.node.get_by_role("textbox", name="Message")
    expect(box).to_have_value(re.compile(re.escape("print(rows)")), timeout=20_000)
    assert "secret result" not in box.input_value()
    assert sidebar.node.locator(".oa-you").count() == 0
    sidebar.say(box, "list the indexes of orders")
    line = sidebar.node.locator(".oa-call summary").first
    line.click(timeout=30_000)
    sidebar.button(re.compile("Insert as cell")).first.click()
    source = "() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()"
    page.wait_for_function(f"({source})().startsWith('%opsagent run')", timeout=20_000)
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.executionCount") is None


def test_the_audit_opens_as_a_notebook_that_runs(sidebar: Sidebar, page: Page) -> None:
    """The notebook holds the filters as a query, and its cells run."""
    sidebar.command("audit")
    audit = page.locator(".oa-audit")
    expect(audit.get_by_role("row").nth(1)).to_be_visible(timeout=20_000)
    audit.get_by_role("button", name="Open as notebook").click()
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 2", timeout=60_000)
    notebook = Notebook(page)
    notebook.idle()
    notebook.run(0)
    notebook.run(1)
    assert "instance.attached" in json.dumps(notebook.outputs(1))


def test_what_happens_while_the_line_is_cut_is_shown_when_it_is_back(sidebar: Sidebar, page: Page, lab: Lab) -> None:
    """The sidebar says that it is cut off, tries again by itself, and has missed nothing."""
    lines: list[WebSocketRoute] = []
    down: list[bool] = []

    def carry(line: WebSocketRoute) -> None:
        if down:
            line.close()
            return
        line.connect_to_server()
        lines.append(line)

    page.route_web_socket(re.compile("/opsagent/ws"), carry)
    page.reload()
    page.wait_for_function("window.jupyterapp", timeout=60_000)
    page.evaluate("window.jupyterapp.restored.then(() => null)")
    sidebar.command("open")
    sidebar.tab("Chats")
    expect(sidebar.node.get_by_text("personal set-up")).to_be_visible(timeout=30_000)
    begin_elsewhere(lab)
    before = chats(lab)
    expect(sidebar.node.locator(".oa-session")).to_have_count(before, timeout=20_000)
    down.append(True)
    lines[-1].close()
    expect(page.locator(".oa-status")).to_have_text("OpsAgent: not connected", timeout=20_000)
    begin_elsewhere(lab)
    assert chats(lab) == before + 1
    assert sidebar.node.locator(".oa-session").count() == before
    down.clear()
    sidebar.button("Try now").click()
    expect(sidebar.node.locator(".oa-session")).to_have_count(before + 1, timeout=30_000)
    expect(page.locator(".oa-status")).not_to_have_text("OpsAgent: not connected")


def begin_elsewhere(lab: Lab) -> None:
    """Begin a chat as another client of the server would."""
    ask(lab, "sessions", {})


def chats(lab: Lab) -> int:
    """How many chats the server knows."""
    return len(ask(lab, "sessions")["items"])


def ask(lab: Lab, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the server as a program with the token does."""
    headers = {"Authorization": f"token {lab.token}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{lab.url}opsagent/api/{path}", data=content, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


#: Names that are markup, commands, terminal codes, or read from the right; each fits into an identifier.
HOSTILE = (
    '<img src=x onerror="window.owned=1">', "<script>window.owned=1</script>", '"><svg onload=window.owned=1>',
    '</pre><iframe srcdoc="<script>parent.owned=1</script>">', "<style>*{display:none}</style>",
    '<a href="javascript:window.owned=1">ok</a>', '<b data-commandlinker-command="opsagent:audit">Approve</b>',
    "javascript:window.owned=1", "[approve](javascript:window.owned=1)", "[approve](command:opsagent:audit)",
    "![x](data:image/svg+xml,<svg onload=window.owned=1>)", "{{constructor.constructor('owned=1')()}}",
    "\x1b[2K\x1b[31mapproved\x1b[0m", "\x1b]8;;https://evil.example\x07orders\x1b]8;;\x07", "\u202egpj.sredro",
    "\u2067orders\u2069 \u2066x\u200f", "\u0645\u0633\u062a\u062e\u062f\u0645_admin", "ad\u200bmin\ufeff\u00ad",
    "\u043erders", "orders\r\x08\x08\x08approved",
)  # fmt: skip
#: What a page has that took one of them for more than text.
TAKEN = r"""() => {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/;
  const made = 'img, script, iframe, style, a, object, embed, [href], [src], [srcdoc], [data-commandlinker-command]';
  const found = window.owned === undefined ? [] : ['something ran'];
  const places = document.querySelectorAll('.oa-root, .Toastify, .oa-status');
  for (const place of places) {
    if (!place.matches('.Toastify')) for (const one of place.querySelectorAll(made)) found.push(one.outerHTML);
    const walk = document.createTreeWalker(place, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      if (node.nodeType === Node.TEXT_NODE) { if (hidden.test(node.data)) found.push(node.data); continue; }
      for (const {name, value} of node.attributes)
        if (/^on/.test(name) || (name !== 'value' && hidden.test(value))) found.push(`${name}=${value}`);
    }
  }
  return [places.length, found];
}"""


def taken(page: Page) -> list[str]:
    """Where the page took a hostile text for more than text."""
    places, found = page.evaluate(TAKEN)
    assert places > 1
    return list(found)


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def conversation(lab: Lab, title: str, words: Sequence[str]) -> str:
    """Put a conversation into the store in which the model, a tool's rows, its findings and its plan say these words."""
    text = words[0]
    rows = Table(name=text, columns=("name", text), rows=tuple((word, word) for word in words), total=99)
    columns = ("rank", "severity", "finding", "evidence", "why", "advice", "fix", "confidence")
    problems = tuple((n, "high", word, word, word, word, 1, "certain") for n, word in enumerate(words))
    findings = Table(name="findings", columns=columns, rows=problems, total=99)
    nodes = tuple((0, word, word, word, 100 / (n + 1), 5) for n, word in enumerate(words))
    plan = Table(
        name="nodes", columns=("depth", "node", "relation", "index", "share", "estimated rows"), rows=nodes, total=9
    )
    next_step = Suggestion(tool="postgresql.drop_index", arguments={"index": text}, why=text)
    calls = tuple(
        CallRecord(
            id=new_id(), tool="postgresql.list_indexes", arguments={"table": text}, instance="shop", risk=Risk.LOW,
            status="succeeded", summary=text, requested=text, milliseconds=4,
            result=Result(
                summary=text, tables=(table,), highlights=tuple(words), notes=tuple(words), tree="\n".join(words),
                suggestions=(next_step,),
            ),
        )
        for table in (rows, findings, plan)
    )  # fmt: skip
    store = open_store(f"sqlite:///{lab.folder / 'store' / 'opsagent.db'}")
    try:
        begun = Session(title=title, instance="shop", server="demo", created_by=words[-1])
        store.add_session(begun, AuditEvent(type="session.opened", actor=Actor(id="os:x", name=text, via="cli")))
        store.append(Message(session=begun.id, seq=0, role="user", text="\n".join(words), author=text))
        store.append(Message(session=begun.id, seq=0, role="assistant", text="\n\n".join(words), calls=calls))
    finally:
        store.close()
    return begun.id


def steps(lab: Lab, words: Sequence[str]) -> None:
    """Put a run of a runbook into the store whose runbook, steps, people, tools and summaries say these words."""
    store = open_store(f"sqlite:///{lab.folder / 'store' / 'opsagent.db'}")
    try:
        for number, word in enumerate(words):
            place = {"runbook": words[0], "run": words[0], "step": f"{number} {word}"}
            state = ("succeeded", "pending", word)[number % 3]
            event = AuditEvent(
                type="call.intent", actor=Actor(id="os:x", name=word, via="cli"), call=new_id(), status=state, tool=word,
                server=word, instance=word, risk=Risk.HIGH, summary=word, details=place,
            )  # fmt: skip
            store.record(event)
    finally:
        store.close()


def unfold(place: Locator) -> None:
    """Open whatever can be opened there."""
    place.evaluate("place => { for (const one of place.querySelectorAll('details:not([open])')) one.open = true; }")
    place.page.wait_for_timeout(300)


def test_hostile_words_are_text_in_a_chat_in_both_homes(sidebar: Sidebar, page: Page, lab: Lab) -> None:
    """Said by a model and found by tools: in the sidebar's chat, and in a cell's on the same conversation."""
    name = "<b>twenty</b>\u202e words"
    session = conversation(lab, name, HOSTILE)
    sidebar.tab("Chats")
    sidebar.node.locator(".oa-session").filter(has_text="<b>twenty</b>").first.click(timeout=20_000)
    expect(sidebar.node.locator(".oa-call")).to_have_count(3, timeout=20_000)
    unfold(sidebar.node)
    expect(sidebar.node.locator(".oa-finding")).to_have_count(len(HOSTILE))
    assert taken(page) == []
    lab.write("hostile.ipynb", "%load_ext opsagent_jupyter", f"%opsagent open {session}")
    page.evaluate(
        "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", "hostile.ipynb"
    )
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 1", timeout=60_000)
    notebook = Notebook(page)
    notebook.idle()
    notebook.run(0)
    notebook.run(1)
    expect(notebook.view(1).locator(".oa-call")).to_have_count(3, timeout=30_000)
    unfold(notebook.view(1))
    assert taken(page) == []
    assert page.evaluate("document.querySelectorAll('.jp-OutputArea img, .jp-OutputArea iframe').length") == 0


def test_hostile_words_are_text_in_the_runs_of_runbooks(sidebar: Sidebar, page: Page, lab: Lab) -> None:
    """A runbook, its run, its steps, people, tools, databases, servers, states and summaries with such names."""
    steps(lab, HOSTILE)
    sidebar.command("runs")
    table = page.locator(".oa-runs table").filter(has_text="<img src=x")
    expect(table.locator("tbody tr")).to_have_count(len(HOSTILE), timeout=20_000)
    assert taken(page) == []


def test_a_run_of_a_runbook_is_shown_step_by_step_and_decided_from_there(
    sidebar: Sidebar, page: Page, lab: Lab
) -> None:
    """What a notebook calls step by step: its tools, how each step ended, who approved, how long that and the work took."""
    call = "%opsagent --vars run {} --on=shop --table=orders --step={{run.ref}}/{}"
    begin = "run = %opsagent runbook begin a1b2c3d4e5f60718 --on=shop --run=nightly"
    calls = (call.format("postgresql.list_indexes", "look"), call.format("postgresql.analyze_table", "analyze"))
    lab.write("steps.ipynb", "%load_ext opsagent_jupyter", begin, *calls)
    page.evaluate(
        "path => window.jupyterapp.commands.execute('docmanager:open', {path}).then(() => null)", "steps.ipynb"
    )
    page.wait_for_function("window.jupyterapp.shell.currentWidget?.content?.widgets?.length > 3", timeout=60_000)
    notebook = Notebook(page)
    notebook.idle()
    for cell in range(4):
        notebook.run(cell)
    sidebar.command("runs")
    runs = page.locator(".oa-runs figure").filter(has_text="Run nightly")
    looked = runs.get_by_role("row").filter(has_text="postgresql.list_indexes")
    expect(looked).to_contain_text(re.compile(r"^look.*shop on demo.*Succeeded.*\d m?s"), timeout=20_000)
    asked = runs.get_by_role("row").filter(has_text="postgresql.analyze_table")
    expect(runs.locator("caption")).to_contain_text("1 of 2 steps done")
    asked.get_by_role("button", name="Waits for a decision").click()
    card = sidebar.node.locator(".oa-card-pending")
    expect(card).to_contain_text("orders")
    picture(page, "runs")
    card.locator("[data-decision=approve]").click()
    expect(runs.locator("caption")).to_contain_text("2 of 2 steps done", timeout=30_000)
    (step,) = (one for one in ask(lab, "runbooks/steps?run=nightly")["items"] if one["step"] == "analyze")
    assert step["decided_by"]
    expect(asked.get_by_role("cell").nth(1)).to_have_text("Succeeded")
    expect(asked.get_by_role("cell").nth(3)).to_have_text(step["decided_by"])
    for place in (4, 5):
        expect(asked.get_by_role("cell").nth(place)).to_have_text(re.compile(r"^[\d.]+ (ms|s|min)"))


def test_twenty_hostile_tables_are_text_wherever_they_are_asked_about(
    sidebar: Sidebar, page: Page, lab: Lab, shop: Demo
) -> None:
    """Real tables, indexes and roles with such names: in toasts, the queue, cards, the audit and its details."""
    opened: list[str] = []
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        db.execute("CREATE SCHEMA hostile AUTHORIZATION opsagent_operator")
        for name in HOSTILE:
            db.execute(f"CREATE TABLE hostile.{identifier(name)} (id int)")
            db.execute(f"ALTER TABLE hostile.{identifier(name)} OWNER TO opsagent_operator")
            db.execute(f"CREATE INDEX {identifier('i' + name[:50])} ON hostile.{identifier(name)} (id)")
            db.execute(f"CREATE ROLE {identifier(name)}")
    try:
        for name in HOSTILE:
            rights = {"object": f"hostile.{identifier(name)}", "privileges": ["SELECT"], "role": name}
            call = {"tool": "grant_permission", "arguments": rights}
            assert ask(lab, "servers/demo/plugins/shop/execute", call)["status"] == "waiting"
            if name == HOSTILE[0]:
                expect(page.get_by_role("alert").filter(has_text="<img src=x").first).to_be_visible(timeout=20_000)
            assert taken(page) == []  # its toast, or that of the last
            call = {"tool": "list_indexes", "arguments": {"table": f"hostile.{identifier(name)}"}}
            ask(lab, "servers/demo/plugins/shop/execute", call)
        sidebar.tab("Waiting")
        expect(sidebar.node.locator(".oa-line")).to_have_count(len(HOSTILE), timeout=20_000)
        for number in range(len(HOSTILE)):
            sidebar.node.locator(".oa-line").nth(number).get_by_role("button").click()
            expect(sidebar.node.locator(".oa-card")).to_be_visible()
            assert taken(page) == []
        sidebar.command("audit")
        page.locator(".oa-audit .oa-row-button").nth(3).click(timeout=20_000)
        expect(page.locator(".oa-audit .oa-details")).to_be_visible()
        assert taken(page) == []
        assert opened == []
    finally:
        for request in ask(lab, "approvals")["items"]:
            ask(lab, f"approvals/{request['id']}/withdraw", {"digest": request["digest"]})
        with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
            db.execute("DROP SCHEMA hostile CASCADE")
            for name in HOSTILE:
                db.execute(f"DROP ROLE {identifier(name)}")


def test_hostile_names_are_text_on_every_screen(sidebar: Sidebar, page: Page, lab: Lab, shop: Demo) -> None:
    """A table whose name is markup with a hidden character: in the toast, the card, the queue and the audit."""
    opened: list[str] = []
    page.on("dialog", lambda dialog: (opened.append(dialog.message), dialog.dismiss()))
    name = "<img src=x onerror=alert(1)>\u202etxt.sql"
    table = '"' + name + '"'
    with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
        db.execute(f"CREATE TABLE {table} (id int)")
        db.execute(f"ALTER TABLE {table} OWNER TO opsagent_operator")
    try:
        call = {"tool": "create_index", "arguments": {"table": table, "columns": ["id"]}}
        record = ask(lab, "servers/demo/plugins/shop/execute", call)
        assert record["status"] == "waiting", record
        shown = "<img src=x onerror=alert(1)>⟨U+202E⟩txt.sql"
        expect(page.get_by_role("alert").filter(has_text="<img src=x")).to_be_visible(timeout=20_000)
        sidebar.tab("Waiting")
        expect(sidebar.node.locator(".oa-line")).to_contain_text(shown)
        sidebar.button("Open").click()
        expect(sidebar.node.locator(".oa-card")).to_contain_text(shown)
        sidebar.command("audit")
        expect(page.locator(".oa-audit")).to_contain_text(shown, timeout=20_000)
        sidebar.node.locator("[data-decision=reject]").click()
        expect(sidebar.node.locator(".oa-card-pending")).to_have_count(0, timeout=20_000)
        assert page.locator("img[src=x]").count() == 0
        assert opened == []
    finally:
        with psycopg.connect(shop.superuser_dsn, autocommit=True) as db:
            db.execute(f"DROP TABLE {table}")


@pytest.mark.parametrize("theme", [*THEMES, "Dark High Contrast"])
def test_axe_finds_nothing_on_any_screen(sidebar: Sidebar, page: Page, lab: Lab, axe: str, theme: str) -> None:
    """Servers with details, both forms, chats, findings, a plan, rows, a card in the queue and in a cell, the audit with an
    event, its columns and its plot: contrast included."""
    change_theme(page, theme)
    page.evaluate(axe)
    # JupyterLab's body has no height, and axe looks at no colours in what has none
    page.evaluate("document.body.style.height = '100vh'")
    page.evaluate(PLANT)
    assert "color-contrast" in str(findings(page, "#opsagent-sidebar", "planted"))
    page.evaluate("document.getElementById('planted').remove()")
    sidebar.tab("Servers")
    sidebar.button(re.compile("shop")).first.click()
    found = findings(page, "#opsagent-sidebar", "servers")
    sidebar.button(re.compile("Attach a database")).click()
    found += findings(page, "#opsagent-sidebar", "form")
    sidebar.button("Cancel").click()
    box = sidebar.new_chat()
    sidebar.say(box, "list the indexes of orders")
    sidebar.node.locator(".oa-call summary").first.click(timeout=30_000)
    expect(sidebar.node.locator(".oa-chat .oa-stop")).to_have_count(0, timeout=30_000)
    found += findings(page, "#opsagent-sidebar", "chat")
    sidebar.button("All chats").click()
    expect(sidebar.node.locator(".oa-session").first).to_be_visible(timeout=20_000)
    found += findings(page, "#opsagent-sidebar", "chats")
    sidebar.button("New chat").click()
    found += findings(page, "#opsagent-sidebar", "a new chat")
    sidebar.button("Cancel").click()
    conversation(lab, f"seen by axe in {theme} theme", ["orders", "\u202eorders"])
    sidebar.node.locator(".oa-session").filter(has_text=f"axe in {theme} theme").click(timeout=20_000)
    expect(sidebar.node.locator(".oa-call")).to_have_count(3, timeout=20_000)
    unfold(sidebar.node)
    expect(sidebar.node.locator(".oa-finding").first).to_be_visible()
    found += findings(page, "#opsagent-sidebar", "findings, plan and rows")
    call = {"tool": "analyze_table", "arguments": {"table": "orders"}}
    request = ask(lab, f"approvals/{ask(lab, 'servers/demo/plugins/shop/execute', call)['approval']}")
    sidebar.tab("Waiting")
    sidebar.button("Open").first.click()
    expect(sidebar.node.locator(".oa-card-pending")).to_be_visible()
    found += findings(page, "#opsagent-sidebar", "waiting")
    ask(lab, f"approvals/{request['id']}/withdraw", {"digest": request["digest"]})
    expect(sidebar.node.locator(".oa-card-withdrawn")).to_be_visible(timeout=20_000)
    found += findings(page, "#opsagent-sidebar", "a card that is decided")
    sidebar.command("audit")
    page.locator(".oa-audit .oa-menu summary").click(timeout=20_000)
    found += findings(page, ".oa-audit-widget", "the audit's columns")
    page.keyboard.press("Escape")
    page.locator(".oa-audit .oa-row-button").first.click(timeout=20_000)
    expect(page.locator(".oa-audit .oa-details")).to_be_visible()
    found += findings(page, ".oa-audit-widget", "audit")
    found += findings(page, ".oa-status", "status")
    steps(lab, [f"seen by axe in {theme} theme", "orders", "\u202eorders"])
    sidebar.command("runs")
    expect(page.locator(".oa-runs tbody tr").filter(has_text=f"axe in {theme} theme")).to_be_visible(timeout=20_000)
    found += findings(page, ".oa-runs", "runs")
    assert found == []


def findings(page: Page, place: str, screen: str) -> list[str]:
    """What axe finds there."""
    page.wait_for_timeout(300)
    result = page.evaluate("place => window.axe.run(place)", place)
    return [f"{screen}: {one['id']}: {[node['html'] for node in one['nodes']]}" for one in result["violations"]]
