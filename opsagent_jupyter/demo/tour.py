"""The databases for the notebooks of the demo: those that ``opsagent demo`` runs, or ones that are started here."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opsagent_jupyter.demo.storefront import MongoDemo
    from opsagent_jupyter.demo.workload import Demo

#: The variables that hold the connection strings of the shop (PostgreSQL) and of the storefront (MongoDB).
VARIABLE, MONGODB_VARIABLE = "OPSAGENT_DEMO_DSN", "OPSAGENT_DEMO_MONGODB_URI"
_running: list[Demo | MongoDemo] = []


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


def storefront() -> str:
    """Make sure that the storefront runs, and say where; it ends with ``opsagent demo``, or with this kernel.

    Raises ``DemoError`` where there is no MongoDB to run.
    """
    if os.environ.get(MONGODB_VARIABLE):
        return f"The storefront's connection string is in {MONGODB_VARIABLE}."
    from opsagent_jupyter.demo.storefront import MongoDemo

    demo = MongoDemo(on_step=print)
    demo.start()
    _running.append(demo)
    os.environ[MONGODB_VARIABLE] = demo.operator_uri
    return f"A storefront runs in this kernel; its connection string is in {MONGODB_VARIABLE}."


def mongodb_missing() -> str:
    """What the storefront needs and this machine does not have; empty when it can run."""
    from opsagent_jupyter.demo.mongod import find_mongod
    from opsagent_jupyter.errors import DemoError

    if find_spec("pymongo") is None:
        return "pymongo is not installed (pip install 'opsagent_jupyter[demo]')."
    try:
        find_mongod()
    except DemoError as error:
        return str(error)
    return ""
