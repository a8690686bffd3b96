"""REST on tornado: lets a request in by right, rate and size, hands it to the runtime's loop, and writes the answer."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from pydantic import BaseModel, ValidationError
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from opsagent_jupyter import errors
from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.protocol import plain
from opsagent_jupyter.server.admission import Admission
from opsagent_jupyter.server.rights import Right
from opsagent_jupyter.server.routes import Asked, File, Nothing, Route
from opsagent_jupyter.server.statuses import status_of

log = logging.getLogger("opsagent_jupyter")
M = TypeVar("M", bound=BaseModel)

#: Bytes of a request's body.
LARGEST_BODY = 256 * 1024
#: Bytes of a file that are sent at a time.
PIECE = 256 * 1024
#: Parameters that Jupyter and its front end put into any query.
FOREIGN = ("token", "_xsrf", "no_track_activity")


class Answering(APIHandler):
    """A request's way in and out; every fault leaves as ``{code, message, hint}``."""

    SUPPORTED_METHODS = ("GET", "POST", "DELETE", "OPTIONS")

    def initialize(self, admission: Admission) -> None:
        self.admission = admission

    def say(self, value: BaseModel, status: int = HTTPStatus.OK) -> None:
        """Write an answer."""
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(plain(value), ensure_ascii=False))

    async def send(self, file: File) -> None:
        """Write a file in pieces, each when the one before has left, and delete it."""
        self.set_header("Content-Type", file.media_type)
        self.set_header("Content-Disposition", f'attachment; filename="{file.name}"')
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-OpsAgent-Rows", str(file.rows))
        self.set_header("X-OpsAgent-Cut", "true" if file.cut else "false")
        try:
            with file.place.open("rb") as content, suppress(StreamClosedError):
                while piece := await asyncio.to_thread(content.read, PIECE):
                    self.write(piece)
                    await self.flush()
        finally:
            await asyncio.to_thread(shutil.rmtree, file.place.parent, ignore_errors=True)
        self.finish(set_content_type=file.media_type)

    def fail(self, error: OpsAgentError) -> None:
        """Write what went wrong."""
        self.set_status(status_of(type(error)))
        self.set_header("Cache-Control", "no-store")
        if isinstance(error, errors.TooManyRequests):
            self.set_header("Retry-After", str(int(error.seconds) + 1))
        redact = self.admission.redact
        fault = {"code": error.code, "message": redact(error.message), "hint": redact(error.hint)}
        self.finish(json.dumps(fault, ensure_ascii=False))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what tornado or Jupyter refused, in our words."""
        self.fail(self._refusal(status_code, kwargs.get("exc_info")))

    def _refusal(self, status: int, trace: Any) -> OpsAgentError:
        cause = trace[1] if trace else None
        said = str(cause.log_message or "") if isinstance(cause, HTTPError) else ""
        match status:
            case 403 if not getattr(self, "_jupyter_current_user", None):
                return errors.NotAuthenticated()
            case 403 if "_xsrf" in said or "XSRF" in said or "rigin" in said:
                return errors.CrossSite()
            case 403:
                return errors.NotAuthorized()
            case 404:
                return errors.CrossSite() if cause is not None and not self.check_origin() else errors.UnknownRoute()
            case 405:
                return errors.MethodNotAllowed()
            case _ if status < 500:
                return errors.InvalidRequest()
            case _:
                kind = f" ({type(cause).__name__})" if cause is not None else ""
                return OpsAgentError(f"OpsAgent failed inside{kind}; the log of the Jupyter server says where.")


class Endpoint(Answering):
    """One path with its routes by method."""

    routes: ClassVar[dict[str, Route]] = {}

    async def answered(self, route: Route, path: dict[str, str]) -> None:
        """Let the request in and answer it."""
        try:
            actor = await self.admission.admit(self)
            asked = Asked(actor, path, self._query(route.query), self._read(route.body))
            act = self._tell if route.about else self._carry_out
            answer = await act(route, asked)
            if isinstance(answer, File):
                await self.send(answer)
            else:
                self.say(answer, route.status)
        except OpsAgentError as error:
            self.fail(error)

    async def _tell(self, route: Route, asked: Asked[Any, Any]) -> BaseModel:
        return await route.act(replace(asked, standing=await self.admission.standing(self)))

    async def _carry_out(self, route: Route, asked: Asked[Any, Any]) -> BaseModel:
        runtime = await self.admission.hosting.runtime()
        if route.right is Right.APPROVE:
            await self.admission.require_person(self, runtime, asked.actor, asked.path.get("id", ""))
        return await self.admission.hosting.run(runtime, route.act(replace(asked, host=runtime)))

    def _query(self, kind: type[M]) -> M:
        values: dict[str, str] = {}
        for name, given in self.request.query_arguments.items():
            if name in FOREIGN or (name.isdecimal() and not any(given)):  # the front end's time stamp against caches
                continue
            if len(given) > 1:
                raise errors.InvalidRequest(f"The query names {name[:50]!r} more than once.")
            values[name] = self.decode_argument(given[0], name)
        try:
            return kind.model_validate_strings(values)
        except ValidationError as error:
            raise _invalid("query", error) from None

    def _read(self, kind: type[M]) -> M:
        if len(self.request.body) > LARGEST_BODY:
            limit = LARGEST_BODY
            raise errors.RequestTooLarge(f"The body of a request has at most {limit:,} bytes.", limit=limit)
        if kind is Nothing:
            return kind()
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise errors.InvalidRequest("The body has to be JSON, and the header Content-Type has to say so.")
        try:
            return kind.model_validate_json(self.request.body)
        except ValidationError as error:
            raise _invalid("body", error) from None


class Unknown(Answering):
    """Everything below ``opsagent/`` that is no route."""

    @authenticated
    async def get(self) -> None:
        """Say that there is nothing."""
        self.fail(errors.UnknownRoute())

    @authenticated
    async def post(self) -> None:
        """Say that there is nothing."""
        self.fail(errors.UnknownRoute())

    @authenticated
    async def delete(self) -> None:
        """Say that there is nothing."""
        self.fail(errors.UnknownRoute())


def _invalid(where: str, error: ValidationError) -> errors.InvalidRequest:
    """What is wrong, without what was sent: it may be a secret."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(str(part)[:50] for part in first["loc"])
    return errors.InvalidRequest(f"The {where} cannot be used: {path or 'it'}: {first['msg']}.")


def endpoint(routes: Sequence[Route]) -> type[Endpoint]:
    """The handler of one path, with a method for each of its routes."""
    methods: dict[str, Any] = {route.method.lower(): _method(route) for route in routes}
    return type("Endpoint", (Endpoint,), {"routes": {route.method: route for route in routes}, **methods})


def _method(route: Route) -> Callable[..., Awaitable[None] | None]:
    async def method(self: Endpoint, **path: str) -> None:
        await self.answered(route, path)

    allow: Any = authorized(action=route.right.action, resource=route.right.resource)
    return authenticated(allow(method))
