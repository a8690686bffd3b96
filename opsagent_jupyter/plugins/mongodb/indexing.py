"""Which index a query would want: fields compared by equality, then those sorted by, then ranges (ESR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.models import Suggestion
from opsagent_jupyter.plugins.mongodb import names

#: Fields of an index that is suggested.
MOST = 4
_EQUAL = ("$eq", "$in")
_RANGE = ("$gt", "$gte", "$lt", "$lte")
#: Conditions that an index serves badly: a field that has only these is left out.
_WEAK = (
    "$ne",
    "$nin",
    "$not",
    "$exists",
    "$type",
    "$mod",
    "$size",
    "$regex",
    "$options",
    "$all",
    "$elemMatch",
    "$comment",
)


@dataclass(frozen=True)
class Wanted:
    """The key of an index, field by field, and which fields were compared, sorted and ranged over."""

    equal: tuple[str, ...]
    sort: tuple[tuple[str, int], ...]
    ranges: tuple[str, ...]

    @property
    def key(self) -> tuple[tuple[str, int], ...]:
        found: dict[str, int] = dict.fromkeys(self.equal, 1)
        for field, direction in self.sort:
            found.setdefault(field, direction)
        for field in self.ranges:
            found.setdefault(field, 1)
        return tuple(found.items())[:MOST]

    @property
    def written(self) -> str:
        return names.written_key(self.key)

    @property
    def why(self) -> str:
        """Which field stands where and why, in one phrase."""
        parts = [
            ("equality", [field for field, _ in self.key if field in self.equal]),
            ("sort", [field for field, _ in self.key if field in dict(self.sort) and field not in self.equal]),
            (
                "range",
                [f for f, _ in self.key if f in self.ranges and f not in self.equal and f not in dict(self.sort)],
            ),
        ]
        return ", then ".join(f"{kind} ({', '.join(fields)})" for kind, fields in parts if fields)


def wanted(command: Mapping[str, Any]) -> Wanted | None:
    """The index that a command would want; None when its filter is no plain AND of comparisons."""
    filter_, sort = _parts(command)
    if filter_ is None:
        return None
    equal: list[str] = []
    ranges: list[str] = []
    if not _collect(filter_, equal, ranges):
        return None
    sorting = tuple((field, 1 if direction >= 0 else -1) for field, direction in sort)
    found = Wanted(tuple(dict.fromkeys(equal)), sorting, tuple(dict.fromkeys(ranges)))
    return found if found.key and (found.equal or found.ranges) else None


def _parts(command: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, Sequence[tuple[str, int]]]:
    """Filter and sort of a find, count, distinct, update, delete, or of the beginning of a pipeline."""
    if "pipeline" in command:
        return _beginning(command["pipeline"])
    filter_ = next((command[name] for name in ("filter", "query", "q") if isinstance(command.get(name), Mapping)), None)
    return filter_, _directions(command.get("sort"))


def _beginning(pipeline: Any) -> tuple[Mapping[str, Any] | None, Sequence[tuple[str, int]]]:
    stages = [stage for stage in pipeline if isinstance(stage, Mapping)] if isinstance(pipeline, list) else []
    if not stages or not isinstance(stages[0].get("$match"), Mapping):
        return None, ()
    after = stages[1].get("$sort") if len(stages) > 1 else None
    return stages[0]["$match"], _directions(after)


def _directions(sort: Any) -> Sequence[tuple[str, int]]:
    if not isinstance(sort, Mapping) or any(not isinstance(way, int | float) for way in sort.values()):
        return ()
    return [(field, int(way)) for field, way in sort.items() if not field.startswith("$")]


def _collect(filter_: Mapping[str, Any], equal: list[str], ranges: list[str]) -> bool:
    for field, condition in filter_.items():
        if field == "$and":
            if not all(isinstance(each, Mapping) and _collect(each, equal, ranges) for each in condition):
                return False
        elif field == "$comment":
            continue
        elif field.startswith("$"):
            return False
        else:
            _place(field, condition, equal, ranges)
    return True


def _place(field: str, condition: Any, equal: list[str], ranges: list[str]) -> None:
    operators = [key for key in condition if key.startswith("$")] if isinstance(condition, Mapping) else []
    if not operators or any(operator in _EQUAL for operator in operators):
        equal.append(field)
    elif any(operator in _RANGE for operator in operators) or not set(operators) <= set(_WEAK):
        ranges.append(field)


def serving(wanted_: Wanted, existing: Sequence[names.Index]) -> names.Index | None:
    """The index that begins as is wanted, if there is one that queries may use."""
    key = wanted_.key
    return next((index for index in existing if index.key[: len(key)] == key and not index.option("hidden")), None)


def suggestion(
    target: names.Collection, wanted_: Wanted, existing: Sequence[names.Index], why: str
) -> Suggestion | None:
    """The ready call that builds it; None when an index that begins so is there already."""
    if serving(wanted_, existing):
        return None
    key = wanted_.key
    return Suggestion(
        tool="mongodb.create_index",
        arguments={
            "collection": target.name,
            "fields": [f"-{field}" if way < 0 else field for field, way in key],
            "database": target.database,
        },
        why=f"{why}; {wanted_.why}",
    )
