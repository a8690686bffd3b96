"""Keys of model providers at rest: encrypted by the vault, in a file of this machine beside the store."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from opsagent_jupyter.contracts import Vault
from opsagent_jupyter.credentials import Secret
from opsagent_jupyter.errors import CredentialError, DecryptionFailed, KeyUnknown

FILE = "model-keys.json"
FIELD = "api_key"


class ModelKeys:
    """The file: provider to token. A token decrypts for its own provider only."""

    def __init__(self, folder: Path, vault: Vault) -> None:
        self._path = folder / FILE
        self._vault = vault

    def providers(self) -> list[str]:
        """The providers that a key is kept for."""
        return sorted(self._tokens())

    def key(self, provider: str) -> Secret | None:
        """The key of a provider; None when none is kept, ``CredentialError`` when it cannot be read any more."""
        token = self._tokens().get(provider)
        if token is None:
            return None
        try:
            return Secret(self._vault.decrypt(token, instance=_place(provider), field=FIELD))
        except (KeyUnknown, DecryptionFailed):
            raise CredentialError(
                f"The key that is kept for {provider} cannot be read with the encryption key of this process.",
                hint=f"Keep it again with `%opsagent model key {provider}`.",
            ) from None

    def keep(self, provider: str, key: Secret) -> None:
        """Keep a key in the place of the one before."""
        token = self._vault.encrypt(key.reveal(), instance=_place(provider), field=FIELD)
        self._write({**self._tokens(), provider: token})

    def forget(self, provider: str) -> bool:
        """Forget a key; False when none was kept."""
        tokens = self._tokens()
        found = tokens.pop(provider, None)
        if found is not None:
            self._write(tokens)
        return found is not None

    def recrypt(self, vault: Vault) -> int:
        """Encrypt all keys anew with the vault's first key, while it still has the old one; return how many."""
        found = {provider: self.key(provider) for provider in self.providers()}
        self._vault = vault
        tokens = {
            provider: vault.encrypt(key.reveal(), instance=_place(provider), field=FIELD)
            for provider, key in found.items()
            if key is not None
        }
        if tokens:
            self._write(tokens)
        return len(tokens)

    def _tokens(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CredentialError(
                f"The file of model keys {self._path} cannot be read: {getattr(error, 'strerror', '') or 'it is no JSON'}.",
                hint="Delete it, and keep the keys again with `%opsagent model key PROVIDER`.",
            ) from None
        return {str(provider): str(token) for provider, token in found.items()} if isinstance(found, dict) else {}

    def _write(self, tokens: Mapping[str, str]) -> None:
        """Put the whole file in place at once, for its owner alone."""
        beside = self._path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(dict(tokens), file, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise CredentialError(
                f"The file of model keys {self._path} cannot be written: {error.strerror}.",
                hint="Make its folder writable for this user, or set the key in the environment.",
            ) from None
        finally:
            beside.unlink(missing_ok=True)


def _place(provider: str) -> str:
    return f"model:{provider}"
