"""What every door of the server asks of a request: who it is, how often they come, and whether a person is behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable

from jupyter_server.base.handlers import JupyterHandler

from opsagent_jupyter.errors import CrossSite, OpsAgentError, SessionRequired
from opsagent_jupyter.models import Actor
from opsagent_jupyter.redaction import Redactor
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.hosting import Hosting
from opsagent_jupyter.server.identity import TOKEN, actor_of, has_cookie, has_xsrf_token, in_browser, is_stable
from opsagent_jupyter.server.rates import Rates
from opsagent_jupyter.server.rights import Right
from opsagent_jupyter.server.routes import Standing

log = logging.getLogger("opsagent_jupyter")
#: Knows no secret, but what secrets look like: until there is a runtime.
_STRANGER = Redactor()


class Admission:
    """One per server; every handler has it."""

    def __init__(self, hosting: Hosting, rates: Rates, *, stable: bool | None) -> None:
        self.hosting = hosting
        self.rates = rates
        self._stable = stable

    @property
    def redact(self) -> Callable[[str], str]:
        """Strikes secrets out of a text."""
        runtime = self.hosting.opened
        return runtime.redactor.redact if runtime else _STRANGER.redact

    async def admit(self, handler: JupyterHandler) -> Actor:
        """Whom Jupyter knows behind a request, which is counted: ``TooManyRequests`` when the person's measure is full."""
        stable = is_stable(handler.identity_provider, declared=self._stable)
        # Jupyter makes up a new name for each request that comes with the token alone.
        actor = actor_of(handler.current_user, stable=stable) if stable or await has_cookie(handler) else TOKEN
        self.rates.take(actor.id)
        return actor

    async def may(self, handler: JupyterHandler, right: Right) -> bool:
        """Ask Jupyter's authorizer."""
        allowed = handler.authorizer.is_authorized(handler, handler.current_user, right.action, right.resource)
        return bool(await allowed if isawaitable(allowed) else allowed)

    async def standing(self, handler: JupyterHandler) -> Standing:
        """What whoever asks may do."""
        rights = tuple([right.resource for right in Right if await self.may(handler, right)])
        return Standing(rights, Right.APPROVE.resource in rights and await in_browser(handler))

    async def require_person(self, handler: JupyterHandler, runtime: Runtime, actor: Actor, approval: str) -> None:
        """Raise, and audit, unless a browser's login and its XSRF token stand behind a decision."""
        if not await in_browser(handler):
            await self.deny(runtime, actor, approval, SessionRequired())
        if not has_xsrf_token(handler):
            await self.deny(runtime, actor, approval, CrossSite())

    async def deny(self, runtime: Runtime, actor: Actor, approval: str, error: OpsAgentError) -> None:
        """Record an attempt to decide that was refused at the door, and raise its error."""
        event = runtime.event(
            "approval.denied", actor, status="denied", summary=error.message, error_code=error.code,
            details={"asked_for": self.redact(approval[:64])},
        )  # fmt: skip
        with suppress(OpsAgentError):  # a store that is away must not turn a refusal into something else
            await asyncio.to_thread(runtime.store.record, event)
        raise error
