"""set_profiling_level: what the profiler records of a database, with the former state as the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from opsagent_jupyter.errors import EffectMissing, PreconditionFailed
from opsagent_jupyter.models import Assessment, Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note
from opsagent_jupyter.plugins.mongodb import names, statements
from opsagent_jupyter.plugins.mongodb.changes import preflight
from opsagent_jupyter.plugins.mongodb.changes.compact_collection import must_be_member
from opsagent_jupyter.plugins.mongodb.changes.execution import (
    QUICK_MS,
    Node,
    Reader,
    carry_out,
    code_of,
    found_out,
    node,
    reported,
)
from opsagent_jupyter.plugins.mongodb.changes.rights import rights
from opsagent_jupyter.plugins.mongodb.connection import SHARDED, Database, Document, Ending
from opsagent_jupyter.plugins.mongodb.toolbox import tools
from opsagent_jupyter.plugins.wording import size

#: Fields of a profiler's state, as ``profile: -1`` tells them.
FIELDS = ("was", "slowms", "sampleRate", "filter")
#: What a profiler records without a limit: reads of every document, with their values.
EVERYTHING = 2


@tools.change(
    Risk.HIGH,
    phrases=(
        "set the profiling level to 1",
        "set profiling level 2 on {database}",
        "set the profiler to level 1",
        "turn the profiler off",
        "switch profiling off",
    ),
    keywords=("profiling", "profiler", "profile", "level", "set"),
    patterns=(r"set\s+(the\s+)?profil(ing|er)(\s+level)?\b",),
)
async def set_profiling_level(
    db: Database,
    level: Annotated[
        int, Field(ge=0, le=2), Arg("0 off, 1 slow operations, 2 all operations", slot="number", example="1")
    ],
    slowms: Annotated[
        int | None, Field(ge=0, le=2**31 - 1), Arg("milliseconds from which an operation is slow; of the whole server")
    ] = None,
    sample_rate: Annotated[
        float | None, Field(ge=0, le=1), Arg("share of the slow operations that is recorded")
    ] = None,
    filter: Annotated[str, Arg('a filter in JSON, such as {"millis": {"$gt": 50}}; unset takes it away')] = "",
    database: Annotated[str, Arg("the database", slot="database")] = "",
    member: Annotated[str, Arg("host:port of a member of the set; without it the primary")] = "",
) -> Plan:
    """Set what the profiler records of a database: nothing, slow operations, or all."""
    await must_be_member(db, member)
    name = await names.database(db, database)
    _refuse(db, name, level)
    (await rights(db)).require("enableProfiler", name)
    at = await node(db, member)
    former = await _state(at, name)
    command = _command(level, slowms, sample_rate, filter)
    _refuse_no_change(name, former, command)
    return Plan(
        title=f"Set the profiling level of {name} to {level}",
        statements=(statements.written(name, command),),
        risk=Risk.HIGH,
        reasons=_reasons(level, slowms, sample_rate, former),
        lock=f"exclusive on database {name} for a moment",
        size=await _recorded(at, name),
        duration="at once",
        undo=statements.written(name, _restoring(former)),
        undo_note="What was recorded meanwhile stays in system.profile.",
        cautions=tuple(_cautions(level, slowms, sample_rate, filter, former)),
        preconditions={"database": name, "member": at.member, "former": preflight.jsonable(former)},
        before={"member": at.member, "database": name, "former": preflight.jsonable(former)},
        execution="probeable",
    )


@set_profiling_level.assesses
def _(arguments: Any) -> Assessment:
    if arguments.level == EVERYTHING:
        return Assessment(risk=Risk.HIGH, reasons=("every operation is recorded, with its values, and costs a write",))
    return Assessment(risk=Risk.HIGH, reasons=("it changes what the server records of everybody's work",))


@set_profiling_level.performs
async def _(db: Database, plan: Plan, note: Note) -> Effect:
    return await carry_out(db, plan, note, _judge)


@set_profiling_level.probes
async def _(db: Database, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return await found_out(db, plan, evidence, _judge)


def _refuse(db: Database, name: str, level: int) -> None:
    if name in names.OWN:
        raise PreconditionFailed(f"{name} belongs to the server: its profiling is not changed from here.")
    if db.server.topology == SHARDED and level:
        raise PreconditionFailed(
            "mongos does not profile: only level 0 is allowed there.", hint="Attach the shard's members and ask there."
        )


async def _state(reader: Reader, database: str) -> Document:
    """What the profiler of a database does now; its answer to a command that changes nothing."""
    found = await reader.read(database, {"profile": -1})
    return {field: found[field] for field in FIELDS if field in found}


def _command(level: int, slowms: int | None, sample_rate: float | None, filter: str) -> Document:
    unset = filter.strip().lower() == "unset"
    return {
        "profile": level,
        **({"slowms": slowms} if slowms is not None else {}),
        **({"sampleRate": float(sample_rate)} if sample_rate is not None else {}),
        **({"filter": "unset" if unset else statements.document(filter, "filter")} if filter.strip() else {}),
        "maxTimeMS": QUICK_MS,
    }


def _restoring(former: Mapping[str, Any]) -> Document:
    return {
        "profile": former["was"],
        **{field: former[field] for field in ("slowms", "sampleRate") if field in former},
        "filter": former.get("filter", "unset"),
    }


def _refuse_no_change(name: str, former: Mapping[str, Any], command: Mapping[str, Any]) -> None:
    if "filter" in command and not (command["filter"] == "unset" and "filter" not in former):
        return
    if former["was"] == command["profile"] and all(
        field not in command or former.get(field) == command[field] for field in ("slowms", "sampleRate")
    ):
        raise PreconditionFailed(f"The profiling level of {name} is {former['was']} with these settings already.")


def _reasons(level: int, slowms: int | None, sample_rate: float | None, former: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = []
    if level == EVERYTHING:
        reasons.append("every operation is recorded, with its values, and costs a write")
    elif level:
        reasons.append("slow operations are recorded, with their values")
    else:
        reasons.append("nothing is recorded from then on")
    if slowms is not None or sample_rate is not None:
        was = f"slowms {former.get('slowms')}, sampleRate {former.get('sampleRate')} until now"
        reasons.append(f"slowms and sampleRate apply to all databases of this server ({was})")
    return tuple(reasons)


async def _recorded(at: Node, name: str) -> str:
    stats = await preflight.seen(preflight.stats_of(at, name, "system.profile"))
    if not stats:
        return f"{name}.system.profile is made with the first operation that is recorded, and kept at 1 MB"
    return f"{name}.system.profile holds {size(stats['size'])} of at most {size(stats.get('maxSize', 1024**2))}"


def _cautions(
    level: int, slowms: int | None, sample_rate: float | None, filter: str, former: Mapping[str, Any]
) -> list[str]:
    cautions = ["It is set on this one member, and a restart forgets it."]
    if not level:
        cautions.append("Slow operations still go to the server's log.")
    sets = filter.strip() and filter.strip().lower() != "unset"
    if sets or ("filter" in former and not filter.strip()):
        ignored = " so slowms and sample_rate have no effect" if slowms is not None or sample_rate is not None else ""
        cautions.append(
            f"While a filter is set, the server looks at neither slowms nor sampleRate{',' if ignored else ''}{ignored}."
        )
    if level == EVERYTHING and not sets:
        cautions.append("system.profile is overwritten soon: it keeps the newest 1 MB.")
    return cautions


async def _judge(reader: Reader, plan: Plan, ending: Ending) -> Effect:
    """Read the state back: the reply to the command tells only the one before."""
    database, command = statements.read(plan.statements[0])
    now = await _state(reader, database)
    wrong = _differing(command, now)
    former: Any = plan.before["former"]
    if not wrong and (ending.clean or ending.lost):
        return Effect(
            state="succeeded",
            summary=f"The profiling level of {database} is {now['was']} (slowms {now.get('slowms')}, "
            f"sample rate {now.get('sampleRate')}{', with a filter' if 'filter' in now else ''}); it was {former['was']}.",
            figures={"former": former, "now": preflight.jsonable(now)},
        )
    unchanged = preflight.jsonable(now) == former
    return Effect(
        state="failed",
        summary=f"The profiling of {database} was not set: {reported(ending)}; "
        f"{'it is as it was' if unchanged else 'it is ' + str(preflight.jsonable(now)) + ' now'}.",
        error_code=code_of(ending, EffectMissing.code),
    )


def _differing(command: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    wrong = ["level"] if now["was"] != command["profile"] else []
    wrong += [field for field in ("slowms", "sampleRate") if field in command and now.get(field) != command[field]]
    if "filter" in command and (command["filter"] == "unset") != ("filter" not in now):
        wrong.append("filter")  # the server writes a filter in its own way, so only its being there can be compared
    return wrong
