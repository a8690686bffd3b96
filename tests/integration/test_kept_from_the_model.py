"""Each database says what a model may know of it: on a real PostgreSQL, from the attaching to what the model reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from opsagent_jupyter.api import OpsAgent
from opsagent_jupyter.testing.models import Line, ScriptedModel
from tests.integration.postgresql_stage import execute, seed

STATEMENT = "SELECT * FROM customers WHERE name = 'Erika Mustermann' AND region = 'r3'"


@pytest.fixture
def store(store_url: str) -> Iterator[OpsAgent]:
    with OpsAgent(store_url) as ops:
        yield ops


def conversed(ops: OpsAgent, tool: str, arguments: dict[str, Any]) -> tuple[ScriptedModel, Any]:
    """A model that makes one call and then answers, with all that it was given to read, and the turn."""
    model = ScriptedModel(Line("Looking.", calls=((tool, arguments),)), Line("That is it."))
    ops.runtime.open_model = lambda *_: model  # type: ignore[method-assign]
    turn = ops.ask("look", session=ops.new_session("shop").id)
    assert turn.text
    return model, turn


def answers(model: ScriptedModel) -> str:
    """What tools have told the model."""
    return "\n".join(str(message.content) for message in model.read[-1] if message.type == "tool")


def test_values_of_a_masked_column_do_not_reach_the_model_and_the_notebook_has_them(
    store: OpsAgent, database18: str
) -> None:
    """Not from a plan's filter, nor from the statement; the other literal stays as readable as a plan needs it."""
    seed(database18)
    store.attach("postgresql", "shop", server="demo", environment="production", dsn=database18, mask=["customers.name"])
    model, turn = conversed(store, "postgresql_explain_query", {"sql": STATEMENT})
    assert "Seq Scan" in answers(model)
    assert "Mustermann" not in answers(model)
    assert "Mustermann" in str(turn.calls[0].record.result)


def test_without_a_mask_the_same_model_reads_the_same_values(store: OpsAgent, database18: str) -> None:
    """The control."""
    seed(database18)
    store.attach("postgresql", "shop", server="demo", environment="production", dsn=database18)
    model, _ = conversed(store, "postgresql_explain_query", {"sql": STATEMENT})
    assert "Mustermann" in answers(model)


def test_no_row_reaches_the_model_where_the_instance_says_so(store: OpsAgent, database18: str) -> None:
    """It reads how many there are and where a person finds them, which works."""
    seed(database18)
    execute(database18, "CREATE INDEX idx_of_a_secret_project ON orders (total)")
    store.attach("postgresql", "shop", server="demo", environment="production", dsn=database18, no_rows=True)
    model, turn = conversed(store, "postgresql_list_indexes", {"table": "orders"})
    call = turn.calls[0]
    assert "secret_project" not in answers(model)
    assert f'_ops.result(\\"{call.record.id}\\")' in answers(model)
    assert "idx_of_a_secret_project" in store.result(call.record.id).to_string()


def test_a_long_result_is_cut_for_the_model_and_whole_behind_its_handle(store: OpsAgent, database18: str) -> None:
    """Fifty rows at most, the cut is named, and the handle gives a DataFrame of all that the notebook keeps."""
    seed(database18)
    execute(database18, *(f"CREATE INDEX made_{number:03} ON orders (id, total)" for number in range(70)))
    store.attach("postgresql", "shop", server="demo", environment="production", dsn=database18)
    model, turn = conversed(store, "postgresql_list_indexes", {"table": "orders"})
    call, text = turn.calls[0], answers(model)
    whole = store.result(call.record.id)
    assert len(whole) > 70
    assert f"of {len(whole)} rows" in text
    assert f'_ops.result(\\"{call.record.id}\\")' in text
    assert sum(f"made_{number:03}" in text for number in range(70)) < 60


def test_a_model_gets_the_tools_of_what_is_attached_and_no_others(store: OpsAgent, database18: str) -> None:
    """MongoDB is installed here, and nothing of it is attached."""
    store.attach("postgresql", "shop", server="demo", environment="production", dsn=database18)
    model, _ = conversed(store, "postgresql_get_locks", {})
    declared = {tool["function"]["name"] for tool in model.declared}
    assert len(declared) >= 17
    assert {name.partition("_")[0] for name in declared} == {"postgresql"}
