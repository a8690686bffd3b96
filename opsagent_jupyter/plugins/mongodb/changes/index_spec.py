"""What an index is to be: its key read from what a person writes, its document, and how it compares with what is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.plugins.mongodb import statements
from opsagent_jupyter.plugins.mongodb.connection import Document
from opsagent_jupyter.plugins.mongodb.names import Index

KINDS = ("text", "2dsphere", "2d", "hashed")
#: Kinds of index that cannot refuse equal values.
NEVER_UNIQUE = ("text", "2dsphere", "2d", "hashed")
#: Options that make an index another one, by which twins are told.
OPTIONS = ("unique", "sparse", "hidden", "expireAfterSeconds", "partialFilterExpression", "collation")

_FIELD = re.compile(
    r"(?P<minus>-)?(?P<field>[^\s:]+)(?:(?:\s*:\s*|\s+)(?P<kind>-1|1|asc|desc|text|2dsphere|2d|hashed))?", re.IGNORECASE
)
_ORDER: Mapping[str, int] = {"": 1, "1": 1, "asc": 1, "-1": -1, "desc": -1}


def split(value: Any) -> Any:
    """Fields in one text, ``cust, -ts`` or ``{"cust": 1, "ts": -1}``, as a list of texts."""
    if not isinstance(value, str):
        return value
    if value.strip().startswith("{"):
        return [f"{field}: {_plain(kind)}" for field, kind in statements.document(value, "fields").items()]
    return [part.strip() for part in value.split(",") if part.strip()]


def key(fields: Sequence[str]) -> Document:
    """The key of an index from its fields, each with an order or a kind: ``cust``, ``-ts``, ``ts desc``, ``loc 2dsphere``."""
    found: Document = {}
    for text in fields:
        field, kind = _parsed(text)
        if field in found:
            raise InvalidArguments(f"The field {field} stands there twice.", path="fields")
        found[field] = kind
    if not found:
        raise InvalidArguments("An index needs at least one field.", path="fields")
    if [*found] == ["_id"] and found["_id"] in (1, -1):
        raise InvalidArguments("Every collection has an index on _id already.", path="fields")
    return found


def _parsed(text: str) -> tuple[str, Any]:
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        raise InvalidArguments(
            f"{text!r} is no field of an index.",
            hint=f"Write cust, -ts, ts desc, or one of {', '.join(KINDS)} behind the field: loc 2dsphere.",
            path="fields",
        )
    field, kind = match["field"], (match["kind"] or "").lower()
    _check_field(field)
    if kind in KINDS:
        if match["minus"]:
            raise InvalidArguments(f"{kind} has no direction: leave out the minus sign of {field}.", path="fields")
        return field, kind
    order = _ORDER[kind]
    return field, -1 if match["minus"] else order


def _check_field(field: str) -> None:
    parts = field.split(".")
    plain = parts[:-1] if parts[-1] == "$**" else parts
    if "\0" in field or any(not part or part.startswith("$") for part in plain):
        raise InvalidArguments(
            f"{field!r} is no field: no part of its path is empty or begins with $.",
            hint="Only a wildcard index ends with $**, as in attributes.$**.",
            path="fields",
        )


def made_name(key: Mapping[str, Any]) -> str:
    """The name that MongoDB itself would choose: ``cust_1_ts_-1``."""
    return "_".join(f"{field}_{kind}" for field, kind in key.items())


def is_wildcard(key: Iterable[str]) -> bool:
    return any(field.rpartition(".")[2] == "$**" for field in key)


def same_key(spec: Mapping[str, Any], index: Index) -> bool:
    """Whether a listed index has the wanted key; a text index is listed with its fields among its weights."""
    wanted = spec["key"]
    texts = [field for field, kind in wanted.items() if kind == "text"]
    if not texts:
        return list(wanted.items()) == [(field, _plain(kind)) for field, kind in index.key]
    listed = {field: _plain(kind) for field, kind in index.key if field not in ("_fts", "_ftsx")}
    others = {field: kind for field, kind in wanted.items() if kind != "text"}
    return listed == others and sorted(index.spec.get("weights", {})) == sorted(texts)


def same_options(spec: Mapping[str, Any], index: Index, *options: str) -> bool:
    """Whether a listed index agrees with the wanted one in these options, all by default."""
    return all(_option(spec, option) == _listed(spec, index, option) for option in options or OPTIONS)


def same(spec: Mapping[str, Any], index: Index) -> bool:
    """Whether a listed index is the wanted one, its name aside."""
    return same_key(spec, index) and same_options(spec, index)


def differing(spec: Mapping[str, Any], index: Index) -> list[str]:
    """What of a listed index is not as wanted."""
    found = [] if same_key(spec, index) else ["key"]
    return found + [option for option in OPTIONS if not same_options(spec, index, option)]


def _option(spec: Mapping[str, Any], option: str) -> Any:
    if option in ("unique", "sparse", "hidden"):
        return bool(spec.get(option))
    return _plain(spec.get(option))


def _listed(spec: Mapping[str, Any], index: Index, option: str) -> Any:
    if option != "collation":
        return _option(index.spec, option)
    listed, wanted = index.spec.get("collation"), spec.get("collation")
    # the server lists a collation with all its defaults
    return {name: _plain(listed[name]) for name in wanted if name in listed} if listed and wanted else _plain(listed)


def _plain(value: Any) -> Any:
    """A value whose numbers compare whatever type they were stored with."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def recreated(index: Index) -> Document:
    """The document that builds a listed index again, to the letter; what only the listing adds is left out."""
    spec = {name: value for name, value in index.spec.items() if name not in ("ns", "background", "v")}
    if "weights" in spec:
        texts = dict.fromkeys(spec["weights"], "text")
        rebuilt: Document = {}
        for field, kind in index.key:
            rebuilt |= texts if field == "_fts" else {} if field == "_ftsx" else {field: kind}
        spec["key"] = rebuilt
    return {"key": spec.pop("key"), "name": spec.pop("name"), **spec}
