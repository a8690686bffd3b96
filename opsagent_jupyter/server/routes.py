"""The one table of the REST interface: each route with its right, what it takes and what it answers, read off its function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

from pydantic import BaseModel

from opsagent_jupyter.errors import OpsAgentError
from opsagent_jupyter.models import Actor, Record
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.rights import Right

Method = Literal["GET", "POST", "DELETE"]
Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)


class Nothing(Record):
    """No parameters, or no body."""


class File(Record):
    """An answer that is a file: written beside the store's own, sent in pieces, and then deleted with its folder."""

    place: Path
    name: str
    media_type: str
    rows: int
    cut: bool
    """True when there were more rows than a file holds."""


@dataclass(frozen=True)
class Standing:
    """What whoever asks may do here."""

    rights: tuple[str, ...] = ()
    decides: bool = False
    """Whether this very request could decide: a browser's login stands behind it and the right is there."""


@dataclass(frozen=True)
class Asked(Generic[Q, B]):
    """A request that was let in: who asks, and what, read and checked."""

    actor: Actor
    path: Mapping[str, str]
    query: Q
    body: B
    host: Runtime | None = None
    standing: Standing = Standing()

    @property
    def runtime(self) -> Runtime:
        """The runtime of this server."""
        assert self.host is not None  # only what is declared with ``about`` is asked without one
        return self.host


Act = Callable[[Asked[Any, Any]], Coroutine[Any, Any, BaseModel]]


@dataclass(frozen=True)
class Route:
    """One method at one path below ``opsagent/api/``."""

    method: Method
    path: str
    right: Right
    act: Act
    query: type[BaseModel]
    body: type[BaseModel]
    answer: type[BaseModel]
    status: HTTPStatus
    errors: tuple[type[OpsAgentError], ...]
    about: bool = False
    """True when it tells of this server and of whoever asks, and needs no store."""
    media_types: tuple[str, ...] = ()
    """Of an answer that is a file."""

    @property
    def name(self) -> str:
        """The operation's id."""
        return str(getattr(self.act, "__name__", ""))

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return inspect.cleandoc(self.act.__doc__ or "")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in its path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def pattern(self) -> str:
        """The path as a regular expression with a group for each name."""
        return re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", self.path.replace(".", r"\."))


class Routes:
    """Collects the routes, in the order of their declaration."""

    def __init__(self) -> None:
        self.all: list[Route] = []

    def get(self, path: str, *errors: type[OpsAgentError]) -> Callable[[Act], Act]:
        """Declare what answers a GET; looking needs the right to read."""
        return self._declare("GET", path, Right.READ, HTTPStatus.OK, errors)

    def file(self, path: str, media_types: tuple[str, ...], *errors: type[OpsAgentError]) -> Callable[[Act], Act]:
        """Declare what answers a GET with a file."""
        return self._declare("GET", path, Right.READ, HTTPStatus.OK, errors, media_types=media_types)

    def about(self, path: str) -> Callable[[Act], Act]:
        """Declare what answers a GET without a store."""
        return self._declare("GET", path, Right.READ, HTTPStatus.OK, (), about=True)

    def post(
        self,
        path: str,
        *errors: type[OpsAgentError],
        right: Right = Right.OPERATE,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Callable[[Act], Act]:
        """Declare what answers a POST."""
        return self._declare("POST", path, right, status, errors)

    def delete(self, path: str, *errors: type[OpsAgentError]) -> Callable[[Act], Act]:
        """Declare what answers a DELETE."""
        return self._declare("DELETE", path, Right.OPERATE, HTTPStatus.OK, errors)

    def _declare(
        self,
        method: Method,
        path: str,
        right: Right,
        status: HTTPStatus,
        errors: tuple[type[OpsAgentError], ...],
        *,
        about: bool = False,
        media_types: tuple[str, ...] = (),
    ) -> Callable[[Act], Act]:
        def declare(act: Act) -> Act:
            hints = get_type_hints(act)
            query, body = get_args(next(iter(hints.values())))
            answer = hints["return"]
            self.all.append(Route(method, path, right, act, query, body, answer, status, errors, about, media_types))
            return act

        return declare
