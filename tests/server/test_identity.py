"""Who a Jupyter user is to OpsAgent, and that importing the package still loads no server."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest
from jupyter_server.auth.identity import IdentityProvider, LegacyIdentityProvider, PasswordIdentityProvider, User

from opsagent_jupyter.server.identity import actor_of, is_stable
from tests.kernels import ROOT
from tests.server.authority import Named


@pytest.mark.parametrize("name", ["alice", "ALICE", " alice ", "\uff41lice"])
def test_spellings_of_one_name_are_one_actor(name: str):
    """Case, spaces and look-alike forms of letters make no second person."""
    assert actor_of(User(name), stable=True).id == "jupyter:alice"


def test_other_names_are_other_actors():
    """Folding goes no further than spelling."""
    ids = {actor_of(User(name), stable=True).id for name in ("alice", "alice2", "al ice", "\u0430lice")}
    assert len(ids) == 4


@pytest.mark.parametrize("kind", [IdentityProvider, PasswordIdentityProvider, LegacyIdentityProvider])
def test_jupyters_own_providers_know_nobody_for_sure(kind: type[IdentityProvider]):
    """They name each browser anew, so two of their users may be one person."""
    assert is_stable(kind(), declared=None) is False
    assert is_stable(kind(), declared=True) is True


def test_a_provider_that_finds_its_users_elsewhere_knows_them():
    """Unless the operator says that it does not."""
    assert is_stable(Named(), declared=None) is True
    assert is_stable(Named(), declared=False) is False


def test_a_provider_that_only_changes_details_is_none_that_knows_its_users():
    """A class of one's own that leaves ``get_user`` as it is still makes names up."""
    renamed = type("Renamed", (PasswordIdentityProvider,), {"__module__": "site_config"})
    assert is_stable(renamed(), declared=None) is False


def test_installing_enables_the_extension():
    """The wheel carries Jupyter's configuration, which names the package; no command has to be typed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared["opsagent_jupyter/jupyter-config/server-config"] == "etc/jupyter/jupyter_server_config.d"
    written = (ROOT / "opsagent_jupyter/jupyter-config/server-config/opsagent_jupyter.json").read_text()
    assert json.loads(written) == {"ServerApp": {"jpserver_extensions": {"opsagent_jupyter": True}}}


def test_a_jupyter_server_finds_the_extension():
    """Jupyter's own words for it: enabled, and it validates."""
    command = [
        sys.executable,
        "-c",
        "import opsagent_jupyter as o; print(o._jupyter_server_extension_points()[0]['app'].name)",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "opsagent_jupyter"
