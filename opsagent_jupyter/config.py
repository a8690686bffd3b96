"""The settings, resolved once from defaults, environment and what the caller gave."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from opsagent_jupyter.errors import ConfigError
from opsagent_jupyter.models import Record, sha256
from opsagent_jupyter.names import near
from opsagent_jupyter.policy import Policy

Setup = Literal["personal", "separated", "team"]

#: What each set-up honestly protects from; printed on every card, by doctor and in the audit.
CLAIMS: dict[str, str] = {
    "personal": "a guard rail against the model and against mistakes, not against your own code",
    "separated": "unapproved writes are prevented for code in a kernel",
    "team": "two distinct people approved",
}


def prices_of(text: str) -> dict[str, tuple[float, float]]:
    """Model to (price of a million tokens read, of a million written), in whatever money they were written in."""
    found = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        written = re.fullmatch(r"(\S+)=(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)", entry)
        if not written:
            raise ValueError("a price is written provider:name=read/written, for a million tokens each")
        found[written[1]] = (float(written[2]), float(written[3]))
    return found


def _require_prices(text: str) -> str:
    prices_of(text)
    return text


Prices = Annotated[str, AfterValidator(_require_prices)]


class Settings(Record):
    """Everything that can be set. Environment variables are named in ``ENVIRONMENT``."""

    store_url: str = Field(default="", repr=False)  # it may hold a password
    """SQLAlchemy URL; empty means a SQLite file in the Jupyter data directory."""
    model: str = "offline"
    """``offline`` or ``provider:name``."""
    model_base_url: str = Field(default="", repr=False)  # so may this
    setup: Setup = "personal"
    policy_file: str = ""
    """A JSON file of policy rules; they can only tighten."""
    pending_seconds: int = Field(default=24 * 3600, ge=5)
    """How long a request waits for a decision."""
    lease_seconds: float = Field(default=15.0, ge=0.5)
    """A host that has not been heard of for so long is taken for dead."""
    health_seconds: float = Field(default=30.0, ge=1)
    """While somebody watches, how long until a database is asked again how it is."""
    deadline: float = Field(default=30.0, gt=0)
    """Seconds for one read."""
    change_deadline: float = Field(default=6 * 3600.0, gt=0)
    """Seconds for one approved change."""
    rows: int = Field(default=200, ge=1, le=10_000)
    """Rows of a result table that are kept."""
    turn_calls: int = Field(default=20, ge=1)
    turn_seconds: float = Field(default=300.0, gt=0)
    """Working time of one turn; the time a person takes never counts."""
    turn_tokens: int = Field(default=0, ge=0)
    """Tokens, read and written, after which a turn is stopped; 0 is no limit."""
    session_tokens: int = Field(default=0, ge=0)
    """Tokens after which a session is stopped; 0 is no limit."""
    model_prices: Prices = ""
    """Prices per million tokens, read/written, by model: ``openai:gpt-5=1.25/10,ollama:qwen3=0/0``. None are built in."""
    audit_days: int = Field(default=0, ge=0)
    """Days that ``audit prune`` leaves in the store, when it is not told otherwise; 0 leaves all."""
    audit_archives: str = ""
    """The folder that ``audit prune`` archives into, when it is not told otherwise."""

    plugins: str = ""
    """Distributions of other parties whose plugins may be loaded, with commas between them; none are by default."""

    @property
    def trusted_plugins(self) -> tuple[str, ...]:
        """The names of those distributions."""
        return tuple(filter(None, (name.strip() for name in self.plugins.split(","))))

    @property
    def folder(self) -> Path:
        """Where the embedded store, its key and the audit file live."""
        url = self.resolved_store_url()
        if url.startswith("sqlite:///"):
            return Path(url.removeprefix("sqlite:///")).parent
        return data_folder()

    @property
    def shared(self) -> bool:
        """True when the store is a server that several machines use."""
        return not self.resolved_store_url().startswith("sqlite")

    @property
    def audit_path(self) -> Path:
        """The DuckDB file; a shared store has one projection per machine and store."""
        if not self.shared:
            return self.folder / "audit.duckdb"
        return self.folder / f"audit-{sha256(self.resolved_store_url())[:12]}.duckdb"

    def cost(self, model: str, read: int, written: int) -> float | None:
        """What tokens of a model cost; None when no price was set for it."""
        prices = prices_of(self.model_prices).get(model)
        return (read * prices[0] + written * prices[1]) / 1e6 if prices else None

    def resolved_store_url(self) -> str:
        """The store's URL with the default filled in."""
        return self.store_url or f"sqlite:///{data_folder() / 'opsagent.db'}"

    def policy(self) -> Policy:
        """Read the policy file; without one the defaults hold."""
        if not self.policy_file:
            return Policy()
        try:
            return Policy.model_validate_json(Path(self.policy_file).read_text())
        except OSError as error:
            raise ConfigError(
                f"The policy file {self.policy_file} cannot be read: {error.strerror}.",
                hint="Correct OPSAGENT_POLICY; until then nothing runs, because a missing rule would be a weaker rule.",
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"The policy file {self.policy_file} is wrong at {where or 'its top'}: {first['msg']}.",
                hint="Correct it; until then nothing runs, because a missing rule would be a weaker rule.",
            ) from None


ENVIRONMENT: dict[str, str] = {
    "store_url": "OPSAGENT_STORE_URL",
    "model": "OPSAGENT_MODEL",
    "model_base_url": "OPSAGENT_MODEL_BASE_URL",
    "setup": "OPSAGENT_SETUP",
    "policy_file": "OPSAGENT_POLICY",
    "pending_seconds": "OPSAGENT_PENDING_SECONDS",
    "lease_seconds": "OPSAGENT_LEASE_SECONDS",
    "health_seconds": "OPSAGENT_HEALTH_SECONDS",
    "deadline": "OPSAGENT_DEADLINE",
    "change_deadline": "OPSAGENT_CHANGE_DEADLINE",
    "rows": "OPSAGENT_ROWS",
    "turn_calls": "OPSAGENT_TURN_CALLS",
    "turn_seconds": "OPSAGENT_TURN_SECONDS",
    "turn_tokens": "OPSAGENT_TURN_TOKENS",
    "session_tokens": "OPSAGENT_SESSION_TOKENS",
    "model_prices": "OPSAGENT_MODEL_PRICES",
    "audit_days": "OPSAGENT_AUDIT_DAYS",
    "audit_archives": "OPSAGENT_AUDIT_ARCHIVES",
    "plugins": "OPSAGENT_PLUGINS",
}


def load_settings(given: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Resolve the settings: what the caller gave, else the environment, else the default; ``ConfigError`` names the one."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {
        name: environ[variable] for name, variable in ENVIRONMENT.items() if environ.get(variable)
    }
    values.update({name: value for name, value in (given or {}).items() if value not in (None, "")})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"There is no setting {name!r}{near(name, ENVIRONMENT)}.") from None
        raise ConfigError(
            f"The setting {name} cannot be used: {first['msg']}.",
            hint=f"Correct it in the call, in the configuration file or in {ENVIRONMENT.get(name, 'the environment')}.",
        ) from None


def data_folder() -> Path:
    """The folder ``opsagent`` in the user's Jupyter data directory."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "opsagent"
