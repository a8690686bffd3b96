"""Commands without their values: what is shown of other people's operations, and what names a kind of query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def word_set(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


#: Characters of a command that are shown; levels and entries that are looked at.
SHOWN, DEEP, WIDE = 500, 12, 30

#: What a driver adds to every command, and what only says how it is to be answered.
_ENVELOPE = word_set(
    "lsid $clusterTime $db $readPreference txnNumber startTransaction autocommit readConcern writeConcern comment cursor"
    " apiVersion apiStrict apiDeprecationErrors maxTimeMS batchSize singleBatch backpressure ordered shardVersion"
    " bypassDocumentValidation encryptionInformation needsMerge fromMongos fromRouter databaseVersion clientOperationKey"
    " runtimeConstants"
)
#: Parts of a command whose small whole numbers are directions and sizes, not data.
_PLAIN = word_set("sort projection hint limit skip key keyPattern multi upsert $limit $skip $sort $project")
#: Parts that hold what somebody looks for: a text in there is never a field path.
_SOUGHT = word_set("filter query q $match documents u updates deletes")
#: Parts of a stage whose text is the name of a collection or of a field.
_NAMING = word_set("from into coll localField foreignField as key path connectFromField connectToField")
#: Commands whose first value is a collection; of others even that may be a secret.
_ON_COLLECTION = word_set(
    "find aggregate count distinct insert update delete findAndModify findandmodify getMore createIndexes dropIndexes"
    " collMod compact reIndex validate listIndexes collStats drop create explain mapReduce"
)
_PATH = re.compile(r"\$\$?[A-Za-z_][\w.]*")
_NAME = re.compile(r"[A-Za-z_][\w.$-]{0,99}")


def command_name(command: Mapping[str, Any]) -> str:
    """The first field of a command, which is its name; an update or delete of the profiler has none."""
    return next(iter(command), "")


def shape(command: Mapping[str, Any]) -> dict[str, Any]:
    """A command without values: names, operators, directions and limits stay, everything else is ``?``."""
    first = command_name(command)
    kept = {key: value for key, value in command.items() if key not in _ENVELOPE}
    found: dict[str, Any] = {}
    for key, value in kept.items():
        if key == first and isinstance(value, str) and first in _ON_COLLECTION:
            found[key] = value
        elif key in {"collection", "getMore"} and isinstance(value, str | int):
            found[key] = value if isinstance(value, str) else "?"
        else:
            found[key] = _entry(key, value, plain=False, sought=False, depth=0)
    return found


def masked(value: Any, *, plain: bool = False, sought: bool = False, depth: int = 0) -> Any:
    """A value without its leaves; lists of plain values become one ``?``."""
    if depth > DEEP:
        return "?"
    if isinstance(value, Mapping):
        return {
            str(key): _entry(str(key), each, plain=plain, sought=sought, depth=depth)
            for key, each in list(value.items())[:WIDE]
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        inner = [masked(each, plain=plain, sought=sought, depth=depth + 1) for each in value[:WIDE]]
        nested = [each for each in inner if isinstance(each, dict | list)]
        return nested or (["?"] if inner else [])
    if isinstance(value, str) and not sought and _PATH.fullmatch(value):
        return value
    if plain and not sought and isinstance(value, bool | int) and abs(value) <= 1_000_000:
        return value
    return "?"


def _entry(key: str, value: Any, *, plain: bool, sought: bool, depth: int) -> Any:
    if key in _NAMING and not sought and isinstance(value, str) and _NAME.fullmatch(value):
        return value
    return masked(value, plain=plain or key in _PLAIN, sought=sought or key in _SOUGHT, depth=depth + 1)


def written(value: Any) -> str:
    """A shape as a person writes it in a shell, on one line and cut: ``{find: "orders", filter: {cust: ?}}``."""
    text = "".join(_words(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def shown(command: Mapping[str, Any]) -> str:
    """A command fit to be shown: its shape on one line."""
    return written(shape(command)) if command else ""


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for number, (key, each) in enumerate(value.items()):
            yield f"{', ' if number else ''}{_name(str(key))}: "
            yield from _words(each)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, each in enumerate(value):
            yield ", " if number else ""
            yield from _words(each)
        yield "]"
    elif value == "?":
        yield "?"
    elif isinstance(value, bool):
        yield "true" if value else "false"
    else:
        yield str(value) if isinstance(value, int) else f'"{" ".join(str(value).split())}"'


def _name(key: str) -> str:
    return key if re.fullmatch(r"[$\w.]+", key) else f'"{" ".join(key.split())}"'
