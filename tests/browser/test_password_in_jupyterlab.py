"""A new user's password in a real JupyterLab: seen by the one who clicks, once, and in nothing that is saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect
from psycopg.conninfo import make_conninfo

from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from tests.browser.lab import Lab, Notebook, browser
from tests.integration.postgresql_stage import execute
from tests.postgres import new_database

pytestmark = pytest.mark.browser

START = """%load_ext opsagent_jupyter
%opsagent attach postgresql shop --environment development --dsn-env SHOP_DSN"""
CREATE = "call = %opsagent run create_user --name seen_in_lab"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"


@pytest.fixture(scope="module")
def shop(pg18: EmbeddedPostgres) -> Iterator[str]:
    with new_database(pg18) as dsn:
        yield dsn
        execute(dsn, "DROP ROLE IF EXISTS seen_in_lab")


@pytest.fixture(scope="module")
def lab(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    store = f"sqlite:///{folder / 'store' / 'opsagent.db'}"
    running = Lab(folder, {"OPSAGENT_STORE_URL": store, "PLUGIN_ENCRYPTION_KEY": new_key(), "SHOP_DSN": shop})
    try:
        yield running
    finally:
        running.stop()


def test_a_click_shows_the_password_once_and_nothing_saves_it(lab: Lab, shop: str) -> None:
    """It logs in; the saved notebook, the page after it was hidden, another card, and every file of the server lack it."""
    lab.write("new_user.ipynb", START, CREATE)
    with browser() as chromium:
        page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        notebook = Notebook(page)
        notebook.open(lab, "new_user.ipynb")
        notebook.run(0)
        notebook.run(1)
        view = notebook.view(1)
        view.locator("[data-decision=approve]").click()
        view.locator("[data-secret=reveal]").click(timeout=30_000)
        shown = view.locator(".oa-secret-text")
        expect(shown).to_be_visible(timeout=20_000)
        password = shown.inner_text()
        with psycopg.connect(make_conninfo(shop, user="seen_in_lab", password=password)) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("seen_in_lab",)
        page.evaluate(SAVE)
        view.get_by_role("button", name="Hide").click()
        expect(shown).to_have_count(0)
        assert view.locator("[data-secret=reveal]").count() == 0
        assert password not in page.content()
        page.evaluate(SAVE)
        assert password not in str([notebook.outputs(cell) for cell in range(2)])
    assert holding(lab.folder, password) == []
    assert "Create the login role seen_in_lab" in (lab.folder / "new_user.ipynb").read_text()


def holding(folder: Path, password: str) -> list[str]:
    """The files below a folder that hold a text."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
