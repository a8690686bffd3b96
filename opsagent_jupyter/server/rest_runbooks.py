"""REST: how runs of runbooks go, and the signatures by which their steps run without asking."""

from __future__ import annotations

import asyncio

from pydantic import Field

from opsagent_jupyter.errors import NotAllowedToSign, VettingUnknown, VettingVoid
from opsagent_jupyter.models import Record
from opsagent_jupyter.runbooks import signing
from opsagent_jupyter.server.bodies import Id
from opsagent_jupyter.server.paging import Page
from opsagent_jupyter.server.rights import Right
from opsagent_jupyter.server.routes import Asked, Nothing, Routes
from opsagent_jupyter.vetting import StepRecord, Vetting

routes = Routes()


class StepQuery(Record):
    """Which steps: of a run, of a runbook, or of all."""

    runbook: Id = ""
    run: Id = ""
    limit: int = Field(default=500, ge=1, le=1000, description="The newest so many.")


class SignatureQuery(Record):
    """Which signatures: of a runbook, or of all."""

    runbook: Id = ""
    limit: int = Field(default=100, ge=1, le=1000, description="The newest so many.")


class Revocation(Record):
    """Why a signature is taken back."""

    reason: str = Field(default="", max_length=2_000)


@routes.get("runbooks/steps")
async def list_runbook_steps(asked: Asked[StepQuery, Nothing]) -> Page[StepRecord]:
    """How the newest steps of runbooks stand, in the order in which they were asked for."""
    query = asked.query
    found = await asyncio.to_thread(asked.runtime.store.runbook_steps, query.runbook, query.run, query.limit)
    return Page(items=tuple(found))


@routes.get("runbooks/signatures")
async def list_signatures(asked: Asked[SignatureQuery, Nothing]) -> Page[Vetting]:
    """The signatures of runbooks, newest first, those that were taken back among them."""
    found = await asyncio.to_thread(asked.runtime.store.vettings, asked.query.runbook, asked.query.limit)
    return Page(items=tuple(map(told, found)))


def told(vetting: Vetting) -> Vetting:
    """A signature without its seal, which is of use to this installation only."""
    return vetting.model_copy(update={"seal": ""})


@routes.post("runbooks/signatures/{id}/revoke", VettingUnknown, VettingVoid, NotAllowedToSign, right=Right.APPROVE)
async def revoke_signature(asked: Asked[Nothing, Revocation]) -> Vetting:
    """Take a signature back; the runbook's steps ask again."""
    given = (asked.runtime, asked.actor, asked.path["id"], asked.body.reason)
    return told(await asyncio.to_thread(signing.revoke, *given))
