"""What ``binder/`` names exists, is what Binder reads, and takes its versions from pyproject.toml alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib

from packaging.specifiers import SpecifierSet

from tests.kernels import ROOT

BINDER = ROOT / "binder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: The files that Binder's builder reads; it passes over any other in silence.
READ = {"requirements.txt", "runtime.txt", "apt.txt", "postBuild"}
#: Programs that come with an extra of ours or with every Debian.
PROGRAMS = {"jupyter": "jupyterlab", "opsagent": "", "python": "", "grep": "", "set": ""}


def lines(name: str) -> list[str]:
    """The lines of a file that say something."""
    text = (BINDER / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_binder_has_the_files_that_are_read_and_no_other() -> None:
    """A file under another name would do nothing, and nobody would notice."""
    assert {path.name for path in BINDER.iterdir()} == READ


def test_the_versions_are_those_of_the_project() -> None:
    """One line: this repository with its demo. No package is named a second time."""
    assert lines("requirements.txt") == [".[demo]"]
    assert "demo" in PROJECT["optional-dependencies"]


def test_the_python_of_the_image_is_one_that_is_supported() -> None:
    """``python-3.12`` satisfies requires-python."""
    version = re.fullmatch(r"python-(3\.\d+)", lines("runtime.txt")[0])
    assert version is not None
    assert version[1] in SpecifierSet(PROJECT["requires-python"])


def test_the_system_packages_are_those_of_the_demo() -> None:
    """What the demo installs on a bare machine is in the image, where nobody may install anything later."""
    prepared = (ROOT / ".ci/prepare.sh").read_text(encoding="utf-8")
    demo = prepared[prepared.index("install_mongod_libraries()") :]
    assert lines("apt.txt") == re.findall(r"apt_install ([\w.+-]+)", demo.partition("\n}")[0])


def test_the_build_runs_only_what_is_installed() -> None:
    """``postBuild`` is a script that may be run, and each of its programs comes with the project or the system."""
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", script], check=True)
    commands = {part.split()[0] for line in lines("postBuild") for part in re.split(r"\s\|\s", line)}
    assert commands <= set(PROGRAMS)
    assert "opsagent" in PROJECT["scripts"]
    demo = " ".join(PROJECT["optional-dependencies"]["demo"])
    assert all(package in demo for package in PROGRAMS.values())
    assert shutil.which("bash")


def test_the_image_holds_the_notebooks() -> None:
    """The last step of the build is the tour itself, on the databases that the notebooks start."""
    assert lines("postBuild")[-1] == "opsagent demo --check"
    assert (ROOT / "notebooks/01-tour.ipynb").exists()
