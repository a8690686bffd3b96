"""The offline model over both databases, follow-ups included: at least 95 % right, and no change taken wrongly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from opsagent_jupyter.agent.dialogue import ABOUT, ACCURACY
from opsagent_jupyter.demo.mongod import EmbeddedMongod
from opsagent_jupyter.demo.postgres import EmbeddedPostgres
from opsagent_jupyter.models import Json, without_nulls
from tests import postgres
from tests.integration import postgresql_stage
from tests.offline_shop import cases
from tests.offline_stage import CHANGING, QUIET, Conversation, Stage, Turn, blocker, scene, settled, staged

Case = dict[str, Any]
Verdict = tuple[Case, Turn, bool, bool]
"""The case, what it led to, whether that is right, and whether a change was taken wrongly."""


@pytest.fixture(scope="module")
def verdicts(pg18: EmbeddedPostgres, mongo: EmbeddedMongod) -> dict[str, list[Verdict]]:
    """Every case of the files, in its scene, on the real servers."""
    return asyncio.run(judged(pg18, mongo, ["phrasings_150", "phrasings_40"]))


async def judged(pg: EmbeddedPostgres, mongod: EmbeddedMongod, files: list[str]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {name: [] for name in files}
    held = [(name, case) for name in files for case in cases(name)["phrasings"]]
    async with staged(pg, mongod) as stage:
        for place in dict.fromkeys(scene_of(case) for _, case in held):
            with scene(stage, place):
                if place in {"", "two operations"}:
                    await settled()
                for name, case in held:
                    if scene_of(case) == place:
                        found[name].append(await verdict(stage, case))
    return found


def scene_of(case: Case) -> str:
    """Changes that are carried out need servers on which nobody blocks them."""
    return QUIET if any(not isinstance(before, str) for before in case.get("before", ())) else case.get("scene", "")


async def verdict(stage: Stage, case: Case) -> Verdict:
    talk = Conversation(stage, case["on"])
    for before in case.get("before", ()):
        await (talk.say(before) if isinstance(before, str) else talk.decide(before["decide"]))
    turn = await talk.say(case["text"])
    looked = any(call.answer and call.answer.result for exchange in talk.exchanges for call in exchange.calls)
    if "$f" in f"{case.get('args', '')}{case.get('about', '')}" and not looked:
        return case, turn, False, any(call.tool.full_name in CHANGING for call in turn.calls)
    fine, astray = right(case, turn, talk, stage), stray(case, turn, talk, stage)
    if scene_of(case) == QUIET:
        stage.restore()
    return case, turn, fine, astray


def wrong(verdicts: list[Verdict]) -> list[str]:
    """What was not right, for a person to read."""
    return [f"{case['on']} {case.get('before', '')} {case['text']!r}: {turn.text[:80]!r}"
            for case, turn, fine, _ in verdicts if not fine]  # fmt: skip


def test_at_least_95_in_100_of_the_requests_it_was_tuned_with_are_right(verdicts: dict[str, list[Verdict]]) -> None:
    """150 over both databases, 58 of them follow-ups, written down before the router was tuned for them."""
    missed = wrong(verdicts["phrasings_150"])
    assert len(verdicts["phrasings_150"]) == 150
    assert len(missed) <= 7, missed


def test_requests_written_after_the_tuning_are_as_right_as_on_first_sight(verdicts: dict[str, list[Verdict]]) -> None:
    """The honest figure: it may not fall."""
    first = cases("phrasings_40")["first_run"]
    missed = wrong(verdicts["phrasings_40"])
    assert len(verdicts["phrasings_40"]) == first["of"] == 40
    assert len(missed) <= first["of"] - first["right"], missed


def test_no_request_leads_to_a_change_that_was_not_asked_for(verdicts: dict[str, list[Verdict]]) -> None:
    """Not the tool, not the target, not one more argument: of none of the 190."""
    assert [case["text"] for each in verdicts.values() for case, _, _, astray in each if astray] == []


def test_the_accuracy_is_published_as_it_was_measured() -> None:
    """In what the model says of itself; the figures stand in the files of the requests."""
    tuned, fresh = cases("phrasings_150"), cases("phrasings_40")["first_run"]
    assert f"of {len(tuned['phrasings'])} written requests" in ACCURACY
    assert "at least 95 in 100" in ACCURACY
    assert f"of {fresh['of']} written after it was tuned it got {fresh['right']} on first sight" in ACCURACY
    assert fresh["changes_taken_wrongly"] == 0
    assert ACCURACY in ABOUT


def test_the_blocker_that_was_asked_for_is_the_one_that_is_ended(pg18: EmbeddedPostgres) -> None:
    """Found by the words, planned and carried out by the tool: who waited goes on, and nobody else is ended."""
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"

    async def run() -> None:
        with postgres.new_database(pg18) as dsn:
            postgresql_stage.execute(dsn, "CREATE TABLE t (id int)", "INSERT INTO t VALUES (1)")
            with blocker(dsn, "UPDATE t SET id = 2") as pid, postgresql_stage.transaction(dsn, "SELECT 1") as bystander:
                async with postgresql_stage.attached(dsn) as db:
                    talk = Conversation(Stage({"shop": db}, dsn, ""), "postgresql")
                    await talk.say("who is blocking whom?")
                    [*_, wanted] = (await talk.say("kill the blocker")).calls
                    effect = await postgresql_stage.performed(db, wanted.tool.name, **wanted.arguments)
                assert effect.state == "succeeded"
                assert postgresql_stage.value(dsn, alive, (pid,)) == 0
                assert postgresql_stage.value(dsn, alive, (bystander.info.backend_pid,)) == 1
                postgresql_stage.eventually(lambda: postgresql_stage.value(dsn, "SELECT id FROM t") == 2)

    asyncio.run(run())


# -- judging


def wanted(case: Case, talk: Conversation, stage: Stage) -> list[tuple[str, dict[str, Json] | None]]:
    """What is right, each with its arguments; words with $ filled in from the scene."""
    expected = case["expect"] if isinstance(case["expect"], list) else [case["expect"]]
    if expected == ["$fix1"]:
        number = findings(talk)[0]["fix"]
        fix = diagnosis(talk).suggestions[number - 1] if number else None
        return [(fix.tool, dict(fix.arguments))] if fix else [("explains", None)]
    values = {key: filled(value, talk, stage) for key, value in case["args"].items()} if "args" in case else None
    return [(full_name(tool, case["on"]), values) for tool in expected]


def full_name(tool: str, on: str) -> str:
    return tool if "." in tool or tool in {"asks", "explains", "refuses"} else f"{on}.{tool}"


def filled(value: Any, talk: Conversation, stage: Stage) -> Any:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value == "$created":
        return "orders_customer_id_idx"
    if value.startswith("$query"):
        statements = next(
            table for table in last_result(talk).tables if "query id" in table.columns or "query_id" in table.columns
        )
        place = next(n for n, name in enumerate(statements.columns) if name in {"query id", "query_id"})
        return str(statements.rows[int(value[-1]) - 1][place])
    return stage.facts[value[1:]]


def last_result(talk: Conversation) -> Any:
    answered = [call for exchange in talk.exchanges for call in exchange.calls if call.answer and call.answer.result]
    return answered[0].answer.result


def diagnosis(talk: Conversation) -> Any:
    return last_result(talk)


def findings(talk: Conversation) -> list[dict[str, Any]]:
    table = next(table for table in diagnosis(talk).tables if table.name == "findings")
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def right(case: Case, turn: Turn, talk: Conversation, stage: Stage) -> bool:
    for tool, arguments in wanted(case, talk, stage):
        if tool in {"asks", "refuses"}:
            fine = not turn.calls and (turn.reply.asks or turn.text.rstrip().endswith("?")) == (tool == "asks")
        elif tool == "explains":
            fine = not turn.calls and told(case, turn, talk)
        else:
            fine = len(turn.calls) >= 1 and any(same(call, tool, arguments) for call in turn.calls)
        if fine:
            return True
    return False


def told(case: Case, turn: Turn, talk: Conversation) -> bool:
    about = case.get("about", "")
    if about.startswith("$finding"):
        finding = findings(talk)[int(about[-1]) - 1]
        others = [each for each in findings(talk) if each["finding"] != finding["finding"]]
        return str(finding["subject"]) in turn.text and not any(str(o["finding"]) in turn.text for o in others)
    return about.replace("_", " ") in turn.text.replace("_", " ") if about else not turn.reply.asks


def same(call: Any, tool: str, arguments: dict[str, Json] | None) -> bool:
    """Whether it is this call; of a change no argument may be other than what was said."""
    if call.tool.full_name != tool or arguments is None:
        return bool(call.tool.full_name == tool)
    given = call.tool.parse(call.arguments).model_dump(mode="json")
    if call.tool.changes:
        return bool(given == call.tool.parse(arguments).model_dump(mode="json"))
    meant = call.tool.parse({**call.arguments, **arguments}).model_dump(mode="json")
    fixed = {key: value for key, value in without_nulls(given).items() if key in arguments}
    return fixed == {key: meant[key] for key in arguments} and (bool(arguments) or not call.arguments)


def stray(case: Case, turn: Turn, talk: Conversation, stage: Stage) -> bool:
    """Whether a change was asked for that the person did not want exactly so."""
    changes = [call for call in turn.calls if call.tool.full_name in CHANGING]
    meant = wanted(case, talk, stage)
    return any(not any(same(call, tool, arguments) for tool, arguments in meant) for call in changes)
