"""Opens the language model of a conversation, and says in plain words why one does not answer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
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
#: Extras of this package that install a provider's client.
EXTRAS = frozenset({"openai", "anthropic", "ollama"})
#: What HTTP clients call a connection that broke.
BROKEN_LINES = frozenset({"ReadError", "WriteError", "RemoteProtocolError", "NetworkError", "ProxyError"})
#: Seconds a provider may stay silent.
PATIENCE = 120.0


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
    provider, colon, model = name.partition(":")
    if not colon or not provider or not model:
        raise UnknownModel(f"{name!r} is no model name.")
    return _opened(provider, model, base_url, api_key)


def _opened(provider: str, model: str, base_url: str | None, api_key: str | None) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    _require_key(provider, base_url, api_key)
    try:
        opened: BaseChatModel = init_chat_model(model, model_provider=provider, **_options(provider, base_url, api_key))
    except ImportError as error:
        raise _missing(provider, error) from None
    except ValueError as error:
        if "Unsupported provider" in str(error):
            raise UnknownModel(f"There is no provider {provider!r}.") from None
        raise ModelUnavailable(
            f"The client of {provider} did not accept its settings.",
            hint=f"Check the base URL and {KEYS.get(provider, 'the key')}.",
        ) from None
    except Exception as error:  # noqa: BLE001  foreign code, here too
        raise explained(error, None) from None
    return opened


def _require_key(provider: str, base_url: str | None, api_key: str | None) -> None:
    variable = KEYS.get(provider)
    if variable and not (api_key or base_url or os.environ.get(variable)):
        raise ModelUnavailable(
            f"{provider} needs a key, and none is set.",
            hint=f"Set {variable} before starting, or use --model offline, which needs none.",
            variable=variable,
        )


def _options(provider: str, base_url: str | None, api_key: str | None) -> dict[str, Any]:
    """What each client calls the same things. A local server often wants no key, but its client wants one set."""
    options: dict[str, Any] = {"base_url": base_url} if base_url else {}
    if provider == "ollama":
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        return {**options, "client_kwargs": {"timeout": PATIENCE, "headers": headers}}
    if api_key:
        options["api_key"] = api_key
    elif base_url and provider in KEYS and not os.environ.get(KEYS[provider]):
        options["api_key"] = "none"
    if provider in {"openai", "anthropic"}:
        options |= {"timeout": PATIENCE, "max_retries": 2}
    if provider == "openai":
        options["stream_usage"] = True
    return options


def _missing(provider: str, error: ImportError) -> MissingExtra:
    package = re.sub(r"[^\w.-]", "", (error.name or f"langchain_{provider}").split(".")[0]).replace("_", "-")
    install = f"opsagent_jupyter[{provider}]" if provider in EXTRAS else package
    return MissingExtra(
        f"The client for {provider} models is not installed.", hint=f"pip install '{install}'", extra=provider
    )


@dataclass(frozen=True)
class Complaint:
    """What a provider's client raised, without secrets."""

    kind: str
    status: int
    text: str


def explained(error: Exception, model: BaseChatModel | None) -> OpsAgentError:
    """The one seam to the providers' clients: whatever one raises, as an error of ours, with no key in its text."""
    if isinstance(error, OpsAgentError):
        return error
    said = Complaint(type(error).__name__, _status(error), _excerpt(error, model))
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
            hint = "Wait a little, or use --model offline."
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


def _status(error: Exception) -> int:
    found = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) and found >= 400 else 0


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
