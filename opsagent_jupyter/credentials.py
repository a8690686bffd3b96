"""Credentials at rest: AES-256-GCM, bound to instance and field, with key ids so that keys can be changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from opsagent_jupyter.errors import CredentialError, DecryptionFailed, KeyMalformed, KeyMissing, KeyUnknown

VARIABLE = "PLUGIN_ENCRYPTION_KEY"
SERVICE = "opsagent_jupyter"
NONCE = 12
_HEX = re.compile(r"[0-9a-fA-F]{64}")


class Secret:
    """A text that does not print, compare, pickle or serialise."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(•••)"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        return repr(self)

    def __eq__(self, _: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]  # a hash would tell two equal secrets apart from two others

    def __reduce__(self) -> NoReturn:
        raise CredentialError("A secret is not pickled.")


class Vault:
    """Encrypts with its first key, decrypts with any of them."""

    def __init__(self, keys: list[bytes], source: Literal["environment", "keyring", "file"]) -> None:
        self._keys = {key_id(key): key for key in keys}
        self.key_id = key_id(keys[0])
        self.source = source

    def __repr__(self) -> str:
        return f"<Vault key {self.key_id} from {self.source}>"

    def encrypt(self, text: str, *, instance: str, field: str) -> str:
        """Return ``v1.<key id>.<base64url of nonce, ciphertext, tag>``."""
        nonce = os.urandom(NONCE)
        sealed = AESGCM(self._keys[self.key_id]).encrypt(nonce, text.encode(), bound(self.key_id, instance, field))
        return f"v1.{self.key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def decrypt(self, token: str, *, instance: str, field: str) -> str:
        """Return the text; ``KeyUnknown`` or ``DecryptionFailed`` otherwise."""
        version, _, rest = token.partition(".")
        kid, _, blob = rest.partition(".")
        if version != "v1" or not blob:
            raise DecryptionFailed()
        if kid not in self._keys:
            raise KeyUnknown(f"This credential needs the key {kid}, which this process does not have.", key_id=kid)
        try:
            raw = base64.b64decode(blob, altchars=b"-_", validate=True)
            return AESGCM(self._keys[kid]).decrypt(raw[:NONCE], raw[NONCE:], bound(kid, instance, field)).decode()
        except (InvalidTag, ValueError):
            raise DecryptionFailed() from None


def key_id(key: bytes) -> str:
    """Eight characters that name a key and tell nothing of it."""
    return hashlib.sha256(b"opsagent-kid" + key).hexdigest()[:8]


def bound(kid: str, instance: str, field: str) -> bytes:
    """The additional data: a token moved to another instance or field does not decrypt."""
    return json.dumps(["opsagent.cred", 1, kid, instance, field], separators=(",", ":")).encode()


def new_key() -> str:
    """A new key as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def rotate(vault: Vault, tokens: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Encrypt all tokens (instance id -> field -> token) anew with the first key."""
    return {
        instance: {
            field: vault.encrypt(vault.decrypt(token, instance=instance, field=field), instance=instance, field=field)
            for field, token in fields.items()
        }
        for instance, fields in tokens.items()
    }


def open_vault(*, store_dir: Path | None, shared: bool, environ: Mapping[str, str] | None = None) -> Vault:
    """The vault of this process: key from the environment, else the OS keyring, else a key file beside the embedded store."""
    environ = os.environ if environ is None else environ
    if environ.get(VARIABLE):
        return Vault(parse_keys(environ[VARIABLE]), "environment")
    found = keyring_key()
    if found:
        return Vault(parse_keys(found), "keyring")
    if shared or store_dir is None:
        raise KeyMissing()
    return Vault(parse_keys(file_key(store_dir / "opsagent.key")), "file")


def parse_keys(text: str) -> list[bytes]:
    """``new,old`` as bytes; ``KeyMalformed`` says how long the wrong one is, never what it is."""
    parts = [part.strip() for part in text.split(",")]
    for number, part in enumerate(parts, 1):
        if not _HEX.fullmatch(part):
            raise KeyMalformed(f"Key {number} of {VARIABLE} is not 64 hexadecimal characters; it has {len(part)}.")
    return [bytes.fromhex(part) for part in parts]


def keyring_key() -> str:
    """The key in the OS keyring, when the package is there, works, and holds one."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return keyring.get_password(SERVICE, VARIABLE) or ""
    except (KeyringError, RuntimeError, OSError):
        return ""


def file_key(path: Path) -> str:
    """The key file's text; it is made, readable for its owner only, when there is none. Two first starts agree on one key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # another process was first: its key is the key
        finally:
            fresh.unlink()
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise CredentialError(f"The key file {path} can be read by others.", hint=f"chmod 600 {path}")
    return path.read_text().strip()


__all__: list[Any] = ["Secret", "Vault", "new_key", "open_vault", "rotate"]
