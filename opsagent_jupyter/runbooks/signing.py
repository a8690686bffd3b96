"""Signing a runbook: its steps read off its cells, to the letter, with a bound for every argument; kept in the store.

A signature is a person's deed: a host asks them, shows what they sign, and nothing is kept before they said so. The notebook
gets the signature's name, and nothing that anybody has to believe.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from opsagent_jupyter.cards import Card
from opsagent_jupyter.errors import (
    ApprovalError,
    ConfigError,
    NotAllowedToSign,
    RunbookError,
    RunbookMalformed,
    SecretInClear,
    VettingUnknown,
)
from opsagent_jupyter.models import Actor, Instance, Json, canonical, new_id, now, sha256, without_nulls
from opsagent_jupyter.plugin import Tool
from opsagent_jupyter.runbooks import parameters
from opsagent_jupyter.runbooks.cells import Cell, Notebook, ours, read, source, steps, write
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.vetting import SEAL, Bound, VettedStep, VettedTarget, Vetting, is_tame

#: The parameter that names a signature.
NAMED = "runbook_vetting"
#: What a person types to sign.
WORD = "sign"
#: Values of a parameter that are signed at most.
MOST_CHOICES = 200
#: Options of ``run`` that are no arguments of a tool.
OPTIONS = {"on", "step", "dry_run", "again", "wait", "supersedes", "help"}
#: Turns the words of a command line into the arguments of a tool.
ArgumentsOf = Callable[[Tool, Sequence[str]], dict[str, Any]]


@dataclass(frozen=True)
class Wish:
    """What somebody wants signed: bounds as ``name=a|b``, ``name=1..5`` or ``name~pattern``, and databases by name."""

    bounds: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    days: float = 30.0
    reason: str = ""


@dataclass(frozen=True)
class Template:
    """A step as its cell says it: each argument a text, or the name of a parameter."""

    step: str
    tool: str
    texts: Mapping[str, str]
    names: Mapping[str, str]

    def words(self, values: Mapping[str, str]) -> list[str]:
        """The command line with these values of the parameters."""
        filled = {**self.texts, **{argument: values[name] for argument, name in self.names.items()}}
        return [f"--{argument.replace('_', '-')}={text}" for argument, text in filled.items()]


@dataclass(frozen=True, repr=False)
class Signature(Card):
    """What a signature says, whole: a person reads this before they sign."""

    vetting: Vetting

    def content(self) -> tuple[str, list[tuple[str, str]]]:
        """What may run, where, until when, and in whose name."""
        v = self.vetting
        shown = [(f"Step {number}", _step_text(step)) for number, step in enumerate(v.steps, 1)]
        places = [f"{t.instance} on {t.server} ({t.environment})" for t in v.targets]
        return f"Signature of the runbook “{v.title}”", [
            ("Signature", f"{v.id[:8]}, digest {v.digest[:16]}" if v.digest else "none yet"),
            ("Runbook", f"{v.runbook}, {len(v.cells)} cells; any other cell voids it"),
            *shown,
            ("Databases", "\n".join(places)),
            ("Risk", "medium at most; high and critical calls still ask"),
            ("Signer", f"{v.signer.name}, {v.signed_at:%Y-%m-%d %H:%M} UTC: {v.reason}"),
            ("Until", f"{v.expires_at:%Y-%m-%d %H:%M} UTC"),
            ("Taken back", _end_text(v)),
        ]


def _step_text(step: VettedStep) -> str:
    lines = [
        f"  {name}{f' (parameter {bound.parameter})' if bound.parameter else ''}: {bound.told()}"
        for name, bound in step.arguments.items()
    ]
    return "\n".join([f"{step.step}: {step.tool}, version {step.version}", *lines])


def _end_text(vetting: Vetting) -> str:
    if vetting.revoked_at is None or vetting.revoked_by is None:
        return ""
    because = f": {vetting.revoked_for}" if vetting.revoked_for else ""
    return f"{vetting.revoked_by.name}, {vetting.revoked_at:%Y-%m-%d %H:%M} UTC{because}"


# -- making it


def draft(runtime: Runtime, actor: Actor, book: Notebook, wish: Wish, arguments_of: ArgumentsOf) -> Vetting:
    """What a person would sign, checked and not kept. Raises for what cannot be signed, and audits who may not sign."""
    reason = runtime.redactor.redact(wish.reason.strip())[:2000]
    try:
        runtime.policy.check_signing(actor, reason, wish.days)
    except (NotAllowedToSign, ApprovalError) as error:
        refused = runtime.event("runbook.denied", actor, status="denied", error_code=error.code, summary=error.message)
        runtime.store.record(refused)
        raise
    at = now()
    vetting = Vetting(
        id=new_id(),
        runbook=str(ours(book)["runbook"]),
        title=str(ours(book).get("title", ""))[:200],
        cells=cells_of(book),
        steps=tuple(_steps(runtime, book, wish, arguments_of)),
        targets=tuple(_targets(runtime, book, wish)),
        signer=actor,
        reason=reason,
        policy=runtime.policy.hash,
        setup=runtime.settings.setup,
        signed_at=at,
        expires_at=at + timedelta(days=wish.days),
        nonce=new_id(),
    )
    said = canonical(vetting.model_dump(mode="json"))
    if runtime.redactor.redact(said) != said:
        raise SecretInClear("The runbook holds what looks like a secret, and a signature keeps what it is about.")
    return vetting


def sign(runtime: Runtime, vetting: Vetting) -> Vetting:
    """Keep a signature that its signer has seen and confirmed."""
    vetting = vetting.model_copy(update={"digest": vetting.computed_digest()})
    sealed = vetting.model_copy(update={"seal": runtime.vault.encrypt(vetting.digest, instance=vetting.id, field=SEAL)})
    details: dict[str, Json] = {
        "runbook_signed": vetting.runbook,
        "steps": [step.step for step in vetting.steps],
        "databases": [target.instance for target in vetting.targets],
        "expires_at": vetting.expires_at.isoformat(),
    }
    event = runtime.event("runbook.signed", vetting.signer, reason=vetting.reason, details=details)
    runtime.store.add_vetting(sealed, event)
    return sealed


def sign_file(runtime: Runtime, file: Path, vetting: Vetting) -> Vetting:
    """Keep a signature, and write its name into the notebook; a file that has changed meanwhile is not signed."""
    book = read(file)
    if cells_of(book) != vetting.cells or NAMED not in parameters.declared(book):
        raise RunbookError(f"{file} was changed while it was being signed.", hint="Look at it, and sign it again.")
    sealed = sign(runtime, vetting)
    place = parameters.tagged(book, "parameters")
    assert place is not None  # its parameters were read above
    book["cells"][place]["source"] = _named(source(book["cells"][place]), sealed.id)
    write(file, book)
    return sealed


def _named(text: str, vetting: str) -> str:
    return re.sub(rf'^{NAMED} = (["\']).*?\1', f'{NAMED} = "{vetting}"', text, flags=re.MULTILINE)


def revoke(runtime: Runtime, actor: Actor, id: str, reason: str) -> Vetting:
    """Take a signature back: anybody may who is a person. What it has let pass and has not begun is not run."""
    if actor.agent:
        raise NotAllowedToSign("A language model cannot take a signature back.")
    text = runtime.redactor.redact(reason.strip())[:2000]
    event = runtime.event("runbook.revoked", actor, reason=text)
    return runtime.store.revoke_vetting(runtime.store.vetting(id).id, event)


# -- what is signed


def cells_of(book: Notebook) -> tuple[tuple[str, str], ...]:
    """Id and hash of each cell: its kind, its text and its part in the runbook. Of the parameters only the names: their
    values are what bounds are for. What a run adds is left out."""
    injected = parameters.tagged(book, parameters.INJECTED)
    return tuple(
        (str(cell.get("id", "")), sha256(canonical(_content(book, number, cell))))
        for number, cell in enumerate(book["cells"])
        if number != injected
    )


def _content(book: Notebook, number: int, cell: Cell) -> list[Any]:
    text: Any = source(cell)
    if number == parameters.tagged(book, "parameters"):
        text = sorted(parameters.assigned(text))
    return [cell.get("cell_type"), text, {name: value for name, value in ours(cell).items() if name != "receipt"}]


def changed_cell(vetting: Vetting, book: Notebook) -> str:
    """The first cell by which a notebook is not the one that was signed, as words; empty when it is."""
    if ours(book).get("runbook") != vetting.runbook:
        return "it is another runbook"
    have, signed = cells_of(book), dict(vetting.cells)
    for name, digest in have:
        if signed.get(name) != digest:
            return f"the cell {name} was changed or added since"
    return "" if have == vetting.cells else "cells were moved or taken away since"


def why_void(runtime: Runtime, id: str, book: Notebook) -> str:
    """Why a named signature lets nothing of this notebook pass, as far as the file tells; empty when nothing is known."""
    try:
        return changed_cell(runtime.store.vetting(id), book)
    except VettingUnknown:
        return "this store has no such signature"


def _steps(runtime: Runtime, book: Notebook, wish: Wish, arguments_of: ArgumentsOf) -> Iterator[VettedStep]:
    values = {name: str(value) for name, value in parameters.declared(book).items()}
    bounds = dict(_bound(word, values) for word in wish.bounds)
    templates = [_template(cell) for _, cell in steps(book)]
    if not templates:
        raise RunbookError("This runbook has no step, so there is nothing to sign.")
    used = {name for template in templates for name in template.names.values()}
    if idle := sorted(set(bounds) - used):
        raise ConfigError(f"No step takes the parameter {idle[0]}.", hint=f"Steps take: {', '.join(sorted(used))}.")
    for template in templates:
        yield _step(runtime.plugins.tool(template.tool), template, values, bounds, arguments_of)


def _template(cell: Cell) -> Template:
    """Read a cell that calls a tool; anything that could do more than that is refused."""
    step, text = str(ours(cell)["step"]), source(cell)
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if "\n" in text.strip() or words[:3] != ["%opsagent", "--vars", "run"] or words[3:4] != [ours(cell).get("tool")]:
        _unsignable(step, "is not one plain call of its tool")
    given: dict[str, str] = {}
    for word in words[4:]:
        found = re.fullmatch(r"--([a-z][\w-]*)=(.*)", word, re.ASCII | re.DOTALL)
        if found is None or found[1].replace("-", "_") in given:
            _unsignable(step, f"has {word!r}, where --name=value is expected, once each")
        given[found[1].replace("-", "_")] = found[2]
    if given.pop("on", "") != "{instance}" or given.pop("step", "") != f"{{run.ref}}/{step}" or OPTIONS & set(given):
        _unsignable(step, "does not run on {instance}, as its own step, and nothing else")
    names = {name: value[1:-1] for name, value in given.items() if re.fullmatch(r"\{[A-Za-z_]\w*\}", value, re.ASCII)}
    texts = {name: value for name, value in given.items() if name not in names}
    if any("{" in value for value in texts.values()):
        _unsignable(step, "has a value that is put together of variables")
    return Template(step, words[3], texts, names)


def _unsignable(step: str, why: str) -> NoReturn:
    raise RunbookMalformed(f"The step {step} {why}, so it cannot be signed.", hint="Export the runbook anew.")


def _step(
    tool: Tool, template: Template, values: Mapping[str, str], bounds: Mapping[str, Bound], arguments_of: ArgumentsOf
) -> VettedStep:
    for name in template.names.values():
        if name not in values or name.startswith(parameters.SECRET):
            _unsignable(template.step, f"takes {name}, which is secret, or no parameter of the runbook")

    def called(**other: str) -> dict[str, Json]:
        parsed = tool.parse(arguments_of(tool, template.words({**values, **other})))
        return without_nulls(parsed.model_dump(mode="json"))

    usual, found = called(), {}
    for argument, value in usual.items():
        name = template.names.get(argument, "")
        bound = bounds.get(name, Bound(choices=(values.get(name, ""),)))
        if not name:
            found[argument] = Bound(choices=(value,))
        elif bound.choices:
            choices = tuple(called(**{name: str(choice)}).get(argument) for choice in bound.choices)
            found[argument] = bound.model_copy(update={"parameter": name, "choices": choices})
        else:
            found[argument] = _fitting(bound, name, value)
    return VettedStep(step=template.step, tool=tool.full_name, version=tool.version, arguments=found)


def _fitting(bound: Bound, name: str, value: Json) -> Bound:
    """A range is for whole numbers, a pattern for texts."""
    texts = value if isinstance(value, list) else [value]
    fits = all(isinstance(text, str) for text in texts) if bound.pattern else type(value) is int
    if not fits:
        raise ConfigError(f"The bound of {name} does not fit {value!r}.", hint="Give its values: name=one|two.")
    return bound.model_copy(update={"parameter": name})


def _bound(word: str, values: Mapping[str, str]) -> tuple[str, Bound]:
    """Read a bound as somebody writes it."""
    found = re.fullmatch(r"([A-Za-z_]\w*)([=~])(.+)", word, re.ASCII | re.DOTALL)
    if found is None or found[1] not in values or found[1] in ("instance", "server", NAMED):
        hint = "Write name=one|two, name=1..5 or name~pattern; databases are given with --on NAME."
        raise ConfigError(f"{word!r} is no bound of a parameter.", hint=hint)
    name, kind, text = found.groups()
    if kind == "~":
        if not is_tame(text):
            raise ConfigError(
                f"The pattern of {name} cannot be signed.",
                hint="Use a short regular expression with few repetitions, none of them of a group: [a-z_]{1,40}.",
            )
        return name, Bound(pattern=text)
    if span := re.fullmatch(r"(-?\d{1,15})\.\.(-?\d{1,15})", text, re.ASCII):
        if int(span[1]) > int(span[2]):
            raise ConfigError(f"{word!r} has nothing in it.")
        return name, Bound(least=int(span[1]), most=int(span[2]))
    choices = tuple(dict.fromkeys(text.split("|")))
    if len(choices) > MOST_CHOICES:
        raise ConfigError(f"{name} has more than {MOST_CHOICES} values.", hint="Use a pattern or a range.")
    return name, Bound(choices=choices)


def _targets(runtime: Runtime, book: Notebook, wish: Wish) -> Iterator[VettedTarget]:
    """The databases by the ids under which they are attached now: another one under the same name is not signed."""
    values = parameters.declared(book)
    for name in dict.fromkeys(wish.on or (str(values.get("instance", "")),)):
        instance: Instance = runtime.store.instance(name)
        yield VettedTarget(
            instance_id=instance.id,
            instance=instance.name,
            server=instance.server,
            plugin=instance.plugin,
            environment=instance.environment,
        )
