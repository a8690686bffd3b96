"""The live views of a notebook: a chat, one turn, one approval card.

A view is two outputs. The *record* is escaped static HTML and text: what was asked and what was decided, kept up to
date while the kernel lives, readable for ever after. The *widget* is the live screen; where it lives it hides the
record. Synced state, which notebooks save, is an id and a redacted summary: rows and statements travel by message.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from contextvars import Context
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display

from opsagent_jupyter import protocol
from opsagent_jupyter.cards import origin_line, rows_html, rows_text
from opsagent_jupyter.errors import ConfigError, OpsAgentError
from opsagent_jupyter.executor import told
from opsagent_jupyter.models import Approval, CallRecord, Session
from opsagent_jupyter.models import Message as Entry
from opsagent_jupyter.redaction import place_of

if TYPE_CHECKING:
    from opsagent_jupyter.api import Turn
    from opsagent_jupyter.bridge import Bridge

log = logging.getLogger("opsagent_jupyter")
Rows = list[tuple[str, str]]

WIDGET = "application/vnd.jupyter.widget-view+json"


_VIEWS: WeakSet[LiveView] = WeakSet()


def republish() -> None:
    """Send the records that changed since the last cell once more; called at the end of each cell."""
    for view in list(_VIEWS):
        view.republish()


def bundled(name: str) -> Path:
    """A file of the front end; ``ConfigError`` when this installation has none."""
    path = Path(__file__).parents[1] / "static" / name
    if not path.is_file():
        raise ConfigError(
            f"The notebook's front end is not built ({name} is missing).",
            hint="Install a released wheel, or run `npm ci && npm run build` in js/.",
        )
    return path


class LiveView(anywidget.AnyWidget):
    """A widget with a line into the runtime and a record that outlives it."""

    _esm = bundled("widget.js")
    _css = bundled("widget.css")

    kind = traitlets.Unicode().tag(sync=True)
    id = traitlets.Unicode().tag(sync=True)
    summary = traitlets.Dict(key_trait=traitlets.Unicode(), value_trait=traitlets.Unicode()).tag(sync=True)
    version = traitlets.Unicode().tag(sync=True)

    def __init__(self, bridge: Bridge, kind: str, id: str) -> None:
        self._bridge = bridge
        self._redact = bridge.runtime.redactor.redact
        self._lock = threading.Lock()
        self._records: list[DisplayHandle] = []
        self._recorded = ""
        self._late = False
        super().__init__(kind=kind, id=id, summary=self._redacted(), version=version("opsagent_jupyter"))
        _VIEWS.add(self)
        self.on_msg(self._asked)
        self._link = bridge.connect(self._told)

    # -- what a subclass says -------------------------------------------------------------------------------------

    def facts(self) -> dict[str, str]:
        """The summary that is saved with the notebook: short, and nothing that could not stand there in print."""
        raise NotImplementedError

    def story(self) -> tuple[str, Rows]:
        """The record: title and (name, text) rows."""
        raise NotImplementedError

    def heard(self, event: protocol.Event) -> protocol.Event | None:
        """Take note of an event; return what of it the screen needs, None for nothing."""
        raise NotImplementedError

    # -- the record -----------------------------------------------------------------------------------------------

    def _redacted(self) -> dict[str, str]:
        return {name: self._redact(text) for name, text in self.facts().items()}

    def _static(self) -> dict[str, str]:
        title, rows = self.story()
        clean = [(name, self._redact(text)) for name, text in rows]
        page = rows_html(self._redact(title), clean)
        return {
            "text/html": f"<div class='oa-record'>{page}</div>",
            "text/plain": rows_text(self._redact(title), clean),
        }

    def refresh(self) -> None:
        """Bring the summary and every shown record up to date."""
        self.summary = self._redacted()
        static = self._static()
        with self._lock:
            if static["text/plain"] == self._recorded:
                return
            self._recorded = static["text/plain"]
            self._late = True
            for record in self._records if _in_kernel() else ():
                # In a context of its own: the update belongs to the cell that runs now, not to the one that began all
                # this, or a headless run, which listens to one cell at a time, would miss it.
                Context().run(record.update, static, raw=True)

    def republish(self) -> None:
        """Send changed records once more, from the cell that runs now."""
        if not self._late:
            return
        static = self._static()
        with self._lock:
            self._late = False
            for record in self._records if _in_kernel() else ():
                # In a context of its own: the update belongs to the cell that runs now, not to the one that began all
                # this, or a headless run, which listens to one cell at a time, would miss it.
                Context().run(record.update, static, raw=True)

    def _repr_mimebundle_(self, **_kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {**self._static(), **self._view()}, {}

    def _view(self) -> dict[str, Any]:
        return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}

    def _ipython_display_(self, **_kwargs: Any) -> None:
        """Show the record and the widget as two outputs: JupyterLab shows no HTML beside a widget that it lost."""
        static = self._static()
        record = display(static, raw=True, display_id=True)
        with self._lock:
            self._recorded = static["text/plain"]
            if record is not None:
                self._records.append(record)
        if _in_kernel():
            live = {**self._view(), "text/html": "", "text/plain": ""}
            display(live, raw=True)

    # -- the line -------------------------------------------------------------------------------------------------

    @traitlets.observe("comm")
    def _pin_reply_routing(self, change: Any) -> None:
        """Deliver clicks while a cell runs: ipykernel 7.4 sends them to the shell that published last, a busy one."""
        comm = change["new"]
        if getattr(comm, "_reply_subshell_for", None) is not None:
            comm._reply_subshell_for = None  # noqa: SLF001  # private, so it is tested against the newest ipykernel

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Hand a command of the screen over. A view that closes does not end the record, so leaving stops here."""
        try:
            command = protocol.parse_command(json.dumps(content))
            if not isinstance(command, protocol.Leave | protocol.Unsubscribe):
                self._link.handle(command)
        except OpsAgentError as error:
            self._failed(content, error.code, error.message, error.hint)
        except Exception as error:  # noqa: BLE001  # a bug must be answered, not end the widget
            log.error("a command could not be taken: %s", place_of(error))  # noqa: TRY400
            self._failed(content, OpsAgentError.code, f"OpsAgent failed inside ({type(error).__name__}).", "")

    def _failed(self, content: Any, code: str, message: str, hint: str) -> None:
        command = content.get("command") if isinstance(content, dict) else None
        said = command if isinstance(command, dict) else {}
        about = next((str(said[name])[:64] for name in ("id", "session", "call") if name in said), "")
        kind = str(said.get("type", ""))[:64]
        self._tell(protocol.Failure(code=code, message=message, hint=hint, command=kind, about=about))

    def _told(self, event: protocol.Event) -> None:
        """Take an event off the runtime's thread; what goes wrong here must not reach the runtime."""
        try:
            shown = self.heard(event)
            if shown is not None:
                self._tell(shown)
        except Exception as error:  # noqa: BLE001  # it must not reach the runtime
            log.error("a view could not take an event: %s", place_of(error))  # noqa: TRY400

    def _tell(self, event: protocol.Event) -> None:
        self.send(protocol.envelope(event))

    def close(self) -> None:
        """Close the view and its line; the record stays where it is shown."""
        self._link.close()
        super().close()


def _in_kernel() -> bool:
    return hasattr(get_ipython(), "kernel")


def _attach(word: str, id: str) -> str:
    return f"%opsagent {word} {id[:8]}"


class ApprovalWidget(LiveView):
    """The card of one approval request."""

    def __init__(self, bridge: Bridge, approval: Approval) -> None:
        self.approval = approval
        super().__init__(bridge, "approval", approval.id)
        self._link.handle(protocol.GetApproval(id=approval.id))

    def facts(self) -> dict[str, str]:
        a = self.approval
        return {
            "title": a.plan.title,
            "risk": str(a.risk),
            "environment": a.target.environment,
            "target": _target(a),
            "state": str(a.state),
            "decided_by": a.decided_by.name if a.decided_by else "",
            "decided_at": f"{a.decided_at:%Y-%m-%d %H:%M:%S} UTC" if a.decided_at else "",
            "outcome": told(a),
            "attach": _attach("show", a.id),
        }

    def story(self) -> tuple[str, Rows]:
        facts = self.facts()
        decided = ", ".join(part for part in (facts["decided_by"], facts["decided_at"]) if part)
        return facts["title"], [
            ("Approval request", self.approval.id[:8]),
            ("Target", f"{facts['target']} ({facts['environment']})"),
            (
                "Risk",
                f"{facts['risk']}: {'; '.join(self.approval.reasons)}" if self.approval.reasons else facts["risk"],
            ),
            ("Asked by", _asker(self.approval)),
            ("Not your words", "\n".join(_origins(self.approval))),
            ("Decided by", decided),
            ("Stands", facts["outcome"]),
            ("More", facts["attach"]),
        ]

    def heard(self, event: protocol.Event) -> protocol.Event | None:
        match event:
            case protocol.ApprovalRequested(approval=approval) | protocol.ApprovalChanged(approval=approval):
                return event if self._changed(approval) else None
            case protocol.Welcome() | protocol.Failure() | protocol.ResultRead() | protocol.SecretShown():
                return event
            case _:
                return None

    def _changed(self, approval: Approval) -> bool:
        if approval.id != self.approval.id:
            return False
        if approval.version >= self.approval.version:
            self.approval = approval
            self.refresh()
        return True


def _target(approval: Approval) -> str:
    return f"{approval.target.instance} on {approval.target.server}"


def _origins(approval: Approval) -> list[str]:
    """What no person wrote, a line each, without the values: they stay out of saved notebooks."""
    return [origin_line(origin, value=False) for origin in approval.origins]


def _asker(approval: Approval) -> str:
    return f"{approval.requester.name}{' (by the agent)' if approval.requester.agent else ''}"


class SessionView(LiveView):
    """A view of a session, with what its record needs of it."""

    def __init__(self, bridge: Bridge, session_id: str, kind: str, id: str) -> None:
        self.session_id = session_id
        self.session: Session | None = None
        self.entries: dict[int, Entry] = {}
        self.calls: dict[str, CallRecord] = {}
        self.turns: dict[str, str] = {}
        """Call to turn."""
        self.approvals: dict[str, Approval] = {}
        super().__init__(bridge, kind, id)
        self._read()
        self._link.handle(protocol.Join(session=session_id, since=0))
        self._link.handle(protocol.Subscribe())

    def heard(self, event: protocol.Event) -> protocol.Event | None:
        shown = self._mine(event)
        if shown is not None:
            self._noted(shown)
        return shown

    def _read(self) -> None:
        """Begin with what the store holds, so that the first record is complete when the turn is."""
        store = self._bridge.runtime.store
        self.session = store.session(self.session_id)
        self._keep(store.messages(self.session_id))
        for approval in store.approvals(session=self.session_id):
            self._decided(approval)

    def _mine(self, event: protocol.Event) -> protocol.Event | None:
        match event:
            case protocol.ApprovalsListed(approvals=approvals):
                ours = tuple(approval for approval in approvals if approval.session == self.session_id)
                return event.model_copy(update={"approvals": ours})
            case protocol.ApprovalRequested(approval=approval) | protocol.ApprovalChanged(approval=approval):
                return event if approval.session == self.session_id else None
            case protocol.Joined(session=session, messages=messages):
                light = tuple(_without_rows(message) for message in messages)  # rows are read when somebody looks
                return event.model_copy(update={"messages": light}) if session.id == self.session_id else None
            case protocol.Appended(message=message):
                return event if message.session == self.session_id else None
            case protocol.TurnEvent() | protocol.ToolExecution() | protocol.Typing():
                return event if event.session == self.session_id else None
            case protocol.HealthChanged():
                return None
            case _:
                return event

    def _noted(self, event: protocol.Event) -> None:
        match event:
            case protocol.Joined(session=session, messages=messages):
                self.session = session
                self._keep(messages)
            case protocol.Appended(message=message):
                self._keep((message,))
            case protocol.ToolExecution(call=call, turn=turn):
                self._ran(call, turn)
            case protocol.ApprovalRequested(approval=approval) | protocol.ApprovalChanged(approval=approval):
                self._decided(approval)
            case protocol.ApprovalsListed(approvals=approvals):
                for approval in approvals:
                    self._decided(approval)
            case protocol.TurnEvent(kind="delta") | protocol.Typing():
                return
            case _:
                pass
        self.refresh()

    def _keep(self, messages: Sequence[Entry]) -> None:
        for message in messages:
            self.entries[message.seq] = message.model_copy(update={"calls": ()})
            for call in message.calls:
                if call.status != "running" or call.id not in self.calls:
                    self._ran(call, message.turn)

    def _ran(self, call: CallRecord, turn: str) -> None:
        self.calls[call.id] = call
        self.turns.setdefault(call.id, turn)

    def _decided(self, approval: Approval) -> None:
        held = self.approvals.get(approval.id)
        if held is None or held.version <= approval.version:
            self.approvals[approval.id] = approval

    def outcomes(self, calls: Sequence[str] | None = None) -> str:
        """The session's requests, or those of some calls, one line each: what was asked and what was decided."""
        named = [a for a in self.approvals.values() if calls is None or a.call in calls]
        lines = [[f"{a.id[:8]} · {a.risk} · {_target(a)} · {told(a)}", *_origins(a)] for a in named]
        return "\n".join(line for request in lines for line in request)


def _without_rows(message: Entry) -> Entry:
    calls = tuple(call.model_copy(update={"result": None}) for call in message.calls)
    return message.model_copy(update={"calls": calls})


class ChatWidget(SessionView):
    """The chat panel. Its record names the session and its decisions; the words themselves stay in the store."""

    def __init__(self, bridge: Bridge, session_id: str) -> None:
        super().__init__(bridge, session_id, "chat", session_id)

    def facts(self) -> dict[str, str]:
        session = self.session
        place = " on ".join(part for part in (session.instance, session.server) if part) if session else ""
        return {
            "title": session.title if session else "",
            "target": place,
            "model": session.model if session else "",
            "messages": str(len(self.entries)),
            "attach": _attach("open", self.session_id),
        }

    def story(self) -> tuple[str, Rows]:
        facts = self.facts()
        return "Chat with OpsAgent", [
            ("Session", self.session_id[:8]),
            ("About", facts["title"]),
            ("Target", facts["target"]),
            ("Model", facts["model"]),
            ("Decisions", self.outcomes()),
            ("Go on", facts["attach"]),
        ]


STANDS = {
    "started": "running when this was saved",
    "running": "running when this was saved",
    "parked": "waits for a decision",
    "finished": "answered",
    "failed": "failed",
    "cancelled": "cancelled",
}


class TurnWidget(SessionView):
    """One question with its answer, below its cell. Its record holds the words, the calls and the decisions."""

    def __init__(self, bridge: Bridge, turn: Turn) -> None:
        self.turn_id = turn.id
        self.question = turn.question
        self.stands = STANDS["running"]
        self._turn = turn
        super().__init__(bridge, turn.session_id, "turn", f"{turn.session_id}/{turn.id}")
        self.republish()

    def republish(self) -> None:
        """A turn may end before its view listens, or just when it begins to: the turn itself knows."""
        if self.stands == STANDS["running"] and (state := self._turn.state) != "running":
            self.stands = STANDS[state]
            self.refresh()
        super().republish()

    def heard(self, event: protocol.Event) -> protocol.Event | None:
        """Leave out the turns that others ask later in this session: each has a view of its own."""
        if isinstance(event, protocol.TurnEvent | protocol.ToolExecution) and self._is_over(event.turn):
            return None
        return super().heard(event)

    def _is_over(self, turn: str) -> bool:
        mine = self._turns()
        asked_later = any(m.role == "user" and m.turn not in mine for m in self._since())
        return asked_later and turn not in mine

    def _since(self) -> list[Entry]:
        """The messages from this turn's first on."""
        ordered = [self.entries[seq] for seq in sorted(self.entries)]
        first = next((i for i, message in enumerate(ordered) if message.turn == self.turn_id), len(ordered))
        return ordered[first:]

    def _said(self) -> list[Entry]:
        """This turn's messages and those it went on with after a decision: up to the next question."""
        said: list[Entry] = []
        for message in self._since():
            if message.role == "user" and message.turn != self.turn_id:
                break
            said.append(message)
        return said

    def _turns(self) -> set[str]:
        return {message.turn for message in self._said()} | {self.turn_id}

    def _noted(self, event: protocol.Event) -> None:
        if isinstance(event, protocol.TurnEvent) and event.kind != "delta":
            self.stands = f"{STANDS[event.kind]}: {event.text}" if event.kind == "failed" else STANDS[event.kind]
        super()._noted(event)

    def facts(self) -> dict[str, str]:
        return {"question": self.question, "state": self.stands, "attach": _attach("open", self.session_id)}

    def story(self) -> tuple[str, Rows]:
        answer = "\n\n".join(m.text for m in self._said() if m.role == "assistant" and m.text)
        calls = self._calls()
        lines = [f"{call.tool} on {call.instance}: {call.status}. {call.summary}".rstrip() for call in calls]
        return "OpsAgent", [
            ("Asked", self.question),
            ("Answer", answer),
            ("Ran", "\n".join(lines)),
            ("Decisions", self.outcomes([call.id for call in calls])),
            ("Stands", self.stands),
            ("Go on", _attach("open", self.session_id)),
        ]

    def _calls(self) -> list[CallRecord]:
        return [call for call in self.calls.values() if self.turns.get(call.id) in self._turns()]
