"""Commands as text that a person can run in mongosh, and back: what is approved is exactly what is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from opsagent_jupyter.errors import DigestMismatch, InvalidArguments

_FORM = re.compile(
    r"db\.getSiblingDB\((?P<database>\"(?:[^\"\\]|\\.)*\")\)\.runCommand\((?P<command>\{.*\})\)", re.DOTALL
)


def written(database: str, command: Mapping[str, Any]) -> str:
    """A command as one line of mongosh, its document in Extended JSON, fields in order."""
    from bson import json_util

    text = json_util.dumps(command, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)
    return f"db.getSiblingDB({json.dumps(database, ensure_ascii=False)}).runCommand({text})"


def read(statement: str) -> tuple[str, dict[str, Any]]:
    """The database and the command document of a statement that ``written`` made."""
    from bson import json_util

    found = _FORM.fullmatch(statement)
    if found is None:
        raise DigestMismatch("The approved statement is no command that this tool has written.")
    command = json_util.loads(found["command"])
    return json.loads(found["database"]), dict(command)


def document(text: str, argument: str) -> dict[str, Any]:
    """An argument that holds a document in JSON or Extended JSON; a name that stands there twice is refused."""
    found = _parsed(text, argument)
    if not isinstance(found, dict):
        raise InvalidArguments(f"{argument} is no document: it has to begin with {{.", path=argument)
    return found


def array(text: str, argument: str) -> list[Any]:
    """An argument that holds a list in JSON or Extended JSON."""
    found = _parsed(text, argument)
    if not isinstance(found, list):
        raise InvalidArguments(f"{argument} is no list: it has to begin with [.", path=argument)
    return found


def _parsed(text: str, argument: str) -> Any:
    from bson import json_util

    text = text if _is_json(text) else _from_shell(text)
    try:
        json.loads(text, object_pairs_hook=_unique)
        return json_util.loads(text)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        why = str(error) if isinstance(error, _Twice) else f"it cannot be read{place}"
        raise InvalidArguments(
            f"{argument} is no JSON: {why}.",
            hint='Write it as JSON, with names in double quotes: {"status": "open"}.',
            path=argument,
        ) from None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


#: Words of mongosh in the order in which they are recognised: strings, typed values, names.
_SHELL = re.compile(
    r"""
      (?P<double>"(?:[^"\\]|\\.)*")
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | \b(?:new\s+)?(?P<type>ISODate|Date|ObjectId|NumberLong|NumberInt|NumberDecimal)\(\s*["']?(?P<value>[^"')]*)["']?\s*\)
    | (?P<name>[$A-Za-z_][\w$.]*)(?=\s*:)
    """,
    re.VERBOSE,
)
_TYPES = {"ISODate": "$date", "Date": "$date", "ObjectId": "$oid", "NumberDecimal": "$numberDecimal"}


def _from_shell(text: str) -> str:
    """A document as mongosh takes it, as JSON: bare names and single quotes, ISODate and ObjectId."""
    return re.sub(r",(\s*[}\]])", r"\1", _SHELL.sub(_json_of, text))


def _json_of(match: re.Match[str]) -> str:
    if match["double"]:
        return match["double"]
    if match["single"] is not None:
        return json.dumps(match["single"].replace("\\'", "'"), ensure_ascii=False)
    if match["type"]:
        wrapped = _TYPES.get(match["type"])
        return json.dumps({wrapped: match["value"]}) if wrapped else match["value"]
    return json.dumps(match["name"])


class _Twice(ValueError):
    """A name stands in a document twice, and the last would silently win."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice("a name stands there twice")
    return found
