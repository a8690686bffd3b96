"""What may be explained: commands that read, of stages and options on a list, without server-side JavaScript.

EXPLAIN with execution statistics runs the query, so what is not known to be harmless is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opsagent_jupyter.errors import InvalidArguments, StatementRefused
from opsagent_jupyter.names import near
from opsagent_jupyter.plugins.mongodb.shapes import word_set

#: Commands that may be explained, each with the options that it may have beside its collection.
OPTIONS: Mapping[str, frozenset[str]] = {
    "find": word_set("filter sort projection limit skip hint collation let min max allowDiskUse returnKey"),
    "aggregate": word_set("pipeline hint collation let allowDiskUse cursor"),
    "count": word_set("query limit skip hint collation"),
    "distinct": word_set("key query collation hint"),
    "update": word_set("updates ordered let"),
    "delete": word_set("deletes ordered let"),
}
#: Explained by their plan only, never run.
WRITING = ("update", "delete")
#: What a driver adds and what says nothing about the plan; left out.
_ENVELOPE = word_set(
    "lsid $clusterTime $db $readPreference readConcern writeConcern comment maxTimeMS batchSize singleBatch"
    " noCursorTimeout apiVersion apiStrict apiDeprecationErrors txnNumber backpressure"
)
STAGES = word_set(
    "$addFields $bucket $bucketAuto $count $densify $documents $facet $fill $geoNear $graphLookup $group $limit $lookup"
    " $match $project $redact $replaceRoot $replaceWith $sample $set $setWindowFields $skip $sort $sortByCount $unionWith"
    " $unset $unwind"
)
WRITES = ("$out", "$merge")
JAVASCRIPT = ("$where", "$function", "$accumulator")
#: Levels of a document that are looked at; deeper ones are refused unread.
DEEP = 60


def checked(command: Mapping[str, Any]) -> dict[str, Any]:
    """The command as it will be explained; ``StatementRefused`` names what stands against it."""
    name = next(iter(command), "")
    if name not in OPTIONS:
        raise StatementRefused(
            f"{name or 'An empty document'} is not explained here.",
            hint=f"Explain one of {', '.join(OPTIONS)}.",
            reason="command",
        )
    _check_words(command)
    kept = {key: value for key, value in command.items() if key == name or key not in _ENVELOPE}
    for key in kept:
        if key != name and key not in OPTIONS[name]:
            raise InvalidArguments(
                f"{name} has no option {key!r} that can be explained{near(key, OPTIONS[name])}.", path="query"
            )
    if not isinstance(kept[name], str):
        raise InvalidArguments(f"{name} has to name a collection.", path="query")
    if name == "aggregate":
        _check_pipeline(kept.get("pipeline"))
        kept.setdefault("cursor", {})
    return kept


def _check_words(value: Any) -> None:
    """Refuse what writes or runs JavaScript, wherever in the document it stands."""
    for key in _keys(value, 0):
        if key in WRITES:
            raise StatementRefused(
                f"The pipeline has {key}, which writes: it is not explained.",
                hint=f"Leave {key} out; the plan of the rest is the same.",
                reason="writes",
            )
        if key in JAVASCRIPT:
            raise StatementRefused(
                f"The query has {key}, which runs JavaScript on the server: it is not explained.",
                hint="Write it with $expr and the aggregation operators.",
                reason="javascript",
            )


def _keys(value: Any, depth: int) -> Iterator[str]:
    if depth > DEEP:
        raise StatementRefused("The query is nested too deeply to be looked through.", reason="depth")
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _keys(each, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            yield from _keys(each, depth + 1)
    elif type(value).__name__ == "Code":
        yield "$function"


def _check_pipeline(pipeline: Any) -> None:
    """Every stage is on the list, those of pipelines within stages too."""
    if not isinstance(pipeline, list):
        raise InvalidArguments("A pipeline is a list of stages: [{...}, {...}].", path="query")
    for stage in pipeline:
        if not isinstance(stage, Mapping) or len(stage) != 1:
            raise InvalidArguments('A stage is a document with one name: {"$match": {...}}.', path="query")
        name, body = next(iter(stage.items()))
        if name not in STAGES:
            raise StatementRefused(
                f"The stage {name} is not explained here{near(name, STAGES)}.",
                hint="Leave it out, or explain the stages before it.",
                reason="stage",
            )
        for inner in _inner(name, body):
            _check_pipeline(inner)


def _inner(name: str, body: Any) -> Iterator[Any]:
    if not isinstance(body, Mapping):
        return
    if name == "$facet":
        yield from body.values()
    elif name in {"$lookup", "$unionWith"} and "pipeline" in body:
        yield body["pipeline"]
