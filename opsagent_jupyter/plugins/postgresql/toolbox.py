"""The tools of the PostgreSQL plugin, filled by the modules in ``reads`` and ``changes``."""

from __future__ import annotations

from opsagent_jupyter.plugin import Toolbox

NAME = "postgresql"
#: Raised when a tool's arguments or effects change; bound into every approval.
VERSION = "1"

tools = Toolbox(NAME, version=VERSION)
