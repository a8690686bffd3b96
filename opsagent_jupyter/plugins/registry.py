"""The plugins that are installed, found by entry point, and their tools by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

from opsagent_jupyter.errors import InvalidToolSpec, UnknownPlugin, UnknownTool
from opsagent_jupyter.names import near
from opsagent_jupyter.plugin import Plugin, Tool

GROUP = "opsagent_jupyter.plugins"
#: Our own distribution; a plugin of any other is loaded only when it is named in the settings.
OWN = "opsagent-jupyter"


class PluginRegistry:
    """Loads plugins when they are first asked for. Others' plugins only when ``trusted`` names their distribution."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = {normal(OWN), *(normal(name) for name in trusted)}
        self._loaded: dict[str, Plugin] = {}

    @cached_property
    def _entries(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for entry in entry_points(group=GROUP):
            if entry.dist is None or normal(entry.dist.name) not in self._trusted:
                continue
            if entry.name in found and found[entry.name].value != entry.value:
                raise InvalidToolSpec(f"Two plugins call themselves {entry.name!r}; uninstall one of them.")
            found[entry.name] = entry
        return found

    def names(self) -> Sequence[str]:
        """The names of the plugins that may be used."""
        return sorted({*self._entries, *self._loaded})

    def add(self, plugin: Plugin) -> None:
        """Use a plugin that has no entry point (tests, notebooks that develop one)."""
        self._loaded[plugin.name] = plugin

    def plugin(self, name: str) -> Plugin:
        """Return a plugin; ``UnknownPlugin`` says which there are."""
        if name not in self._loaded:
            if name not in self._entries:
                raise UnknownPlugin(f"There is no plugin {name!r}{near(name, self.names())}.")
            self._loaded[name] = self._entries[name].load()
        return self._loaded[name]

    def tools(self, plugin: str = "") -> Sequence[Tool]:
        """The tools of one plugin, or of all."""
        names = [plugin] if plugin else self.names()
        return [tool for name in names for tool in self.plugin(name).toolbox.tools.values()]

    def tool(self, name: str, plugin: str = "") -> Tool:
        """Return a tool by full name, or by short name within ``plugin``; ``UnknownTool`` names near matches."""
        owner, _, short = name.rpartition(".")
        tools = self.tools(owner or plugin) if (owner or plugin) else self.tools()
        matches = [tool for tool in tools if tool.name == short]
        if len(matches) == 1:
            return matches[0]
        if matches:
            full = ", ".join(tool.full_name for tool in matches)
            raise UnknownTool(f"{name!r} could be {full}: write the full name.")
        raise UnknownTool(f"There is no tool {name!r}{near(short, [tool.name for tool in tools])}.")


def normal(name: str) -> str:
    """A distribution name as PEP 503 compares it."""
    return name.lower().replace("_", "-").replace(".", "-")
