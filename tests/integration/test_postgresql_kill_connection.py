"""kill_connection: ends exactly the session that was approved, never a stranger with its pid, never ourselves."""

from __future__ import annotations

import psycopg
import pytest

from opsagent_jupyter.errors import InvalidArguments, MissingRight, PreconditionFailed
from opsagent_jupyter.models import Risk
from tests.integration.postgresql_stage import (
    OBSERVER,
    Run,
    attached,
    eventually,
    eventually_async,
    execute,
    on_loop,
    planned,
    role,
    seed,
    transaction,
    value,
    waiting,
)


def alive(dsn, pid):
    return value(dsn, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)) == 1


@on_loop
async def test_terminating_a_blocker_frees_who_waits_for_it(database):
    """The card says whom it frees and what is lost; the report says that the session is gone and who went on."""
    seed(database)
    with (
        role(database, "GRANT ALL ON orders TO {}") as app,
        transaction(app, "UPDATE orders SET status = 'secret' WHERE id = 1") as blocker,
        waiting(database, "UPDATE orders SET status = 'y' WHERE id = 1") as waiter,
    ):
        pid = blocker.info.backend_pid
        eventually(lambda: value(database, "SELECT cardinality(pg_blocking_pids(%s)) > 0", (waiter,)))
        async with attached(database) as db:
            run = Run("kill_connection", await planned(db, "kill_connection", pid=pid))
            effect = await run.perform(db)
            probed = await run.probe(db)
        with pytest.raises(psycopg.OperationalError):
            blocker.execute("SELECT 1")
    plan = run.plan
    assert plan.risk is Risk.HIGH
    assert "1 session waits for it" in plan.size
    assert "ROW EXCLUSIVE on orders" in plan.lock
    assert any("rolled back and lost" in caution for caution in plan.cautions)
    assert "secret" not in plan.model_dump_json()
    assert plan.undo == ""
    assert plan.undo_note
    assert plan.execution == "once"
    assert effect.state == probed.state == "succeeded"
    assert f"pid {pid} is gone" in effect.summary
    assert "1 waiting session went on" in effect.summary


@on_loop
async def test_cancelling_ends_the_statement_and_keeps_the_session(database):
    """After a cancel the session is there, without its statement."""
    with role(database) as app, waiting(app, "SELECT pg_sleep(60)") as pid:
        async with attached(database) as db:
            run = Run("kill_connection", await planned(db, "kill_connection", pid=pid, mode="cancel"))
            effect = await run.perform(db)
        assert alive(database, pid)
    assert run.plan.risk is Risk.HIGH
    assert effect.state == "succeeded"
    assert f"The statement of pid {pid} is gone" in effect.summary


@on_loop
async def test_a_cancel_of_nothing_is_refused(database):
    """A session that is idle in its transaction has no statement to cancel, and the refusal says what does work."""
    with transaction(database, "SELECT 1") as idle:
        async with attached(database) as db:
            with pytest.raises(PreconditionFailed, match="no statement") as refusal:
                await planned(db, "kill_connection", pid=idle.info.backend_pid, mode="cancel")
    assert "mode=terminate" in refusal.value.hint


@on_loop
async def test_another_session_with_the_same_pid_is_not_touched(database):
    """The statement names the start of the session: for a stranger with this pid it does nothing."""
    with transaction(database, "SELECT 1") as stranger:
        pid = stranger.info.backend_pid
        async with attached(database) as db:
            plan = await planned(db, "kill_connection", pid=pid)
            start = str(plan.before["backend_start"])
            earlier = value(database, "SELECT (%s::timestamptz - interval '1 hour')::text", (start,))
            old = plan.model_copy(
                update={
                    "statements": (plan.statements[0].replace(start, earlier),),
                    "before": {**plan.before, "backend_start": earlier},
                }
            )
            effect = await Run("kill_connection", old).perform(db)
        assert stranger.execute("SELECT 1").fetchone() == (1,)
    assert effect.state == "succeeded"
    assert "had ended by itself already" in effect.summary


@on_loop
async def test_a_cancel_that_comes_late_does_not_hit_the_next_statement(database):
    """A cancel is bound to the statement that was running when it was approved."""
    second = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%second' AND state = 'active'"
    with waiting(database, "SELECT pg_sleep(1) -- first", "SELECT pg_sleep(60) -- second") as pid:
        async with attached(database) as db:
            run = Run("kill_connection", await planned(db, "kill_connection", pid=pid, mode="cancel"))
            await eventually_async(lambda: value(database, second, (pid,)) == 1)
            effect = await run.perform(db)
        assert value(database, second, (pid,)) == 1
    assert effect.state == "succeeded"
    assert "had ended by itself already" in effect.summary


@on_loop
async def test_what_the_session_does_next_changes_a_precondition(database):
    """The approval is bound to pid, start, role, database, application and statement."""
    with transaction(database, "SELECT 'first'") as session:
        async with attached(database) as db:
            first = await planned(db, "kill_connection", pid=session.info.backend_pid)
            again = await planned(db, "kill_connection", pid=session.info.backend_pid)
            session.execute("SELECT 'second'")
            second = await planned(db, "kill_connection", pid=session.info.backend_pid)
    assert set(first.preconditions) == {"pid", "backend_start", "role", "database", "application", "query"}
    assert first.preconditions == again.preconditions
    assert first.statements == again.statements
    assert first.preconditions["query"] != second.preconditions["query"]


@on_loop
async def test_superusers_and_maintenance_are_critical(database):
    """A session of a superuser, and one whose long work would be lost, need the highest level."""
    execute(database, "CREATE TABLE busy (a int)")
    with (
        transaction(database, "SELECT 1") as superuser,
        role(database, "ALTER TABLE busy OWNER TO {}") as app,
        transaction(database, "LOCK TABLE busy IN SHARE UPDATE EXCLUSIVE MODE"),
        waiting(app, "VACUUM busy") as vacuum,
    ):
        async with attached(database) as db:
            grave = await planned(db, "kill_connection", pid=superuser.info.backend_pid)
            working = await planned(db, "kill_connection", pid=vacuum, mode="cancel")
    assert grave.risk is working.risk is Risk.CRITICAL
    assert any("superuser" in reason for reason in grave.reasons)
    assert any("maintenance" in reason for reason in working.reasons)


@on_loop
async def test_our_own_sessions_and_the_servers_processes_are_refused(database):
    """Neither OpsAgent's connection nor the checkpointer is a target; a pid of nobody is said to be one."""
    checkpointer = value(database, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    async with attached(database) as db:
        (own,) = db.pids()
        with pytest.raises(PreconditionFailed, match="OpsAgent's own"):
            await planned(db, "kill_connection", pid=own)
        with pytest.raises(PreconditionFailed, match="checkpointer"):
            await planned(db, "kill_connection", pid=checkpointer)
        with pytest.raises(InvalidArguments, match="no session with pid 2147483647"):
            await planned(db, "kill_connection", pid=2**31 - 1)
        with pytest.raises(InvalidArguments):
            await planned(db, "kill_connection", pid=0)


@on_loop
async def test_rights_that_lack_are_named(database):
    """Seeing a session needs pg_read_all_stats, ending it pg_signal_backend, and a superuser's needs a superuser."""
    with role(database) as app, transaction(app, "SELECT 1") as target, transaction(database, "SELECT 1") as superuser:
        pid, above = target.info.backend_pid, superuser.info.backend_pid
        rights = []
        with role(database) as weak, role(database, *OBSERVER) as observer:
            for dsn, wanted in ((weak, pid), (observer, pid), (observer, above)):
                async with attached(dsn) as db:
                    with pytest.raises(MissingRight) as refusal:
                        await planned(db, "kill_connection", pid=wanted)
                    rights.append(refusal.value.facts["right"])
        with role(database, *OBSERVER, "GRANT pg_signal_backend TO {}") as operator:
            async with attached(operator) as db:
                effect = await Run("kill_connection", await planned(db, "kill_connection", pid=pid)).perform(db)
        await eventually_async(lambda: not alive(database, pid))
    assert rights == ["pg_read_all_stats", "pg_signal_backend", "SUPERUSER"]
    assert effect.state == "succeeded"


@on_loop
async def test_a_probe_never_claims_more_than_it_sees(database):
    """Without evidence nothing was sent; with it and the session alive the outcome stays unknown."""
    with transaction(database, "SELECT 1") as session:
        async with attached(database) as db:
            run = Run("kill_connection", await planned(db, "kill_connection", pid=session.info.backend_pid))
            unsent = await run.probe(db)
            run.evidence.update({"pid": 1, "backend_start": "2020-01-01"})
            unknown = await run.probe(db)
    assert unsent.state == "failed"
    assert unknown.state == "unknown"
