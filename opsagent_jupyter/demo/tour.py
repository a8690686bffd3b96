"""The shop for the tour notebook: the one that ``opsagent demo`` runs, or one that is started here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsagent_jupyter.demo.workload import Demo

#: The variable that holds the connection string of the shop.
VARIABLE = "OPSAGENT_DEMO_DSN"
_running: list[Demo] = []


def shop() -> str:
    """Make sure that the shop runs, and say where; it ends with ``opsagent demo``, or with this kernel."""
    if os.environ.get(VARIABLE):
        return f"The shop's connection string is in {VARIABLE}."
    from opsagent_jupyter.demo.workload import Demo

    demo = Demo(on_step=print)
    demo.start()
    _running.append(demo)
    os.environ[VARIABLE] = demo.operator_dsn
    return f"A shop runs in this kernel; its connection string is in {VARIABLE}."
