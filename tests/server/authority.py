"""An authorizer and an identity provider as an operator writes them, for the tests: both read what a test has written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jupyter_server.auth import Authorizer, IdentityProvider, User

RIGHTS = Path("rights.json")


class WrittenRights(Authorizer):
    """Allows what stands in ``rights.json``; everything that is not OpsAgent's is allowed."""

    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:  # noqa: ARG002  # Jupyter's
        return not resource.startswith("opsagent") or f"{action} {resource}" in json.loads(RIGHTS.read_text())


class Named(IdentityProvider):
    """Knows its users by name, as a hub does: the cookie ``who`` names them."""

    def get_user(self, handler: Any) -> User | None:
        name = handler.get_cookie("who")
        return User(name, name=name, display_name=name) if name else None


class Hub(IdentityProvider):
    """Knows its users as JupyterHub does: by a token of theirs, else by a login that it keeps in a cookie of its own."""

    async def get_user(self, handler: Any) -> User | None:
        token = handler.request.headers.get("Authorization", "").removeprefix("token ") or handler.get_argument(
            "token", ""
        )
        if token:
            handler._token_authenticated = True
        name = token or handler.get_cookie("hub-login")
        return User(name, name=name, display_name=name) if name else None
