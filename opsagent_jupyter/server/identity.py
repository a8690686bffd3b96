"""Who asks: Jupyter's identity as an actor, and whether a person sits before it or only a token was sent."""

from __future__ import annotations

import unicodedata
from copy import copy
from inspect import isawaitable
from urllib.parse import urlsplit

from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError, RequestHandler

from opsagent_jupyter.models import Actor

#: Whoever sends the server's token and nothing else: a program, not a person.
TOKEN = Actor(id="jupyter:token", name="the holder of the token", via="server")


def actor_of(user: User, *, stable: bool) -> Actor:
    """The actor of a Jupyter user. Spellings of one name that look alike are one actor: nobody is their own second pair of
    eyes by a capital letter."""
    key = unicodedata.normalize("NFKC", user.username).strip().casefold()
    name = user.display_name or user.name or user.username
    return Actor(id=f"jupyter:{key}", name=name, via="server", stable=stable)


def is_stable(provider: IdentityProvider, *, declared: bool | None) -> bool:
    """Whether two browsers of one person are one identity.

    Jupyter's own providers name each browser anew. One that finds its users elsewhere (JupyterHub, OIDC) has a class of
    its own that answers ``get_user``. The operator may say otherwise.
    """
    if declared is not None:
        return declared
    kind = type(provider)
    return not kind.__module__.startswith("jupyter_server.") and kind.get_user is not IdentityProvider.get_user


async def in_browser(handler: JupyterHandler) -> bool:
    """Whether a login cookie stands behind the request, from a page of this server: a token alone is no person.

    JupyterLab may send the token beside the cookie, so the token itself says nothing.
    """
    return same_site(handler) and await has_cookie(handler)


def same_site(handler: JupyterHandler) -> bool:
    """Whether the request comes from a page of this server, as far as the browser says."""
    origin = handler.get_origin()
    if origin is not None and urlsplit(origin.lower()).netloc != handler.request.host.lower():
        return False
    return handler.request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")


async def has_cookie(handler: JupyterHandler) -> bool:
    """Whether the identity provider knows the user by a cookie."""
    if not handler.token_authenticated:
        return handler.current_user is not None
    provider = handler.identity_provider
    if type(provider).get_user is IdentityProvider.get_user:
        found = provider.get_user_cookie(handler)
    else:  # a hub keeps its login in a cookie of its own, which only its own question reads
        found = provider.get_user(without_token(handler))
    user = await found if isawaitable(found) else found
    return user is not None


#: What a handler holds before anybody asked who is behind its request.
_FRESH = ("application", "request", "path_args", "path_kwargs", "log", "_headers", "_status_code", "_reason")


def without_token(handler: JupyterHandler) -> JupyterHandler:
    """The same request as if it had come without a token, for an identity provider to look at; nothing answers it."""
    request = copy(handler.request)
    request.headers = request.headers.copy()
    request.headers.pop("Authorization", None)
    request.arguments = {name: values for name, values in request.arguments.items() if name != "token"}
    request.query_arguments = {name: values for name, values in request.query_arguments.items() if name != "token"}
    bare: JupyterHandler = object.__new__(type(handler))
    vars(bare).update({name: value for name, value in vars(handler).items() if name in _FRESH}, request=request)
    return bare


def has_xsrf_token(handler: JupyterHandler) -> bool:
    """Whether the request proves that it comes from a page that can read our cookies; Jupyter asks that of no token."""
    try:
        RequestHandler.check_xsrf_cookie(handler)
    except HTTPError:
        return False
    return True
