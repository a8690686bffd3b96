"""How a conversation becomes a runbook: its questions as prose, its calls as cells with parameters, gates and checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.cards import visible
from opsagent_jupyter.errors import PluginError, RunbookError
from opsagent_jupyter.lifecycle import ApprovalState
from opsagent_jupyter.models import Approval, CallRecord, Instance, Json, Message, Risk, canonical, new_id
from opsagent_jupyter.plugin import Tool
from opsagent_jupyter.runbooks.cells import Cell, Notebook, code, markdown, notebook

#: States of requests that are no part of what the team keeps.
LEFT_OUT = (ApprovalState.REJECTED, ApprovalState.WITHDRAWN, ApprovalState.SUPERSEDED, ApprovalState.REVOKED)
#: Names that the runbook itself uses, or that Python does.
RESERVED = {"run", "runbook_run", "runbook_wait", "runbook_vetting", "instance", "server"}
STRUCK = "***"

HOW = """\
Run the cells from top to bottom. What only reads runs at once; what changes something waits for a person, and the gate
below it lets nothing through until then. A step that took effect is not repeated in the same run: running its cell
again shows what became of it. `runbook_run` names the run; another name asks for everything anew.

Without a person at the keyboard: `opsagent runbook run FILE -p name=value`.\
"""


@dataclass(frozen=True)
class Step:
    """One call of the conversation that the runbook repeats."""

    record: CallRecord
    tool: Tool
    arguments: dict[str, Json]
    approval: Approval | None

    @property
    def instance(self) -> str:
        """The database that it was about."""
        return self.approval.target.instance if self.approval else self.record.instance


@dataclass
class Parameters:
    """The values that are lifted into the parameters cell: one name for one value of one argument."""

    values: dict[str, Json] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def name(self, argument: str, value: Json, note: str) -> str:
        """The parameter that holds this value of this argument."""
        first = f"{argument}_" if argument in RESERVED else argument
        number, name = 1, first
        while name in self.values and self.values[name] != value:
            number += 1
            name = f"{first}_{number}"
        self.values[name] = value
        self.notes.setdefault(name, note)
        return name


def compose(ops: OpsAgent, session: str, title: str = "") -> Notebook:
    """A session as a runbook; ``RunbookError`` when nothing in it was called."""
    chosen = ops.session(session)
    messages = ops.messages(chosen.id)
    found = _steps(ops, chosen.id, messages)
    if not found:
        raise RunbookError(
            f"Conversation {chosen.id[:8]} has no call that worked, so there is nothing to repeat.",
            hint="`opsagent sessions` lists the conversations.",
        )
    instance = _instance(ops, [step.instance for step in found.values()])
    composer = Composer(ops, instance, [*found.values()])
    name = title or chosen.title or "Runbook"
    return composer.book(name, messages, found)


def newest_session(ops: OpsAgent) -> str:
    """The conversation that was used last; ``RunbookError`` when there is none."""
    found = ops.runtime.store.sessions(limit=1)
    if not found:
        raise RunbookError("There is no conversation yet.", hint="Begin one: `opsagent ask ...`.")
    return found[0].id


def _instance(ops: OpsAgent, names: Sequence[str]) -> Instance:
    distinct = sorted(set(names))
    if len(distinct) > 1:
        raise RunbookError(
            f"This conversation is about several databases ({', '.join(distinct)}); a runbook is about one.",
            hint="Make a conversation for each, and export those.",
        )
    return ops.runtime.store.instance(distinct[0])


def _steps(ops: OpsAgent, session: str, messages: Sequence[Message]) -> dict[str, Step]:
    """The calls that worked or still wait, by id, in order."""
    asked = {approval.call: approval for approval in ops.runtime.store.approvals(session=session, limit=10_000)}
    last = {record.id: record for message in messages for record in message.calls}
    found = {}
    for call, record in last.items():
        step = _step(ops, record, asked.get(call))
        if step is not None:
            found[call] = step
    return found


def _step(ops: OpsAgent, record: CallRecord, approval: Approval | None) -> Step | None:
    try:
        tool = ops.runtime.plugins.tool(approval.tool if approval else record.tool)
    except PluginError:
        return None
    if approval is None and record.status != "succeeded":
        return None
    if approval is not None and approval.state in LEFT_OUT:
        return None
    given = dict(approval.arguments if approval else record.arguments)
    defaults = {name: spec.default for name, spec in tool.arguments.model_fields.items() if not spec.is_required()}
    ordered = sorted(given, key=[*tool.arguments.model_fields, *given].index)
    kept = {name: given[name] for name in ordered if name not in defaults or defaults[name] != given[name]}
    return Step(record, tool, kept, approval)


class Composer:
    """Builds the cells of one runbook."""

    def __init__(self, ops: OpsAgent, instance: Instance, steps: Sequence[Step]) -> None:
        self._redact = ops.runtime.redactor.redact
        self._instance = instance
        self._tools = ops.runtime.plugins.tools(instance.plugin)
        self._parameters = Parameters()
        self._used: set[str] = set()
        self._steps = steps

    def book(self, title: str, messages: Sequence[Message], found: dict[str, Step]) -> Notebook:
        body = [*self._body(messages, found)]
        runbook = new_id()[:16]
        head = [
            markdown("title", f"# {self._prose(title)}\n\n{self._purpose()}\n\n{HOW}"),
            code("parameters", self._parameter_lines(), tags=("parameters",)),
            code("begin", self._begin(runbook)),
        ]
        return notebook([*head, *body], v=1, runbook=runbook, title=self._plain(title))

    # -- the head

    def _purpose(self) -> str:
        changes = sum(step.approval is not None for step in self._steps)
        reads = len(self._steps) - changes
        parts = [
            _count(reads, "step that reads", "steps that read"),
            _count(changes, "step that a person approves", "steps that a person approves"),
        ]
        told = ", ".join(filter(None, parts))
        return f"Purpose: what was done in a conversation about a {self._instance.plugin} database, to be done again: {told}."

    def _parameter_lines(self) -> str:
        lines = [
            f"instance = {self._instance.name!r}  # the database, by the name it is attached under",
            f"server = {self._instance.server!r}  # the server it must belong to; empty: any",
        ]
        for name, value in self._parameters.values.items():
            note = self._parameters.notes[name]
            lines.append(f"{name} = {value!r}" + (f"  # {note}" if note else ""))
        lines += [
            'runbook_run = ""  # a name for this run; empty: the same parameters are the same run',
            "runbook_wait = 0  # seconds that a gate waits for a decision",
            'runbook_vetting = ""  # the signature by which its steps may run without asking; `runbook sign` writes it',
        ]
        return "\n".join(lines)

    def _begin(self, runbook: str) -> str:
        given = "".join(f" --given={name}={{{name}}}" for name in self._parameters.values)
        return (
            "%load_ext opsagent_jupyter\n"
            f"run = %opsagent --vars runbook begin {runbook} --on={{instance}} --server={{server}} "
            f"--run={{runbook_run}} --vetting={{runbook_vetting}}{given}\nrun"
        )

    # -- the body

    def _body(self, messages: Sequence[Message], found: dict[str, Step]) -> Iterator[Cell]:
        done: set[str] = set()
        for message in messages:
            if message.role == "user" and message.text.strip():
                yield markdown(self._id("question"), f"> {self._prose(message.text)}")
            for record in message.calls:
                if record.id in found and record.id not in done:
                    done.add(record.id)
                    yield from self._cells(found[record.id])

    def _cells(self, step: Step) -> Iterator[Cell]:
        name = self._id(step.tool.name.replace("_", "-"))
        risk = step.approval.risk if step.approval else Risk.LOW
        about = f"**{self._prose(step.tool.full_name)}**: {self._prose(step.tool.summary)}"
        if step.approval is not None:
            about += f" It changes something or needs care ({risk}), so a person decides."
        yield markdown(f"{name}-why", about)
        line = self._line(step.tool, step.arguments, name)
        yield code(name, line, step=name, kind="call", tool=step.tool.full_name)
        if step.approval is None:
            return
        yield markdown(
            f"{name}-look",
            "Look at the card above: target, statement, lock, undo. Nothing below runs before a person has.",
        )
        yield code(
            f"{name}-gate",
            f"%opsagent --vars runbook gate {{run.ref}}/{name} --wait={{runbook_wait}}",
            kind="gate",
            gate=name,
        )
        yield from self._check(step, name)
        yield from self._rollback(step, name)

    def _line(self, tool: Tool, arguments: dict[str, Json], step: str) -> str:
        words = [f"%opsagent --vars run {tool.full_name}", "--on={instance}"]
        for argument, value in arguments.items():
            words.append(f"--{argument.replace('_', '-')}={{{self._parameter(tool, argument, value)}}}")
        return " ".join([*words, f"--step={{run.ref}}/{step}"])

    def _parameter(self, tool: Tool, argument: str, value: Json) -> str:
        spelled = _spelled(value)
        note = tool.slots[argument].help if argument in tool.slots else ""
        if isinstance(spelled, str):
            spelled = self._redact(spelled)
            if STRUCK in spelled:
                spelled, note = "", "left out when this was exported: it looked like a secret"
        return self._parameters.name(argument, spelled, visible(note).replace("\n", " "))

    def _check(self, step: Step, name: str) -> Iterator[Cell]:
        """A read after the change, by a person's eye or a later cell; the gate has read the effect back already."""
        reader = verifier(step, self._tools)
        if reader is None:
            return
        shared = {key: value for key, value in step.arguments.items() if key in reader.arguments.model_fields}
        yield markdown(f"{name}-check-why", f"Check: {self._prose(reader.summary)}")
        yield code(
            f"{name}-check",
            self._line(reader, shared, f"{name}-check"),
            step=f"{name}-check",
            kind="verification",
            tool=reader.full_name,
        )

    def _rollback(self, step: Step, name: str) -> Iterator[Cell]:
        plan = step.approval.plan if step.approval else None
        if plan is None or not (plan.undo or plan.undo_note):
            return
        said = "To take it back: this shows the statement for what this run changed. It runs nothing."
        yield markdown(f"{name}-undo-why", f"{said} {self._prose(plan.undo_note)}".strip())
        yield code(f"{name}-undo", f"%opsagent --vars runbook undo {{run.ref}}/{name}", kind="rollback", undo=name)

    # -- words

    def _id(self, stem: str) -> str:
        """An id for a cell that no other has."""
        number, name = 1, stem[:48]
        while name in self._used:
            number += 1
            name = f"{stem[:48]}-{number}"
        self._used.add(name)
        return name

    def _plain(self, text: str) -> str:
        return " ".join(visible(self._redact(text)).split())

    def _prose(self, text: str) -> str:
        """A text that Markdown and HTML show as it is."""
        return re.sub(r"([\\`*_{}\[\]<>()#+!|~$&-])", r"\\\1", self._plain(text)).replace("\\<", "&lt;")


def verifier(step: Step, tools: Sequence[Tool]) -> Tool | None:
    """The reading tool that best shows what a change has done: it needs no argument that the change has not, and
    shares most arguments and words with it."""
    best: tuple[int, str, Tool] | None = None
    for tool in tools:
        fields = tool.arguments.model_fields
        needed = {name for name, spec in fields.items() if spec.is_required()}
        if tool.changes or tool.risk is not Risk.LOW or not needed <= set(step.arguments):
            continue
        words = _stems(tool.name) & _stems(step.tool.name)
        score = 3 * len(words) + 2 * len(set(fields) & set(step.arguments))
        if words and (best is None or (score, tool.name) > best[:2]):
            best = (score, tool.name, tool)
    return best[2] if best else None


def _stems(name: str) -> set[str]:
    plain = {word.removesuffix("s").removesuffix("e") for word in name.split("_")}
    return {"index" if word in ("indic", "index", "reindex") else word for word in plain}


def _spelled(value: Json) -> Json:
    """A value as one word of a command line: a list by commas, or as JSON where an element holds one."""
    if isinstance(value, list):
        texts = [_spelled(item) for item in value]
        plain = all(isinstance(text, str) and text and not re.search(r"[,\[\s]", text) for text in texts)
        return ",".join(map(str, texts)) if plain else canonical(value)
    return canonical(value) if isinstance(value, dict) else value


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""
