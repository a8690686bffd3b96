"""What the offline model knows of its surroundings: tools, databases, and the names in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from opsagent_jupyter.agent.prompts import model_name, takes_on
from opsagent_jupyter.agent.routing import Router
from opsagent_jupyter.agent.slots import Names
from opsagent_jupyter.errors import InvalidArguments
from opsagent_jupyter.models import Catalog, Instance, canonical
from opsagent_jupyter.plugin import Tool


@dataclass(frozen=True)
class Wanted:
    """A call that could be made."""

    tool: Tool
    arguments: Mapping[str, Any]
    on: str
    why: str = ""

    @property
    def key(self) -> str:
        """What makes it the same call as another."""
        return call_key(model_name(self.tool), self.arguments)


@dataclass(frozen=True)
class Reply:
    """What is said next. ``asks``: it is a question about that request, and the next message may answer it."""

    text: str = ""
    calls: tuple[Wanted, ...] = ()
    asks: bool = False
    meant: tuple[str, str] = ("", "")
    """A mistyped word, and the name that is probably meant by it."""
    tool: str = ""
    anywhere: bool = False
    """True when only the database is asked for: the answer may lead to another database's tool."""
    sure: bool = False
    """True when the request was clear in itself: a command, or well above the threshold."""


#: What is said with a change that was asked for.
WAITS = "I am asking for approval now; nothing runs before a person decides."


@dataclass(frozen=True, eq=False)
class Lineup:
    """Tools, the same when they are the very same objects: what routers are kept by."""

    tools: tuple[Tool, ...]

    def __hash__(self) -> int:
        """By identity."""
        return hash(tuple(map(id, self.tools)))

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same objects in the same order."""
        mine, others = self.tools, other.tools if isinstance(other, Lineup) else ()
        return len(mine) == len(others) and all(one is two for one, two in zip(mine, others, strict=True))


@lru_cache(maxsize=8)
def _routers(lineup: Lineup) -> Mapping[str, Router]:
    """A router for each plugin's tools: it takes longer to make than to ask."""
    plugins = {tool.plugin for tool in lineup.tools}
    return {
        plugin: Router(
            [tool for tool in lineup.tools if tool.plugin == plugin],
            [tool for tool in lineup.tools if tool.plugin != plugin],
        )
        for plugin in plugins
    }


@dataclass(frozen=True)
class World:
    """Everything there is to call, and to name."""

    tools: Sequence[Tool]
    instances: Sequence[Instance]
    focus: str = ""
    catalogs: Mapping[str, Catalog] = field(default_factory=dict)

    @cached_property
    def _names(self) -> dict[str, Names]:
        return {}

    def router(self, plugin: str) -> Router:
        """The router over one plugin's tools."""
        return _routers(Lineup(tuple(self.tools))).get(plugin) or Router(())

    def names(self, instance: str) -> Names:
        """The names in one database; none when it did not tell."""
        if instance not in self._names:
            self._names[instance] = Names(self.catalogs.get(instance) or Catalog())
        return self._names[instance]

    def tool(self, name: str, on: str = "") -> Tool | None:
        """A tool by its full name, by its name for models, or by its short name in the plugin of a database."""
        plugin = next((instance.plugin for instance in self.instances if instance.name == on), "")
        for tool in self.tools:
            if name in {tool.full_name, model_name(tool)} or (name == tool.name and tool.plugin == plugin):
                return tool
        return None

    def arguments(self, wanted: Wanted) -> dict[str, Any]:
        """The arguments as a tool call carries them: with the database, where there is more than one."""
        return {**wanted.arguments, **({"on": wanted.on} if takes_on(wanted.tool, self.instances) else {})}

    def same(self, one: Wanted, other: Wanted) -> bool:
        """Whether two calls do the same, defaults and spellings of names considered."""
        return one.tool is other.tool and one.on == other.on and self._settled(one) == self._settled(other)

    def _settled(self, wanted: Wanted) -> str:
        names = self.names(wanted.on)
        try:
            values = wanted.tool.parse(wanted.arguments).model_dump(mode="json")
        except InvalidArguments:
            return ""
        spelled = {
            name: names.exact(wanted.tool.slots[name].slot, value) or value if isinstance(value, str) else value
            for name, value in values.items()
        }
        return canonical(spelled)


def call_key(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as one text, whatever database it names."""
    return canonical([name, {key: value for key, value in arguments.items() if key != "on"}])


def short(value: Any) -> str:
    """A value on one line, cut at 80 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
