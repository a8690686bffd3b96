"""Opens the language model of a conversation, and says in plain words why one does not answer."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from opsagent_jupyter.errors import (
    MissingExtra,
    ModelError,
    ModelNonsense,
    ModelRefused,
    ModelUnavailable,
    OpsAgentError,
    UnknownModel,
)
from opsagent_jupyter.names import near
from opsagent_jupyter.plugin import Tool

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from opsagent_jupyter.agent.offline import ReadCatalogs

#: Environment variable of each provider's key; a provider that is not here needs none, or finds its own.
KEYS = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "azure_openai": "AZURE_OPENAI_API_KEY",
    "cohere": "COHERE_API_KEY",
    "deepseek": "DEEPSEEK_API_KEY",
    "fireworks": "FIREWORKS_API_KEY",
    "google_genai": "GOOGLE_API_KEY",
    "groq": "GROQ_API_KEY",
    "mistralai": "MISTRAL_API_KEY",
    "nvidia": "NVIDIA_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "perplexity": "PPLX_API_KEY",
    "together": "TOGETHER_API_KEY",
    "xai": "XAI_API_KEY",
}
#: The same of providers whose clients find other credentials too, and no key is kept for.
OPTIONAL_KEYS = {"bedrock": "AWS_BEARER_TOKEN_BEDROCK", "bedrock_converse": "AWS_BEARER_TOKEN_BEDROCK"}
#: Extra of this package that installs a provider's client, by provider.
EXTRAS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
    "google_genai": "google",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
}
#: What people write, and which of langchain's providers that is. Bedrock's Converse interface takes tools of every model.
ALIASES = {"google": "google_genai", "bedrock": "bedrock_converse"}
#: What HTTP clients call a connection that broke.
BROKEN_LINES = frozenset({"ReadError", "WriteError", "RemoteProtocolError", "NetworkError", "ProxyError"})
#: Seconds a provider may stay silent.
PATIENCE = 120.0
#: Seconds before the first new try, and at most before a later one, unless the provider names a time.
FIRST_PAUSE, LONGEST_PAUSE = 0.4, 20.0
#: Answers that mean "not now".
PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
#: Langchain keeps one pool of connections per address and patience, and a pool belongs to one event loop: a patience of
#: its own keeps each model's connections apart from those of loops that have ended.
_PATIENCES = (PATIENCE + number / 1e6 for number in itertools.count())


def open_model(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    tools: Sequence[Tool] = (),
    catalog: ReadCatalogs | None = None,
) -> BaseChatModel:
    """Return the model of that name: ``offline``, or ``provider:name`` of any provider langchain knows.

    ``tools`` and ``catalog`` (the names in all attached databases) are for the offline model only.
    """
    if name == "offline":
        from opsagent_jupyter.agent.offline import OfflineModel

        return OfflineModel(tools=tuple(tools), catalog=catalog)
    provider, model = provider_of(name)
    return _opened(provider, model, base_url, api_key)


def provider_of(name: str) -> tuple[str, str]:
    """Langchain's provider, and the model there, of a name ``provider:name``; ``UnknownModel`` when it is none."""
    provider, colon, model = name.partition(":")
    if not colon or not provider or not model:
        raise UnknownModel(f"{name!r} is no model name.")
    return ALIASES.get(provider, provider), model


def key_variable(provider: str) -> str:
    """The environment variable of a provider's key, by our name or langchain's; empty when there is none that we know."""
    return {**KEYS, **OPTIONAL_KEYS}.get(ALIASES.get(provider, provider), "")


def known_provider(name: str) -> str:
    """Langchain's name of a provider that takes a key, by that name or ours."""
    provider = ALIASES.get(name, name)
    known = sorted({*KEYS, *EXTRAS, *ALIASES} - set(OPTIONAL_KEYS))
    if provider not in known:
        raise UnknownModel(
            f"There is no provider {name[:40]!r} that takes a key{near(name, known)}.",
            hint=f"Choose one of {', '.join(known)}.",
        )
    return provider


async def close_model(model: BaseChatModel) -> None:
    """End a model's connections, on the loop where it was used."""
    for name in ("root_async_client", "_async_client", "async_client"):
        client = getattr(model, name, None)
        kept = getattr(client, "_client", None)
        closing = getattr(client, "aclose", None) or getattr(client, "close", None) or getattr(kept, "aclose", None)
        if closing is not None:
            with suppress(Exception):  # foreign code at the end of its life: there is nobody left to tell
                await closing()


def _opened(provider: str, model: str, base_url: str | None, api_key: str | None) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    key = api_key or os.environ.get(key_variable(provider)) or None
    _require_key(provider, base_url, key)
    try:
        opened: BaseChatModel = init_chat_model(model, model_provider=provider, **_options(provider, base_url, key))
    except ImportError as error:
        raise _missing(provider, error) from None
    except ValueError as error:
        if "Unsupported provider" in str(error):
            raise UnknownModel(f"There is no provider {provider!r}.") from None
        raise ModelUnavailable(
            f"The client of {provider} did not accept its settings.", hint=_for_settings(provider)
        ) from None
    except Exception as error:  # noqa: BLE001  foreign code, here too
        raise explained(error, None) from None
    return opened


def _require_key(provider: str, base_url: str | None, key: str | None) -> None:
    variable = KEYS.get(provider)
    if variable and not (key or base_url):
        raise ModelUnavailable(
            f"{provider} needs a key, and none is set.",
            hint=f"Keep one with `%opsagent model key {provider}`, set {variable} before starting, or use --model offline, "
            "which needs none.",
            variable=variable,
        )


def _for_settings(provider: str) -> str:
    if provider.startswith("bedrock"):
        return "Set AWS_REGION, and AWS credentials as for any AWS tool (AWS_PROFILE, a role, or a Bedrock key)."
    return f"Check the base URL and {KEYS.get(provider, 'the key')}."


def _options(provider: str, base_url: str | None, key: str | None) -> dict[str, Any]:
    """What each client calls the same things. A local server often wants no key, but its client wants one set.

    No client tries again by itself: the loop does, within the turn's time.
    """
    options: dict[str, Any] = {"base_url": base_url} if base_url else {}
    if provider == "ollama":
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return {**options, "client_kwargs": {"timeout": PATIENCE, "headers": headers}}
    if provider in OPTIONAL_KEYS:  # its client would put a key into this process's environment: it finds its own there
        return {**options, "timeout": int(PATIENCE), "max_retries": 0}
    if key or (base_url and provider in KEYS):
        options["api_key"] = key or "none"
    if provider in {"openai", "anthropic"}:
        options |= {"timeout": next(_PATIENCES), "max_retries": 0}
    if provider == "openai":
        options["stream_usage"] = True
    if provider == "google_genai":
        options |= {"timeout": PATIENCE, "max_retries": 1}  # 1 is its word for "once"
    return options


def _missing(provider: str, error: ImportError) -> MissingExtra:
    package = re.sub(r"[^\w.-]", "", (error.name or f"langchain_{provider}").split(".")[0]).replace("_", "-")
    install = f"opsagent_jupyter[{EXTRAS[provider]}]" if provider in EXTRAS else package
    return MissingExtra(
        f"The client for {provider} models is not installed.", hint=f"pip install '{install}'", extra=provider
    )


@dataclass(frozen=True)
class Complaint:
    """What a provider's client raised, without secrets."""

    kind: str
    status: int
    text: str
    wait: float | None = None
    """Seconds after which the provider wants to be asked again."""

    @property
    def passes(self) -> bool:
        """Whether asking again may help: the provider is busy or broken, or the line is."""
        broken = ("Connect" in self.kind or self.kind in BROKEN_LINES) and "Timeout" not in self.kind
        return self.status in PASSING or (not self.status and broken)

    @classmethod
    def of(cls, error: Exception, model: BaseChatModel | None) -> Complaint:
        """Read it from what a client raised."""
        return cls(type(error).__name__, _status(error), _excerpt(error, model), _asked_wait(error))


def pause(error: Exception, attempt: int, left: float) -> float | None:
    """Seconds to wait before asking a provider again, after so many tries; None when that is of no use, or when the
    ``left`` seconds of the turn do not reach that far."""
    if isinstance(error, OpsAgentError):
        return None
    said = Complaint.of(error, None)
    if not said.passes:
        return None
    wait = said.wait
    if wait is None:
        wait = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(1, 1.25)  # noqa: S311  no secret
    return wait if wait < left else None


def explained(error: Exception, model: BaseChatModel | None) -> OpsAgentError:
    """The one seam to the providers' clients: whatever one raises, as an error of ours, with no key in its text."""
    if isinstance(error, OpsAgentError):
        return error
    said = Complaint.of(error, model)
    unreadable = ModelNonsense("The model's answer could not be read; nothing was run from it.")
    return _by_status(said) or _by_kind(said) or unreadable


def _by_status(said: Complaint) -> ModelError | None:
    provider = "The model's provider"
    match said.status:
        case 0:
            return None
        case 401 | 403 as status:
            hint = "Check the key and what it may use."
            return ModelUnavailable(f"{provider} refused the key ({status}).", hint=hint)
        case 404:
            hint = "Check the model's name and the base URL."
            return ModelRefused(f"{provider} does not know this model or address: {said.text}", hint=hint)
        case 408 | 504:
            return _silent()
        case 429:
            again = f"{said.wait:.0f} seconds" if said.wait else "a little"
            hint = f"Wait {again} and ask again, or use --model offline."
            return ModelUnavailable(f"{provider} asks to slow down, or the quota is used up (429).", hint=hint)
        case status if status >= 500:
            return ModelUnavailable(f"{provider} has a fault of its own ({status}).")
        case status:
            return ModelRefused(f"{provider} refused the request ({status}): {said.text}", hint=_for_refusal(said.text))


def _for_refusal(text: str) -> str:
    if re.search(r"context|too long|maximum.*tokens|token limit", text, re.IGNORECASE):
        return "This conversation is too long for the model: start a new session."
    if "tool" in text.lower():
        return "Choose a model that can call tools."
    return "Choose another model, or use --model offline."


def _by_kind(said: Complaint) -> ModelError | None:
    if "Timeout" in said.kind or "TimeOut" in said.kind:
        return _silent()
    if "Connect" in said.kind or said.kind in BROKEN_LINES:
        return ModelUnavailable("The language model cannot be reached, or the connection broke off.")
    if "ContentFilter" in said.kind or "Refusal" in said.kind:
        return ModelRefused("The model's provider filtered the answer.", hint="Word it differently.")
    if said.kind in {"APIError", "ResponseError", "APIStatusError"}:
        return ModelUnavailable(f"The model's provider broke off: {said.text}")
    return None


def _silent() -> ModelUnavailable:
    return ModelUnavailable("The language model did not answer in time.")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it says caused it: some clients wrap the one that knows the status."""
    seen: BaseException | None = error
    for _ in range(5):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__


def _status(error: Exception) -> int:
    """The HTTP status behind an error, 0 when there is none; botocore keeps it in a dictionary."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(one, "status_code", None) or getattr(response, "status_code", None)
        found = found or getattr(one, "code", None)
        if isinstance(found, int) and found >= 400:
            return found
    return 0


def _asked_wait(error: Exception) -> float | None:
    """What a ``Retry-After`` header asks for, in seconds: a number, or a date."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        headers = getattr(response, "headers", None)
        if isinstance(response, Mapping):
            headers = response.get("ResponseMetadata", {}).get("HTTPHeaders")
        text = headers.get("retry-after") if headers is not None and hasattr(headers, "get") else None
        if isinstance(text, str):
            return _seconds(text)
    return None


def _seconds(text: str) -> float | None:
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)


def _excerpt(error: Exception, model: BaseChatModel | None) -> str:
    body = getattr(error, "body", None)
    text = str(body.get("message") or error) if isinstance(body, dict) else str(error)
    for secret in _secrets(model):
        text = text.replace(secret, "•••")
    return re.sub(r"\b(sk|pk|key|Bearer)[-_ ][\w*.-]{6,}", "•••", " ".join(text.split()))[:300]


def _secrets(model: BaseChatModel | None) -> list[str]:
    """Every key that a provider could have been sent: those the model holds, and those of the environment."""
    held = [getattr(model, field, None) for field in type(model).model_fields] if model is not None else []
    texts = [value.get_secret_value() for value in held if isinstance(value, SecretStr)]
    texts += [value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN", "_SECRET"))]
    return sorted((text for text in texts if len(text) >= 6), key=len, reverse=True)
