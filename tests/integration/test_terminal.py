"""A question at a real terminal: words and tools are shown while they come, and a program still gets one answer."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opsagent_jupyter.api import OpsAgent
from tests.kernels import ROOT
from tests.model_server import Server, Turn, serving

SCRIPT = (
    Turn("Let me look. ", calls=(("postgresql_get_locks", "{}"),)),
    Turn("Nobody waits for a lock, \x1b[31mreally\x1b[0m. That is all that can be said of it.", pause=0.25),
)
WORDS = [sys.executable, "-m", "opsagent_jupyter.cli"]


@pytest.fixture
def surroundings(tmp_path: Path, database18: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A store with one database attached, and the variables of a user who has it."""
    store = f"sqlite:///{tmp_path / 'opsagent.db'}"
    with OpsAgent(store) as ops:
        ops.attach("postgresql", "shop", environment="development", dsn=database18)
    return {**os.environ, "OPSAGENT_STORE_URL": store, "OPENAI_API_KEY": "sk-test", "COLUMNS": "100", "TERM": "xterm"}


def asking(server: Server, surroundings: dict[str, str]) -> dict[str, str]:
    return {**surroundings, "OPSAGENT_MODEL": "openai:gpt-test", "OPSAGENT_MODEL_BASE_URL": f"{server.url}/v1"}


def read(terminal: int, until: str, seconds: float = 60) -> str:
    """What a terminal shows up to some words; all of it when the program ends before."""
    shown, end = "", time.monotonic() + seconds
    while until not in shown and time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece.decode()
    return shown.replace("\r\n", "\n")


def test_words_and_tools_are_shown_while_they_come(surroundings: dict[str, str]) -> None:
    """The beginning of an answer is there before its end was said; no word is shown twice, and no escape passes."""
    with serving(*SCRIPT) as server:
        master, slave = pty.openpty()
        command = [*WORDS, "ask", "who waits?", "--on", "shop"]
        asked = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=asking(server, surroundings)
        )
        os.close(slave)
        try:
            first = read(master, "Nobody")
            assert asked.poll() is None, first
            assert "can be said" not in first
            shown = first + read(master, "never shown")
            assert asked.wait(60) == 0, shown
        finally:
            asked.kill()
            os.close(master)
    assert "Let me look." in shown
    begun, ended = "▸ postgresql.get_locks on shop\n", "✓ postgresql.get_locks on shop: succeeded\n"
    assert shown.index("Let me look.") < shown.index(begun) < shown.index(ended) < shown.index("Nobody waits")
    assert shown.count("That is all that can be said of it.") == 1
    assert "\x1b" not in shown


def test_a_program_gets_one_answer_at_the_end(surroundings: dict[str, str]) -> None:
    """Through a pipe nothing is told before the end, and the calls stand above the answer."""
    with serving(*SCRIPT) as server:
        command = [*WORDS, "ask", "who waits?", "--on", "shop"]
        answer = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=asking(server, surroundings), timeout=120, check=True
        )
    assert answer.stdout.startswith("postgresql.get_locks: succeeded\n")
    assert answer.stdout.count("Nobody waits for a lock") == 1
    assert "▸" not in answer.stdout


def test_an_error_of_the_model_is_shown_once(surroundings: dict[str, str]) -> None:
    """What went wrong follows what was said."""
    refused = Turn(status=401, body='{"error": {"message": "no such key"}}')
    with serving(refused) as server:
        master, slave = pty.openpty()
        command = [*WORDS, "ask", "who waits?", "--on", "shop"]
        asked = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=asking(server, surroundings)
        )
        os.close(slave)
        try:
            shown = read(master, "never shown")
            assert asked.wait(60) == 1, shown
        finally:
            asked.kill()
            os.close(master)
    assert shown.count("✗") == 1, shown
