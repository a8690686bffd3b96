"""A real JupyterLab in a headless Chromium: start it, open a notebook, run cells, look."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_core.paths import jupyter_config_path, jupyter_path
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from opsagent_jupyter.demo.postgres import free_port
from tests.kernels import ROOT

#: The browser starts without looking for anything outside this machine.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium() -> str:
    """The browser's program; without one the tests fail, they do not skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise AssertionError("Chromium is not installed: apt-get install chromium.")
    return found


#: The JupyterLab extension as it is built.
EXTENSION = ROOT / "opsagent_jupyter" / "labextension"


def enable(folder: Path) -> dict[str, str]:
    """Enable both extensions for a server in ``folder`` unless the installation has; the variables that it needs."""
    assert (EXTENSION / "package.json").is_file(), "The JupyterLab extension is not built: python js/hatch_build.py."
    if not any(
        (Path(place) / "jupyter_server_config.d" / "opsagent_jupyter.json").is_file() for place in jupyter_config_path()
    ):
        settings = folder / "config" / "jupyter_server_config.d"
        settings.mkdir(parents=True)
        enabled = {"ServerApp": {"jpserver_extensions": {"opsagent_jupyter": True}}}
        (settings / "opsagent_jupyter.json").write_text(json.dumps(enabled))
    if any((Path(place) / "opsagent-jupyter").exists() for place in jupyter_path("labextensions")):
        return {}
    extensions = folder / "built" / "labextensions"
    extensions.mkdir(parents=True)
    (extensions / "opsagent-jupyter").symlink_to(EXTENSION)
    return {"JUPYTER_PATH": str(folder / "built")}


class Lab:
    """One Jupyter server with settings, data and runtime folders of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str], base_url: str = "/") -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{base_url}"
        self._log = (folder / "jupyter.log").open("wb")
        self._process = subprocess.Popen(
            self._command(base_url), env=self._environment(environment), stdout=self._log, stderr=self._log, cwd=folder
        )
        self._await()

    def _command(self, base_url: str) -> list[str]:
        settings = self.folder / "app"
        settings.mkdir()
        quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
        (settings / "overrides.json").write_text(json.dumps(quiet))
        return [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={base_url}",
            f"--ServerApp.root_dir={self.folder}", "--LabApp.expose_app_in_browser=True",
            f"--LabServerApp.app_settings_dir={settings}",
        ]  # fmt: skip

    def _environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        places = {
            "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
        }  # fmt: skip
        own = {name: str(self.folder / place) for name, place in places.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_TOKEN": self.token, **own, **environment}

    def _await(self) -> None:
        for _ in range(900):
            try:
                urllib.request.urlopen(f"{self.url}api?token={self.token}", timeout=1).close()
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, self.log()
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self.log())

    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "jupyter.log").read_text(errors="replace")[-4000:]

    def write(self, name: str, *cells: str) -> None:
        """Put a notebook into the server's folder."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.folder / name)

    def stop(self) -> None:
        """End the server and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)

    def open(self, lab: Lab, name: str, theme: str = "JupyterLab Light") -> None:
        """Open it and wait for an idle kernel."""
        self.page.goto(f"{lab.url}lab/tree/{name}?token={lab.token}&reset")
        self.page.wait_for_function(
            "window.jupyterapp && window.jupyterapp.shell.currentWidget?.content?.widgets", timeout=60_000
        )
        self.theme(theme)
        self.idle()

    def theme(self, name: str) -> None:
        """Change the theme."""
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)

    def restart(self) -> None:
        """Restart the kernel, as the menu does."""
        self.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        self.idle()

    def idle(self, timeout: float = 60) -> None:
        """Wait until the kernel is idle."""
        script = """() => window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""
        self.page.wait_for_function(script, timeout=timeout * 1000)

    def start(self, cell: int) -> None:
        """Run a cell and return at once."""
        self.page.evaluate(
            """index => {
              const content = window.jupyterapp.shell.currentWidget.content;
              content.activeCellIndex = index; content.deselectAll();
              window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            cell,
        )

    def run(self, cell: int, timeout: float = 60) -> None:
        """Run a cell to its end."""
        before = self.count(cell)
        self.start(cell)
        script = """([index, before]) => {
          const cell = window.jupyterapp.shell.currentWidget.content.widgets[index];
          return cell.model.executionCount && cell.model.executionCount !== before && cell.model.executionState !== 'running';
        }"""
        self.page.wait_for_function(script, arg=[cell, before], timeout=timeout * 1000)
        self.idle(timeout)

    def count(self, cell: int) -> int | None:
        """The execution count of a cell."""
        found: int | None = self.page.evaluate(
            "index => window.jupyterapp.shell.currentWidget.content.widgets[index].model.executionCount", cell
        )
        return found

    def outputs(self, cell: int) -> list[dict[str, Any]]:
        """The outputs of a cell as they would be saved."""
        found: list[dict[str, Any]] = self.page.evaluate(
            "index => window.jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.toJSON()", cell
        )
        return found

    def said(self, cell: int, timeout: float = 60) -> None:
        """Wait until a cell has an output; the kernel's status does not tell, because clicks pass beside a busy cell."""
        script = "index => window.jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.length > 0"
        self.page.wait_for_function(script, arg=cell, timeout=timeout * 1000)

    def view(self, cell: int) -> Any:
        """The live view below a cell."""
        return self.page.locator(".jp-Cell").nth(cell).locator(".oa-root")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    play: Playwright
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield opened
        finally:
            opened.close()
