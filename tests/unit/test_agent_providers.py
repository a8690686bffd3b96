"""Opening a model by its name: what is missing is said, what is set is used."""

from __future__ import annotations

import sys

import pytest

from opsagent_jupyter.agent.offline import OfflineModel
from opsagent_jupyter.agent.providers import explained, open_model
from opsagent_jupyter.errors import MissingExtra, ModelUnavailable, OpsAgentError, UnknownModel


def test_offline_needs_nothing() -> None:
    """No key, no network, no package."""
    assert isinstance(open_model("offline"), OfflineModel)


@pytest.mark.parametrize("name", ["", "gpt-5", ":gpt-5", "openai:", "Offline", "no-such-provider:model"])
def test_a_name_that_names_no_model_says_how_names_look(name: str) -> None:
    """The hint shows the form."""
    with pytest.raises(UnknownModel) as caught:
        open_model(name)
    assert "provider:name" in str(caught.value)


@pytest.mark.parametrize(("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
def test_a_missing_key_is_said_with_the_name_of_its_variable(
    provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent anywhere."""
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ModelUnavailable) as caught:
        open_model(f"{provider}:some-model")
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "package", "install"),
    [
        ("openai", "langchain_openai", "opsagent_jupyter[openai]"),
        ("ollama", "langchain_ollama", "opsagent_jupyter[ollama]"),
        ("groq", "langchain_groq", "langchain-groq"),
    ],
)
def test_a_missing_client_is_said_with_what_to_install(
    provider: str, package: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our extra where there is one, the package where there is none."""
    from langchain.chat_models.base import _get_chat_model_creator

    _get_chat_model_creator.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra) as caught:
        open_model(f"{provider}:some-model", api_key="k" * 20)
    assert install in str(caught.value)
    assert caught.value.extra == provider
    _get_chat_model_creator.cache_clear()


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL without a key opens: local servers rarely want one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert open_model("openai:local", base_url="http://127.0.0.1:9/v1") is not None


class ProviderError(Exception):
    """As a client raises it."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status_code = status


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "model.refused"), (401, "model.unavailable"), (404, "model.refused"), (413, "model.refused"),
     (422, "model.refused"), (429, "model.unavailable"), (500, "model.unavailable"), (529, "model.unavailable"),
     (0, "model.nonsense")],
)  # fmt: skip
def test_a_clients_error_becomes_ours_by_its_status(status: int, code: str) -> None:
    """One table for all providers."""
    assert explained(ProviderError("what it said", status), None).code == code


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_key_in_a_providers_words_is_struck_out(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the environment, and whatever looks like one."""
    monkeypatch.setenv("MISTRAL_API_KEY", "plainlookingsecret")
    text = str(
        explained(ProviderError("used plainlookingsecret and sk-abcdef123456 and Bearer abcdefgh", status), None)
    )
    assert "plainlookingsecret" not in text
    assert "sk-abcdef" not in text
    assert "abcdefgh" not in text


def test_an_error_of_ours_passes_unchanged() -> None:
    """The seam does not wrap twice."""
    error: OpsAgentError = UnknownModel("x")
    assert explained(error, None) is error
