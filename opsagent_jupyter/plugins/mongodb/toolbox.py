"""The tools of the MongoDB plugin, filled by the modules in ``reads`` and ``changes``."""

from __future__ import annotations

from opsagent_jupyter.plugin import Toolbox

NAME = "mongodb"
#: Raised when a tool's arguments or effects change; bound into every approval.
VERSION = "1"

tools = Toolbox(NAME, version=VERSION)
