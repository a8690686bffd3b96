"""The call that takes a change back, read from the change itself and from what was read back after it.

An inverse is a request like every other: it is planned, shown and decided by a person. Where a change has none, or what it
would need is not known in the conversation, the reason is told instead; nothing is made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opsagent_jupyter.agent.consequences import consequence
from opsagent_jupyter.agent.slots import Names
from opsagent_jupyter.models import Effect, Suggestion
from opsagent_jupyter.plugin import Tool

Arguments = Mapping[str, Any]
ON_CARD = "the card of its request shows the statement that takes it back"


@dataclass(frozen=True)
class Done:
    """A change that took effect."""

    tool: Tool
    arguments: Arguments
    effect: Effect
    names: Names

    def asked(self, *wanted: str) -> dict[str, Any]:
        """Those of its arguments that were given."""
        return {name: self.arguments[name] for name in wanted if self.arguments.get(name)}

    @property
    def figures(self) -> Mapping[str, Any]:
        """What was read back."""
        return self.effect.figures

    @property
    def built(self) -> str:
        """The name of the index that was made: the one that was asked for, else the one that its effect tells."""
        told = [word.strip(".,:;") for word in self.effect.summary.split()]
        for word in filter(None, (str(self.arguments.get("name") or ""), *told)):
            if found := self.names.exact("index", word.replace('"', "")) or self.names.exact(
                "index", word.replace('"', "").rpartition(".")[2]
            ):
                return found
        return ""


def inverse(done: Done) -> Suggestion | str:
    """The call that takes a change back, or why there is none."""
    make = _INVERSES.get(done.tool.full_name)
    return make(done) if make else consequence(done.tool, done.arguments).undo


def _drop_the_index(done: Done) -> Suggestion | str:
    if not done.built:
        return f"The new index is not among the indexes that I see now; {ON_CARD}."
    kept = done.asked("collection", "database")
    return _call(done, "drop_index", {**kept, "index": done.built})


def _build_again(done: Done) -> Suggestion | str:
    if done.arguments.get("hide") or done.arguments.get("unhide"):
        kept = done.asked("collection", "index", "database")
        return _call(done, "drop_index", {**kept, "unhide" if done.arguments.get("hide") else "hide": True})
    if arguments := _read_definition(str(done.figures.get("undo", ""))):
        return _call(done, "create_index", arguments)
    return f"Its definition is not in this conversation any more, and I do not guess it; {ON_CARD}."


#: A definition as PostgreSQL gives it back; what has more to it is not read.
_DEFINITION = re.compile(
    r"CREATE (?P<unique>UNIQUE )?INDEX (?:CONCURRENTLY )?(?P<name>[\w.]+) ON (?P<table>[\w.]+) USING (?P<method>\w+)"
    r" \((?P<columns>[^()\"]+)\)(?: INCLUDE \((?P<include>[^()\"]+)\))?"
)


def _read_definition(statement: str) -> dict[str, Any]:
    found = _DEFINITION.fullmatch(statement.strip())
    if not found:
        return {}
    arguments: dict[str, Any] = {
        "table": found["table"],
        "columns": [column.strip() for column in found["columns"].split(",")],
        "name": found["name"].rpartition(".")[2],
    }
    if found["method"] != "btree":
        arguments["method"] = found["method"]
    if found["include"]:
        arguments["include"] = [column.strip() for column in found["include"].split(",")]
    return {**arguments, "unique": True} if found["unique"] else arguments


#: One statement over whole objects; rights on columns are not read.
_RIGHTS = re.compile(r"(?:GRANT|REVOKE) (?P<rights>[A-Z ,]+?) ON [^;()]+")


def _give_or_take(other: str) -> Callable[[Done], Suggestion | str]:
    def make(done: Done) -> Suggestion | str:
        undo = str(done.figures.get("undo", "")).strip()
        if not undo:
            return "It changed no right, so there is nothing to take back."
        found = _RIGHTS.fullmatch(undo)
        if not found or done.arguments.get("columns") or "OPTION" in undo:
            return f"That takes more than one simple statement: {undo}."
        kept = done.asked("role", "object", "kind", "made_by")
        rights = [right.strip().lower() for right in found["rights"].split(",")]
        return _call(done, other, {**kept, "privileges": rights})

    return make


def _drop_the_user(done: Done) -> Suggestion:
    name = "name" if done.tool.plugin == "postgresql" else "user"
    return _call(done, "drop_user", {name: done.arguments["name"], **done.asked("database")})


def _roles_back(other: str) -> Callable[[Done], Suggestion | str]:
    def make(done: Done) -> Suggestion | str:
        changed = done.effect.summary.partition(" has ")[2] or done.effect.summary.partition(" longer has ")[2]
        words = set(re.split(r"[\s,;]+", changed.partition(";")[0]))
        roles = list(done.arguments.get("roles", ()))
        if not all(any(word == role or word.startswith(f"{role}@") for word in words) for role in roles):
            return f"Only a part of these roles was changed; {ON_CARD}."
        return _call(done, other, {**done.asked("user", "database"), "roles": roles})

    return make


def _former_level(done: Done) -> Suggestion | str:
    former, now = done.figures.get("former"), done.figures.get("now")
    if not isinstance(former, dict) or not isinstance(now, dict) or "filter" in former or "filter" in now:
        return f"The former settings have more to them than a level; {ON_CARD}."
    arguments = {"level": former["was"], **done.asked("database", "member")}
    for name, key in (("slowms", "slowms"), ("sample_rate", "sampleRate")):
        if former.get(key) != now.get(key):
            arguments[name] = former[key]
    return _call(done, "set_profiling_level", arguments)


def _call(done: Done, tool: str, arguments: dict[str, Any]) -> Suggestion:
    return Suggestion(tool=f"{done.tool.plugin}.{tool}", arguments=arguments, why="it takes the last change back")


_INVERSES: Mapping[str, Callable[[Done], Suggestion | str]] = {
    "postgresql.create_index": _drop_the_index,
    "postgresql.drop_index": _build_again,
    "postgresql.create_user": _drop_the_user,
    "postgresql.grant_permission": _give_or_take("revoke_permission"),
    "postgresql.revoke_permission": _give_or_take("grant_permission"),
    "mongodb.create_index": _drop_the_index,
    "mongodb.drop_index": _build_again,
    "mongodb.create_user": _drop_the_user,
    "mongodb.grant_roles": _roles_back("revoke_roles"),
    "mongodb.revoke_roles": _roles_back("grant_roles"),
    "mongodb.set_profiling_level": _former_level,
}
