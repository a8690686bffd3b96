"""OpsAgent for Jupyter: diagnose and fix databases from a notebook, with a person in charge of every change.

Importing this package loads nothing heavy. Modules inside it import each other directly, never through here: a lower
module that imported the package for its names would pull in everything above it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from opsagent_jupyter.api import OpsAgent

    __version__: str

__all__ = ["OpsAgent", "__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    if name == "OpsAgent":
        return import_module("opsagent_jupyter.api").OpsAgent
    if name == "__version__":
        return import_module("importlib.metadata").version("opsagent_jupyter")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """The server extension, for a Jupyter server that looks for it; it loads when one does."""
    module = "opsagent_jupyter.server.extension"
    return [{"module": module, "app": import_module(module).OpsAgentServer}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """The built JupyterLab extension, for tools that link it into place; an installed wheel has it there already."""
    return [{"src": "labextension", "dest": "opsagent-jupyter"}]


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Registers the magics: `%load_ext opsagent_jupyter`."""
    import_module("opsagent_jupyter.notebook.magics").load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Takes the magics away again: `%unload_ext opsagent_jupyter`."""
    import_module("opsagent_jupyter.notebook.magics").unload(ipython)
