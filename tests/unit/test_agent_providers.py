"""Opening a model by its name: what is missing is said, what is set is used."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from opsagent_jupyter.agent.offline import OfflineModel
from opsagent_jupyter.agent.providers import explained, known_provider, open_model, pause, provider_of
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
        ("google", "langchain_google_genai", "opsagent_jupyter[google]"),
        ("bedrock", "langchain_aws", "opsagent_jupyter[bedrock]"),
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
    assert caught.value.extra in {provider, "google_genai", "bedrock_converse"}
    _get_chat_model_creator.cache_clear()


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL without a key opens: local servers rarely want one."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert open_model("openai:local", base_url="http://127.0.0.1:9/v1") is not None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("google:gemini-2.5-pro", ("google_genai", "gemini-2.5-pro")),
        ("google_genai:gemini-2.5-pro", ("google_genai", "gemini-2.5-pro")),
        ("bedrock:eu.amazon.nova-pro-v1:0", ("bedrock_converse", "eu.amazon.nova-pro-v1:0")),
        ("ollama:qwen3:8b", ("ollama", "qwen3:8b")),
    ],
)
def test_short_names_of_providers_mean_langchains(name: str, found: tuple[str, str]) -> None:
    """Only the first colon divides: names of models have colons of their own."""
    assert provider_of(name) == found


def test_bedrock_opens_with_a_region_and_no_key_gets_into_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes credentials as every AWS tool does; its client would set a key for the whole process."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    model: Any = open_model("bedrock:eu.amazon.nova-pro-v1:0", api_key="bedrock-key-0123456789")
    assert type(model).__name__ == "ChatBedrockConverse"
    assert model.max_retries == 0
    assert "bedrock-key-0123456789" not in os.environ.values()
    with pytest.raises(UnknownModel):
        known_provider("bedrock")


class ProviderError(Exception):
    """As a client raises it."""

    def __init__(self, text: str, status: int = 0, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status_code = status
        self.response = SimpleNamespace(headers=headers or {}, status_code=status)


class AmazonError(Exception):
    """As botocore raises it: status and headers are in a dictionary."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__("An error occurred (ThrottlingException) when calling the ConverseStream operation")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}


def test_a_status_is_found_wherever_a_client_keeps_it() -> None:
    """In a dictionary, and in the error that a client wrapped."""
    assert "429" in str(explained(AmazonError(429, {}), None))
    wrapped = RuntimeError("calling the model failed")
    wrapped.__cause__ = ProviderError("no", 401)
    assert "refused the key" in str(explained(wrapped, None))


@pytest.mark.parametrize(("status", "again"), [(429, True), (500, True), (503, True), (529, True), (408, True),
                                               (400, False), (401, False), (404, False), (501, False)])  # fmt: skip
def test_only_what_may_pass_is_asked_again(status: int, again: bool) -> None:
    """What is wrong stays wrong."""
    assert (pause(ProviderError("x", status), 1, 60) is not None) is again


def test_pauses_grow_and_stay_within_the_turn() -> None:
    """From tries to tries, up to a bound; never beyond the time that is left."""
    pauses = [pause(ProviderError("x", 500), attempt, 1e9) for attempt in range(1, 12)]
    assert all(one is not None and 0 < one <= 25 for one in pauses)
    assert (pauses[0] or 9) < 1
    assert (pauses[9] or 0) > 10
    assert pause(ProviderError("x", 500), 9, 5) is None


@pytest.mark.parametrize(
    "error", [ProviderError("x", 429, {"retry-after": "7"}), AmazonError(429, {"retry-after": "7"})]
)
def test_a_time_that_a_provider_names_is_kept(error: Exception) -> None:
    """Exactly, when the turn is long enough; else nothing is waited for, and the person reads the time."""
    assert pause(error, 1, 60) == 7
    assert pause(error, 1, 5) is None
    assert "7 seconds" in str(explained(error, None))


def test_a_time_may_be_a_date() -> None:
    """The other form that HTTP knows; what is neither is not waited for."""
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    wait = pause(ProviderError("x", 429, {"retry-after": at}), 1, 60)
    assert wait is not None
    assert 25 < wait <= 30
    assert (pause(ProviderError("x", 429, {"retry-after": "soon"}), 1, 60) or 9) < 1


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
