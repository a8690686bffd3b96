"""Importing the package costs next to nothing: kernels and servers do it at every start."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "IPython",
    "alembic",
    "anywidget",
    "click",
    "cryptography",
    "duckdb",
    "ipykernel",
    "ipywidgets",
    "jupyter_server",
    "keyring",
    "langchain",
    "langchain_core",
    "langgraph",
    "numpy",
    "pandas",
    "psycopg",
    "pyarrow",
    "pydantic",
    "pymongo",
    "rapidfuzz",
    "rich",
    "sqlalchemy",
    "tornado",
    "traitlets",
}


def loaded_after(statements: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has loaded after these statements."""
    program = f"import json, sys\n{statements}\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


def test_import_loads_no_library():
    """After `import opsagent_jupyter` no driver, framework or data library is loaded."""
    assert loaded_after("import opsagent_jupyter") & HEAVY == set()


def test_import_loads_nothing_else_of_ours():
    """After `import opsagent_jupyter` none of its own modules is loaded either."""
    program = "import sys, opsagent_jupyter; print([m for m in sys.modules if m.startswith('opsagent_jupyter.')])"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_public_names_are_few_and_there():
    """The package hands out exactly these names, each on first use."""
    import opsagent_jupyter

    assert opsagent_jupyter.__all__ == ["OpsAgent", "__version__", "load_ipython_extension", "unload_ipython_extension"]
    assert all(getattr(opsagent_jupyter, name) is not None for name in opsagent_jupyter.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = opsagent_jupyter.no_such_name


def test_version_has_one_source():
    """`__version__` is what pyproject.toml says; package.json, where JupyterLab's builder needs one, says the same."""
    import opsagent_jupyter

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert opsagent_jupyter.__version__ == project["version"]
    assert json.loads((ROOT / "js" / "package.json").read_text(encoding="utf-8"))["version"] == project["version"]
