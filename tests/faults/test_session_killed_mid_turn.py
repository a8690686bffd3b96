"""kill -9 of the host of a conversation, anywhere in a turn; the next host goes on, and nothing is lost or done twice."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from opsagent_jupyter.agent.transcript import read_answer
from opsagent_jupyter.api import ENDED, OpsAgent
from opsagent_jupyter.credentials import new_key
from opsagent_jupyter.errors import ApprovalError
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Message
from tests.faults.conversing_child import INSIDE, LEASE, OUTSIDE, converse
from tests.ledger_plugin import Ledger, plugin
from tests.model_server import Server, Turn, serving

log = logging.getLogger(__name__)
#: Kills, both stores together.
KILLS = int(os.environ.get("OPSAGENT_TEST_KILLS", "12"))
#: Seconds without any change after which a conversation is called stuck.
STUCK = 60
NOTE = "Note from OpsAgent"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.conversing_child"])


# -- the model --------------------------------------------------------------------------------------------------------


def answer(asked: dict[str, Any]) -> Turn:
    """What the model says next, by the conversation alone: two looks and a change at once, then what broke off once more
    (never what may have run), one more look, and an end."""
    messages = asked["messages"]
    begins = max(place for place, message in enumerate(messages) if message["role"] == "user")
    name = next(m["content"] for m in reversed(messages) if m["role"] == "user" and not m["content"].startswith(NOTE))
    said = [message for message in messages[begins:] if message["role"] == "assistant"]
    if messages[begins]["content"].startswith(NOTE):
        notes = sum(message["content"].startswith(NOTE) for message in messages if message["role"] == "user")
        return Turn(f"So that is what became of it ({notes}).", pause=0.01)
    if not said:
        return Turn(f"Looking at {name}.", calls=tuple(begun(name)), pause=0.01)
    again = tuple(broken_off(said[-1], messages, f"{name} {len(said)}"))
    if again:
        return Turn(f"Once more for {name} ({len(said)}).", calls=again, pause=0.01)
    if not any(message["content"].startswith("Checking") for message in said):
        return Turn(f"Checking {name}.", calls=(("ledger_audit_marks", "{}"),), pause=0.01)
    return Turn(f"All of {name} is told: one two three four five six seven eight nine ten.", pause=0.01)


def begun(name: str) -> Iterator[tuple[str, str]]:
    """The first calls: two looks, and a change whose end can be seen or, for every third one, cannot."""
    how = "vanish" if name.endswith(("3", "6", "9")) else "ok"
    yield "ledger_list_marks", '{"delay": 0.1}'
    yield "ledger_audit_marks", "{}"
    yield "ledger_add_mark", json.dumps({"text": name, "how": how})


def broken_off(said: dict[str, Any], messages: Sequence[dict[str, Any]], name: str) -> Iterator[tuple[str, str]]:
    """The calls of a message that surely changed nothing and have no result; a change is asked for under a new name."""
    told = {message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"}
    for call in said.get("tool_calls") or ():
        function = call["function"]
        reads = function["name"] != "ledger_add_mark"
        [status] = re.findall(r"^\S+ on \S+: (\w+)$", told[call["id"]].partition("\n")[0])
        if status == "cancelled" or (reads and status == "unknown"):
            values = json.loads(function["arguments"])
            yield function["name"], json.dumps(values if reads else {**values, "text": name})


# -- the hosts --------------------------------------------------------------------------------------------------------


@dataclass
class Relay:
    """A conversation in two hosts: one asks, one waits; for each that is killed another one comes and goes on."""

    ops: OpsAgent
    session: str
    start: Callable[[str, str, str, int], Any]
    points: Iterator[str]
    dice: random.Random
    left: int
    hosts: dict[Any, str] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)

    def host(self, question: str = "") -> None:
        """Start one more host; when enough of them have been killed, one that nobody kills."""
        point = next(self.points) if self.kills.total() + len(self.hosts) < self.left else ""
        most = 9 if point.endswith("record") else 5 if point.endswith(("message", "lease")) else 2
        self.hosts[self.start(self.session, question, point, self.dice.randint(1, most))] = point

    def run(self, question: str, after_each: Callable[[], None]) -> None:
        """Play one turn to its end, whoever dies meanwhile."""
        self.host(question)
        self.host()
        seen, since = self.state(), time.monotonic()
        while not self.ended():
            self.decide()
            self.kill()
            for host in [host for host in self.hosts if host.exitcode is not None]:
                assert host.exitcode == -9, f"a host ended with {host.exitcode}"
                self.kills[self.hosts.pop(host)] += 1
                after_each()
                # A question that was lost with its host has to be asked again.
                self.host("" if self.ops.messages(self.session) else question)
            now = self.state()
            seen, since = (seen, since) if now == seen else (now, time.monotonic())
            assert time.monotonic() - since < STUCK, f"stuck: {seen} {self.hosts}"
            time.sleep(0.01)
        for host in self.hosts:
            host.kill()
            host.join()

    def kill(self) -> None:
        """Kill from outside what is to be killed there: some time, or when a request waits."""
        for host, point in self.hosts.items():
            due = point == "any time" and self.dice.random() < 0.02
            if due or (point == "waiting" and self.pending()):
                host.kill()
                host.join()

    def pending(self) -> Sequence[Any]:
        return self.ops.runtime.store.approvals(session=self.session, states=(ApprovalState.PENDING,))

    def decide(self) -> None:
        """Approve what is asked for, after a while, or reject it."""
        for approval in self.pending():
            if self.dice.random() < 0.1:
                try:
                    self.ops.decide(approval.id, self.dice.choice(["approve"] * 5 + ["reject"]), "as it was agreed")
                except ApprovalError:
                    continue  # withdrawn in this moment

    def state(self) -> Any:
        """Everything that moves while a turn goes on."""
        store = self.ops.runtime.store
        return store.audit_head(), len(store.messages(self.session))

    def ended(self) -> bool:
        """Whether the model has said its last words, and every request has come to its end."""
        store = self.ops.runtime.store
        told = store.messages(self.session)
        done = bool(told) and told[-1].role == "assistant" and not told[-1].calls
        open_ = (ApprovalState.PENDING, ApprovalState.APPROVED, ApprovalState.EXECUTING)
        return done and not store.approvals(session=self.session, states=open_)


# -- what must hold ---------------------------------------------------------------------------------------------------


def require_no_fault(server: Server) -> None:
    """Every request that any host has made so far kept the provider's rules."""
    assert server.faults == []


def require_whole(ops: OpsAgent, session: str, server: Server) -> None:
    """Each call has one answer, in the transcript and in the audit; no text is doubled, cut, or made up."""
    messages = ops.messages(session)
    texts = [message.text.strip() for message in messages if message.role == "assistant" and message.text]
    assert len(texts) == len(set(texts)), texts
    assert not [message for message in messages if message.partial]
    calls = [call for message in messages if message.role == "assistant" for call in message.calls]
    answers = {message.call: message for message in messages if message.role == "tool"}
    assert sorted(call.id for call in calls) == sorted(m.call for m in messages if m.role == "tool")
    events = [
        json.loads(row.body)
        for row in ops.runtime.store.audit_page(before=None, limit=10_000, filters={"session": session})
    ]
    for call in calls:
        require_one_end(call.id, answers[call.id], [event for event in events if event["call"] == call.id])


def require_one_end(call: str, told: Message, events: Sequence[dict[str, Any]]) -> None:
    """What the audit knows of a call has one beginning and one end, and the model was told that end."""
    kinds = Counter(event["type"] for event in events)
    outcomes = {event["status"]: event["error_code"] for event in events if event["type"] == "call.outcome"}
    # A host that was only slow tells an end of its own after the one that was told when it was taken for dead.
    late = len(outcomes) == 2 and "host.lost" in outcomes.values()
    begun = kinds["call.intent"] + kinds["call.requested"]
    ends = kinds["call.outcome"] + kinds["call.refused"] + kinds["approval.pending"] - late
    assert begun <= 1, (call, kinds)
    assert ends == begun, (call, events)
    assert kinds["approval.executing"] <= 1, (call, kinds)
    answer_ = read_answer(told.text)
    assert answer_ is not None
    assert answer_.status in ENDED
    if not kinds["approval.executing"]:
        ways = {"refused"} if kinds["approval.rejected"] else set(outcomes) or {"cancelled"}
        assert answer_.status in ways, (call, kinds, told.text)


def require_no_repetition(ops: OpsAgent, ledger_file: Path) -> None:
    """No change has more than one effect, and those that have one are those that are said to have succeeded."""
    effects = Counter(Ledger("outside", str(ledger_file)).texts())
    assert not effects or max(effects.values()) == 1
    requests = ops.runtime.store.approvals(limit=10_000)
    by_text = {str(request.arguments["text"]): request for request in requests}
    assert len(by_text) == len(requests)
    states = {text: request.state for text, request in by_text.items()}
    assert {text for text, state in states.items() if state is ApprovalState.SUCCEEDED} == set(effects)


# -- the test ---------------------------------------------------------------------------------------------------------


@contextmanager
def person(store_url: str, ledger_file: Path) -> Iterator[OpsAgent]:
    """Who decides: with no model, and nothing runs there."""
    with OpsAgent(store_url, executes=False) as ops:
        ops.runtime.plugins.add(plugin)
        ops.attach("ledger", "books", environment="development", dsn=str(ledger_file))
        yield ops


def test_a_turn_survives_every_host_that_is_killed_in_it(
    shared_store: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment of it: while the model speaks, a tool runs, an answer is stored, a person is waited for, or another
    host goes on. What the provider reads is valid each time, no call is repeated or lost, no word is told twice."""
    key = new_key()
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key)
    dice = random.Random(20261123)
    points = cycle(dice.sample([*INSIDE, *OUTSIDE], len(INSIDE) + len(OUTSIDE)))
    kills: Counter[str] = Counter()
    with serving(answer=answer) as server, person(shared_store, ledger_file) as ops:

        def start(session: str, question: str, point: str, times: int) -> Any:
            given = (shared_store, key, server.url, session, question, point, times)
            process = CONTEXT.Process(target=converse, args=given, daemon=True)
            process.start()
            return process

        number = 0
        while kills.total() < KILLS // 2:
            number += 1
            session = ops.new_session(on="books", model="openai:gpt-test").id
            relay = Relay(ops, session, start, points, dice, KILLS // 2 - kills.total())
            relay.run(f"task {number}", lambda: require_no_fault(server))
            kills += relay.kills
            require_no_fault(server)
            require_whole(ops, session, server)
        require_no_repetition(ops, ledger_file)
        assert ops.verify().ok
    log.info(
        "%s turns, %s requests to the model, killed: %s", number, len(server.requests), dict(sorted(kills.items()))
    )
    assert KILLS < 200 or len(kills) >= 15  # of 19 points, some of which are reached seldom


def test_a_host_that_slept_through_its_lease_says_nothing_any_more(
    store_url: str, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that was closed in mid-answer: another host has answered meanwhile, and what the first one had heard when it
    wakes up is in the audit of what was paid for, and nowhere else."""
    key = new_key()
    monkeypatch.setenv("PLUGIN_ENCRYPTION_KEY", key)

    def say(asked: dict[str, Any]) -> Turn:
        slow = len(server.requests) == 1
        return Turn("This comes too late: " + "word " * 40, pause=0.05) if slow else Turn("Here is the answer.")

    with serving(answer=say) as server, person(store_url, ledger_file) as ops:
        session = ops.new_session(on="books", model="openai:gpt-test").id
        given = (store_url, key, server.url, session, "anybody there?", "", 1)
        sleeper = CONTEXT.Process(target=converse, args=given, daemon=True)
        sleeper.start()
        try:
            eventually(lambda: bool(server.requests))
            stop_between_writes(sleeper.pid or 0, store_url)
            settings = {"model_base_url": f"{server.url}/v1", "lease_seconds": LEASE}
            with OpsAgent(store_url, "openai:gpt-test", **settings) as awake:
                awake.runtime.plugins.add(plugin)
                awake.open(session)
                eventually(lambda: len(ops.messages(session)) == 2)
                os.kill(sleeper.pid or 0, signal.SIGCONT)
                eventually(lambda: list(ops.audit(session=session)["type"]).count("model.usage") == 2)
        finally:
            sleeper.kill()  # a stopped one would never end by itself
            sleeper.join()
        assert [message.text.strip() for message in ops.messages(session)] == ["anybody there?", "Here is the answer."]
        assert server.faults == []


def stop_between_writes(pid: int, store_url: str) -> None:
    """Stop a process that has the session, while it writes nothing: a stopped one must not hold the store locked."""
    with closing(sqlite3.connect(f"file:{store_url.removeprefix('sqlite:///')}?mode=ro", uri=True)) as db:
        until = lambda: db.execute("SELECT lease_until FROM chat_sessions").fetchall()  # noqa: E731
        eventually(lambda: until()[0][0] is not None)
    while True:
        os.kill(pid, signal.SIGSTOP)
        if is_free(store_url.removeprefix("sqlite:///")):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def is_free(file: str) -> bool:
    """Whether nobody is writing to a store: neither its lock file nor SQLite's own lock is taken."""
    with Path(f"{file}.lock").open("w") as turn, closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as db:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            db.execute("BEGIN IMMEDIATE")
        except (BlockingIOError, sqlite3.OperationalError):
            return False
        db.execute("ROLLBACK")
    return True


def eventually(true: Callable[[], bool]) -> None:
    """Wait for it, at most as long as a conversation may stand still."""
    limit = time.monotonic() + STUCK
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.005)
