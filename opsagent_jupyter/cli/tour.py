"""``opsagent demo``: the embedded databases, a store of their own, and JupyterLab on the tour; or the tour without a browser."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from opsagent_jupyter.api import Call, OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo.postgres import free_port
from opsagent_jupyter.demo.workload import Demo
from opsagent_jupyter.errors import DemoError, MissingExtra, OpsAgentError
from opsagent_jupyter.models import Result

DSN_VARIABLE = "OPSAGENT_DEMO_DSN"
TOUR = "01-tour.ipynb"
#: The question, and a statement of the shop that the answer has to name.
SLOW = "show me slow queries"


@dataclass(frozen=True)
class Step:
    """One step of the tour: whether it held, how long it took, and what was seen."""

    name: str
    ok: bool
    milliseconds: float
    seen: str


@dataclass(frozen=True, repr=False)
class TourReport:
    """The steps of a check."""

    steps: tuple[Step, ...]

    @property
    def ok(self) -> bool:
        """Whether every step held."""
        return all(step.ok for step in self.steps)

    def __str__(self) -> str:
        lines = [f"{'✓' if s.ok else '✗'} {s.name} ({s.milliseconds:.0f} ms): {s.seen}" for s in self.steps]
        return "\n".join([*lines, "Every step held." if self.ok else "The tour did not hold."])


class Missed(Exception):  # a step that did not hold; it never leaves this module
    """What a step saw instead of what it should have seen."""


@contextmanager
def demo_store() -> Iterator[dict[str, str]]:
    """A folder, a store and a key that live as long as the demo, as environment variables."""
    folder = Path(tempfile.mkdtemp(prefix="opsagent-demo-"))
    try:
        yield {
            "OPSAGENT_STORE_URL": f"sqlite:///{folder / 'store' / 'opsagent.db'}",
            "PLUGIN_ENCRYPTION_KEY": new_key(),
            "OPSAGENT_DEMO_FOLDER": str(folder),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- the tour without a browser ---------------------------------------------------------------------------------------


def check(*, as_json: bool) -> Any:
    """Do the tour on real parts and report each step; nothing of it stays on the machine."""
    tour = Check(quiet=as_json)
    with demo_store() as environment:
        os.environ.update(environment)
        tour.run()
    report = TourReport(tuple(tour.steps))
    return {"ok": report.ok, "steps": [vars(step) for step in report.steps]} if as_json else report


class Check:
    """The steps of section 12 that need no browser."""

    def __init__(self, *, quiet: bool) -> None:
        self.steps: list[Step] = []
        self._quiet = quiet
        self._demo = Demo()
        self._ops: OpsAgent | None = None

    @property
    def ops(self) -> OpsAgent:
        """The OpsAgent under test; it exists from its step on."""
        if self._ops is None:
            raise Missed("the store was not made")
        return self._ops

    def run(self) -> None:
        """Do every step; a step that fails does not keep the next from being tried."""
        try:
            for name, step in self._plan():
                self._do(name, step)
        finally:
            if self._ops is not None:
                self._ops.close()
            self._demo.stop()

    def _plan(self) -> list[tuple[str, Callable[[], str]]]:
        reads = ("get_slow_queries", "list_indexes", "get_connection_stats", "get_table_stats", "get_locks")
        return [
            ("start PostgreSQL with a sick shop", self._start),
            ("create the store", self._store),
            ("attach the database and see its health", self._attach),
            *((f"{tool} answers without approval", lambda tool=tool: self._read(tool)) for tool in reads),
            ("get_replication_status answers without approval", self._replication),
            ("explain_query answers without approval", self._explain),
            ("chat: show me slow queries", self._chat),
            ("a rejected request does not run", self._reject),
            ("an expired request does not run", self._expire),
            ("an approved request runs once and is read back", self._approve),
            ("the plan is another one after it", self._after),
            ("the audit has it all, by risk, status and server", self._audit),
            ("the audit chain verifies", self._verify),
        ]

    def _do(self, name: str, step: Callable[[], str]) -> None:
        started = time.perf_counter()
        try:
            ok, seen = True, step()
        except (Missed, OpsAgentError) as error:
            ok, seen = False, str(error)
        took = round((time.perf_counter() - started) * 1000, 1)
        self.steps.append(Step(name, ok, took, seen))
        if not self._quiet:
            click.echo(f"{'✓' if ok else '✗'} {name} ({took:.0f} ms)", err=True)

    def _start(self) -> str:
        self._demo.start()
        return repr(self._demo)

    def _store(self) -> str:
        self._ops = OpsAgent(kind="cli")
        return f"{self._ops.runtime.store.url}, schema {self._ops.runtime.store.schema_version}"

    def _attach(self) -> str:
        self.ops.attach("postgresql", "shop", server="demo", environment="staging", dsn=self._demo.operator_dsn)
        health = self.ops.health("shop")[0]
        expect(health.ok, health.summary)
        return health.summary

    def _read(self, tool: str) -> str:
        return found(self.ops.run(f"postgresql.{tool}", on="shop")).summary

    def _replication(self) -> str:
        self._demo.wait_for_standby()
        return self._read("get_replication_status")

    def _explain(self) -> str:
        result = found(self.ops.run("postgresql.explain_query", on="shop", sql=STATEMENT))
        expect("Seq Scan" in result.tree, f"no sequential scan in the plan: {result.tree}")
        return result.summary

    def _chat(self) -> str:
        turn = self.ops.ask(SLOW, on="shop")
        tools = [call.tool for call in turn.calls]
        expect("postgresql.get_slow_queries" in tools, f"it called {tools}: {turn.text}")
        expect("orders" in turn.text, f"the answer names no slow statement: {turn.text}")
        return turn.text

    def _request(self, ops: OpsAgent) -> Call:
        call = ops.run("postgresql.create_index", on="shop", table="orders", columns=["customer_id"])
        expect(call.status == "waiting" and call.approval is not None, f"it did not wait: {call.summary}")
        return call

    def _reject(self) -> str:
        call = self._request(self.ops)
        self.ops.reject(call.record.approval, reason="not now")
        expect(call.status == "refused", call.status)
        return call.summary

    def _expire(self) -> str:
        with OpsAgent(kind="cli", pending_seconds=5, lease_seconds=1.5) as hurried:
            call = self._request(hurried)
            call.wait(20)
            expect(str(call.approval.state) == "expired" if call.approval else False, call.summary)
            return call.summary

    def _approve(self) -> str:
        call = self._request(self.ops)
        self.ops.approve(call.record.approval, reason="the orders page waits for it")
        call.wait(60)
        expect(call.status == "succeeded", f"{call.status}: {call.summary}")
        again = self.ops.approval(call.record.approval)
        expect(str(again.state) == "succeeded", str(again.state))
        return call.summary

    def _after(self) -> str:
        result = found(self.ops.run("postgresql.explain_query", on="shop", sql=STATEMENT))
        expect("orders_customer_id" in result.tree, f"the index is not used: {result.tree}")
        return result.summary

    def _audit(self) -> str:
        everything = self.ops.audit(server="demo")
        counts = {
            status: len(self.ops.audit(status=status)) for status in ("succeeded", "rejected", "expired", "approved")
        }
        expect(len(everything) > 0 and all(counts.values()), f"the audit has {counts}")
        expect(len(self.ops.audit(risk="medium")) > 0, "nothing of medium risk is in the audit")
        return f"{len(everything)} events, {counts}"

    def _verify(self) -> str:
        verification = self.ops.verify()
        expect(verification.ok, str(verification))
        return str(verification)


STATEMENT = "SELECT id, created_at, status FROM orders WHERE customer_id = 4711 ORDER BY created_at DESC LIMIT 20"


def expect(held: bool, seen: str) -> None:  # noqa: FBT001  # reads like an assertion
    """Raise ``Missed`` with what was seen unless the expectation held."""
    if not held:
        raise Missed(seen)


def found(call: Call) -> Result:
    """The result of a call that must have run by itself."""
    expect(call.status == "succeeded" and call.approval is None, f"{call.status}: {call.summary}")
    if call.result is None:
        raise Missed("it returned nothing")
    return call.result


# -- the tour in JupyterLab -------------------------------------------------------------------------------------------


def open_lab(*, browser: bool, port: int) -> None:
    """Start the demo and JupyterLab on the tour, and end both together."""
    if find_spec("jupyterlab") is None:
        raise MissingExtra(
            "JupyterLab is not installed.",
            hint="pip install 'opsagent_jupyter[demo]', or use opsagent demo --check.",
            extra="demo",
        )
    with demo_store() as environment, Demo(on_step=lambda text: click.echo(f"… {text}", err=True)) as demo:
        folder = Path(environment["OPSAGENT_DEMO_FOLDER"])
        shutil.copy(tour_notebook(), folder / TOUR)
        environment |= {DSN_VARIABLE: demo.operator_dsn}
        click.echo("… Opening JupyterLab; Ctrl-C ends the demo and removes all of it", err=True)
        run_lab(folder, environment, browser=browser, port=port)


def run_lab(folder: Path, environment: dict[str, str], *, browser: bool, port: int) -> None:
    """Run JupyterLab until it ends or is interrupted. The token is in its own log line, as always."""
    token, port = secrets.token_urlsafe(24), port or free_port()
    command = [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--LabApp.default_url=/lab/tree/{TOUR}", "--ServerApp.log_level=WARN",
        *([] if browser else ["--no-browser"]), *(["--allow-root"] if is_root() else []),
    ]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, **environment, "JUPYTER_TOKEN": token})
    address = f"http://127.0.0.1:{port}/lab/tree/{TOUR}?token={token}"
    click.echo(f"\n  The tour:  {address}\n", err=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = end(process)
    if code not in (0, -2, -15):
        raise DemoError(
            f"JupyterLab ended with {code}.", hint="Its messages are above; try --port with another number."
        )


def end(process: subprocess.Popen[bytes]) -> int:
    """End JupyterLab in order, and by force when it takes more than ten seconds."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return 0


def is_root() -> bool:
    """Whether this is the superuser, as whom Jupyter runs only when told."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def tour_notebook() -> Path:
    """The tour: in the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / TOUR).exists():
            return folder / TOUR
    raise DemoError("The tour notebook is not there.", hint="Install opsagent_jupyter again.")
