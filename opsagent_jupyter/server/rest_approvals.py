"""REST: the approval requests, and a person's decisions on them."""

from __future__ import annotations

import asyncio

from opsagent_jupyter import executor
from opsagent_jupyter.errors import (
    AlreadyDecided,
    IllegalTransition,
    NotAllowedToDecide,
    NotAsShown,
    ReasonRequired,
    UnknownApproval,
)
from opsagent_jupyter.lifecycle import OPEN, ApprovalState
from opsagent_jupyter.models import Approval
from opsagent_jupyter.server.bodies import ApprovalQuery, Decision, Outcome
from opsagent_jupyter.server.paging import Page, page_of, place_of
from opsagent_jupyter.server.rights import Right
from opsagent_jupyter.server.routes import Asked, Nothing, Routes

routes = Routes()
DENIALS = (UnknownApproval, AlreadyDecided, IllegalTransition, NotAllowedToDecide, NotAsShown, ReasonRequired)


@routes.get("approvals")
async def list_approvals(asked: Asked[ApprovalQuery, Nothing]) -> Page[Approval]:
    """The approval requests, newest first; those that are open, unless another state is asked for."""
    query = asked.query
    found = await asyncio.to_thread(
        asked.runtime.store.approvals,
        states=states_of(query.state),
        session=query.session,
        limit=query.limit + 1,
        after=place_of(query.cursor),
    )
    return page_of(found, query.limit, "created_at", "id")


def states_of(word: str) -> tuple[ApprovalState, ...]:
    """The states that a word stands for."""
    if word == "all":
        return ()
    return tuple(state for state in ApprovalState if state in OPEN) if word == "open" else (ApprovalState(word),)


@routes.get("approvals/{id}", UnknownApproval)
async def get_approval(asked: Asked[Nothing, Nothing]) -> Approval:
    """A request by id, as it stands."""
    return await asyncio.to_thread(asked.runtime.store.approval, asked.path["id"])


@routes.post("approvals/{id}/approve", *DENIALS, right=Right.APPROVE)
async def approve(asked: Asked[Nothing, Decision]) -> Approval:
    """Approve what the screen showed; a host that holds the credentials then runs it."""
    return await decided(asked, "approve")


@routes.post("approvals/{id}/reject", *DENIALS, right=Right.APPROVE)
async def reject(asked: Asked[Nothing, Decision]) -> Approval:
    """Reject a request; it can never run."""
    return await decided(asked, "reject")


@routes.post("approvals/{id}/revoke", *DENIALS, right=Right.APPROVE)
async def revoke(asked: Asked[Nothing, Decision]) -> Approval:
    """Take back an approval that has not started."""
    return await decided(asked, "revoke")


@routes.post("approvals/{id}/withdraw", *DENIALS)
async def withdraw(asked: Asked[Nothing, Decision]) -> Approval:
    """Take back a request of one's own that has not started."""
    return await decided(asked, "withdraw")


async def decided(asked: Asked[Nothing, Decision], decision: executor.Decision) -> Approval:
    """The request after a decision; who was first, when somebody else was."""
    body = asked.body
    return await asked.runtime.decide(
        asked.path["id"], decision, asked.actor, digest=body.digest, reason=body.reason, version=body.version
    )


@routes.post("approvals/{id}/resolve", UnknownApproval, AlreadyDecided, ReasonRequired, right=Right.APPROVE)
async def resolve(asked: Asked[Nothing, Outcome]) -> Approval:
    """Record what a person found out about a call whose outcome is unknown."""
    return await asked.runtime.executor.resolve(asked.path["id"], asked.body.state, asked.actor, asked.body.reason)
