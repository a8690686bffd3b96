"""``opsagent demo``: the embedded databases, a store of their own, and JupyterLab on the tour; or the tour without a browser."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from opsagent_jupyter.api import Call, OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.demo import storefront, tour
from opsagent_jupyter.demo.postgres import free_port
from opsagent_jupyter.demo.workload import PLANTED, Demo
from opsagent_jupyter.errors import DemoError, MissingExtra, OpsAgentError
from opsagent_jupyter.models import Result

TOUR = "01-tour.ipynb"
#: Seconds that the shop's problems get to show: the lag of a standby, a statement that runs for long.
PATIENCE = 30.0
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
        self._storefront = Storefront()
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
            self._storefront.stop()
            self._demo.stop()

    def _plan(self) -> list[tuple[str, Callable[[], str]]]:
        reads = ("get_slow_queries", "list_indexes", "get_connection_stats", "get_table_stats", "get_locks")
        return [
            *([] if self._storefront.missing else [("start MongoDB with a sick storefront", self._start_mongodb)]),
            ("start PostgreSQL with a sick shop", self._start),
            ("create the store", self._store),
            ("attach the database and see its health", self._attach),
            *((f"{tool} answers without approval", lambda tool=tool: self._read(tool)) for tool in reads),
            ("get_replication_status answers without approval", self._replication),
            ("diagnose finds what was planted", self._diagnose),
            ("explain_query answers without approval", self._explain),
            ("chat: show me slow queries", self._chat),
            ("a rejected request does not run", self._reject),
            ("an expired request does not run", self._expire),
            ("an approved request runs once and is read back", self._approve),
            ("the plan is another one after it", self._after),
            *([] if self._storefront.missing else self._mongodb()),
            ("the audit has it all, by risk, status and server", self._audit),
            ("the audit chain verifies", self._verify),
        ]

    def _mongodb(self) -> list[tuple[str, Callable[[], str]]]:
        reads = ("get_profiler_data", "list_indexes", "get_server_status", "get_repl_status", "list_collections")
        return [
            ("attach MongoDB and see its health", self._attach_mongodb),
            *((f"MongoDB: {tool} answers without approval", lambda tool=tool: self._look(tool)) for tool in reads),
            ("MongoDB: explain_query answers without approval", self._explain_mongodb),
            ("MongoDB: chat: show collection scans", self._chat_mongodb),
            ("MongoDB: a rejected request does not run", self._reject_mongodb),
            ("MongoDB: an expired request does not run", self._expire_mongodb),
            ("MongoDB: diagnose finds what was planted", self._diagnose_mongodb),  # its long operation is long by now
            ("MongoDB: an approved request runs once and is read back", self._approve_mongodb),
            ("MongoDB: the plan is another one after it", self._after_mongodb),
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

    def _diagnose(self) -> str:
        return self._diagnosed("postgresql.diagnose", "shop", {each.kind for each in PLANTED})

    def _diagnosed(self, tool: str, on: str, planted: set[str]) -> str:
        """Count the planted kinds that are found; some show only when they have lasted a moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            result = found(self.ops.run(tool, on=on))
            missing = planted - set(kinds_of(result))
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        expect(not missing, f"{len(planted) - len(missing)} of {len(planted)} kinds, not {', '.join(sorted(missing))}")
        return f"all {len(planted)} planted kinds of problems. {result.summary}"

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
        return self._rejected(self._request(self.ops))

    def _rejected(self, call: Call) -> str:
        self.ops.reject(call.record.approval, reason="not now")
        expect(call.status == "refused", call.status)
        return call.summary

    def _expire(self) -> str:
        return self._expired(self._request)

    def _expired(self, request: Callable[[OpsAgent], Call]) -> str:
        with OpsAgent(kind="cli", pending_seconds=5, lease_seconds=1.5) as hurried:
            call = request(hurried)
            call.wait(20)
            expect(str(call.approval.state) == "expired" if call.approval else False, call.summary)
            return call.summary

    def _approve(self) -> str:
        return self._approved(self._request(self.ops))

    def _approved(self, call: Call) -> str:
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

    # -- MongoDB

    def _start_mongodb(self) -> str:
        self._storefront.begin()
        return "it starts in the background"

    def _attach_mongodb(self) -> str:
        uri = self._storefront.demo().operator_uri
        self.ops.attach("mongodb", "storefront", server="demo", environment="staging", dsn=uri)
        health = self.ops.health("storefront")[0]
        expect(health.ok, health.summary)
        return health.summary

    def _look(self, tool: str) -> str:
        return found(self.ops.run(f"mongodb.{tool}", on="storefront")).summary

    def _diagnose_mongodb(self) -> str:
        planted = {each.kind for each in storefront.PLANTED}
        return self._diagnosed("mongodb.diagnose", "storefront", planted)

    def _explain_mongodb(self) -> str:
        result = found(self.ops.run("mongodb.explain_query", on="storefront", **ORDERS_PAGE))
        expect("COLLSCAN" in result.tree, f"no collection scan in the plan: {result.tree}")
        return result.summary

    def _chat_mongodb(self) -> str:
        turn = self.ops.ask("show collection scans", on="storefront")
        tools = [call.tool for call in turn.calls]
        expect("mongodb.get_profiler_data" in tools, f"it called {tools}: {turn.text}")
        expect("orders" in turn.text, f"the answer names no collection: {turn.text}")
        return turn.text

    def _index_of_storefront(self, ops: OpsAgent) -> Call:
        call = ops.run(
            "mongodb.create_index", on="storefront", collection="orders", fields=["customer_id", "-created_at"]
        )
        expect(call.status == "waiting" and call.approval is not None, f"it did not wait: {call.summary}")
        return call

    def _reject_mongodb(self) -> str:
        return self._rejected(self._index_of_storefront(self.ops))

    def _expire_mongodb(self) -> str:
        return self._expired(self._index_of_storefront)

    def _approve_mongodb(self) -> str:
        return self._approved(self._index_of_storefront(self.ops))

    def _after_mongodb(self) -> str:
        result = found(self.ops.run("mongodb.explain_query", on="storefront", **ORDERS_PAGE))
        expect("IXSCAN" in result.tree, f"the index is not used: {result.tree}")
        return result.summary

    # -- the audit

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


class Storefront:
    """MongoDB's part of the demo, where it can run: it starts beside PostgreSQL, in the background."""

    def __init__(self, on_step: Callable[[str], None] | None = None) -> None:
        self._on_step = on_step
        self._demo: storefront.MongoDemo | None = None
        self._starting: Future[storefront.MongoDemo] | None = None
        self.missing = tour.mongodb_missing()

    def begin(self) -> None:
        """Start it, unless something that it needs is missing."""
        if self.missing:
            return
        self._demo = storefront.MongoDemo(self._on_step)
        with_one = ThreadPoolExecutor(1, thread_name_prefix="demo-mongodb")
        self._starting = with_one.submit(self._demo.start)
        with_one.shutdown(wait=False)

    def demo(self) -> storefront.MongoDemo:
        """The running demo; waits for it."""
        if self._starting is None:
            raise Missed(self.missing or "MongoDB was not started")
        return self._starting.result()

    def stop(self) -> None:
        """Stop what was started."""
        if self._demo is not None and self._starting is not None:
            wait_for([self._starting])
            self._demo.stop()


ORDERS_PAGE: dict[str, Any] = {"collection": "orders", "query": '{"customer_id": 4711}', "sort": '{"created_at": -1}'}
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


def kinds_of(result: Result) -> list[str]:
    """The kinds of the findings of a diagnosis."""
    kinds = result.figures.get("kinds", [])
    return [str(kind) for kind in kinds] if isinstance(kinds, list) else []


# -- the tour in JupyterLab -------------------------------------------------------------------------------------------


def open_lab(*, browser: bool, port: int) -> None:
    """Start the demo and JupyterLab on the tour, and end both together."""
    if find_spec("jupyterlab") is None:
        raise MissingExtra(
            "JupyterLab is not installed.",
            hint="pip install 'opsagent_jupyter[demo]', or use opsagent demo --check.",
            extra="demo",
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end, it ends as by Ctrl-C, and takes all along
    with demo_store() as environment, databases() as variables:
        folder = Path(environment["OPSAGENT_DEMO_FOLDER"])
        for file in notebook(TOUR).parent.glob("*.ipynb"):
            shutil.copy(file, folder / file.name)
        click.echo("… Opening JupyterLab; Ctrl-C ends the demo and removes all of it", err=True)
        run_lab(folder, environment | variables, browser=browser, port=port)


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """The demo's databases, and where they are, as environment variables; they end with the block."""
    second = Storefront(step)
    try:
        second.begin()
        with Demo(on_step=step) as demo:
            variables = {tour.VARIABLE: demo.operator_dsn}
            if second.missing:
                step(f"Without MongoDB: {second.missing}")
            else:
                variables[tour.MONGODB_VARIABLE] = second.demo().operator_uri
            yield variables
    finally:
        second.stop()


def step(text: str) -> None:
    """Say on standard error what begins."""
    click.echo(f"… {text}", err=True)


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


def notebook(name: str) -> Path:
    """A notebook of the demo: in the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / name).exists():
            return folder / name
    raise DemoError(f"The notebook {name} is not there.", hint="Install opsagent_jupyter again.")
