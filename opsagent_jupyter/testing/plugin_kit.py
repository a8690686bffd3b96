"""The conformance kit of a plugin: it calls every tool as the gate does, and looks at the database from outside.

Say how the database is reached and what each tool can be asked, and have it examined::

    trial = Trial(
        plugin=plugin,
        secret="parts.db",                        # a connection string of a database that may be spoilt
        broken="no/such/folder/parts.db",         # one that leads nowhere
        fingerprint=everything_in_the_file,       # what any change would show in, read without the plugin
        reset=make_the_file_anew,
        examples=(Example("list_indexes"), Example("create_index", {"table": "part", "columns": ["maker"]})),
    )
    report = await examine(trial)                 # in a notebook; asyncio.run(examine(trial)) in a test
    assert report.ok, report

It takes no test framework. ``RULES`` says what is asked; each rule is one function below, and its docstring is the rule.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from opsagent_jupyter.errors import (
    CallRefused,
    DatabaseError,
    EffectMissing,
    InvalidArguments,
    OpsAgentError,
    StoreUnavailable,
)
from opsagent_jupyter.models import Effect, Json, Plan, Result, canonical
from opsagent_jupyter.plugin import Connection, Limits, Plugin, Tool

#: Texts that are names to nobody and must stay text wherever they go.
HOSTILE = (
    "", " ", "'", '"', "x'; DROP TABLE x; --", 'x"; DROP TABLE "x"; --', "$(id)", "%s", "{0}", "-- x", "\\", "a\nb",
    "\x00", "<b>x</b>", "naïve ☃ 名", "x" * 5000,
)  # fmt: skip
#: Those of them that end a quotation too early.
QUOTES = tuple(text for text in HOSTILE if "'" in text or '"' in text or "\\" in text)
#: Values of which at least one fits no argument: a table, a list of tables, and a text that is no number.
MISFITS: tuple[Json, ...] = ({"no": ["such"]}, [{"no": ["such"]}], "no number")
#: The kinds of names that a phrase may hold although its tool takes none, as ``plugin.Arg`` lists them.
KINDS = {"table", "column", "columns", "index", "pid", "role", "sql", "query_id", "number", "word"}
#: Seconds that one rule may take.
PATIENCE = 120.0


@dataclass(frozen=True)
class Example:
    """One call that works on a database that was reset."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    visible: bool = True
    """Whether the fingerprint shows what it changes; statistics and sessions are seldom part of one."""
    meanwhile: Callable[[], object] | None = None
    """What somebody else may do between the approval and the run, so that what was approved is not right any more."""


@dataclass(frozen=True)
class Trial:
    """A plugin, a database that may be spoilt, and what is tried on it."""

    plugin: Plugin
    secret: str = field(repr=False)
    broken: str = field(repr=False)
    fingerprint: Callable[[], object]
    """Read everything that a change could show in, by another way than the plugin; compared by ``==``."""
    reset: Callable[[], object]
    """Bring the database back to where the examples work."""
    examples: Sequence[Example]
    left_out: Sequence[str] = ()
    """Tools that are tested elsewhere; any other tool without an example is a fault."""
    heard: Callable[[], Sequence[str]] | None = None
    """What the database was told to change since it was last asked, in its own log; without it, the statements are
    compared by their effect alone."""
    by_hand: Callable[[str], object] | None = None
    """Run a statement as a person would: with it, the undo of every plan is tried."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Check:
    """One rule tried on one tool, or on the plugin as a whole."""

    rule: str
    tool: str
    ok: bool
    said: str = ""


@dataclass(frozen=True, repr=False)
class Report:
    """What came of all rules."""

    plugin: str
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not hold."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def ok(self) -> bool:
        """Whether every rule held."""
        return not self.failures

    @property
    def untried(self) -> tuple[str, ...]:
        """Rules that nothing was given for: no undo to try, nobody who interferes."""
        tried = {check.rule for check in self.checks}
        return tuple(rule for rule in RULES if rule not in tried)

    def __repr__(self) -> str:
        word = "conforms" if self.ok else "does not conform"
        lines = [f"{self.plugin} {word}: {len(self.checks)} checks, {len(self.failures)} failed."]
        lines += [f"  {check.rule} ({check.tool or 'the plugin'}): {check.said}" for check in self.failures]
        if self.untried:
            lines.append(f"  not tried: {', '.join(self.untried)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Noted:
    """What a change kept before it sent anything, and what the database looked like then."""

    evidence: dict[str, Json] = field(default_factory=dict)
    looks: list[object] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One example on the bench, with a connection when a rule asks for one."""

    trial: Trial
    example: Example

    @cached_property
    def tool(self) -> Tool:
        """The tool of the example."""
        return self.trial.plugin.toolbox.tools[self.example.tool]

    @asynccontextmanager
    async def connected(self, limits: Limits | None = None) -> AsyncIterator[Connection]:
        """A new connection, as another host would have."""
        connection = await self.trial.plugin.connect("trial", self.trial.secret, limits or self.trial.limits)
        try:
            yield connection
        finally:
            await connection.close()

    async def ask(self, connection: Connection, **changed: Json) -> Any:
        """The answer of the tool to validated arguments: a result, or a plan."""
        parsed = self.tool.parse({**self.example.arguments, **changed})
        values = {name: getattr(parsed, name) for name in type(parsed).model_fields}
        return await self.tool.function(connection, **values)

    async def planned(self, **changed: Json) -> Plan:
        """A plan as a host that takes it from the store gets it, made over a connection that is closed by then."""
        async with self.connected() as connection:
            plan: Plan = await self.ask(connection, **changed)
        return Plan.model_validate_json(plan.model_dump_json())

    async def performed(self, plan: Plan, noted: Noted, *, then: Callable[[], object] | None = None) -> Effect:
        """Run a plan over a new connection; ``then`` happens when the note is kept, before anything may be sent."""

        async def note(evidence: dict[str, Json], *, secret: Callable[[], str] | None = None) -> None:
            noted.looks.append(self.trial.fingerprint())
            noted.evidence.update(json.loads(canonical(evidence)))
            if secret is not None:
                secret()
            if then is not None:
                then()

        async with self.connected() as connection:
            effect: Effect = await self.tool.hooks["perform"](connection, plan, note)
        return effect

    async def told(self, running: Awaitable[Effect]) -> Effect:
        """The end of a run as the gate would record it."""
        try:
            return await running
        except (CallRefused, DatabaseError, EffectMissing) as error:
            return Effect(state="failed", summary=str(error))
        except (OpsAgentError, asyncio.CancelledError) as error:
            return Effect(state="unknown", summary=str(error))
        except Exception as error:  # noqa: BLE001  # a plugin is foreign code; the gate records its bugs as unknown
            return Effect(state="unknown", summary=f"{type(error).__name__}: {error}")


#: A rule returns what is wrong; nothing when it holds, None when there is nothing to try it on.
Rule = Callable[[Bench], Awaitable[str | None]]


# -- the plugin as a whole ------------------------------------------------------------------------------------------


async def names_agree(bench: Bench) -> str | None:
    """The plugin and its toolbox go by one name and have a version."""
    plugin = bench.trial.plugin
    if plugin.name != plugin.toolbox.plugin:
        return f"the plugin is called {plugin.name!r}, its toolbox {plugin.toolbox.plugin!r}"
    return "" if plugin.version and plugin.toolbox.version else "it has no version"


async def every_tool_is_tried(bench: Bench) -> str | None:
    """Each tool has an example."""
    tried = {example.tool for example in bench.trial.examples} | set(bench.trial.left_out)
    missing = sorted(set(bench.trial.plugin.toolbox.tools) - tried)
    return f"there is no example of {', '.join(missing)}" if missing else ""


async def it_says_what_answers(bench: Bench) -> str | None:
    """Health is well, with a version and words; the identity is JSON, tells something, and is the same on each connection."""
    async with bench.connected() as one, bench.connected() as other:
        health, first, second = await one.health(), await one.identity(), await other.identity()
        await one.catalog()
    if not (health.ok and health.summary and health.version):
        return f"the health of a database that works: {health!r}"
    return "" if first and canonical(first) == canonical(second) else "its identity is empty, or changes"


async def it_lets_go(bench: Bench) -> str | None:
    """A connection can be closed twice."""
    async with bench.connected() as connection:
        await connection.close()
    return ""


async def a_wrong_address_is_refused(bench: Bench) -> str | None:
    """A connection string that leads nowhere ends in an error that says what to do, without the secrets in it."""
    plugin, broken = bench.trial.plugin, bench.trial.broken
    try:
        plugin.describe(broken)
        connection = await plugin.connect("trial", broken, bench.trial.limits)
        health = await connection.health()
        await connection.close()
    except OpsAgentError as error:
        if not error.hint:
            return f"{error.code} gives no hint what to do"
        return _leak(_secrets(plugin, broken), str(error))
    return "it connects, and its health is well" if health.ok else ""


async def nothing_secret_is_said(bench: Bench) -> str | None:
    """Settings, identity, health, names, the connection's own text, results and plans hold no secret."""
    secrets = _secrets(bench.trial.plugin, bench.trial.secret)
    async with bench.connected() as connection:
        said = [repr(connection), canonical(bench.trial.plugin.describe(bench.trial.secret))]
        said += [canonical(await connection.identity()), (await connection.health()).model_dump_json()]
        said.append((await connection.catalog()).model_dump_json())
        said.append((await bench.ask(connection)).model_dump_json())
    return _leak(secrets, *said)


def _leak(secrets: Sequence[str], *texts: str) -> str:
    return "a secret of the connection string is in it" if any(s in text for s in secrets for text in texts) else ""


# -- every tool -----------------------------------------------------------------------------------------------------


async def phrases_name_arguments(bench: Bench) -> str | None:
    """What stands in braces in a phrase is an argument, or a kind of name that every phrase may hold."""
    known = set(bench.tool.arguments.model_fields) | KINDS
    named = {name for phrase in bench.tool.phrases for _, name, _, _ in string.Formatter().parse(phrase) if name}
    return f"no argument: {', '.join(sorted(named - known))}" if named - known else ""


async def arguments_are_validated(bench: Bench) -> str | None:
    """An argument that there is not, one that is missing and one of no fitting type are refused by name."""
    tool, given = bench.tool, dict(bench.example.arguments)
    tool.parse(given)
    if _takes(tool, {**given, "no_such_argument": 1}):
        return "it takes an argument that it does not have"
    for name, spec in tool.arguments.model_fields.items():
        if spec.is_required() and _takes(tool, {key: value for key, value in given.items() if key != name}):
            return f"it does without {name}, which it needs"
        if all(_takes(tool, {**given, name: misfit}) for misfit in MISFITS):
            return f"{name} takes anything"
    return ""


def _takes(tool: Tool, values: Mapping[str, Any]) -> bool:
    try:
        tool.parse(values)
    except InvalidArguments:
        return False
    return True


async def arguments_lower_no_risk(bench: Bench) -> str | None:
    """Whatever is asked, the risk is at least the one that the tool was declared with."""
    hook, least = bench.tool.hooks.get("assess"), (bench.tool.least or bench.tool.risk)
    if hook is None:
        return None
    for values in _variants(bench):
        found: Any = hook(bench.tool.parse(values))
        if found.risk.rank < least.rank:
            return f"{found.risk} for {canonical(values)}; it is declared {least}"
    return ""


def _variants(bench: Bench) -> Iterator[dict[str, Any]]:
    """The example, and the example with each argument changed in every way that is taken."""
    given = dict(bench.example.arguments)
    yield given
    for name in bench.tool.arguments.model_fields:
        for value in (True, False, 0, 1, -1, *HOSTILE):
            if _takes(bench.tool, {**given, name: value}):
                yield {**given, name: value}


async def hostile_text_is_text(bench: Bench) -> str | None:
    """Any text in an argument is answered or refused with an error of ours, and changes nothing."""
    before = bench.trial.fingerprint()
    async with bench.connected() as connection:
        for values in _variants(bench):
            try:
                await bench.ask(connection, **values)
            except OpsAgentError:
                continue
    return "" if bench.trial.fingerprint() == before else "asking changed the database"


# -- what reads -----------------------------------------------------------------------------------------------------


async def reading_changes_nothing(bench: Bench) -> str | None:
    """The database is the same after a read."""
    before = bench.trial.fingerprint()
    async with bench.connected() as connection:
        await bench.ask(connection)
        await bench.ask(connection)
    return "" if bench.trial.fingerprint() == before else "the database is not what it was"


async def results_read_well(bench: Bench) -> str | None:
    """A result has a summary, rows as wide as their columns, an honest total, and suggestions that can be called."""
    async with bench.connected() as connection:
        found = await bench.ask(connection)
    if not isinstance(found, Result) or not found.summary.strip():
        return "there is no result, or it has no summary"
    canonical(found.model_dump(mode="json"))
    for table in found.tables:
        if any(len(row) != len(table.columns) for row in table.rows) or table.total < len(table.rows):
            return f"the rows of {table.name} do not fit its columns or its total"
    return _uncallable(bench.trial.plugin, found)


def _uncallable(plugin: Plugin, found: Result | Effect) -> str:
    for suggestion in found.suggestions:
        tool = plugin.toolbox.tools.get(suggestion.tool.rpartition(".")[2])
        if tool is None or not _takes(tool, suggestion.arguments):
            return f"the suggestion {suggestion.tool} cannot be called"
    return ""


async def results_are_capped(bench: Bench) -> str | None:
    """A host that allows two rows gets two, and the count of all."""
    async with bench.connected(Limits(rows=2)) as connection:
        found: Result = await bench.ask(connection)
    long = [table.name for table in found.tables if len(table.rows) > 2]
    return f"more than the two rows that were allowed: {', '.join(long)}" if long else ""


# -- what changes ---------------------------------------------------------------------------------------------------


async def a_change_can_be_run(bench: Bench) -> str | None:
    """A changing tool has a part that performs; one that cannot be probed says that it runs once."""
    if "perform" not in bench.tool.hooks:
        return "nothing performs its plans"
    if "probe" not in bench.tool.hooks and (await bench.planned()).execution != "once":
        return 'it has no probe, and its plan does not say execution="once"'
    return ""


async def planning_changes_nothing(bench: Bench) -> str | None:
    """The database is the same after planning, and the same state gives the same plan."""
    before = bench.trial.fingerprint()
    first, second = await bench.planned(), await bench.planned()
    if bench.trial.fingerprint() != before:
        return "the database is not what it was"
    return "" if _same(first, second) else "two plans for one state differ, so no approval could ever be used"


def _same(first: Plan, second: Plan) -> bool:
    return first.statements == second.statements and canonical(first.preconditions) == canonical(second.preconditions)


async def the_card_is_complete(bench: Bench) -> str | None:
    """A plan has a title, statements, a lock, reasons, a word on how to take it back, and no lower risk than its tool."""
    plan = await bench.planned()
    empty = [name for name in ("title", "statements", "lock", "reasons") if not getattr(plan, name)]
    if not (plan.undo or plan.undo_note):
        empty.append("undo or undo_note")
    if empty:
        return f"its plan has no {', no '.join(empty)}"
    least = bench.tool.least or bench.tool.risk
    return "" if plan.risk.rank >= least.rank else f"its plan says {plan.risk}; it is declared {least}"


async def it_performs_what_was_planned(bench: Bench) -> str | None:
    """Another host runs the stored plan: it keeps a note, sends the very statements, and reads the effect back."""
    plan, noted, before = await bench.planned(), Noted(), bench.trial.fingerprint()
    _ = bench.trial.heard and bench.trial.heard()
    effect = await bench.told(bench.performed(plan, noted))
    heard = bench.trial.heard() if bench.trial.heard else plan.statements
    if effect.state != "succeeded" or not effect.summary:
        return f"it ends {effect.state}: {effect.summary}"
    if leak := _leak(_secrets(bench.trial.plugin, bench.trial.secret), effect.model_dump_json()):
        return leak
    if not noted.evidence:
        return "it kept no evidence"
    if tuple(heard) != plan.statements:
        return f"the database heard {list(heard)}"
    if bench.example.visible and bench.trial.fingerprint() == before:
        return "it says that it succeeded, and the database is what it was"
    return ""


async def the_note_comes_first(bench: Bench) -> str | None:
    """Nothing is changed before the note is kept, and nothing at all when it cannot be kept."""
    plan, noted, before = await bench.planned(), Noted(), bench.trial.fingerprint()

    def fail() -> None:
        raise StoreUnavailable

    effect = await bench.told(bench.performed(plan, noted, then=fail))
    if bench.trial.fingerprint() != before or any(look != before for look in noted.looks):
        return "the database was changed although no note could be kept"
    return "it says that it succeeded although no note could be kept" if effect.state == "succeeded" else ""


async def only_the_statements_run(bench: Bench) -> str | None:
    """A plan without statements changes nothing, and is no success: the effect is read back, not taken for granted."""
    plan, before = await bench.planned(), bench.trial.fingerprint()
    effect = await bench.told(bench.performed(plan.model_copy(update={"statements": ()}), Noted()))
    if bench.trial.fingerprint() != before:
        return "it changed something that no statement of the plan says"
    if effect.state == "succeeded" and bench.example.visible:
        return f"with nothing sent it reports success: {effect.summary}"
    return ""


async def hostile_text_is_quoted(bench: Bench) -> str | None:
    """A text full of quotation marks is carried out as it was planned and can be taken back, or it fails and changes nothing."""
    names = [name for name, spec in bench.tool.arguments.model_fields.items() if spec.annotation is str]
    for name, text in ((name, text) for name in names for text in QUOTES):
        bench.trial.reset()
        before = bench.trial.fingerprint()
        try:
            plan = await bench.planned(**{name: text})
        except OpsAgentError:
            continue
        effect = await bench.told(bench.performed(plan, Noted()))
        if effect.state == "unknown":
            return f"with {name}={text!r} it ends unknown: {effect.summary}"
        if effect.state == "succeeded" and bench.trial.by_hand and plan.undo:
            bench.trial.by_hand(plan.undo)
        undone = effect.state == "failed" or bench.trial.by_hand is not None
        if undone and bench.example.visible and bench.trial.fingerprint() != before and not effect.residue:
            return f"with {name}={text!r} it ends {effect.state}, and something else is left behind"
    return "" if names else None


async def an_unseen_end_is_not_guessed(bench: Bench) -> str | None:
    """Cancelled after the note, it says failed only of what left nothing behind that it does not name, and never succeeded
    of what did not take effect."""
    plan, before = await bench.planned(), bench.trial.fingerprint()

    def cut() -> None:
        running.cancel()

    running = asyncio.ensure_future(bench.performed(plan, Noted(), then=cut))
    effect = await bench.told(running)
    changed = bench.trial.fingerprint() != before
    hushed = effect.state == "failed" and changed and not effect.residue
    if bench.example.visible and (hushed or (effect.state == "succeeded" and not changed)):
        return f"it says {effect.state}, and the database {'is changed' if changed else 'is not'}"
    return ""


async def the_probe_tells_the_truth(bench: Bench) -> str | None:
    """Asked after a crash, the probe changes nothing, knows what took effect, and takes nothing for done that is not."""
    if "probe" not in bench.tool.hooks:
        return None
    plan, noted = await bench.planned(), Noted()
    early = await _probed(bench, plan, {})
    if early.state == "succeeded" and bench.example.visible:
        return "it takes for done what nobody ran"
    await bench.performed(plan, noted)
    after = bench.trial.fingerprint()
    late = await _probed(bench, plan, noted.evidence)
    if bench.trial.fingerprint() != after:
        return "it changes the database"
    return "it says failed of what took effect" if late.state == "failed" else ""


async def _probed(bench: Bench, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    async with bench.connected() as connection:
        effect: Effect = await bench.tool.hooks["probe"](connection, plan, evidence)
    return effect


async def what_changed_meanwhile_is_seen(bench: Bench) -> str | None:
    """When somebody else changed what the plan stands on, planning again refuses or gives another plan."""
    if bench.example.meanwhile is None:
        return None
    approved = await bench.planned()
    bench.example.meanwhile()
    try:
        again = await bench.planned()
    except OpsAgentError:
        return ""
    return "the plan is the same: its preconditions do not tell" if _same(approved, again) else ""


async def the_undo_takes_it_back(bench: Bench) -> str | None:
    """The undo on the card, run by hand, brings back what there was."""
    plan = await bench.planned()
    if bench.trial.by_hand is None or not plan.undo or not bench.example.visible:
        return None
    before = bench.trial.fingerprint()
    await bench.performed(plan, Noted())
    bench.trial.by_hand(plan.undo)
    return "" if bench.trial.fingerprint() == before else "after the undo the database is not what it was"


def _name(rule: Rule) -> str:
    return str(rule.__name__)


WHOLE: tuple[Rule, ...] = (
    names_agree,
    every_tool_is_tried,
    it_says_what_answers,
    it_lets_go,
    a_wrong_address_is_refused,
)
EVERY: tuple[Rule, ...] = (
    phrases_name_arguments,
    arguments_are_validated,
    arguments_lower_no_risk,
    hostile_text_is_text,
    nothing_secret_is_said,
)
READING: tuple[Rule, ...] = (reading_changes_nothing, results_read_well, results_are_capped)
CHANGING: tuple[Rule, ...] = (
    a_change_can_be_run,
    planning_changes_nothing,
    the_card_is_complete,
    it_performs_what_was_planned,
    the_note_comes_first,
    only_the_statements_run,
    hostile_text_is_quoted,
    an_unseen_end_is_not_guessed,
    the_probe_tells_the_truth,
    what_changed_meanwhile_is_seen,
    the_undo_takes_it_back,
)
#: Every rule by name, in one sentence each.
RULES = {_name(rule): inspect.getdoc(rule) or "" for rule in (*WHOLE, *EVERY, *READING, *CHANGING)}


async def examine(trial: Trial) -> Report:
    """Try every rule on the plugin and on each example; the database is reset before each."""
    checks = [check async for check in _checks(trial)]
    trial.reset()
    return Report(trial.plugin.name, tuple(checks))


async def _checks(trial: Trial) -> AsyncIterator[Check]:
    whole = Bench(trial, trial.examples[0])
    rounds = [(rule, whole, "") for rule in WHOLE]
    for example in trial.examples:
        bench = Bench(trial, example)
        rules = (*EVERY, *(CHANGING if bench.tool.changes else READING))
        rounds += [(rule, bench, example.tool) for rule in rules]
    for rule, bench, tool in rounds:
        said = await _said(rule, bench)
        if said is not None:
            yield Check(_name(rule), tool, not said, _struck(trial, said))


def _struck(trial: Trial, text: str) -> str:
    """A text without the secrets of the trial: a report is printed, also of a plugin that gives them away."""
    for secret in {*_secrets(trial.plugin, trial.secret), *_secrets(trial.plugin, trial.broken)}:
        text = text.replace(secret, "***")
    return text


def _secrets(plugin: Plugin, connection_string: str) -> tuple[str, ...]:
    try:
        return tuple(filter(None, plugin.redactions(connection_string)))
    except OpsAgentError:  # it cannot be read, which another rule looks at
        return ()


async def _said(rule: Rule, bench: Bench) -> str | None:
    """What a rule says; what a plugin raises there is a fault of it, whatever it is."""
    try:
        bench.trial.reset()
        async with asyncio.timeout(PATIENCE):
            return await rule(bench)
    except OpsAgentError as error:
        return f"{error.code}: {error}"
    except Exception as error:  # noqa: BLE001  # a plugin is foreign code
        return f"{type(error).__name__}: {error}"
