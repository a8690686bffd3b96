"""A small real plugin whose one tool makes a secret, as a tool does that creates a login."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated

from opsagent_jupyter.errors import DatabaseError, OutcomeUnknown
from opsagent_jupyter.models import Effect, Json, Plan, Risk
from opsagent_jupyter.plugin import Arg, Note, Toolbox
from tests.ledger_plugin import Ledger, LedgerPlugin

tools = Toolbox("mint", version="1")
#: What was made last, for the tests to look for.
MADE: list[str] = []


@tools.change(Risk.MEDIUM, phrases=("mint a coin",))
async def mint(db: Ledger, how: Annotated[str, Arg("ok, fail, vanish, leak")] = "ok") -> Plan:
    """Make a coin with a secret number."""
    return Plan(
        title="Mint a coin",
        statements=(f"MINT IN {db.name}",),
        risk=Risk.MEDIUM,
        reasons=("it mints",),
        lock="none",
        before={"how": how},
    )


@mint.performs
async def _perform(db: Ledger, plan: Plan, note: Note) -> Effect:
    MADE.append(f"coin-{secrets.token_hex(12)}")
    await note({"pid": 7}, secret=lambda: MADE[-1])
    how = plan.before["how"]
    if how == "fail":
        raise DatabaseError("the mint is closed", native_code="10")
    if how == "vanish":
        raise OutcomeUnknown
    if how == "leak":
        return Effect(state="succeeded", summary=f"the number is {MADE[-1]}", residue=(MADE[-1],))
    return Effect(state="succeeded", summary="a coin is there")


@mint.probes
async def _probe(db: Ledger, plan: Plan, evidence: Mapping[str, Json]) -> Effect:
    return Effect(state="unknown", summary="it cannot be told")


class MintPlugin(LedgerPlugin):
    """The plugin."""

    name = "mint"
    toolbox = tools


plugin = MintPlugin()
