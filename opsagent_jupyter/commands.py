"""The words of OpsAgent, once: ``%opsagent`` and the command line parse with the same commands.

Each command returns a plain Python value (a DataFrame, a ``Call``, a ``Turn``, a card); the host renders it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsagent_jupyter.api import Call, OpsAgent, Turn, refuse_clear_secret, require_name
from opsagent_jupyter.cards import ApprovalCard, HealthCard, StatusCard, status_of
from opsagent_jupyter.errors import ConfigError, CredentialError, InvalidArguments, NobodyToSign, NotAllowedToSign
from opsagent_jupyter.executor import record_of
from opsagent_jupyter.models import Session
from opsagent_jupyter.plugin import Tool

if TYPE_CHECKING:
    import pandas as pd

    from opsagent_jupyter.doctor import Report

#: What ``--wait`` without a number waits, in seconds: a headless run must end.
WAIT = 300.0


@dataclass
class Door:
    """How a host lets commands in: where the OpsAgent comes from, and how it asks for a password."""

    ops: Callable[[], OpsAgent]
    prompt: Callable[[str], str]
    clear_dsn: bool = False
    """Whether a connection string may be typed openly (never in a notebook or a command line)."""
    person: Callable[[str], str] | None = None
    """How a person here is asked something openly; None where nobody sits before this host."""
    follow: Callable[[Any], None] = lambda _: None
    """Shows how a run of a runbook goes while it is waited for."""
    alone: bool = False
    """Whether this host ends with the command: it runs what it approves itself when no other host takes it."""


class Seconds(click.ParamType[float]):
    """A number of seconds."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number of seconds", param, ctx)


def wait_option(function: Any) -> Any:
    """Add ``--wait [SECONDS]``."""
    return click.option(
        "--wait",
        "-w",
        type=Seconds(),
        is_flag=False,
        flag_value=WAIT,
        default=None,
        help="Wait for the end, decisions included (300 s without a number).",
    )(function)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="A %%opsagent cell is a question. With --vars in front, {name} stands for your variable of that name.",
)
@click.pass_context
def words(context: click.Context) -> Any:
    """Diagnose and fix databases; what changes something waits for a person."""
    if context.invoked_subcommand is None:
        return status_of(context.obj.ops())
    return None


@words.command()
@click.argument("text", nargs=-1, required=True)
@click.option("--on", "-o", default="", help="Which attached database the question is about.")
@click.option("--session", "-s", default="", help="Go on with this conversation.")
@click.option("--server", default="", help="The server, when it has one database only.")
@click.option("--model", "-m", default="", help="offline, or provider:name.")
@wait_option
@click.pass_obj
def ask(door: Door, text: Sequence[str], on: str, session: str, server: str, model: str, wait: float | None) -> Turn:
    """Ask the agent: one turn."""
    ops = door.ops()
    return ops.ask(" ".join(text), on or instance_of(ops, server), session=session, model=model, wait=wait)


@words.command()
@click.argument("plugin")
@click.argument("name")
@click.option("--server", "-s", default="default", show_default=True, help="The server it belongs to.")
@click.option(
    "--environment", "-e", default="production", show_default=True, help="production, staging or development."
)
@click.option("--dsn-env", default="", help="The environment variable that holds the connection string.")
@click.option("--service", default="", help="A service of pg_service.conf.")
@click.option("--prompt", is_flag=True, help="Ask for the connection string without showing it.")
@click.option("--read-only", is_flag=True, help="Refuse every change on this database.")
@click.option("--mask", default="", help="Columns whose values no language model may read: table.column,table.column")
@click.option("--no-rows", is_flag=True, help="Keep all rows from language models; the notebook still shows them.")
@click.option("--dsn", default="", help="A connection string without a password.")
@click.pass_obj
def attach(  # noqa: PLR0913  click passes options as arguments
    door: Door,
    plugin: str,
    name: str,
    *,
    server: str,
    environment: Any,
    dsn_env: str,
    service: str,
    prompt: bool,
    read_only: bool,
    mask: str,
    no_rows: bool,
    dsn: str,
) -> HealthCard:
    """Attach a database under a NAME."""
    if not door.clear_dsn:
        refuse_clear_secret(plugin, name, server, dsn_env, service, dsn)
    if prompt and (dsn or dsn_env or service):
        raise CredentialError("Say in exactly one way how to connect.", hint="Leave out --prompt, or the other option.")
    if prompt:
        require_name("database", name)
        dsn = door.prompt(f"Connection string of {name}: ")
    health = door.ops().attach(
        plugin,
        name,
        server=server,
        environment=environment,
        dsn=dsn or None,
        dsn_env=dsn_env or None,
        service=service or None,
        read_only=read_only,
        mask=mask.split(","),
        no_rows=no_rows,
    )
    return HealthCard((health,))


@words.command()
@click.argument("name")
@click.pass_obj
def detach(door: Door, name: str) -> str:
    """Forget an attached database and its credentials."""
    door.ops().detach(name)
    return f"{name} is detached; its credentials are gone from the store."


@words.command()
@click.pass_obj
def servers(door: Door) -> pd.DataFrame:
    """List the attached databases."""
    return door.ops().servers()


@words.command()
@click.argument("plugin", default="")
@click.pass_obj
def tools(door: Door, plugin: str) -> pd.DataFrame:
    """List the tools of the attached plugins, or of one PLUGIN."""
    from opsagent_jupyter.api import frame

    rows = [
        {"tool": t.full_name, "risk": str(t.risk), "arguments": t.usage(), "what it does": t.summary}
        for t in door.ops().tools(plugin)
    ]
    return frame(rows, ["tool", "risk", "arguments", "what it does"])


@words.command()
@click.argument("name", default="")
@click.pass_obj
def health(door: Door, name: str) -> HealthCard:
    """Ask the attached databases, or one NAME, how they are."""
    return HealthCard(tuple(door.ops().health(name)))


@words.command()
@click.argument("name")
@click.option("--observer", default="", help="What the role that only looks is called.")
@click.option("--operator", default="", help="What the role that also changes is called.")
@click.pass_obj
def roles(door: Door, name: str, observer: str, operator: str) -> str:
    """Print the SQL that makes an observer and an operator role for the database NAME; it runs nothing."""
    return door.ops().roles(name, observer, operator)


@words.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("tool")
@click.option("--on", "-o", default="", help="The database, when more than one is attached.")
@click.option("--dry-run", is_flag=True, help="Show what would run, its risk and its lock; ask nobody.")
@click.option("--supersedes", default="", help="The waiting request that this one takes the place of.")
@click.option("--step", default="", help="The step of a runbook that this is; what took effect is not repeated.")
@click.option("--again", is_flag=True, help="With --step: ask anew, even if it took effect.")
@wait_option
@click.pass_context
def run(
    context: click.Context,
    tool: str,
    on: str,
    dry_run: bool,  # noqa: FBT001  # click passes options as arguments
    supersedes: str,
    step: str,
    again: bool,  # noqa: FBT001
    wait: float | None,
) -> Call:
    """Run one TOOL with its arguments as options: --table orders --columns customer_id."""
    ops: OpsAgent = context.obj.ops()
    spec = ops.runtime.plugins.tool(tool, plugin_of(ops, on))
    if step and not dry_run:
        from opsagent_jupyter.runbooks.steps import Place, run_step

        call = run_step(ops, spec, on, Place.parse(step), tool_arguments(spec, context.args), again=again)
        return call.wait(wait) if wait is not None else call
    call = ops.run(spec.full_name, on, dry_run=dry_run, supersedes=supersedes, **tool_arguments(spec, context.args))
    return call.wait(wait) if wait is not None else call


@words.command()
@click.option("--state", default="", help="One state, or all; the open ones by default.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.pass_obj
def approvals(door: Door, state: str, limit: int) -> pd.DataFrame:
    """List the approval requests."""
    return door.ops().approvals(state, limit)


@words.command()
@click.argument("id")
@click.pass_obj
def show(door: Door, id: str) -> ApprovalCard:
    """Show one approval request whole."""
    ops = door.ops()
    return ApprovalCard(ops.approval(id), ops.runtime.claim)


def decision_command(name: Any, help: str) -> None:
    """Make one of the commands that decide a request."""

    @words.command(name=name, help=help)
    @click.argument("id")
    @click.option("--reason", "-r", default="", help="Why; needed to approve critical calls.")
    @wait_option
    @click.pass_obj
    def decide(door: Door, id: str, reason: str, wait: float | None) -> ApprovalCard:
        ops = door.ops()
        approval = ops.decide(id, name, reason)
        if name == "approve" and door.alone:
            ops.run_unless_taken(approval.id)
        if name == "approve" and wait is not None:
            Call(ops, record_of(approval)).wait(wait)
        return ApprovalCard(ops.approval(approval.id), ops.runtime.claim)


decision_command("approve", "Approve a request; it then runs, once, exactly as shown.")
decision_command("reject", "Reject a request; it can never run.")
decision_command("withdraw", "Take back a request of your own.")
decision_command("revoke", "Take back an approval that has not started.")


@words.command()
@click.argument("id")
@click.option("--state", type=click.Choice(["succeeded", "failed"]), required=True)
@click.option("--reason", "-r", required=True, help="How you found out.")
@click.pass_obj
def resolve(door: Door, id: str, state: Any, reason: str) -> ApprovalCard:
    """Record what became of a call whose outcome is unknown."""
    ops = door.ops()
    return ApprovalCard(ops.resolve(id, state, reason), ops.runtime.claim)


@words.command()
@click.argument("id")
@click.pass_obj
def reveal(door: Door, id: str) -> str:
    """Say where the password of a new user is shown; never here, because a notebook is saved."""
    approval = door.ops().approval(id)
    short = approval.id[:8]
    if approval.evidence.get("secret") != "kept":
        return f"Request {short} is {approval.state} and keeps no password: %opsagent show {short} tells what became of it."
    return (
        f"A notebook is saved, so the password of request {short} is not written into it. It is shown once, to who asked or "
        f"approved: by the button of the card (%opsagent show {short}), or in a terminal by `opsagent reveal {short}`."
    )


def audit_filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which the audit is filtered."""
    for name in ("approval", "session", "actor", "tool", "instance", "server", "status", "risk", "until", "since"):
        command = click.option(f"--{name}", *(["--on"] if name == "instance" else []), default=None)(command)
    return command


@words.group(invoke_without_command=True)
@click.option("--since", default=None, help="1d, 90m, 2h, 1w, or a date.")
@click.option("--until", default=None)
@click.option("--risk", default=None, help="This level and up.")
@click.option("--status", default=None, help="succeeded, failed, refused, pending, approved, rejected, …")
@click.option("--server", "-s", default=None)
@click.option("--instance", "--on", default=None)
@click.option("--tool", "-t", default=None)
@click.option("--actor", "-a", default=None)
@click.option("--session", default=None)
@click.option("--approval", default=None)
@click.option("--limit", type=int, default=None, help="The newest rows only.")
@click.option("--sql", default=None, help="Any SELECT over the view audit.")
@click.option("--verify", is_flag=True, help="Recompute the chain.")
@click.option(
    "--checkpoint", type=click.Path(dir_okay=False), default=None, help="With --verify: a checkpoint kept elsewhere."
)
@click.option("--archives", default=None, help="The folder of what was pruned, to be read and verified too.")
@click.pass_context
def audit(context: click.Context, /, sql: str | None, verify: bool, checkpoint: str | None, **filters: Any) -> Any:  # noqa: FBT001
    """Show the audit: filtered, by SQL, or verified; or export, archive and prune it."""
    if context.invoked_subcommand is not None:
        return None
    ops = context.obj.ops()
    if verify:
        return ops.verify(checkpoint_of(checkpoint) if checkpoint else None, filters["archives"])
    if sql:
        return ops.audit_sql(sql, filters["archives"])
    return ops.audit(**{name: value for name, value in filters.items() if value is not None})


@audit.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@audit_filters
@click.pass_obj
def audit_export(door: Door, /, file: str, **filters: Any) -> str:
    """Write the audit, or what the filters leave of it, to FILE, by its ending .parquet, .csv or .jsonl."""
    return f"{door.ops().audit_export(Path(file), **filters)} events are in {file}."


@audit.command("archive")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option(
    "--before", default=None, help="Archive what is older: 90d, 1w, or a date. Without it nothing is written."
)
@click.pass_obj
def audit_archive(door: Door, folder: str, before: str | None) -> str:
    """Verify the archives in FOLDER against the store, and add what is older than a time; nothing is removed."""
    return str(door.ops().audit_archive(folder, before))


@audit.command("prune")
@click.argument("folder", type=click.Path(file_okay=False), default="")
@click.option("--before", default=None, help="Remove what is older: 90d, 1w, or a date; else OPSAGENT_AUDIT_DAYS.")
@click.pass_obj
def audit_prune(door: Door, folder: str, before: str | None) -> str:
    """Archive what is old in FOLDER, verify that, and only then remove it from the store."""
    return str(door.ops().audit_prune(folder, before))


@words.command()
@click.option("--search", default="", help="Only where this text occurs, in titles and messages.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True)
@click.pass_obj
def sessions(door: Door, search: str, limit: int) -> pd.DataFrame:
    """List the conversations, or search them."""
    return door.ops().search(search, limit) if search else door.ops().sessions(limit)


@words.command()
@click.argument("id", default="")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), default="",
    help="The file to write, a notebook when it ends in .ipynb; it must not exist.",
)  # fmt: skip
@click.pass_obj
def export(door: Door, id: str, output: str) -> str:
    """Give a conversation as Markdown, or write it to a file, as Markdown or as a notebook."""
    text = door.ops().export(id, "notebook" if output.endswith(".ipynb") else "markdown")
    if not output:
        return text
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{output} cannot be written: {error.strerror}.", hint="Name a file that is not there yet."
        ) from None
    return f"The conversation is in {output}."


@words.command("close")
@click.argument("id", default="")
@click.pass_obj
def close_session(door: Door, id: str) -> str:
    """Close a conversation; it stays readable."""
    session = door.ops().close_session(id)
    return f"Session {session.id[:8]} is closed."


@words.command()
@click.option("--on", "-o", default="", help="The database that the conversation is about.")
@click.option("--session", "-s", default="", help="Go on with this conversation.")
@click.option("--model", "-m", default="", help="offline, or provider:name.")
@click.pass_obj
def chat(door: Door, on: str, session: str, model: str) -> Session:
    """Open the chat panel."""
    ops = door.ops()
    return ops.open(session) if session else ops.new_session(on, model)


@words.command("open")
@click.argument("id")
@click.pass_obj
def open_session(door: Door, id: str) -> Session:
    """Open a conversation, in whatever kernel it began."""
    return door.ops().open(id)


@words.group()
def model() -> None:
    """Keep the keys of language models."""


@model.command("key")
@click.argument("provider")
@click.option("--forget", is_flag=True, help="Forget the key that is kept.")
@click.pass_obj
def model_key(door: Door, provider: str, forget: bool) -> str:  # noqa: FBT001
    """Ask for the key of a PROVIDER (openai, anthropic, google, …) without showing it, and keep it encrypted."""
    ops = door.ops()
    if forget:
        return f"The key of {ops.keep_model_key(provider, '')} is forgotten."
    ops.known_provider(provider)
    key = door.prompt(f"Key of {provider}: ").strip()
    if not key:
        raise CredentialError("No key was given, so none was kept.", hint="Type it at the prompt, or use --forget.")
    return f"The key of {ops.keep_model_key(provider, key)} is kept, encrypted, on this machine."


@words.command()
@click.pass_obj
def doctor(door: Door) -> Report:
    """Check the installation; each finding comes with its fix."""
    from opsagent_jupyter.doctor import examine

    return examine(door.ops())


@words.group()
def runbook() -> None:
    """Keep a conversation as a notebook that others run: with parameters, gates, and evidence of what ran."""


@runbook.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--session", "-s", default="", help="The conversation; the last used one by default.")
@click.option("--title", default="", help="The runbook's title; the conversation's by default.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_obj
def runbook_export(door: Door, file: str, session: str, title: str, force: bool) -> str:  # noqa: FBT001
    """Write a conversation to FILE as a runbook: no rows, no secrets, no outputs."""
    from opsagent_jupyter.runbooks import cells, composition

    target = Path(file)
    if target.exists() and not force:
        raise ConfigError(f"{file} exists already.", hint="Name a new file, or add --force.")
    ops = door.ops()
    book = composition.compose(ops, session or composition.newest_session(ops), title)
    cells.write(target, book)
    return f"{file} has the runbook {cells.ours(book)['runbook']} with {len(list(cells.steps(book)))} steps."


@runbook.command(
    "run", epilog="Exit codes: 0 done, 1 failed, 3 waiting for approval (its id is printed), 4 unknown, 6 refused."
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--parameter", "-p", "given", multiple=True, help="name=value; a secret as secret_name=env:VARIABLE.")
@click.option("--server", "-s", default="", help="The server, when it has one database only.")
@click.option("--run", "name", default="", help="The run's name; by default the same parameters are the same run.")
@click.option("--again", is_flag=True, help="Ask for every step anew, as a new run.")
@click.option(
    "--wait", "-w", type=Seconds(), default=0.0, show_default=True, help="Seconds a gate waits for a decision."
)
@click.option("--out", "-o", type=click.Path(dir_okay=False), default=None, help="Where the executed notebook goes.")
@click.pass_obj
def runbook_run(
    door: Door,
    file: str,
    given: Sequence[str],
    server: str,
    name: str,
    again: bool,  # noqa: FBT001
    wait: float,
    out: str | None,
) -> Any:
    """Run the runbook in FILE in a kernel of its own; a run that stopped goes on at its failed or waiting step."""
    from opsagent_jupyter.runbooks.runs import Order
    from opsagent_jupyter.runbooks.runs import run as run_file

    order = Order(Path(file), tuple(given), server, name, again, wait, Path(out) if out else None)
    return run_file(door.ops(), order, instance_of, door.follow)


@runbook.command("status")
@click.argument("file", type=click.Path(dir_okay=False), default="")
@click.pass_obj
def runbook_status(door: Door, file: str) -> pd.DataFrame:
    """List the steps of all runs, or of those of FILE: how each stands, who approved it, how long it took."""
    from opsagent_jupyter.runbooks.runs import status

    return status(door.ops(), Path(file) if file else None)


@runbook.command("watch")
@click.argument("file", type=click.Path(dir_okay=False), default="")
@click.option("--run", "name", default="", help="The run; the newest by default.")
@click.pass_obj
def runbook_watch(door: Door, file: str, name: str) -> Any:
    """Show how a run goes, step by step: who decided, and how long it took. In a notebook it stays up to date."""
    from opsagent_jupyter.runbooks.progress import watched

    return watched(door.ops(), Path(file) if file else None, name)


@runbook.command("verify")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--checkpoint", type=click.Path(dir_okay=False), default=None, help="One that was kept elsewhere.")
@click.pass_obj
def runbook_verify(door: Door, file: str, checkpoint: str | None) -> Any:  # noqa: ARG001  # it needs no store
    """Prove, with nothing but FILE, which of its steps ran as approved; evidence that was changed is refused."""
    from opsagent_jupyter.runbooks import cells, evidence

    return evidence.verify(cells.read(Path(file)), checkpoint_of(checkpoint) if checkpoint else None)


@runbook.command("seal")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--run", "name", default="", help="The run; the newest of this runbook by default.")
@click.pass_obj
def runbook_seal(door: Door, file: str, name: str) -> str:
    """Write receipts and evidence into FILE, which was run by hand or by another runner, and saved."""
    from opsagent_jupyter.runbooks.runs import seal_file

    return seal_file(door.ops(), Path(file), name)


@runbook.command("sign")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--bound", "bounds", multiple=True, help="name=one|two, name=1..5 or name~pattern; else the value it has."
)
@click.option("--on", "-o", multiple=True, help="A database that it may run on; else the one in its parameters.")
@click.option("--days", type=float, default=30.0, show_default=True, help="How long the signature holds.")
@click.option("--reason", "-r", default="", help="Why its steps need nobody any more.")
@click.pass_obj
def runbook_sign(door: Door, file: str, bounds: Sequence[str], on: Sequence[str], days: float, reason: str) -> Any:
    """Sign FILE as an approver: up to medium risk its steps then run to the letter without asking; any change voids it."""
    from opsagent_jupyter.runbooks import cells, signing

    if door.person is None:
        raise NobodyToSign
    ops = door.ops()
    wish = signing.Wish(tuple(bounds), tuple(on), days, reason)
    vetting = signing.draft(ops.runtime, ops.actor, cells.read(Path(file)), wish, tool_arguments)
    question = f"{signing.Signature(vetting)}\nType {signing.WORD} to sign this: "
    if door.person(question).strip() != signing.WORD:
        raise NotAllowedToSign("Nothing was signed.", hint=f"Whoever signs types the word {signing.WORD}.")
    return signing.Signature(signing.sign_file(ops.runtime, Path(file), vetting))


@runbook.command("signatures")
@click.argument("file", type=click.Path(dir_okay=False), default="")
@click.pass_obj
def runbook_signatures(door: Door, file: str) -> pd.DataFrame:
    """List the signatures of all runbooks, or of that in FILE: who signed, until when, and which were taken back."""
    from opsagent_jupyter.runbooks.runs import signatures

    return signatures(door.ops(), Path(file) if file else None)


@runbook.command("revoke")
@click.argument("id")
@click.option("--reason", "-r", default="", help="Why.")
@click.pass_obj
def runbook_revoke(door: Door, id: str, reason: str) -> Any:
    """Take the signature ID of a runbook back; its steps ask again."""
    from opsagent_jupyter.runbooks import signing

    ops = door.ops()
    return signing.Signature(signing.revoke(ops.runtime, ops.actor, id, reason))


@runbook.command("begin")
@click.argument("id")
@click.option("--on", "-o", required=True, help="The database.")
@click.option("--server", "-s", default="", help="The server that it must belong to.")
@click.option("--run", "name", default="", help="The run's name; by default the same parameters are the same run.")
@click.option("--given", multiple=True, help="name=value of a parameter.")
@click.option("--vetting", default="", help="The signature by which its steps may run without asking.")
@click.pass_obj
def runbook_begin(door: Door, id: str, on: str, server: str, name: str, given: Sequence[str], vetting: str) -> Any:
    """Name the run that the cells below belong to."""
    from opsagent_jupyter.runbooks.runs import begin

    pairs = (word.partition("=") for word in given)
    return begin(door.ops(), id, on, server, name, {key: value for key, _, value in pairs}, vetting)


@runbook.command("gate")
@click.argument("step")
@click.option("--wait", "-w", type=Seconds(), default=0.0, show_default=True, help="Seconds to wait for a decision.")
@click.pass_obj
def runbook_gate(door: Door, step: str, wait: float) -> Any:
    """Let nothing below run before the step above took effect."""
    from opsagent_jupyter.runbooks.runs import passed
    from opsagent_jupyter.runbooks.steps import Place

    return passed(door.ops(), Place.parse(step), wait)


@runbook.command("undo")
@click.argument("step")
@click.pass_obj
def runbook_undo(door: Door, step: str) -> str:
    """Show the statement that takes a step back; it runs nothing."""
    from opsagent_jupyter.runbooks.runs import undo
    from opsagent_jupyter.runbooks.steps import Place

    return undo(door.ops(), Place.parse(step))


# -- words into values ------------------------------------------------------------------------------------------------


def instance_of(ops: OpsAgent, server: str) -> str:
    """The only database of a server; empty when no server was named."""
    if not server:
        return ""
    names = [instance.name for instance in ops.instances() if instance.server == server]
    if len(names) == 1:
        return names[0]
    have = f"has {', '.join(names)}" if names else "has no database attached"
    raise ConfigError(f"The server {server!r} {have}.", hint="Say which with --on NAME.")


def plugin_of(ops: OpsAgent, on: str) -> str:
    """The plugin of the named database, or of all of them; ``UnknownInstance`` when there is none of that name."""
    if on:
        return ops.runtime.store.instance(on).plugin
    plugins = {instance.plugin for instance in ops.instances()}
    return plugins.pop() if len(plugins) == 1 else ""


def tool_arguments(tool: Tool, words: Sequence[str]) -> dict[str, Any]:
    """``--table orders --columns a,b --unique`` as argument values; lists by comma or by repeating the option."""
    properties = tool.schema().get("properties", {})
    values: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name, value = option_of(tool, rest, properties)
        if kind_of(properties.get(name, {})) == "array":
            values.setdefault(name, []).extend(elements(str(value)))
        else:
            values[name] = value
    return values


def elements(text: str) -> list[Any]:
    """The elements of a list: by commas, or as JSON where one of them holds a comma."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, list) else [part.strip() for part in text.split(",") if part.strip()]


def option_of(tool: Tool, rest: list[str], properties: dict[str, Any]) -> tuple[str, Any]:
    """Take one option and its value off the front of ``rest``."""
    word = rest.pop(0)
    if not word.startswith("--"):
        raise InvalidArguments(
            f"{word!r} stands alone.", hint=f"Write arguments as options: {tool.name} takes {tool.usage()}.", path=word
        )
    name, given, value = word[2:].partition("=")
    name = name.replace("-", "_")
    if name.startswith("no_") and name not in properties and kind_of(properties.get(name[3:], {})) == "boolean":
        return name[3:], False
    if given:
        return name, value
    if kind_of(properties.get(name, {})) == "boolean" and (not rest or rest[0].startswith("--")):
        return name, True
    if not rest:
        raise InvalidArguments(f"The option --{name} needs a value.", path=name)
    return name, rest.pop(0)


def kind_of(schema: dict[str, Any]) -> str:
    """The JSON type of an argument, looking through ``anyOf`` for optional ones."""
    options = [schema, *schema.get("anyOf", [])]
    return next((str(option["type"]) for option in options if option.get("type") not in (None, "null")), "string")


def checkpoint_of(path: str) -> dict[str, Any]:
    """Read a checkpoint that was kept in a file; ``ConfigError`` when it is none."""
    try:
        kept = json.loads(Path(path).read_text())
        return {"count": int(kept["count"]), "head": str(kept["head"])}
    except (OSError, ValueError, TypeError, KeyError):
        hint = "`opsagent audit checkpoint > FILE` writes one."
        raise ConfigError(f"{path} holds no checkpoint that can be read.", hint=hint) from None


def exit_code(value: Any) -> int:
    """What a command line exits with: 0 done, 1 failed, refused or unhealthy, 3 waiting for a person, 4 outcome unknown."""
    if hasattr(value, "exit_code"):
        return int(value.exit_code)
    if isinstance(value, Call):
        return {"succeeded": 0, "waiting": 3, "running": 3, "unknown": 4}.get(value.status, 1)
    if isinstance(value, Turn):
        return {"finished": 0, "parked": 3, "running": 3}.get(value.state, 1)
    if isinstance(value, ApprovalCard):
        return {"failed": 1, "unknown": 4, "stale": 1}.get(str(value.approval.state), 0)
    held = value.get("ok", True) if isinstance(value, dict) else getattr(value, "ok", True)
    return 0 if held else 1


__all__ = ["Door", "StatusCard", "exit_code", "words"]
