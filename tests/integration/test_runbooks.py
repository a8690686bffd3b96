"""Runbooks: made of a conversation, handed over, run without a person, decided elsewhere, resumed, and proven."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psycopg
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.runbooks import cells, composition
from opsagent_jupyter.testing.models import PuppetModel
from tests.kernels import Kernel
from tests.ledger_plugin import plugin as ledger
from tests.runbooks import Site

#: Cells that are run, and kernels that are killed, at random; by hand it was run with 500.
ROUNDS = int(os.environ.get("OPSAGENT_TEST_RUNBOOK_ROUNDS", "40"))
SEED = int(os.environ.get("OPSAGENT_TEST_RUNBOOK_SEED", "7"))
DONE, FAILED, WAITING, UNKNOWN, REFUSED = 0, 1, 3, 4, 6
Runner = Callable[[cells.Notebook, Path], Path]


def conversed(folder: Path, *orders: tuple[str, dict[str, Any]]) -> cells.Notebook:
    """The runbook of a conversation in which these calls were made, approved and succeeded."""
    with OpsAgent(f"sqlite:///{folder / 'there' / 'opsagent.db'}") as ops:
        ops.runtime.plugins.add(ledger)
        ops.attach("ledger", "books", server="desk", environment="development", dsn=str(folder / "there.ledger"))
        puppet = PuppetModel()  # obeys each order once
        ops.runtime.open_model = lambda *_: puppet  # type: ignore[method-assign]
        for tool, arguments in orders:
            turn = ops.ask(f"Please <b>do</b> this: CALL ledger_{tool} {json.dumps(arguments)}", on="books")
            turn.calls  # noqa: B018  # waits until it is parked or ended
            for request in ops.approvals()["id"]:
                ops.approve(request)
            assert turn.wait(60).state == "finished"
        return composition.compose(ops, turn.session_id, "Mark the books")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> cells.Notebook:
    """A runbook of a read, a change and a second change."""
    return conversed(
        tmp_path_factory.mktemp("origin"),
        ("list_marks", {}),
        ("add_mark", {"text": "blue"}),
        ("add_mark", {"text": "red", "count": 2}),
    )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Another place: its own store and server, with a database of another name."""
    place = Site(tmp_path, "ledger")
    code, said = place.cli(
        "attach", "ledger", "accounts", "--server", "hall", "-e", "development", "--dsn", str(place.file)
    )
    assert code == 0, said
    return place


def saved(book: cells.Notebook, folder: Path) -> Path:
    """The runbook as it is handed over."""
    file = folder / "marks.ipynb"
    cells.write(file, book)
    return file


def test_export_hand_over_run_wait_approve_elsewhere_resume_verify(book: cells.Notebook, site: Site) -> None:
    """The whole way of a runbook, each step in a process of its own, on another store and server than it came from."""
    file = saved(book, site.folder)
    words = ("runbook", "run", str(file), "-p", "text=green", "--server", "hall")
    code, said = site.cli(*words)
    assert (code, said["state"], said["step"]) == (WAITING, "waiting", "add-mark"), said
    assert site.texts() == []
    code, first = site.cli("approve", said["approval"])
    assert (code, first["approval"]["state"]) == (0, "succeeded")
    code, again = site.cli("runbook", "run", said["file"])
    assert (code, again["step"], again["run"]) == (WAITING, "add-mark-2", said["run"])
    assert site.texts() == ["green"]
    assert site.cli("approve", again["approval"])[0] == 0
    code, ended = site.cli(*words)
    assert (code, ended["state"], ended["file"]) == (DONE, "done", said["file"]), ended
    assert site.texts() == ["green", "red", "red"]
    code, proof = site.cli("runbook", "verify", said["file"])
    assert code == 0
    told = dict(proof["proven"])
    assert "ran as approved" in told["add-mark"]
    assert "ran as approved" in told["add-mark-2"]
    assert proof["missing"] == []
    code, rows = site.cli("runbook", "status", said["file"])
    assert [row["step"] for row in rows if row["approval"]] == ["add-mark", "add-mark-2"]
    assert all(row["decided_by"] for row in rows if row["approval"])
    pages = shown(said["file"])
    for step, text in (("add-mark", "green"), ("add-mark-2", "red")):
        for page in (pages[step], pages[f"{step} gate"]):
            assert f"the mark {text} is there (approved by" in page
    assert "5 steps done" in pages["begin"], pages["begin"]


def shown(file: str) -> dict[str, str]:
    """What the page of an executed runbook shows of each step, the gate's card included, and no script of ours."""
    node = nbformat.read(file, as_version=4)
    pages = {}
    for cell in node.cells:
        if cell.cell_type != "code":
            continue
        outputs = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
        assert not re.search(r"<script|<iframe|<link|\son\w+=", "".join(outputs))
        gate = cells.ours(cell).get("gate")
        alone = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
        page, _ = HTMLExporter(exclude_input=True, template_name="basic").from_notebook_node(alone)
        pages[f"{gate} gate" if gate else str(cells.ours(cell).get("step", cell.id))] = page
    return pages


def test_an_exported_runbook_is_a_valid_notebook_with_nothing_in_it_but_the_work(book: cells.Notebook) -> None:
    """Format 4.5, a parameters cell, prose that is text, gates, checks and rollbacks; no outputs, no rows, no markup."""
    node = nbformat.from_dict(book)  # type: ignore[no-untyped-call]
    nbformat.validate(node)
    assert (node.nbformat, node.nbformat_minor) == (4, 5)
    assert not any(cell.get("outputs") for cell in node.cells)
    kinds = Counter(cells.ours(cell).get("kind") for cell in node.cells)
    assert (kinds["call"], kinds["gate"], kinds["verification"], kinds["rollback"]) == (3, 2, 2, 2)
    given = next(cell.source for cell in node.cells if "parameters" in cell.metadata.get("tags", []))
    for line in ("instance = 'books'", "server = 'desk'", "text = 'blue'", "text_2 = 'red'", "count = 2"):
        assert line in given
    page, _ = HTMLExporter().from_notebook_node(node)
    assert "Please &lt;b" in page
    assert "<b>do</b>" not in page


def decided_meanwhile(site: Site, file: Path, decision: str, *words: str) -> tuple[int, Any]:
    """Run a runbook that waits, and decide its first request while it does."""
    command = [sys.executable, "-m", "opsagent_jupyter.cli", "--json", "runbook", "run", str(file), *words]
    with (
        OpsAgent(site.store_url, executes=False) as ops,
        subprocess.Popen(
            [*command, "--wait", "240"],
            env={**os.environ, **site.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        limit = time.monotonic() + 240
        while not len(ops.approvals("pending")) and time.monotonic() < limit and running.poll() is None:
            time.sleep(0.1)
        for request in ops.approvals("pending")["id"]:
            ops.decide(request, decision, "as the test says, now")  # type: ignore[arg-type]
        said, errors = running.communicate(timeout=280)
    assert said, errors
    return running.returncode, json.loads(said)


@pytest.mark.parametrize(
    ("how", "decision", "code", "state"),
    [
        ("ok", "approve", DONE, "done"),
        ("ok", "reject", REFUSED, "refused"),
        ("fail", "approve", FAILED, "failed"),
        ("vanish", "approve", UNKNOWN, "unknown"),
    ],
)
def test_a_run_without_a_person_ends_with_a_defined_code(
    careful: cells.Notebook, site: Site, how: str, decision: str, code: int, state: str
) -> None:
    """Done, refused, failed or unknown: the exit code, the word and the evidence agree."""
    file = saved(careful, site.folder)
    words = ("-p", f"how={how}", "--server", "hall")
    ended, said = decided_meanwhile(site, file, decision, *words)
    assert (ended, said["state"]) == (code, state), said
    proof = site.cli("runbook", "verify", said["file"])
    assert proof[0] == 0, proof
    assert ("ran as approved" in dict(proof[1]["proven"])["add-mark"]) is (decision == "approve")
    page, _ = HTMLExporter(exclude_input=True).from_notebook_node(nbformat.read(said["file"], as_version=4))
    word = {
        "done": "the mark blue is there",
        "refused": "rejected by",
        "failed": "disk I/O error",
        "unknown": "unknown",
    }
    assert word[state] in page
    assert site.texts() == (["blue"] if state == "done" else [])
    if state in ("refused", "unknown"):
        assert site.cli("runbook", "run", said["file"])[0] == code


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> cells.Notebook:
    """A runbook of one change, whose way of ending is a parameter."""
    return conversed(tmp_path_factory.mktemp("careful"), ("add_mark", {"text": "blue", "how": "slow"}))


def test_a_parameter_that_the_runbook_has_not_is_named(careful: cells.Notebook, site: Site) -> None:
    """Before a kernel starts."""
    code, said = site.cli("runbook", "run", str(saved(careful, site.folder)), "-p", "colour=red")
    assert code == FAILED
    assert "colour" in said["error"]["message"]
    assert "text" in said["error"]["hint"]


def test_a_secret_parameter_is_written_nowhere(careful: cells.Notebook, site: Site) -> None:
    """Not by its cell, not by an output, not by a request that would keep it; and never taken from a command line."""
    secret = "Tr0ub4dor-and-3"
    other = json.loads(json.dumps(careful))
    place = next(n for n, cell in enumerate(other["cells"]) if cell["id"] == "parameters")
    other["cells"][place]["source"] += '\nsecret_word = ""'
    begin = other["cells"][place + 1]
    begin["source"] = begin["source"].replace("--run=", "--given=secret_word={secret_word} --run=")
    other["cells"].insert(place + 2, cells.code("leak", "print(secret_word)\nsecret_word.upper()"))
    step = next(cell for _, cell in cells.steps(other))
    step["source"] = step["source"].replace("--text={text}", "--text={secret_word}")
    file = saved(other, site.folder)
    code, said = site.cli("runbook", "run", str(file), "--server", "hall", "-p", f"secret_word={secret}")
    assert (code, said["error"]["code"]) == (FAILED, "credential.secret_in_clear")
    site.more["WORD"] = secret
    os.environ["WORD"] = secret
    try:
        code, said = site.cli("runbook", "run", str(file), "--server", "hall", "-p", "secret_word=env:WORD")
    finally:
        del os.environ["WORD"]
    assert (code, said["state"], said["step"]) == (REFUSED, "refused", "add-mark"), said
    kept = Path(said["file"]).read_text()
    assert "***" in kept
    for each in (
        kept,
        json.dumps(said),
        *(path.read_text("latin-1") for path in (site.folder / "store").iterdir() if path.is_file()),
    ):
        assert secret not in each


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The place, for kernels that this process starts itself."""
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    return site


GIVEN = {"instance": "accounts", "server": "hall", "text": "pink", "runbook_run": "nightly"}


def by_papermill(book: cells.Notebook, folder: Path) -> Path:
    """Papermill's own run of a runbook: its output is there however it ends."""
    executed = folder / "executed.ipynb"
    # Its kernel's sockets are left to the collector, which warns.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        papermill.execute_notebook(
            saved(book, folder), executed, parameters=GIVEN, kernel_name="python3", progress_bar=False
        )
    return executed


def by_nbclient(book: cells.Notebook, folder: Path) -> Path:
    """The run by nbclient of a runbook with an injected cell, as papermill makes one."""
    executed = folder / "executed.ipynb"
    node = nbformat.read(saved(book, folder), as_version=4)
    place = next(n for n, cell in enumerate(node.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in GIVEN.items())
    injected = nbformat.v4.new_code_cell(lines, metadata={"tags": ["injected-parameters"]})  # type: ignore[no-untyped-call]
    node.cells.insert(place + 1, injected)
    try:
        NotebookClient(node, timeout=300, kernel_name="python3", store_widget_state=True).execute()
    finally:
        nbformat.write(node, executed)
    return executed


def waits(runner: Runner, book: cells.Notebook, place: Site) -> str:
    """The id of the request at which a runner stopped."""
    with pytest.raises((CellExecutionError, papermill.PapermillExecutionError)) as stopped:
        runner(book, place.folder)
    assert stopped.value.ename == "StepWaiting"
    request = re.search(r"waits for approval ([0-9a-f]{32})", str(stopped.value))
    assert request is not None
    return request[1]


def test_papermill_runs_it_too(book: cells.Notebook, here: Site) -> None:
    """It stops at each waiting step with the request's id, goes on when it is decided, ends, and can be sealed."""
    for text in ("pink", "red"):
        assert here.cli("approve", waits(by_papermill, book, here))[0] == 0
        assert text in here.texts()
    executed = by_papermill(book, here.folder)
    assert here.texts() == ["pink", "red", "red"]
    code, said = here.cli("runbook", "seal", str(executed))
    assert code == 0, said
    code, proof = here.cli("runbook", "verify", str(executed))
    assert code == 0
    assert sum("ran as approved" in told for _, told in proof["proven"]) == 2


def test_nbclient_runs_it_too(book: cells.Notebook, here: Site) -> None:
    """It stops where a person is needed, and again where that person has said no."""
    assert here.cli("reject", waits(by_nbclient, book, here), "--reason", "not this one")[0] == 0
    with pytest.raises(CellExecutionError) as stopped:
        by_nbclient(book, here.folder)
    assert stopped.value.ename == "StepRefused"
    assert here.texts() == []


SIGN = ("--bound", "text~[a-z]{1,20}", "--on", "accounts", "--reason", "the nightly marks are harmless")


def test_a_signed_runbook_runs_whole_without_asking(book: cells.Notebook, here: Site) -> None:
    """Signed at a terminal, run in a kernel: nobody is asked, the receipts say who signed. One changed cell, and it asks."""
    file = saved(book, here.folder)
    code, refused = here.cli("runbook", "sign", str(file), *SIGN)
    assert (code, refused["error"]["code"]) == (FAILED, "runbook.nobody_to_sign")
    code, said = here.at_terminal("runbook", "sign", str(file), *SIGN, typed="no")
    assert (code, "runbook.not_allowed_to_sign" in said) == (FAILED, True)
    assert here.cli("runbook", "signatures")[1] == []
    code, said = here.at_terminal("runbook", "sign", str(file), *SIGN, typed="sign")
    assert code == 0, said
    (signed,) = here.cli("runbook", "signatures", str(file))[1]
    code, ended = here.cli("runbook", "run", str(file), "-p", "text=green", "--server", "hall")
    assert (code, ended["state"], ended["void"]) == (DONE, "done", ""), ended
    assert here.texts() == ["green", "red", "red"]
    proof = here.cli("runbook", "verify", ended["file"])[1]
    assert sum(f"pre-approved through signature {signed['id'][:8]}" in told for _, told in proof["proven"]) == 2
    pages = shown(ended["file"])
    assert "pre-approved through the runbook" in pages["add-mark gate"]
    assert f"by {rows_of(here, file)[-1]['decided_by']}, until" in pages["begin"]
    assert f"(signature {signed['id'][:8]})" in pages["begin"]
    assert [row["vetting"] for row in rows_of(here, file)] == [signed["id"]] * 2
    node = json.loads(file.read_text())
    node["cells"].insert(-1, cells.code("more", "print('harmless')"))
    file.write_text(json.dumps(node))
    code, ended = here.cli("runbook", "run", str(file), "-p", "text=blue", "--server", "hall")
    assert (code, ended["state"], "the cell more" in ended["void"]) == (WAITING, "waiting", True), ended
    assert here.cli("runbook", "revoke", signed["id"], "--reason", "done with it")[0] == 0
    assert here.texts() == ["green", "red", "red"]


def rows_of(place: Site, file: Path) -> list[dict[str, Any]]:
    """The steps of a runbook, as status tells them."""
    found: list[dict[str, Any]] = place.cli("runbook", "status", str(file))[1]
    return [row for row in found if row["approval"]]


def test_a_kernel_without_a_person_signs_nothing(book: cells.Notebook, here: Site) -> None:
    """A cell that signs, in a notebook that runs by itself."""
    file = saved(book, here.folder)
    line = f"%opsagent runbook sign {file} --on accounts --reason 'the nightly marks are harmless'"
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"%load_ext opsagent_jupyter\n{line}")])  # type: ignore[no-untyped-call]
    with pytest.raises(CellExecutionError) as stopped:
        NotebookClient(node, timeout=300, kernel_name="python3").execute()
    assert stopped.value.ename == "NobodyToSign"
    assert here.cli("runbook", "signatures")[1] == []


def test_reruns_and_kills_at_random_cells_repeat_no_effect(slow: cells.Notebook, site: Site) -> None:
    """Any cell, again and again, in kernels that die at any moment while somebody approves: each effect is there once."""
    rng, file = random.Random(SEED), saved(slow, site.folder)
    sources = [cells.source(cell) for cell in slow["cells"] if cell["cell_type"] == "code"]
    head, body = sources[:2], sources[2:]
    head[0] += "\ninstance, server, runbook_run, runbook_wait = 'accounts', 'hall', 'random', 0"
    with OpsAgent(site.store_url, executes=False) as ops:
        running: Kernel | None = None
        for _ in range(ROUNDS):
            running = running or begun(site, head)
            cell = running.start(rng.choice(body))
            decide_all(ops, rng)
            if rng.random() < 0.2:
                time.sleep(rng.random())
                running.kill()
                running.stop()
                running = None
            else:
                running.collect(cell, 300)
        running = running or begun(site, head)
        wait = [source.replace("{runbook_wait}", "120") for source in body]
        limit = time.monotonic() + 400
        while not all_pass(running, ops, wait):
            assert time.monotonic() < limit, ops.approvals("all")[["state", "title", "outcome"]].to_string()
        running.stop()
    assert Counter(site.texts()) == {"blue": 1, "green": 1, "red": 1}
    code, said = site.cli("runbook", "seal", str(file), "--run", "random")
    assert code == 0, said
    code, proof = site.cli("runbook", "verify", str(file))
    assert code == 0, proof
    assert sum("succeeded" in told and "ran as approved" in told for _, told in proof["proven"]) == 3


def test_a_runner_that_is_killed_is_followed_by_one_that_goes_on(slow: cells.Notebook, site: Site) -> None:
    """Killed three times at any moment while somebody approves; the same words then end the run, each effect once."""
    rng, file = random.Random(SEED), saved(slow, site.folder)
    words = ["runbook", "run", str(file), "--server", "hall", "--wait", "240"]
    command = [sys.executable, "-m", "opsagent_jupyter.cli", "--json", *words]
    with OpsAgent(site.store_url, executes=False) as ops:
        for kills in range(4):
            with subprocess.Popen(
                command, env={**os.environ, **site.environment}, stdout=subprocess.PIPE, text=True
            ) as running:
                until = time.monotonic() + (240 if kills == 3 else rng.uniform(2, 14))
                while running.poll() is None and time.monotonic() < until:
                    decide_all(ops, rng)
                    time.sleep(0.1)
                running.kill()
                said = running.communicate()[0]
    assert json.loads(said)["state"] == "done", said
    assert Counter(site.texts()) == {"blue": 1, "green": 1, "red": 1}
    code, proof = site.cli("runbook", "verify", json.loads(said)["file"])
    assert code == 0, proof
    assert sum("ran as approved" in told for _, told in proof["proven"]) == 3


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> cells.Notebook:
    """A runbook of three changes that take a while, so that kills fall into them."""
    orders = [("add_mark", {"text": text, "how": "slow"}) for text in ("blue", "green", "red")]
    return conversed(tmp_path_factory.mktemp("slow"), *orders)


def begun(site: Site, head: list[str]) -> Kernel:
    """A fresh kernel in which the runbook's run has begun."""
    running = Kernel(site.environment)
    for source in head:
        ran = running.run(source, 120)
        assert not ran.errors, ran.errors
    return running


def decide_all(ops: OpsAgent, rng: random.Random) -> None:
    """Approve what waits, most of the time."""
    for request in ops.approvals("pending")["id"]:
        if rng.random() < 0.8:
            ops.approve(request)


def all_pass(running: Kernel, ops: OpsAgent, sources: list[str]) -> bool:
    """Whether the cells pass from top to bottom, with somebody who approves at once."""
    for source in sources:
        cell = running.start(source)
        if " run " in source:
            ran = running.collect(cell, 300)
            decide_all(ops, random.Random(source))
            for request in ops.approvals("pending")["id"]:
                ops.approve(request)
        else:
            ran = running.collect(cell, 300)
        if ran.errors:
            return False
    return True


def test_a_runbook_on_a_real_postgresql(database18: str, tmp_path: Path) -> None:
    """An index made once in a conversation is made on another server by the runbook, and proven; no password is kept."""
    with psycopg.connect(database18, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE orders AS SELECT g AS id, g % 100 AS customer_id FROM generate_series(1, 5000) g"
        )
    password = re.search(r"//[^:]*:([^@]*)@", database18)
    site = Site(tmp_path, "shop", more={"SHOP_DSN": database18})
    code, said = site.cli(
        "attach", "postgresql", "shop", "--server", "demo", "-e", "development", "--dsn-env", "SHOP_DSN"
    )
    assert code == 0, said
    code, said = site.cli("ask", "create an index on orders for customer_id", "--on", "shop")
    assert code == WAITING, said
    assert site.cli("reject", said["calls"][-1]["request"], "--reason", "first as a runbook")[0] == 0
    code, said = site.cli("ask", "create an index on orders for id", "--on", "shop")
    assert code == WAITING, said
    file = tmp_path / "index.ipynb"
    code, said = site.cli("runbook", "export", str(file), "--session", said["session"])
    assert code == 0, said
    nbformat.validate(nbformat.read(file, as_version=4))
    words = ("runbook", "run", str(file), "-p", "columns=customer_id", "--server", "demo")
    code, said = site.cli(*words)
    assert (code, said["state"]) == (WAITING, "waiting"), said
    assert site.cli("approve", said["approval"])[0] == 0
    code, said = site.cli(*words)
    assert (code, said["state"]) == (DONE, "done"), said
    with psycopg.connect(database18) as connection:
        found = connection.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'orders'").fetchall()
    assert len(found) == 1
    assert "customer_id" in found[0][0]
    code, proof = site.cli("runbook", "verify", said["file"])
    assert code == 0
    assert any("ran as approved" in told for _, told in proof["proven"])
    assert password is None or password[1] not in Path(said["file"]).read_text()
