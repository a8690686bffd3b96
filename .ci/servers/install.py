"""Installs the PostgreSQL releases that the tests get from npm into node_modules beside this file, pinned by the lock.

The packages leave out the links of their libraries and make them in an install script; none gets to run one, so the
links are made here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "js"))

from hatch_build import find_node  # noqa: E402  # it lies beside the front end that it builds


def links_of(package: Path) -> list[tuple[Path, Path]]:
    """Each missing link of a package, with the file that it leads to."""
    listed = json.loads((package / "native" / "pg-symlinks.json").read_text(encoding="utf-8"))
    return [(package / each["target"], package / each["source"]) for each in listed]


def link(package: Path) -> None:
    """Make the links that the package leaves out."""
    for place, file in links_of(package):
        place.unlink(missing_ok=True)
        place.symlink_to(os.path.relpath(file, place.parent))


def npm_ci() -> None:
    """Install what the lock names; npm calls `node` by name."""
    node, npm = find_node()
    path = os.pathsep.join([str(Path(node[0]).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run([*npm, "ci", "--loglevel=error"], cwd=HERE, check=True, env={**os.environ, "PATH": path})


def main() -> None:
    """Install all of them, unless this very lock was installed before."""
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    marker = HERE / "node_modules" / ".opsagent-lock"
    if marker.is_file() and marker.read_text(encoding="ascii") == wanted:
        return
    npm_ci()
    for package in sorted((HERE / "node_modules").glob("pg*")):
        link(package)
    marker.write_text(wanted, encoding="ascii")


if __name__ == "__main__":
    main()
