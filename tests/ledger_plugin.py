"""A small real plugin: marks in a SQLite file. It keeps the contract whole, and its effects can be counted from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from opsagent_jupyter.errors import DatabaseError, MalformedDsn, OutcomeUnknown, PreconditionFailed
from opsagent_jupyter.models import Assessment, Catalog, Effect, Health, Json, Plan, Result, Risk, Table
from opsagent_jupyter.plugin import Arg, Limits, Note, Toolbox
from opsagent_jupyter.stores.sqlite_library import sqlite3

tools = Toolbox("ledger", version="1")


class Ledger:
    """A connection to a ledger file."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        with self.open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS mark (text TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)")
            db.execute("CREATE TABLE IF NOT EXISTS era (number INT)")

    def open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)

    def texts(self) -> list[str]:
        db = self.open()
        try:
            return [row[0] for row in db.execute("SELECT text FROM mark")]
        finally:
            db.close()

    def era(self) -> int:
        db = self.open()
        try:
            return int(db.execute("SELECT count(*) FROM era").fetchone()[0])
        finally:
            db.close()

    async def identity(self) -> dict[str, Json]:
        return {"path": self.path}

    async def health(self) -> Health:
        return Health(instance=self.name, ok=True, milliseconds=0.1, version="1", summary="the ledger opens")

    async def catalog(self) -> Catalog:
        return Catalog(names={"mark": tuple(self.texts())})

    async def close(self) -> None:
        """Nothing is kept open."""


@tools.read(phrases=("list the marks", "show marks"), keywords=("marks",))
async def list_marks(db: Ledger, delay: Annotated[float, Arg("seconds to think first")] = 0.0) -> Result:
    """List the marks."""
    await asyncio.sleep(delay)
    texts = db.texts()
    rows = tuple((text,) for text in texts)
    return Result(
        summary=f"{len(texts)} marks", tables=(Table(name="marks", columns=("text",), rows=rows, total=len(texts)),)
    )


@tools.read(phrases=("count the marks with care",))
async def audit_marks(db: Ledger, deep: Annotated[bool, Arg("look at every mark")] = False) -> Result:
    """Count the marks; deep counting needs a person."""
    return Result(summary=f"{len(db.texts())} marks counted{' deeply' if deep else ''}")


@audit_marks.assesses
def _(arguments: object) -> Assessment:
    if getattr(arguments, "deep", False):
        return Assessment(risk=Risk.MEDIUM, reasons=("it reads everything",))
    return Assessment(risk=Risk.LOW)


@tools.change(Risk.MEDIUM, phrases=("add a mark {text}",), keywords=("add",))
async def add_mark(
    db: Ledger,
    text: Annotated[str, Arg("what to write", slot="word")],
    how: Annotated[str, Arg("ok, fail, vanish, slow, hang, break")] = "ok",
    count: Annotated[int, Arg("how often")] = 1,
) -> Plan:
    """Write a mark into the ledger."""
    if text == "forbidden":
        raise PreconditionFailed("This mark cannot be written.", hint="Write another one.")
    return Plan(
        title=f"Add the mark {text}",
        statements=(f"INSERT INTO mark (text) VALUES ('{text}')",) * count,
        risk=Risk.CRITICAL if text.startswith("!") else Risk.MEDIUM,
        reasons=("it writes",),
        lock="the file, for a moment",
        undo=f"DELETE FROM mark WHERE text = '{text}'",
        preconditions={"era": db.era()},
        before={"how": how, "text": text},
    )


@add_mark.performs
async def _perform(db: Ledger, plan: Plan, note: Note) -> Effect:
    how = plan.before["how"]
    if how == "fail":
        raise DatabaseError("disk I/O error", native_code="10")
    await note({"path": db.path})
    if how == "vanish":
        raise OutcomeUnknown
    if how == "break":
        raise ZeroDivisionError("a secret number")
    if how in ("slow", "hang"):
        await asyncio.sleep(2 if how == "slow" else 60)
    connection = db.open()
    try:
        for statement in plan.statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()
    if plan.before["text"] not in db.texts():
        return Effect(state="failed", summary="the mark is not there")
    return Effect(state="succeeded", summary=f"the mark {plan.before['text']} is there")


@add_mark.probes
async def _probe(db: Ledger, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    if str(plan.before["how"]) in ("vanish", "break") and not evidence.get("final"):
        return Effect(state="unknown", summary="it cannot be told")
    if plan.before["text"] in db.texts():
        return Effect(state="succeeded", summary="the mark is there")
    return Effect(state="failed", summary="the mark is not there; nothing was left behind")


class LedgerPlugin:
    """The plugin."""

    name = "ledger"
    version = "1"
    extra = ""
    toolbox = tools

    def describe(self, secret: str) -> dict[str, Json]:
        if "://" in secret:
            raise MalformedDsn("A ledger is a file.", hint="Give a path.")
        return {"database": Path(secret).name}

    def redactions(self, secret: str) -> tuple[str, ...]:  # noqa: ARG002  # the contract
        return ()

    async def connect(self, name: str, secret: str, limits: Limits) -> Ledger:  # noqa: ARG002  # the contract
        return Ledger(name, secret)


plugin = LedgerPlugin()
