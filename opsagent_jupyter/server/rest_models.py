"""REST: the language models that can be chosen, and what those that cannot lack. No key is ever told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Literal

from opsagent_jupyter.errors import CredentialError, UnknownModel, UnknownSession
from opsagent_jupyter.runtime import Runtime
from opsagent_jupyter.server.bodies import ModelChoice, ModelChoices, ModelQuery, ProviderChoice
from opsagent_jupyter.server.routes import Asked, Nothing, Routes

routes = Routes()
OFFLINE = "offline"
#: Recent sessions whose models are offered again.
RECENT = 50
#: Langchain's packages that are not called after their provider.
PACKAGES = {"azure_openai": "openai", "bedrock": "aws", "bedrock_converse": "aws", "mistralai": "mistralai"}


@routes.get("models", UnknownSession)
async def list_models(asked: Asked[ModelQuery, Nothing]) -> ModelChoices:
    """The models that can be chosen by name, a session's own first, and the providers whose others can be written."""
    return await asyncio.to_thread(choices, asked.runtime, asked.query.session)


def choices(runtime: Runtime, session: str) -> ModelChoices:
    """All that is known of models here."""
    store = runtime.store
    own = [store.session(session).model] if session else []
    used = [known.model for known in store.sessions(limit=RECENT)]
    names = dict.fromkeys(name for name in (*own, runtime.settings.model, OFFLINE, *used) if name)
    providers = {provider.name: provider for provider in providers_of(runtime)}
    return ModelChoices(
        items=tuple(choice_of(name, runtime.settings.model, providers) for name in names),
        providers=tuple(providers.values()),
    )


def choice_of(name: str, configured: str, providers: Mapping[str, ProviderChoice]) -> ModelChoice:
    """One model with what it lacks; one of a provider that we do not know may well work."""
    from opsagent_jupyter.agent.providers import provider_of

    if name == OFFLINE:
        return ModelChoice(name=name, provider=OFFLINE, origin="offline", ready=True)
    try:
        provider = provider_of(name)[0]
    except UnknownModel as error:
        return ModelChoice(name=name, provider="", origin="used", ready=False, missing=error.message)
    missing = providers[provider].missing if provider in providers else ""
    origin: Literal["configured", "used"] = "configured" if name == configured else "used"
    return ModelChoice(name=name, provider=provider, origin=origin, ready=not missing, missing=missing)


def providers_of(runtime: Runtime) -> Sequence[ProviderChoice]:
    """The providers that we know, by name."""
    from opsagent_jupyter.agent.providers import EXTRAS, KEYS

    try:
        kept = set(runtime.model_keys.providers())
    except CredentialError:  # a file that cannot be read keeps no key that could be used
        kept = set()
    base_url = bool(runtime.settings.model_base_url)
    return [provider_choice(name, kept, base_url=base_url) for name in sorted({*KEYS, *EXTRAS})]


def provider_choice(name: str, kept: set[str], *, base_url: bool) -> ProviderChoice:
    """Whether a provider's client is installed, and whether there is a key or none is needed."""
    from opsagent_jupyter.agent.providers import EXTRAS, KEYS

    package = f"langchain_{PACKAGES.get(name, name)}"
    install = f"opsagent_jupyter[{EXTRAS[name]}]" if name in EXTRAS else package.replace("_", "-")
    variable = KEYS.get(name, "")
    installed = find_spec(package) is not None
    key = not variable or base_url or name in kept or bool(os.environ.get(variable))
    lacks = [] if installed else [f"pip install '{install}'"]
    if not key:
        lacks.append(f"set {variable} or keep a key with %opsagent model key {name}")
    return ProviderChoice(name=name, installed=installed, key=key, missing="; ".join(lacks))
