"""The whole REST interface: what tells of this server and of whoever asks, and the routes of all modules."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby

from opsagent_jupyter.protocol import WIRE
from opsagent_jupyter.server import rest_approvals, rest_audit, rest_models, rest_runbooks, rest_servers, rest_sessions
from opsagent_jupyter.server.bodies import Document, Identity, Versions
from opsagent_jupyter.server.openapi import document
from opsagent_jupyter.server.routes import Asked, Nothing, Route, Routes

about = Routes()


@about.about("version")
async def get_version(_: Asked[Nothing, Nothing]) -> Versions:
    """What answers here, for the handshake with a kernel and with the lab extension."""
    return Versions(version=version("opsagent_jupyter"), wire=WIRE, jupyter_server=version("jupyter_server"))


@about.about("identity")
async def get_identity(asked: Asked[Nothing, Nothing]) -> Identity:
    """As whom this Jupyter server takes whoever asks, and what they may do."""
    return Identity(actor=asked.actor, rights=asked.standing.rights, decides=asked.standing.decides)


@about.about("openapi.json")
async def get_openapi(_: Asked[Nothing, Nothing]) -> Document:
    """This interface, described from its code."""
    return Document(document(ROUTES))


ROUTES: tuple[Route, ...] = (
    *about.all,
    *rest_servers.routes.all,
    *rest_sessions.routes.all,
    *rest_approvals.routes.all,
    *rest_audit.routes.all,
    *rest_models.routes.all,
    *rest_runbooks.routes.all,
)


def by_path() -> dict[str, Sequence[Route]]:
    """The routes of each path."""
    ordered = sorted(ROUTES, key=lambda route: route.path)
    return {path: tuple(found) for path, found in groupby(ordered, key=lambda route: route.path)}
