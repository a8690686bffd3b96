"""``opsagent``: the words of ``%opsagent`` on a command line, and what only an operator does.

Exit codes: 0 done · 1 failed, refused or not well · 2 the command was written wrongly · 3 waiting for a person (the id is
printed) · 4 the outcome is unknown · 5 store or audit cannot be used, so nothing was run · 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from opsagent_jupyter.api import OpsAgent, Turn, refuse_clear_secret
from opsagent_jupyter.cli import operator
from opsagent_jupyter.cli.live import Live
from opsagent_jupyter.cli.render import as_json, as_text
from opsagent_jupyter.commands import Door, exit_code, words
from opsagent_jupyter.errors import AuditError, CredentialError, NobodyToSign, OpsAgentError, StoreError


class Opened:
    """The OpsAgent of this command, made when a command first needs it and closed when it ends."""

    def __init__(self, settings: dict[str, Any], live: Live | None) -> None:
        self._settings = settings
        self._live = live
        self._ops: OpsAgent | None = None

    def __call__(self) -> OpsAgent:
        if self._ops is None:
            self._ops = OpsAgent(kind="cli", executes=False, **self._settings)
            if self._live:
                self._ops.runtime.listen(self._live)
        return self._ops

    def close(self) -> None:
        """Close it, when there is one."""
        if self._ops is not None:
            self._ops.close()


def prompt(question: str) -> str:
    """Ask at the terminal without an echo; without a terminal the answer comes from standard input."""
    if not sys.stdin.isatty():
        if line := sys.stdin.readline().strip():
            return line
        raise CredentialError(
            "Nobody can be asked here: there is no terminal.",
            hint="Use --dsn-env VARIABLE, or send the connection string to standard input.",
        )
    text: str = click.prompt(question.rstrip(": "), hide_input=True)
    return text


def person(question: str) -> str:
    """Ask whoever sits at the terminal openly; ``NobodyToSign`` where none is."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise NobodyToSign
    click.echo(question, nl=False, err=True)
    return sys.stdin.readline()


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 waiting for a person, 4 outcome unknown, 5 store unusable;"
    " a runbook that was refused ends with 6.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option(
    "--store", default="", help="SQLAlchemy URL of the store; else OPSAGENT_STORE_URL, else the embedded one."
)
@click.version_option(package_name="opsagent_jupyter")
@click.pass_context
def cli(context: click.Context, json_: bool, store: str) -> None:  # noqa: FBT001  # click passes options as arguments
    """Diagnose and fix databases; what changes something waits for a person."""
    refuse_clear_secret(store)
    live = Live() if Live.wanted(json=json_) else None
    opened = Opened({"store_url": store}, live)
    context.call_on_close(opened.close)
    context.obj = Door(opened, prompt, person=person, alone=True)
    context.meta["json"], context.meta["live"] = json_, live


@cli.result_callback()
@click.pass_context
def printed(context: click.Context, /, value: Any, **_: Any) -> None:
    """Print what a command answered and exit by it."""
    if isinstance(value, Turn) and context.meta["live"]:
        if rest := context.meta["live"].rest(value):
            click.echo(rest)
    elif value is not None:
        click.echo(as_json(value) if context.meta["json"] else as_text(value))
    context.exit(exit_code(value))


for name in ("ask", "attach", "detach", "servers", "tools", "health", "run", "approvals", "show", "approve", "reject"):
    cli.add_command(words.commands[name])
for name in ("withdraw", "revoke", "resolve", "sessions", "close", "doctor", "roles", "runbook", "model", "export"):
    cli.add_command(words.commands[name])
for command in operator.COMMANDS:
    cli.add_command(command)


def json_first(arguments: list[str]) -> list[str]:
    """The words with ``--json`` in front, wherever it was typed; after a ``--`` it is only a word."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" not in options:
        return arguments
    return ["--json", *(word for word in options if word != "--json"), *arguments[len(options) :]]


def main() -> None:
    """Run, and turn errors into a message, a hint and an exit code."""
    arguments = json_first(sys.argv[1:])
    wants_json = arguments[:1] == ["--json"]
    try:
        cli.main(arguments, prog_name="opsagent")
    except OpsAgentError as error:
        code = 5 if isinstance(error, StoreError | AuditError) else 1
        if wants_json:
            click.echo(as_json(error))
        else:
            click.echo(f"✗ {error.message}", err=True)
            if error.hint:
                click.echo(f"  → {error.hint}", err=True)
        sys.exit(code)
    except KeyboardInterrupt:
        click.echo("Interrupted; what waits still waits.", err=True)
        sys.exit(130)
