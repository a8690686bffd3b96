"""The Python API: one class, synchronous, usable in scripts and notebooks alike, without IPython."""

from __future__ import annotations

import asyncio
import concurrent.futures
import getpass
import os
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from opsagent_jupyter.config import load_settings
from opsagent_jupyter.credentials import OneTimeSecret, Secret
from opsagent_jupyter.errors import (
    ConfigError,
    CredentialError,
    OpsAgentError,
    SecretInClear,
    UnknownInstance,
    UnknownSession,
)
from opsagent_jupyter.executor import Ask, Decision, record_of
from opsagent_jupyter.lifecycle import OPEN, ApprovalState
from opsagent_jupyter.models import (
    Actor,
    Approval,
    CallRecord,
    CallStatus,
    Effect,
    Environment,
    Health,
    Instance,
    Json,
    Message,
    Result,
    Risk,
    Session,
)
from opsagent_jupyter.plugin import Accounts, Tool
from opsagent_jupyter.redaction import Redactor
from opsagent_jupyter.runtime import Kind, Runtime
from opsagent_jupyter.session import TurnRecord, TurnState

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd

    from opsagent_jupyter.audit.query import AuditReader, When
    from opsagent_jupyter.audit.retention import Filing, Pruned
    from opsagent_jupyter.audit.verification import Verification
    from opsagent_jupyter.bridge import Bridge

T = TypeVar("T")
#: Seconds between two looks at the store while waiting.
POLL = 0.1
#: States in which a call will not change by itself any more.
ENDED: tuple[CallStatus, ...] = ("succeeded", "failed", "refused", "unknown", "cancelled")


class Call:
    """One tool call. It is live: ``status`` and the rest read the store while the call is open."""

    def __init__(self, ops: OpsAgent, record: CallRecord) -> None:
        self.ops = ops
        self._record = record

    @property
    def record(self) -> CallRecord:
        """The call as it stands now."""
        if self._record.approval and self._record.status not in ("succeeded", "failed", "refused", "cancelled"):
            self._record = record_of(self.ops.approval(self._record.approval))
        return self._record

    @property
    def id(self) -> str:
        """The call's id."""
        return self._record.id

    @property
    def tool(self) -> str:
        """``plugin.tool``."""
        return self._record.tool

    @property
    def status(self) -> CallStatus:
        """running, succeeded, failed, refused, waiting, unknown or cancelled."""
        return self.record.status

    @property
    def risk(self) -> Risk:
        """The risk of this very call."""
        return self._record.risk

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it has that risk."""
        return self._record.reasons

    @property
    def summary(self) -> str:
        """What came of it, in plain words."""
        return self.record.summary

    @property
    def approval(self) -> Approval | None:
        """The approval request, when the call needed one: id, plan (the preview), expiry, state."""
        return self.ops.approval(self._record.approval) if self._record.approval else None

    @property
    def result(self) -> Result | None:
        """What a reading call found."""
        return self.record.result

    @property
    def effect(self) -> Effect | None:
        """What a changing call did, as read back from the database."""
        return self.record.effect

    @property
    def frame(self) -> pd.DataFrame:
        """The result's first table as a DataFrame; empty when there is none."""
        return frames_of(self.result)[0]

    def wait(self, timeout: float | None = 300) -> Call:
        """Wait until the call has ended, at most ``timeout`` seconds; what waits for a person then still waits."""
        limit = None if timeout is None else time.monotonic() + timeout
        while self.status not in ENDED and (limit is None or time.monotonic() < limit):
            time.sleep(POLL)
        return self

    def __repr__(self) -> str:
        record = self.record
        waiting = f" (request {record.approval[:8]})" if record.status == "waiting" else ""
        first = record.summary.partition("\n")[0][:200]
        return f"<Call {record.tool} on {record.instance}: {record.status}{waiting}: {first}>"


class Turn:
    """One question to the agent with its answer. Reading ``text`` or ``calls`` waits until the turn has ended or parked."""

    def __init__(
        self, ops: OpsAgent, turn: TurnRecord, future: concurrent.futures.Future[TurnRecord], question: str
    ) -> None:
        self.ops = ops
        self._turn = turn
        self._future = future
        self.question = question

    @property
    def id(self) -> str:
        """The turn's id."""
        return self._turn.id

    @property
    def session(self) -> Session:
        """The session it belongs to."""
        return self.ops.session(self._turn.session)

    @property
    def session_id(self) -> str:
        """The id of that session."""
        return self._turn.session

    @property
    def state(self) -> TurnState:
        """running, finished, parked (waits for a person), failed or cancelled; never waits."""
        if self._turn.state == "running" and self._future.done():
            self._ended()
        return self._later().state if self._turn.state == "parked" else self._turn.state

    @property
    def text(self) -> str:
        """The answer, as far as it has come when the turn ended or parked; raises what went wrong when nothing was said."""
        said = self.said
        if self._turn.error is not None and not said:
            raise self._turn.error
        return said

    @property
    def said(self) -> str:
        """The same, but empty when nothing was said; ``error`` tells why."""
        self._ended()
        return self._later().text

    @property
    def calls(self) -> list[Call]:
        """The calls of the turn, in order."""
        self._ended()
        return [Call(self.ops, record) for record in self._turn.calls.values()]

    @property
    def error(self) -> OpsAgentError | None:
        """Why it failed, when it did."""
        self._ended()
        return self._turn.error

    def wait(self, timeout: float | None = 300) -> Turn:
        """Wait until the turn has ended, decisions included, at most ``timeout`` seconds; then it goes on without you."""
        limit = None if timeout is None else time.monotonic() + timeout
        while self.state in ("running", "parked") and (limit is None or time.monotonic() < limit):
            time.sleep(POLL)
        return self

    def cancel(self) -> bool:
        """Stop it: the model, the tool and the statement in the database."""
        return self.ops.runtime.conversation(self._turn.session).cancel()

    def _ended(self) -> None:
        try:
            self._future.result()
        except (KeyboardInterrupt, SystemExit):
            self.cancel()
            raise
        except concurrent.futures.CancelledError:
            self._turn.state = "cancelled"
        except OpsAgentError as error:
            self._turn.state, self._turn.error = "failed", error

    def _later(self) -> TurnRecord:
        """What became of a parked turn: it ends with the assistant's words that follow the decision."""
        turn = self._turn
        if turn.state != "parked":
            return turn
        messages = self.ops.messages(turn.session)
        mine = [message.seq for message in messages if message.turn == turn.id]
        later = [m for m in messages if mine and m.seq > max(mine) and m.role in ("assistant", "user")]
        if later and later[0].role == "assistant":
            texts = [m.text for m in later if m.role == "assistant" and m.text]
            turn.text = "\n\n".join([turn.text, *texts]).strip()
            turn.state = "parked" if later[-1].calls else "finished"
        return turn

    def __repr__(self) -> str:
        why = f": {self._turn.error}" if self.state == "failed" and self._turn.error else ""
        return f"<Turn {self.id[:8]} in session {self._turn.session[:8]}: {self.state}{why}>"


class OpsAgent:
    """OpsAgent for scripts and notebooks.

    Args:
        store_url: SQLAlchemy URL of the shared store; the default is a file in the Jupyter data directory.
        model: ``offline`` or ``provider:name``.
        settings: any other field of ``opsagent_jupyter.config.Settings``.

    Every method raises ``OpsAgentError`` subclasses, whose text says what to do and holds no secret.
    """

    def __init__(
        self,
        store_url: str | None = None,
        model: str | None = None,
        *,
        kind: Kind = "api",
        executes: bool = True,
        **settings: Any,
    ) -> None:
        given = {"store_url": store_url, "model": model, **settings}
        self.settings = load_settings(given)
        self.actor = local_actor(kind)
        self.runtime: Runtime = _clean(lambda: Runtime(self.settings, kind, self.actor, executes=executes))
        self._current = ""
        self._bridge: Bridge | None = None
        self._audit: AuditReader | None = None

    # -- databases ------------------------------------------------------------------------------------------------

    def attach(
        self,
        plugin: str,
        name: str,
        *,
        server: str = "default",
        environment: Environment = "production",
        dsn: str | None = None,
        dsn_env: str | None = None,
        service: str | None = None,
        read_only: bool = False,
        mask: Sequence[str] = (),
        no_rows: bool = False,
    ) -> Health:
        """Attach a database: its connection is tried, then kept encrypted. Give one of dsn, dsn_env (a variable) or service.

        ``mask`` names columns (``table.column``) whose values no language model gets to read; ``no_rows`` keeps all rows from
        it. The notebook shows both.
        """
        secret = Secret(connection_secret(dsn, dsn_env, service))
        dsn = None  # a verbose traceback prints arguments
        require_name("database", name)
        require_name("server", server)
        if environment not in ("production", "staging", "development"):
            raise ConfigError(f"{environment!r} is no environment.", hint="Choose production, staging or development.")
        instance = Instance(
            name=name,
            server=server,
            plugin=plugin,
            environment=environment,
            read_only=read_only,
            settings=shielding(mask, no_rows=no_rows),
        )
        return self._call(self.runtime.attach(instance, secret, self.actor))

    def detach(self, name: str) -> None:
        """Forget a database and its credentials."""
        self._call(self.runtime.detach(name, self.actor))

    def instances(self) -> Sequence[Instance]:
        """The attached databases."""
        return _clean(self.runtime.store.instances)

    def servers(self) -> pd.DataFrame:
        """The attached databases with their servers, one row each."""
        columns = [
            "server",
            "name",
            "plugin",
            "environment",
            "read_only",
            "host",
            "port",
            "database",
            "user",
            "created_by",
        ]
        rows = [i.model_dump() | i.settings for i in self.instances()]
        return frame(rows, columns)

    def health(self, name: str = "", seconds: float = 10.0) -> list[Health]:
        """Ask one database, or all, how it is; one that does not answer in time is not well."""
        if name:
            instance = _clean(lambda: self.runtime.store.instance(name))
            return [self._call(self.runtime.health(instance, seconds))]
        return self._call(self.runtime.healths(seconds))

    def roles(self, name: str, observer: str = "", operator: str = "") -> str:
        """The SQL by which an administrator makes an observer and an operator role for a database; it runs nothing.

        Raises ``ConfigError`` when the plugin of the database says nothing of the accounts that it needs.
        """
        return self._call(self._roles(name, observer, operator))

    async def _roles(self, name: str, observer: str, operator: str) -> str:
        instance = await asyncio.to_thread(self.runtime.store.instance, name)
        plugin = self.runtime.plugins.plugin(instance.plugin)
        if not isinstance(plugin, Accounts):
            raise ConfigError(f"The plugin {instance.plugin} says nothing of the accounts that it needs.")
        async with self.runtime.connections.use(instance) as connection:
            return await plugin.account_sql(connection, observer, operator)

    def tools(self, plugin: str = "") -> Sequence[Tool]:
        """The tools of the plugins that are attached, or of one plugin."""
        names = [plugin] if plugin else sorted({i.plugin for i in self.instances()}) or self.runtime.plugins.names()
        return _clean(lambda: [tool for name in names for tool in self.runtime.plugins.tools(name)])

    # -- calls ----------------------------------------------------------------------------------------------------

    def run(self, tool: str, on: str = "", *, dry_run: bool = False, supersedes: str = "", **arguments: Any) -> Call:
        """Run one tool through the gate. A call that needs a person comes back at once with ``status == "waiting"``."""
        target = on or self._only_instance()
        ask = Ask(tool, arguments, target, dry_run=dry_run, supersedes=self._full_id(supersedes))
        return Call(self, self._call(self.runtime.run(ask, self.actor)))

    def _only_instance(self) -> str:
        names = [instance.name for instance in self.instances()]
        if len(names) == 1:
            return names[0]
        if not names:
            attach = "Attach one: %opsagent attach postgresql|mongodb NAME --dsn-env VARIABLE, or ops.attach(...) in a script."
            raise UnknownInstance("No database is attached yet.", hint=attach)
        raise UnknownInstance(
            f"Say on which database: attached are {', '.join(names)}.", hint="Give it with on=NAME (--on NAME)."
        )

    def _full_id(self, id: str) -> str:
        return self.approval(id).id if id else ""

    # -- conversations --------------------------------------------------------------------------------------------

    def ask(self, text: str, on: str = "", *, session: str = "", model: str = "", wait: float | None = None) -> Turn:
        """Ask the agent. The turn runs in the background; reading ``turn.text`` waits for it, never for a person.

        ``wait`` waits up to that many seconds for the whole turn, decisions included.
        """
        chosen = self._session_for(on, session, model)
        record = TurnRecord(chosen)
        future = self.runtime.submit(self.runtime.say(chosen, text, self.actor, record, model))
        turn = Turn(self, record, future, self.runtime.redactor.redact(text))
        return turn.wait(wait) if wait is not None else turn

    def _session_for(self, on: str, session: str, model: str) -> str:
        if session:
            self._current = self.session(session).id
            return self._current
        if self._current:
            current = self.session(self._current)
            if not current.closed and on in ("", current.instance):
                return self._current
        self._current = self._call(self.runtime.new_session(self.actor, on, model)).id
        return self._current

    def new_session(self, on: str = "", model: str = "") -> Session:
        """Begin a new conversation; the next ``ask`` goes there."""
        session = self._call(self.runtime.new_session(self.actor, on, model))
        self._current = session.id
        return session

    def open(self, id: str) -> Session:
        """Go on with a conversation here; what was decided meanwhile is answered."""
        session = self.session(id)
        self._current = session.id
        self.runtime.submit(self.runtime.go_on(session.id, self.actor))
        return session

    def close_session(self, id: str = "") -> Session:
        """Close a conversation; it stays readable."""
        if not (id or self._current):
            raise UnknownSession("No conversation is open here.", hint="Name one: `%opsagent sessions` lists them.")
        session = self.session(id or self._current)
        event = self.runtime.event("session.closed", self.actor, session=session.id)
        self._current = "" if session.id == self._current else self._current
        return _clean(lambda: self.runtime.store.update_session(session.id, event, closed=True))

    def session(self, id: str) -> Session:
        """A conversation by id or unique prefix."""
        return _clean(lambda: self.runtime.store.session(id))

    def sessions(self, limit: int = 100) -> pd.DataFrame:
        """The conversations, the last used first."""
        rows = [s.model_dump() for s in _clean(lambda: self.runtime.store.sessions(limit=limit))]
        return frame(
            rows, ["id", "title", "instance", "server", "model", "created_by", "created_at", "updated_at", "closed"]
        )

    def search(self, text: str, limit: int = 100) -> pd.DataFrame:
        """Where a text occurs in titles and messages of conversations, upper and lower case alike, the last used first."""
        found = _clean(lambda: list(islice(self._found(text), limit)))
        return frame(found, ["session", "title", "seq", "role", "created_at", "text"])

    def _found(self, text: str) -> Iterator[dict[str, Any]]:
        wanted = text.casefold()
        for session in self.runtime.store.sessions(limit=10_000):
            about = {"session": session.id, "title": session.title}
            if wanted in session.title.casefold():
                yield {**about, "seq": 0, "role": "title", "created_at": session.created_at, "text": session.title}
            for message in self.runtime.store.messages(session.id):
                place = message.text.casefold().find(wanted)
                if place >= 0:
                    around = " ".join(message.text[max(place - 60, 0) : place + len(text) + 60].split())
                    told = {"seq": message.seq, "role": message.role, "created_at": message.created_at}
                    yield {**about, **told, "text": around}

    def export(self, session: str = "", form: Literal["markdown", "notebook"] = "markdown") -> str:
        """A conversation as a Markdown document, or as the JSON of a notebook: questions, answers, calls, decisions, outcomes."""
        from opsagent_jupyter.agent.markdown import document, notebook

        if not (session or self._current):
            raise UnknownSession("No conversation is open here.", hint="Name one: `%opsagent sessions` lists them.")
        chosen = self.session(session or self._current)
        return (notebook if form == "notebook" else document)(chosen, self.messages(chosen.id))

    def messages(self, session: str = "") -> Sequence[Message]:
        """The transcript of a conversation."""
        return _clean(lambda: self.runtime.store.messages(session or self._current))

    def result(self, call: str) -> pd.DataFrame | dict[str, pd.DataFrame]:
        """The whole result of a call of a conversation, by the id that the agent names: a DataFrame, or several by name."""
        found = _clean(lambda: self._result(call))
        frames = dict(zip((table.name for table in found.tables), frames_of(found), strict=False))
        return frames if len(frames) > 1 else frames_of(found)[0]

    def _result(self, call: str) -> Result:
        recent = [session.id for session in self.runtime.store.sessions(limit=100)]
        for session in [*filter(None, [self._current]), *recent]:
            for message in self.runtime.store.messages(session):
                found = next((one.result for one in message.calls if one.id == call and one.result), None)
                if message.role == "tool" and found is not None:
                    return found
        raise ConfigError(
            f"No result is kept of a call {call[:80]!r}.",
            hint="Give the id as the agent names it, of a call in one of the last 100 conversations.",
        )

    # -- language models ------------------------------------------------------------------------------------------

    def keep_model_key(self, provider: str, key: str) -> str:
        """Keep the key of a provider of language models, encrypted, on this machine; an empty one forgets it. What the
        environment says goes first. Returns the provider's name as langchain has it."""
        secret = Secret(key)
        key = ""  # a verbose traceback prints arguments
        return _clean(lambda: self.runtime.keep_model_key(provider, secret, self.actor), self.runtime.redactor)

    def known_provider(self, name: str) -> str:
        """Langchain's name of a provider that takes a key; ``UnknownModel`` names those there are."""
        from opsagent_jupyter.agent.providers import known_provider

        return _clean(lambda: known_provider(name))

    # -- approvals ------------------------------------------------------------------------------------------------

    def approval(self, id: str) -> Approval:
        """An approval request by id or unique prefix."""
        return _clean(lambda: self.runtime.store.approval(id))

    def approvals(self, state: str = "", limit: int = 100) -> pd.DataFrame:
        """The approval requests, newest first: the open ones, those of one state, or ``state="all"``."""
        if state and state != "all" and state not in set(ApprovalState):
            raise ConfigError(f"{state!r} is no state of a request.", hint=f"Choose all, {', '.join(ApprovalState)}.")
        states = tuple(OPEN) if not state else () if state == "all" else (ApprovalState(state),)
        found = _clean(lambda: self.runtime.store.approvals(states=states, limit=limit))
        return frame([_approval_row(a) for a in found], APPROVAL_COLUMNS)

    def approve(self, id: str, reason: str = "", version: int | None = None) -> Approval:
        """Approve a request; a host that holds the credentials then runs it, this one included."""
        return self.decide(id, "approve", reason, version)

    def run_unless_taken(self, id: str, patience: float = 1.0) -> None:
        """Run an approved request here, to its end, unless another host takes it within ``patience`` seconds."""
        limit = time.monotonic() + patience
        while self.approval(id).state is ApprovalState.APPROVED:
            if time.monotonic() > limit:
                self._call(self.runtime.executor.resume(self.approval(id).id))
                return
            time.sleep(POLL)

    def reject(self, id: str, reason: str = "") -> Approval:
        """Reject a request; it can never run."""
        return self.decide(id, "reject", reason)

    def withdraw(self, id: str, reason: str = "") -> Approval:
        """Take back a request of your own that has not started."""
        return self.decide(id, "withdraw", reason)

    def revoke(self, id: str, reason: str = "") -> Approval:
        """Take back an approval that has not started."""
        return self.decide(id, "revoke", reason)

    def decide(self, id: str, decision: Decision, reason: str = "", version: int | None = None) -> Approval:
        """Decide a request; ``AlreadyDecided`` says who was first."""
        return self._call(self.runtime.executor.decide(id, decision, self.actor, reason, version))

    def resolve(self, id: str, state: Literal["succeeded", "failed"], reason: str) -> Approval:
        """Record what you found out about a call whose outcome is unknown."""
        return self._call(self.runtime.executor.resolve(id, state, self.actor, reason))

    def reveal(self, id: str) -> OneTimeSecret:
        """Take the secret that a succeeded call has made (a new role's password) out of the store: once, and only as the
        person who asked for the call or approved it. ``SecretRevealed`` says who was shown it before, and when."""
        return OneTimeSecret(self._call(self.runtime.executor.reveal(id, self.actor))())

    def cancel(self, id: str) -> bool:
        """Cancel an approved call that runs in this process, in the database too."""
        approval = self.approval(id)

        async def cancelled() -> bool:
            return self.runtime.executor.cancel(approval.id)

        return self._call(cancelled())

    # -- audit ----------------------------------------------------------------------------------------------------

    @property
    def reader(self) -> AuditReader:
        """The audit for analysis; made when first used, because it loads DuckDB and pandas."""
        if self._audit is None:
            from opsagent_jupyter.audit.projection import DuckProjection
            from opsagent_jupyter.audit.query import AuditReader

            self._audit = AuditReader(self.runtime.store, DuckProjection(self.runtime.store, self.settings.audit_path))
        return self._audit

    def audit(self, since: str | datetime | timedelta | None = None, **filters: Any) -> pd.DataFrame:
        """The audit as a DataFrame, complete at this moment. Filters: until, risk (that level and up), status, server,
        instance, tool, actor, session, approval, limit; archives is the folder of what was pruned."""
        return _clean(lambda: self.reader.frame(since=since, **filters))

    def audit_sql(self, text: str, archives: str | Path | None = None) -> pd.DataFrame:
        """Any SELECT over the view ``audit`` and its sisters, in DuckDB's SQL; with the folder of the archives over what
        was pruned too."""
        return _clean(lambda: self.reader.sql(text, archives=archives))

    def verify(self, checkpoint: Mapping[str, Any] | None = None, archives: str | Path | None = None) -> Verification:
        """Recompute the audit chain, with the folder of the archives from the first event on; the answer names the first
        bad row."""
        pair = (int(checkpoint["count"]), str(checkpoint["head"])) if checkpoint else None
        return _clean(lambda: self.reader.verify(pair, archives))

    def audit_export(self, path: str | Path, **filters: Any) -> int:
        """Write the audit, or what the filters of ``audit`` leave of it, to a .parquet, .csv or .jsonl file; the rows."""
        return _clean(lambda: self.reader.export(path, **filters))

    def audit_archive(self, folder: str | Path, before: When | None = None) -> Filing:
        """Verify the archives in a folder against the store, and add what is older than a time; nothing is removed."""
        from opsagent_jupyter.audit.retention import file

        event = self.runtime.event("audit.archived", self.actor)
        return _clean(lambda: file(self.runtime.store, self.reader, Path(folder), before, event))

    def audit_prune(self, folder: str | Path = "", before: When | None = None) -> Pruned:
        """Archive what is older than a time in a folder, verify that, and remove it from the store. Folder and time come
        from OPSAGENT_AUDIT_ARCHIVES and OPSAGENT_AUDIT_DAYS where they are not given."""
        from opsagent_jupyter.audit.retention import prune

        place = Path(folder or self.settings.audit_archives).expanduser()
        age = before if before is not None else timedelta(days=self.settings.audit_days)
        if not (folder or self.settings.audit_archives) or (before is None and not self.settings.audit_days):
            raise ConfigError(
                "A prune needs a folder for the archives and an age.",
                hint="Name them, or set OPSAGENT_AUDIT_ARCHIVES and OPSAGENT_AUDIT_DAYS.",
            )
        event = self.runtime.event("audit.pruned", self.actor)
        return _clean(lambda: prune(self.runtime.store, self.reader, place, age, event))

    # -- hosting --------------------------------------------------------------------------------------------------

    @property
    def bridge(self) -> Bridge:
        """Links for screens."""
        if self._bridge is None:
            from importlib.metadata import version

            from opsagent_jupyter.bridge import Bridge

            self._bridge = Bridge(self.runtime, self.actor, version("opsagent_jupyter"))
        return self._bridge

    def close(self) -> None:
        """End in order; waiting requests stay in the store."""
        self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<OpsAgent {self.settings.setup}, model {self.settings.model}, store {self.runtime.store.url}>"

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return _clean(lambda: self.runtime.call(work), self.runtime.redactor)


APPROVAL_COLUMNS = [
    "id", "state", "risk", "title", "tool", "instance", "server", "environment", "requester", "created_at",
    "expires_at", "decided_by", "decided_at", "reason", "outcome",
]  # fmt: skip


def _approval_row(approval: Approval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "state": str(approval.state),
        "risk": str(approval.risk),
        "title": approval.plan.title,
        "tool": approval.tool,
        "instance": approval.target.instance,
        "server": approval.target.server,
        "environment": approval.target.environment,
        "requester": approval.requester.name + (" (agent)" if approval.requester.agent else ""),
        "created_at": approval.created_at,
        "expires_at": approval.expires_at,
        "decided_by": approval.decided_by.name if approval.decided_by else "",
        "decided_at": approval.decided_at,
        "reason": approval.reason,
        "outcome": approval.effect.summary if approval.effect else "",
    }


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a DataFrame that has its columns even when it is empty."""
    import pandas as pd

    return pd.DataFrame([[row.get(column) for column in columns] for row in rows], columns=list(columns))


def frames_of(result: Result | None) -> list[pd.DataFrame]:
    """A result's tables as DataFrames; one empty frame when there is none."""
    import pandas as pd

    tables = result.tables if result else ()
    return [pd.DataFrame([list(row) for row in table.rows], columns=list(table.columns)) for table in tables] or [
        pd.DataFrame()
    ]


def local_actor(kind: Kind) -> Actor:
    """The person at this process, as the operating system names them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return Actor(id=f"os:{name}", name=name, via=kind, stable=False)


def connection_secret(dsn: str | None, dsn_env: str | None, service: str | None) -> str:
    """The connection string from exactly one source."""
    given = [source for source in (dsn, dsn_env, service) if source]
    if len(given) != 1 or not isinstance(given[0], str):
        raise CredentialError(
            "Say in exactly one way how to connect.",
            hint="Give --dsn-env VARIABLE, --service NAME, --prompt, or dsn=... in a script.",
        )
    if dsn_env:
        if not re.fullmatch(r"[A-Za-z_]\w*", dsn_env):  # perhaps the connection string itself: it is not repeated
            raise ConfigError(
                "That is no name of an environment variable.", hint="Give the name of one, not its value."
            )
        value = os.environ.get(dsn_env, "")
        if not value:
            raise ConfigError(
                f"The variable {dsn_env} is not set.", hint=f"Set {dsn_env} before Jupyter starts, or use --prompt."
            )
        return value
    if service:
        return f"service={service}"
    return dsn or ""


def require_name(what: str, name: object) -> None:
    """Raise ``ConfigError`` unless a name can be typed, shown and found again; it may hold a secret, so it is not repeated."""
    if not (isinstance(name, str) and re.fullmatch(r"[^\W_][\w.-]{0,62}", name)):
        raise ConfigError(
            f"That is no name for a {what}.", hint="Use up to 63 letters, digits, dots, dashes and underscores: shop-1."
        )


def shielding(mask: Sequence[str], *, no_rows: bool) -> dict[str, Json]:
    """What is kept from language models, as settings of an instance; ``ConfigError`` for what is no column."""
    names = sorted({name.strip() for name in mask if name.strip()})
    for name in names:
        if not re.fullmatch(r"[^\s.,]+(\.[^\s.,]+){0,5}", name):
            raise ConfigError(f"{name[:80]!r} is no column to mask.", hint="Write table.column, several with commas.")
    masked: dict[str, Json] = {"masked": [*names]} if names else {}
    return {**masked, **({"rows_to_model": False} if no_rows else {})}


#: A user with a password in a URL, whole or in pieces, and the parameters of connection strings that are secrets.
_CLEAR = re.compile(
    r"//.*:.*@|(password|passwd|passphrase|pwd|secret|token|scram_\w+_key)\s*=", re.IGNORECASE | re.DOTALL
)


def refuse_clear_secret(*texts: str) -> None:
    """Raise ``SecretInClear`` when a password was typed into a cell or a command line, wherever it stands there."""
    if any(_CLEAR.search(text) for text in texts):
        raise SecretInClear


#: Knows no secret, but what secrets look like.
_STRANGER = Redactor()


def _clean(function: Callable[[], T], redactor: Redactor = _STRANGER) -> T:
    """Call, and let errors out without secrets: in their text, and in the variables of the frames below."""
    try:
        return function()
    except OpsAgentError as error:
        error.__cause__ = error.__context__ = None
        error.message = redactor.redact(error.message)
        error.args = (error.message,)
        failure = error.with_traceback(None)
    raise failure
