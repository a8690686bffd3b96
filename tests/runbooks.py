"""Runbooks for tests: a place with its own store and server, the command line in it, and plugins that kernels find."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opsagent_jupyter.credentials import new_key
from tests.kernels import ROOT
from tests.ledger_plugin import Ledger

#: Only plugins that come with the product load by themselves, so here the ledger does, beside the others.
PLUGINS = """[opsagent_jupyter.plugins]
ledger = tests.ledger_plugin:plugin
mongodb = opsagent_jupyter.plugins.mongodb:plugin
postgresql = opsagent_jupyter.plugins.postgresql:plugin
"""


def ledger_installed(folder: Path) -> Path:
    """A folder that, first on the path of a process, makes the ledger plugin an installed one."""
    release = version("opsagent_jupyter")
    known = folder / f"opsagent_jupyter-{release}.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: opsagent_jupyter\nVersion: {release}\n")
    (known / "entry_points.txt").write_text(PLUGINS)
    return folder


@dataclass
class Site:
    """One place where runbooks run: a store with its key, and what its processes know."""

    folder: Path
    name: str
    key: str = field(default_factory=new_key)
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process of this place is started with."""
        plugins = self.folder / "plugins"
        if not plugins.exists():
            ledger_installed(plugins)
        return {
            "OPSAGENT_STORE_URL": self.store_url,
            "PLUGIN_ENCRYPTION_KEY": self.key,
            "OPSAGENT_LEASE_SECONDS": "3",
            "PYTHONPATH": os.pathsep.join([str(plugins), str(ROOT)]),
            **self.more,
        }

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.folder / 'store' / 'opsagent.db'}"

    @property
    def file(self) -> Path:
        """The ledger of this place."""
        return self.folder / f"{self.name}.ledger"

    def texts(self) -> list[str]:
        """Every effect that this place has seen."""
        return Ledger("outside", str(self.file)).texts()

    def cli(self, *words: str, timeout: float = 300) -> tuple[int, Any]:
        """Exit code and JSON answer of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "opsagent_jupyter.cli", "--json", *words],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}") from None

    def at_terminal(self, *words: str, typed: str, timeout: float = 120) -> tuple[int, str]:
        """Exit code and JSON answer of a command at whose terminal somebody types a line."""
        ours, theirs = pty.openpty()
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "opsagent_jupyter.cli", "--json", *words],
                env={**os.environ, **self.environment},
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=theirs,
                text=True,
            ) as running:
                os.write(ours, f"{typed}\n".encode())
                said, _ = running.communicate(timeout=timeout)
        finally:
            os.close(ours)
            os.close(theirs)
        return running.returncode, said
