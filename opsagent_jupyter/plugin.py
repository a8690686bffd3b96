"""The contract of a plugin: a name, how to connect, and tools declared as typed async functions.

A read tool is one function that returns a ``Result``. A changing tool is a function that *plans* (it changes nothing and
returns a ``Plan``), with ``perform`` and, where an outcome can be read back after a crash, ``probe`` beside it::

    tools = Toolbox("postgresql", version="1")

    @tools.read(phrases=("show the indexes of {table}",), keywords=("index",))
    async def list_indexes(db: Database, table: Annotated[str, Arg("table name", slot="table")] = "") -> Result: ...

    @tools.change(Risk.MEDIUM, phrases=("create an index on {table} for {columns}",))
    async def create_index(db: Database, table: ..., columns: ...) -> Plan: ...

    @create_index.performs
    async def _(db: Database, plan: Plan, note: Note) -> Effect: ...

    @create_index.probes
    async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect: ...

Rules: planning reads only; ``perform`` runs exactly ``plan.statements`` and calls ``note`` with what identifies the backend
(and with the secret that it has made, if any) before it sends the first; an end that was not seen raises
``OutcomeUnknown`` or returns ``unknown``, never ``failed``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from opsagent_jupyter.errors import InvalidArguments, InvalidToolSpec
from opsagent_jupyter.models import Assessment, Catalog, Health, Json, Risk


class Note(Protocol):
    """Makes evidence durable (backend pid and start) before a statement is sent."""

    async def __call__(self, evidence: dict[str, Json], *, secret: Callable[[], str] | None = None) -> None:
        """Keep the evidence and, encrypted, a secret that the call makes: shown once to a person who asked or decided,
        when the call has succeeded. The last secret of a call counts."""


@dataclass(frozen=True)
class Arg:
    """What an argument means: its help text and, for the offline model and completion, the kind of name it takes."""

    help: str
    slot: str = ""
    """How text fills it and names complete it: table, column, columns, index, pid, role, roles, user, sql, sort, query_id,
    number, seconds, word."""
    example: str = ""


@dataclass(frozen=True)
class Limits:
    """What one call may take from a target."""

    deadline: float = 30.0
    """Seconds for a read, planning included."""
    change_deadline: float = 3600.0
    """Seconds for an approved change; index builds may be long."""
    rows: int = 200
    cell_bytes: int = 2000


@runtime_checkable
class Connection(Protocol):
    """A live connection to one instance: async, cancellable (cancelling the task cancels the statement)."""

    async def identity(self) -> dict[str, Json]:
        """Return what tells this database from any other; bound into every approval."""

    async def health(self) -> Health:
        """Ask for a sign of life and the rights of the role."""

    async def catalog(self) -> Catalog:
        """Return the names that exist now (a few thousand at most)."""

    async def close(self) -> None:
        """Let go of everything, whatever state it is in."""


class Plugin(Protocol):
    """A kind of integration."""

    name: str
    version: str
    extra: str
    """Name of the extra that installs its client library."""
    toolbox: Toolbox

    def describe(self, secret: str) -> dict[str, Json]:
        """Return the settings of a connection string that are no secrets; raise ``MalformedDsn`` when it cannot be read."""

    def redactions(self, secret: str) -> tuple[str, ...]:
        """Return every secret text within a connection string, to be struck out wherever it shows up."""

    async def connect(self, name: str, secret: str, limits: Limits) -> Connection:
        """Open a connection for the instance ``name``; raise an ``ExecutionError`` that says what to do."""


@runtime_checkable
class Accounts(Protocol):
    """What a plugin may have besides: the database accounts that it is best attached with."""

    async def account_sql(self, connection: Any, observer: str = "", operator: str = "") -> str:
        """Return the commands, for an administrator to run, that make an account that reads and one that changes."""

    async def excess(self, connection: Any) -> tuple[str, ...]:
        """Say what the account of a connection that shall only read could change all the same."""


@runtime_checkable
class Facts(Protocol):
    """What a plugin may have besides: what a language model is told of a database before a conversation."""

    async def facts(self, connection: Any) -> Mapping[str, Json]:
        """Return a few facts by name, the most telling first: version, role, size, rights; each a text, a number or a
        short list. It only reads, and quickly: what takes longer than a second is left out."""


Run = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Tool:
    """One operation of a plugin, with everything the gate, the model and the screens need to know of it."""

    plugin: str
    name: str
    version: str
    summary: str
    risk: Risk
    changes: bool
    arguments: type[BaseModel]
    function: Run
    phrases: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    slots: Mapping[str, Arg] = field(default_factory=dict)
    hooks: dict[str, Run] = field(default_factory=dict, compare=False)
    least: Risk | None = None
    """The level that arguments can bring it down to, where a part of what it does is milder; its own level by default."""

    @property
    def full_name(self) -> str:
        """``plugin.tool``, as calls, policies and the audit name it."""
        return f"{self.plugin}.{self.name}"

    def performs(self, function: Run) -> Run:
        """Declare how an approved plan is run: ``(db, plan, note) -> Effect``."""
        return self.hooks.setdefault("perform", function)

    def probes(self, function: Run) -> Run:
        """Declare how an outcome is read back after a crash: ``(db, plan, evidence) -> Effect``."""
        return self.hooks.setdefault("probe", function)

    def assesses(self, function: Callable[[Any], Assessment]) -> Callable[[Any], Assessment]:
        """Declare how arguments alone raise the risk: ``(arguments) -> Assessment``."""
        self.hooks["assess"] = function  # type: ignore[assignment]  # a plain function beside the async ones
        return function

    def parse(self, values: Mapping[str, Any]) -> BaseModel:
        """Return the validated arguments; raise ``InvalidArguments`` that names the argument and what it takes."""
        try:
            return self.arguments.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidArguments(
                "; ".join(self._complaint(item) for item in error.errors(include_url=False)) + ".",
                hint=f"{self.full_name} takes: {self.usage()}.",
                path=".".join(str(part) for part in error.errors()[0]["loc"]),
            ) from None

    def _complaint(self, item: Any) -> str:
        path = ".".join(str(part) for part in item["loc"]) or "arguments"
        if item["type"] == "extra_forbidden":
            return f"{self.full_name} has no argument {path!r}"
        if item["type"] == "missing":
            return f"{self.full_name} needs the argument {path!r}"
        return f"argument {path!r}: {item['msg'][:1].lower()}{item['msg'][1:]}"

    def usage(self) -> str:
        """The arguments as one line: ``table, columns, [unique]``."""
        fields = self.arguments.model_fields
        return ", ".join(name if spec.is_required() else f"[{name}]" for name, spec in fields.items()) or "no arguments"

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments, as a language model gets it."""
        return self.arguments.model_json_schema()

    def assess(self, arguments: BaseModel) -> Assessment:
        """Risk by tool and arguments alone: never below the tool's own level."""
        hook = self.hooks.get("assess")
        if hook is None:
            return Assessment(risk=self.risk)
        found: Assessment = hook(arguments)  # type: ignore[assignment]
        least = self.least or self.risk
        return found if found.risk.rank >= least.rank else Assessment(risk=least, reasons=found.reasons)


class Toolbox:
    """The tools of one plugin, by name, in the order of their declaration."""

    def __init__(self, plugin: str, version: str) -> None:
        self.plugin = plugin
        self.version = version
        self.tools: dict[str, Tool] = {}

    def read(
        self,
        *,
        phrases: tuple[str, ...],
        keywords: tuple[str, ...] = (),
        patterns: tuple[str, ...] = (),
        risk: Risk = Risk.LOW,
    ) -> Callable[[Run], Tool]:
        """Declare a tool that changes nothing."""
        return lambda function: self._add(function, risk, phrases, keywords, patterns, changes=False)

    def change(
        self,
        risk: Risk,
        *,
        phrases: tuple[str, ...],
        keywords: tuple[str, ...] = (),
        patterns: tuple[str, ...] = (),
        least: Risk | None = None,
    ) -> Callable[[Run], Tool]:
        """Declare the planning half of a tool that changes something; its risk is at least medium.

        ``least`` is how low an assessment of its arguments may come, for a tool that also does something milder.
        """
        if Risk.LOW in (risk, least):
            raise InvalidToolSpec(f"A changing tool of {self.plugin} is declared low: the lowest is medium.")
        return lambda function: self._add(function, risk, phrases, keywords, patterns, changes=True, least=least)

    def _add(
        self,
        function: Run,
        risk: Risk,
        phrases: tuple[str, ...],
        keywords: tuple[str, ...],
        patterns: tuple[str, ...],
        *,
        changes: bool,
        least: Risk | None = None,
    ) -> Tool:
        name = function.__name__
        if name in self.tools or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InvalidToolSpec(f"{self.plugin}.{name}: the name is taken or is no snake_case word.")
        summary = inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        if not summary or len(phrases) < 1:
            raise InvalidToolSpec(f"{self.plugin}.{name}: a tool needs a docstring and at least one phrase.")
        arguments, slots = arguments_of(function, f"{self.plugin}.{name}")
        tool = Tool(
            self.plugin,
            name,
            self.version,
            summary,
            risk,
            changes,
            arguments,
            function,
            phrases,
            keywords,
            patterns,
            slots,
            least=least,
        )
        self.tools[name] = tool
        return tool


def arguments_of(function: Run, title: str) -> tuple[type[BaseModel], dict[str, Arg]]:
    """Make the argument model of a tool from its signature (all but the first parameter, which is the connection)."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    slots: dict[str, Arg] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        hint = hints.get(name)
        arg = next((extra for extra in get_args(hint) if isinstance(extra, Arg)), None)
        if get_origin(hint) is not Annotated or arg is None:
            raise InvalidToolSpec(f"{title}: annotate {name} as Annotated[type, Arg('what it is')].")
        slots[name] = arg
        default = ... if parameter.default is parameter.empty else parameter.default
        extra: Any = {"x-slot": arg.slot} if arg.slot else None
        fields[name] = (hint, Field(default=default, description=arg.help, json_schema_extra=extra))
    config = ConfigDict(extra="forbid", frozen=True, str_max_length=20_000)
    return create_model(title, __config__=config, **fields), slots
