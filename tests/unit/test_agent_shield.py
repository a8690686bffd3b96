"""What an instance keeps from language models reaches none: not in rows, not in words, not in a later turn."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import pytest

from opsagent_jupyter.agent import loop
from opsagent_jupyter.agent.shield import Shield
from opsagent_jupyter.agent.transcript import read_answer, tool_text
from opsagent_jupyter.api import shielding
from opsagent_jupyter.errors import ConfigError, PreconditionFailed
from opsagent_jupyter.models import CallRecord, Effect, Instance, Message, Result, Risk, Suggestion, Table
from opsagent_jupyter.plugin import Arg, Toolbox
from opsagent_jupyter.testing.models import Line, ScriptedModel

toolbox = Toolbox("postgresql", version="1")
PEOPLE = ("bob@example.org", "eve@example.net", "4929123456781234")


@toolbox.read(phrases=("show the customers of {table}",))
async def show_customers(db: Any, table: Annotated[str, Arg("table name", slot="table")] = "") -> Result:
    """Show customers."""
    raise AssertionError("the gate of this test answers")


def shop(*mask: str, no_rows: bool = False) -> Instance:
    return Instance(name="shop", server="demo", plugin="postgresql", settings=shielding(mask, no_rows=no_rows))


def leaky() -> Result:
    """A result that tells the masked values everywhere that a result can."""
    bob, eve, card = PEOPLE
    rows = ((1, bob, card, {"Email": eve}), (2, eve, None, {"email": [bob]}))
    return Result(
        summary=f"2 customers, the first is {bob}",
        highlights=(f"{eve} never paid",),
        notes=(f"the card {card} is declined",),
        tree=f"Seq Scan on customers\n  Filter: (email = '{bob}'::text)\n  rows=100",
        figures={"largest": bob, "email": eve, "nested": {"Email": [eve]}},
        tables=(Table(name="customers", columns=("id", "email", "card_no", "document"), rows=rows, total=2),),
        suggestions=(
            Suggestion(tool="postgresql.show_customers", arguments={"table": bob}, why="look"),
            Suggestion(tool="postgresql.show_customers", arguments={"table": "customers"}, why="all of them"),
        ),
    )


def called(**values: Any) -> CallRecord:
    known: dict[str, Any] = {"id": "m_0", "tool": "postgresql.show_customers", "arguments": {}, "instance": "shop"}
    return CallRecord(**{**known, "risk": Risk.LOW, "status": "succeeded", **values})


def turn(model: ScriptedModel, instance: Instance, answer: Any, *transcript: Message) -> list[loop.AgentEvent]:
    async def dispatch(request: loop.ToolRequest) -> CallRecord:
        if isinstance(answer, Exception):
            raise answer
        found: CallRecord = answer.model_copy(update={"id": request.id})
        return found

    async def collect() -> list[loop.AgentEvent]:
        said = [Message(session="s", seq=1, role="user", text="show the customers")]
        tools = tuple(toolbox.tools.values())
        told = [*transcript, *said]
        return [
            event
            async for event in loop.run(
                model=model, tools=tools, instances=(instance,), focus="shop", transcript=told, dispatch=dispatch
            )
        ]

    return asyncio.run(collect())


def read_by(model: ScriptedModel) -> str:
    """Everything that a model was ever given, in one text."""
    return "\n".join(f"{message.content} {message.additional_kwargs}" for read in model.read for message in read)


CALL = Line(calls=(("postgresql_show_customers", {"table": "customers"}),))


@pytest.mark.parametrize(
    "instance", [shop("customers.email", "customers.card_no"), shop(no_rows=True)], ids=["mask", "rows"]
)
def test_a_model_never_reads_what_is_kept_from_it(instance: Instance) -> None:
    """Rows, documents, summary, points, notes, plan, figures, suggestions: nothing of it arrives."""
    model = ScriptedModel(CALL, Line("Two customers."))
    effect = Effect(state="succeeded", summary=f"moved {PEOPLE[0]}", figures={"email": PEOPLE[1]}, result=leaky())
    turn(model, instance, called(result=leaky(), effect=effect, summary=f"moved {PEOPLE[2]}"))
    text = read_by(model)
    assert "customers" in text
    assert len(model.read) == 2
    for value in PEOPLE:
        assert value not in text


def test_without_a_shield_the_same_model_reads_all_of_it() -> None:
    """The control: the test above can fail."""
    model = ScriptedModel(CALL, Line("Two customers."))
    turn(model, shop(), called(result=leaky()))
    assert all(value in read_by(model) for value in PEOPLE)


def test_what_is_not_masked_is_still_read() -> None:
    """Other columns, counts, and the plan's own numbers."""
    shielded = tool_text(called(result=leaky()), shield=Shield.of(shop("customers.email", "card_no")))
    found = read_answer(shielded)
    assert found is not None
    assert found.result is not None
    assert [row[0] for row in found.result.tables[0].rows] == [1, 2]
    assert "rows=100" in found.result.tree
    assert [one.arguments for one in found.result.suggestions] == [{"table": "customers"}]


def test_rows_that_are_kept_away_are_named_with_where_they_are() -> None:
    """The model can say how many there are, and how to see them."""
    told = tool_text(called(result=leaky()), shield=Shield.of(shop(no_rows=True)))
    assert "kept from language models" in told
    assert '"total":2' in told
    assert "_ops.result" in told


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM customers WHERE email = 'bob@example.org' AND id < 5",
        "select id from customers where lower(email) in ('bob@example.org', 'eve@example.net')",
        "UPDATE customers SET email='bob@example.org' WHERE id = 3",
        "INSERT INTO customers VALUES (7, 'bob@example.org')",
        "Key (email)=(bob@example.org) already exists.",
        'find customers {"email": "bob@example.org"}',
        "SELECT $x$bob@example.org$x$",
        "SELECT 1 FROM customers WHERE email = 'the late bob@example.org' AND name = 'eve@example.net of x'",
        "It doesn't find email = 'bob@example.org'",
        "SELECT 1 FROM customers WHERE email = E'it\\'s bob@example.org'",
        "SELECT 1 FROM customers WHERE email IN ('a)', 'bob@example.org')",
        "SELECT 1 FROM customers WHERE email='bob@example.org' OR customers.email='it''s eve@example.net'",
        "Key (email, id)=(bob@example.org, 5) already exists.",
        "Key (id, email)=(5, bob@example.org) already exists.",
        "INSERT INTO customers (id, email) VALUES (1, bob@example.org), (2, eve@example.net)",
        "email BETWEEN bob@example.org AND eve@example.net",
        "Filter: (bob@example.org = customers.email)",
        'find customers {"email": "a \\" quote, bob@example.org"}',
        "SELECT 1 WHERE email = 'bob@example.org, cut",
    ],
)
def test_statements_and_messages_lose_their_literals(text: str) -> None:
    """Values that no row of the answer shows: in the text of a query, a plan or an error."""
    shield = Shield.of(shop("customers.email"))
    table = Table(name="activity", columns=("pid", "query"), rows=((12, text),), total=1)
    told = tool_text(called(result=Result(summary=text, tables=(table,)), summary=text), shield=shield)
    assert "bob@" not in told
    assert "eve@" not in told


def test_what_is_compared_with_other_columns_stays_readable() -> None:
    """A plan without its numbers and operators would be of no use."""
    shield = Shield.of(shop("customers.email"))
    plan = "Filter: ((email = 'bob'::text) AND (id < 500)), rows=100 cost=0.29..8.31"
    assert shield.text(plan) == "Filter: ((email = ***::text) AND (id < 500)), rows=100 cost=0.29..8.31"
    assert shield.text("Seq Scan on customers, rows=100") == "Seq Scan on customers, rows=100"


@pytest.mark.parametrize(
    "hostile", ["email = (" + "''" * 8000 + "(", "x" * 16_000, "(" * 16_000, "'" * 15_999, "email " * 2000]
)
def test_no_text_of_a_database_makes_the_shield_slow(hostile: str) -> None:
    """A search that tries every way to read it would not end in this test's life."""
    assert len(Shield.of(shop("customers.email")).text(hostile)) <= len(hostile) + 3


def test_a_refusal_that_is_raised_is_shielded_as_well() -> None:
    """An error's text is a way like any other."""
    model = ScriptedModel(CALL, Line("I see."))
    turn(model, shop("customers.email"), PreconditionFailed("Key (email)=(bob@example.org) already exists."))
    assert "already exists" in read_by(model)
    assert "bob@" not in read_by(model)


def test_what_was_read_openly_before_is_not_sent_again_once_it_is_masked() -> None:
    """A database that is attached anew with a mask: the answers in the transcript are written anew for the model."""
    open_ = called(result=leaky())
    before = [
        Message(session="s", seq=1, role="user", text="who?"),
        Message(
            session="s",
            seq=2,
            role="assistant",
            calls=(open_.model_copy(update={"result": None, "status": "running"}),),
        ),
        Message(session="s", seq=3, role="tool", call="m_0", text=tool_text(open_), calls=(open_,)),
        Message(session="s", seq=4, role="assistant", text="Two."),
    ]
    model = ScriptedModel(Line("Two, as I said."))
    turn(model, shop("customers.email", "card_no"), open_, *before)
    assert "2 customers" in read_by(model)
    assert all(value not in read_by(model) for value in PEOPLE)


def test_the_notebook_and_the_store_keep_the_answer_whole() -> None:
    """The shield makes another record; it changes none."""
    record = called(result=leaky())
    shielded = Shield.of(shop("customers.email")).over(record)
    assert record.result == leaky()
    assert PEOPLE[0] not in json.dumps(shielded.model_dump(mode="json"))


@pytest.mark.parametrize("name", ["a b", "customers..email", "; drop"])
def test_what_is_no_column_is_refused_when_attaching(name: str) -> None:
    """A mask that masks nothing would be a promise that is not kept."""
    with pytest.raises(ConfigError):
        shielding([name], no_rows=False)
