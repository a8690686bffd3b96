"""``%opsagent`` and ``%%opsagent``: the words of OpsAgent in IPython. Nothing heavy is imported before the first use."""

from __future__ import annotations

import re
import shlex
import sys
import threading
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand, output_can_be_silenced
from traitlets import Bool, Unicode, validate

from opsagent_jupyter.notebook.questions import keep_question_marks

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from opsagent_jupyter.api import OpsAgent as Api

#: Options of ``ask`` that take a value; the rest of the line is the question, whatever quotes it holds.
ASK_OPTIONS = ("--on", "-o", "--session", "-s", "--server", "--model", "-m")


def words_of(line: str, cell: str | None = None) -> list[str]:
    """A line, and the cell below it, as the words of a command."""
    head, _, rest = line.strip().replace("\t", " ").partition(" ")
    if head == "ask" or cell is not None:
        options, question = question_of(rest if head == "ask" else line)
        text = f"{question}\n{cell or ''}".strip()
        return ["ask", *options, *(["--", text] if text else [])]
    try:
        return shlex.split(line)
    except ValueError:
        from opsagent_jupyter.errors import InvalidArguments

        hint = 'Close it. A text with an apostrophe goes between double quotes: --reason "it\'s urgent".'
        raise InvalidArguments("A quotation mark is not closed.", hint=hint) from None


def question_of(line: str) -> tuple[list[str], str]:
    """Split a line into the options of ``ask`` and the question, which may hold any quotes and apostrophes.

    Short options and ``--help`` count only before the question, where no word of it can be meant; ``--`` begins it.
    """
    options: list[str] = []
    words = re.findall(r"\S+\s*", line)
    question: list[str] = []
    while words:
        whole = words.pop(0)
        word = whole.strip()
        if word == "--":
            question += words
            break
        if question and (not word.startswith("--") or word == "--help"):
            question.append(whole)
        elif word in ASK_OPTIONS and words:
            options += [word, unquoted(words.pop(0).strip())]
        elif word in ("--wait", "-w"):
            number = bool(words) and re.fullmatch(r"\d+(\.\d+)?", words[0].strip()) is not None
            options.append(f"--wait={words.pop(0).strip()}" if number else "--wait")
        elif word in ("--help", "-h") or word.partition("=")[0] in ("--wait", *ASK_OPTIONS):
            options.append(word)
        else:
            question.append(whole)
    return options, unquoted("".join(question).strip())


def unquoted(text: str) -> str:
    """A text without the one pair of quotation marks that it stands in as a whole."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1] if quoted else text


class Url(str):
    """A URL that `%config OpsAgent` lists without the password in it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(re.sub(r"(//[^/?#]*?):.*@", r"\1:***@", self))


@magics_class
class OpsAgent(Magics):
    """Diagnose and fix databases from a notebook; what changes something waits for a person."""

    store_url = Unicode(
        "", help="SQLAlchemy URL of the shared store; empty: a file in the Jupyter data directory."
    ).tag(config=True)
    model = Unicode("", help="offline, or provider:name.").tag(config=True)
    model_base_url = Unicode("", help="Base URL of an OpenAI-compatible or Ollama server.").tag(config=True)
    setup = Unicode("", help="personal, separated or team.").tag(config=True)
    policy_file = Unicode("", help="A JSON file of policy rules; they can only tighten.").tag(config=True)
    expand = Bool(default_value=False, help="Replace {name} in lines by the variable of that name.").tag(config=True)

    @validate("store_url", "model_base_url")
    def _without_password(self, proposal: Any) -> str:
        return Url(proposal["value"])

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell=shell, config=shell.config)
        self._variables = shell.user_ns
        self._ops: Api | None = None
        self._making = threading.Lock()

    @property
    def ops(self) -> Api:
        """The OpsAgent of this kernel, made at first use; its settings are fixed from then on."""
        with self._making:
            if self._ops is None:
                from opsagent_jupyter.api import OpsAgent as Api

                names = ("store_url", "model", "model_base_url", "setup", "policy_file")
                self._ops = Api(kind="kernel", **{name: getattr(self, name) for name in names})
                self._variables["_ops"] = self._ops
        return self._ops

    @property
    def started(self) -> Api | None:
        """The OpsAgent when it is running already: completion must not start one."""
        return self._ops

    def end(self) -> None:
        """Close the OpsAgent, when there is one."""
        if self._ops is not None:
            self._ops.close()
            self._ops = None

    @output_can_be_silenced
    @no_var_expand
    @line_cell_magic
    def opsagent(self, line: str = "", cell: str | None = None) -> Any:
        """Diagnose and fix databases. ``%opsagent --help`` lists the words; a ``%%opsagent`` cell is a question."""
        words = self._words(line, cell)
        if not words and self._ops is None and hasattr(self.shell, "kernel"):
            from opsagent_jupyter.notebook.first import FirstStatus

            return FirstStatus(lambda: self.ops)
        from opsagent_jupyter.notebook.display import shown

        return shown(self.shell, self._value(words), lambda: self.ops)

    def _value(self, words: list[str]) -> Any:
        import click

        from opsagent_jupyter.commands import Door
        from opsagent_jupyter.commands import words as group
        from opsagent_jupyter.errors import InvalidArguments

        try:
            door = Door(lambda: self.ops, self._prompt, person=self._person, follow=self._follow)
            value = group.main(args=words, prog_name="%opsagent", standalone_mode=False, obj=door)
            return None if isinstance(value, int) else value  # the number is the exit code of --help
        except click.exceptions.UsageError as error:
            text = error.format_message()
            word = error.ctx.command.name if error.ctx and error.ctx.parent else ""
            see = f"%opsagent {word} --help" if word else "%opsagent --help"
            raise InvalidArguments(
                text if text.endswith((".", "?")) else f"{text}.",
                hint=f"See {see}; a question starts with %opsagent ask.",
            ) from None

    def _words(self, line: str, cell: str | None) -> list[str]:
        first, _, rest = line.strip().partition(" ")
        if first != "--vars" and not self.expand:
            return words_of(line, cell)
        # The words are taken apart first: no value can add an option or end a quotation.
        words = words_of(rest if first == "--vars" else line, cell)
        end = words.index("--") if "--" in words else len(words)
        return [self._filled(word) for word in words[:end]] + [self._expanded(word) for word in words[end:]]

    def _filled(self, word: str) -> str:
        filled = self._expanded(word)
        if filled.startswith("-") and not word.startswith("-") and not re.fullmatch(r"-[\d.]+", filled):
            from opsagent_jupyter.errors import InvalidArguments

            raise InvalidArguments(
                f"The value of {word} begins with a dash, so it could be taken for an option.",
                hint="Join it to its option: --text={name}.",
            )
        return filled

    def _expanded(self, text: str) -> str:
        """Replace ``{name}`` and ``{name.attribute}`` by the user's values; anything else in braces stays as it is."""

        def value(match: re.Match[str]) -> str:
            name, *attributes = match[1].split(".")
            try:
                found = self._variables[name]
                for attribute in attributes:
                    found = getattr(found, attribute)
            except (KeyError, AttributeError):
                return match[0]
            return str(found)

        return re.sub(r"\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}", value, text)

    def _prompt(self, question: str) -> str:
        from getpass import getpass

        from opsagent_jupyter.errors import CredentialError

        try:
            return getpass(question)
        except Exception as error:
            if type(error).__name__ != "StdinNotImplementedError":
                raise
            raise CredentialError(
                "Nobody can be asked here: this notebook runs without a person.", hint="Use --dsn-env VARIABLE."
            ) from None

    def _follow(self, progress: Any) -> None:
        """Show how a run of a runbook goes, while the cell that runs it waits."""
        from opsagent_jupyter.notebook.progress import RunView

        RunView(self.ops, progress).show()

    def _person(self, question: str) -> str:
        """Ask whoever runs this cell; a kernel that runs without a person says so."""
        from opsagent_jupyter.errors import NobodyToSign

        if not (hasattr(self.shell, "kernel") or sys.stdin.isatty()):
            raise NobodyToSign
        try:
            return input(question)
        except EOFError:
            raise NobodyToSign from None
        except Exception as error:
            if type(error).__name__ != "StdinNotImplementedError":
                raise
            raise NobodyToSign from None


def load(shell: InteractiveShell) -> None:
    """Register the magics; loading twice changes nothing."""
    if "opsagent" in shell.magics_manager.magics["line"]:
        return
    magics = OpsAgent(shell)
    shell.register_magics(magics)
    shell.configurables.append(magics)  # type: ignore[arg-type]  # IPython lists any configurable here
    shell.set_hook("complete_command", _complete(magics), re_key=r"%%?opsagent\b")
    shell.input_transformers_cleanup.append(keep_question_marks)
    shell.events.register("post_run_cell", _republish)
    _warm_up(shell)


def unload(shell: InteractiveShell) -> None:
    """Take the magics away and end the runtime in order; what waits stays in the store."""
    loaded = [item for item in shell.configurables if isinstance(item, OpsAgent)]
    if not loaded:
        return
    for magics in loaded:  # IPython may have listed it too
        shell.configurables.remove(magics)
        magics.end()
    shell.input_transformers_cleanup.remove(keep_question_marks)
    shell.events.unregister("post_run_cell", _republish)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("opsagent", None)


def _complete(magics: OpsAgent) -> Any:
    def complete(_shell: Any, event: Any) -> list[str]:
        from opsagent_jupyter.notebook.completion import completions

        return completions(magics.started, event.text_until_cursor)

    return complete


def _republish(*_: Any) -> None:
    """At the end of a cell: records that changed meanwhile are sent once more, as from this cell.

    A run without a browser keeps only what the running cell sends; the changes came from the runtime's thread.
    """
    for name in ("widgets", "progress"):
        views = sys.modules.get(f"opsagent_jupyter.notebook.{name}")
        if views is not None:
            views.republish()


def _warm_up(shell: InteractiveShell) -> None:
    """Import what the first use needs once the loading cell is done, beside the person who is still reading."""

    def warm(*_: Any) -> None:
        shell.events.unregister("post_run_cell", warm)
        threading.Thread(
            target=lambda: __import__("opsagent_jupyter.commands"), name="opsagent-warm", daemon=True
        ).start()

    shell.events.register("post_run_cell", warm)
