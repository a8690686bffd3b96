"""A package that happens to be installed brings no plugin along: only one that the settings name is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opsagent_jupyter.config import load_settings
from opsagent_jupyter.errors import InvalidToolSpec, UnknownPlugin
from opsagent_jupyter.plugins.registry import PluginRegistry

#: Names of distributions that want to be loaded, and are not named in the settings.
STRANGERS = [
    "opsagent", "opsagent-jupyter-extra", "jupyter", "opsagent_jupyter2", "0psagent-jupyter", "opsagent-jupyter.",
    "xopsagent-jupyter", "opsagent--jupyter-", "postgresql", "mongodb", "opsagent-sqlite-evil", "evil",
]  # fmt: skip
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package with a plugin on the path, as pip would; its import leaves a mark."""

    def install(distribution: str, plugin: str = "sqlite") -> Path:
        site = tmp_path / f"site{len(list(tmp_path.iterdir()))}"
        module, mark = f"stranger_{len(list(tmp_path.iterdir()))}", site / "imported"
        about = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[opsagent_jupyter.plugins]\n{plugin} = {module}:plugin\n")
        (site / f"{module}.py").write_text(
            f"import pathlib\nfrom tests.ledger_plugin import plugin\npathlib.Path({str(mark)!r}).touch()\n"
        )
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return mark

    return install


@pytest.mark.parametrize("distribution", STRANGERS)
def test_an_installed_stranger_is_not_loaded(install: Install, distribution: str) -> None:
    """Neither by its own name, nor when all tools are listed; its code does not run."""
    mark = install(distribution)
    registry = PluginRegistry(load_settings({}, {}).trusted_plugins)
    assert "sqlite" not in registry.names()
    registry.tools()
    with pytest.raises(UnknownPlugin):
        registry.plugin("sqlite")
    assert not mark.exists()


def test_a_named_one_is_loaded(install: Install) -> None:
    """Names are compared as package indexes do."""
    mark = install("Opsagent.Sqlite")
    settings = load_settings({}, {"OPSAGENT_PLUGINS": "something-else, opsagent_sqlite"})
    registry = PluginRegistry(settings.trusted_plugins)
    assert "sqlite" in registry.names()
    assert registry.plugin("sqlite").toolbox.tools
    assert mark.exists()


def test_a_stranger_does_not_take_the_place_of_ours(install: Install) -> None:
    """A second plugin named postgresql is ignored, and when trusted it is a conflict that somebody must end."""
    mark = install("opsagent-better-postgresql", "postgresql")
    assert PluginRegistry().plugin("postgresql").__class__.__module__.startswith("opsagent_jupyter")
    with pytest.raises(InvalidToolSpec):
        PluginRegistry(["opsagent-better-postgresql"]).plugin("postgresql")
    assert not mark.exists()
