"""Credentials at rest: AES-256-GCM, bound to instance and field, under keys that can be changed.

A token is ``v1.<key id>.<base64url of nonce, ciphertext and tag>``. The key comes from ``PLUGIN_ENCRYPTION_KEY`` (64
hexadecimal characters; ``new,old`` while it is being changed), else from the OS keyring, else from a file beside the
embedded store that is made on first use. No name in this module's frames holds a key or a secret in clear when an error
leaves it: verbose tracebacks print them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from opsagent_jupyter.errors import CredentialError, DecryptionFailed, KeyMalformed, KeyMissing, KeyUnknown

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["OneTimeSecret", "Secret", "Vault", "new_key", "open_vault", "renew", "retire", "rotate"]

log = logging.getLogger("opsagent_jupyter")
Source = Literal["environment", "keyring", "file"]

VARIABLE = "PLUGIN_ENCRYPTION_KEY"
#: The OS keyring's name for us.
SERVICE = "opsagent_jupyter"
KEY_FILE = "opsagent.key"
#: What the key file says instead of a key when the key is in the OS keyring.
IN_KEYRING = "keyring:"
#: Seconds after which an OS keyring that asks somebody to unlock it counts as out of reach.
KEYRING_PATIENCE = 5.0
NONCE_BYTES = 12
_HEX = re.compile("[0-9a-fA-F]{64}")


class Secret:
    """A text that shows itself only when asked: no print, format, comparison, copy, pickle or JSON tells it."""

    __slots__ = ("reveal",)

    reveal: Callable[[], str]
    """Return the text itself."""

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "reveal", lambda: text)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("A Secret is not changed.")

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("A Secret is not pickled.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("A Secret is not pickled.")


class OneTimeSecret(Secret):
    """A secret that was taken out of the store for good: ``show()``, or ``with ops.reveal(id) as text``."""

    __slots__ = ()

    def show(self) -> str:
        """Return the text itself. Printed in a notebook it is saved with it: print it in a terminal."""
        return self.reveal()

    def __repr__(self) -> str:
        return "OneTimeSecret(***)"

    def __enter__(self) -> str:
        return self.reveal()

    def __exit__(self, *_: object) -> None:
        return None


class Key:
    """An encryption key that can be used and not be read. ``id`` names it and tells nothing of it."""

    __slots__ = ("cipher", "id")

    def __init__(self, raw: bytes) -> None:
        self.id = hashlib.sha256(b"opsagent-kid" + raw).hexdigest()[:8]
        self.cipher = AESGCM(raw)

    def __repr__(self) -> str:
        return f"Key({self.id})"


class Vault:
    """Encrypts with its first key and decrypts with any of them (``contracts.Vault``).

    ``read`` is where the keys are kept: they are read again before anything is encrypted, and when a token names a key
    that is not known, so that a change of keys reaches the processes that run.
    """

    def __init__(self, source: Source, read: Callable[[], Secret], path: Path | None = None) -> None:
        self.source: Source = source
        self.path = path
        self._read = read
        self._keys: tuple[Key, ...] = ()
        self._keys = self._current()

    def __repr__(self) -> str:
        return f"Vault(key {self.key_id} from {self.source})"

    @property
    def key_id(self) -> str:
        """The id of the key that encrypts."""
        return self._keys[0].id if self._keys else ""

    @property
    def old_key_ids(self) -> tuple[str, ...]:
        """The ids of the keys that only decrypt."""
        return tuple(key.id for key in self._keys[1:])

    def encrypt(self, text: str | Secret, *, instance: str, field: str) -> str:
        """Return a token that decrypts for this instance and field only."""
        secret = text if isinstance(text, Secret) else Secret(text)
        del text
        self._keys = self._current()
        key, nonce = self._keys[0], os.urandom(NONCE_BYTES)
        sealed = key.cipher.encrypt(nonce, secret.reveal().encode(errors="surrogatepass"), _bound(key, instance, field))
        return f"v1.{key.id}.{_base64(nonce + sealed)}"

    def decrypt(self, token: str, *, instance: str, field: str) -> str:
        """Return the text; ``KeyUnknown`` names the key that is missing, ``DecryptionFailed`` is everything else."""
        version, key_id, sealed = [*token.split("."), "", "", ""][:3]
        if version != "v1" or token.count(".") != 2:
            raise DecryptionFailed
        key, raw = self._key(key_id), _unbase64(sealed)
        try:
            text = key.cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(key, instance, field))
        except (InvalidTag, ValueError):
            raise DecryptionFailed from None
        return text.decode(errors="surrogatepass")

    def _current(self) -> tuple[Key, ...]:
        return parse_keys(self._read(), str(self.path or VARIABLE))

    def _key(self, id: str) -> Key:
        for attempt in (1, 2):
            for key in self._keys:
                if key.id == id:
                    return key
            if attempt == 1:
                self._keys = self._current()
        raise KeyUnknown(f"This credential needs the key {id[:16]!r}, which this process does not have.", key_id=id)


def new_key() -> str:
    """A new key as 64 hexadecimal characters."""
    return secrets.token_hex(32)


def open_vault(*, store_dir: Path | None, shared: bool, environ: Mapping[str, str] | None = None) -> Vault:
    """The vault of this process. ``store_dir`` is the embedded store's folder; a shared store needs the key to be given,
    because every host has to have the same: ``KeyMissing``."""
    given = (os.environ if environ is None else environ).get(VARIABLE)
    text, is_given = Secret(given or ""), given is not None
    del environ, given
    if is_given:
        return Vault("environment", lambda: text)
    if not shared and store_dir is not None:
        return _local_vault(store_dir / KEY_FILE)
    kept = _asked(lambda keyring: keyring.get_password(SERVICE, VARIABLE))
    if not kept:
        raise KeyMissing
    return Vault("keyring", lambda: kept)


def rotate(vault: Vault, tokens: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Encrypt all tokens (instance id -> field -> token) anew with the first key; nothing is returned unless all can."""
    return {
        instance: {
            field: vault.encrypt(vault.decrypt(token, instance=instance, field=field), instance=instance, field=field)
            for field, token in fields.items()
        }
        for instance, fields in tokens.items()
    }


def renew(vault: Vault) -> Vault:
    """The vault with a new first key, the old ones still there, kept where the key is kept: before ``rotate``. A change of
    keys that was begun and not finished is gone on with. Keys in the environment are the operator's to change."""
    if vault.path is None:
        if not vault.old_key_ids:
            raise CredentialError(
                f"The key is set in {'the OS keyring' if vault.source == 'keyring' else VARIABLE}, so it is changed there.",
                hint=f"Make one with `opsagent key new`, set {VARIABLE}=new,old and run this again.",
            )
        return vault
    with _alone(vault.path):
        kept = _read_kept(vault.path)
        if len(parse_keys(kept)) == 1:
            _write_kept(vault.path, Secret(f"{new_key()},{kept.reveal()}"))
    return _local_vault(vault.path)


def retire(vault: Vault) -> None:
    """Forget the old keys of this vault, where keys are kept by us: after what ``rotate`` returned is in the store."""
    if vault.path is None:
        return
    with _alone(vault.path):
        kept = _read_kept(vault.path)
        parts = (Secret(part) for part in _parts(kept))
        left = [part for part in parts if parse_keys(part)[0].id not in vault.old_key_ids]
        _write_kept(vault.path, Secret(",".join(part.reveal() for part in left)))


def parse_keys(text: Secret, where: str = VARIABLE) -> tuple[Key, ...]:
    """The keys of a list ``new,old``. ``KeyMalformed`` says which one is wrong and how long it is, never what it is."""
    lengths = [len(part) for part in _parts(text)]
    wrong = [number for number, part in enumerate(_parts(text), 1) if not _HEX.fullmatch(part)]
    if not wrong:
        return tuple(Key(bytes.fromhex(part)) for part in _parts(text))
    which = f"Key {wrong[0]} of {len(lengths)}" if len(lengths) > 1 else "The key"
    length = lengths[wrong[0] - 1]
    problem = f"has {length} characters instead of 64" if length != 64 else "has characters other than 0-9 and a-f"
    raise KeyMalformed(f"{which} in {where} {problem}.")


def _parts(text: Secret) -> list[str]:
    return [part.strip() for part in text.reveal().split(",")]


def _bound(key: Key, instance: str, field: str) -> bytes:
    """What a token is bound to besides the key: moved to another instance or field, it does not decrypt."""
    return json.dumps(["opsagent.cred", 1, key.id, instance, field], separators=(",", ":")).encode()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    """The bytes of the one way to write them: a character more or less, or other spare bits, is no token."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise DecryptionFailed from None
    if _base64(raw) != text:
        raise DecryptionFailed
    return raw


# -- keys that are kept for the embedded store ------------------------------------------------------------------------


def _local_vault(path: Path) -> Vault:
    if not path.exists():
        _make(path)
    return Vault("keyring" if _keyring_entry(path) else "file", lambda: _read_kept(path), path)


def _make(path: Path) -> None:
    """Make a key in the OS keyring, where there is one that works, else in the file. Processes that start together agree
    on one."""
    with _alone(path):
        if path.exists():
            return
        key, entry = Secret(new_key()), f"{VARIABLE} {secrets.token_hex(8)}"
        _write_file(path, Secret(f"{IN_KEYRING}{entry}") if _put_in_keyring(entry, key) else key)


def _write_file(path: Path, text: Secret) -> None:
    """Put a whole file in place at once: for its owner alone, and on the disk when this returns."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, f"{text.reveal()}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        beside.replace(path)
    except OSError as error:
        raise _unusable(path, error) from None
    finally:
        beside.unlink(missing_ok=True)


def _file_text(path: Path) -> Secret:
    """What the key file says; refused when others can read it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = Secret(file.read(4096).decode("ascii", errors="replace").strip())
    except OSError as error:
        raise _unusable(path, error) from None
    if os.name == "posix" and status.st_mode & 0o077:
        raise CredentialError(
            f"The key file {path} can be read by other users, so it is not used.",
            hint=f"Run chmod 600 {path}, and change the key with `opsagent key rotate` if others could log in here.",
        )
    return text


def _keyring_entry(path: Path) -> str:
    """The name under which the OS keyring has the key; empty when the file has it."""
    text = _file_text(path)
    return text.reveal().removeprefix(IN_KEYRING) if text.reveal().startswith(IN_KEYRING) else ""


def _read_kept(path: Path) -> Secret:
    """The keys, from the file or from where the file says."""
    entry = _keyring_entry(path)
    if not entry:
        return _file_text(path)
    kept = _asked(lambda keyring: keyring.get_password(SERVICE, entry))
    if not kept:
        raise KeyMissing(
            "The encryption key is in the OS keyring, which this process cannot reach.",
            hint=f"Unlock the keyring, run in the desktop session, or set {VARIABLE} to what "
            f"`keyring get {SERVICE} '{entry}'` prints there.",
        )
    return kept


def _write_kept(path: Path, text: Secret) -> None:
    entry = _keyring_entry(path)
    if not entry:
        _write_file(path, text)
    elif not _put_in_keyring(entry, text):
        raise CredentialError("The OS keyring did not take the new key.", hint="Unlock it and try again.")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One change of keys at a time; the lock ends with the process that holds it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unusable(path, error) from None
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _unusable(path: Path, error: OSError) -> CredentialError:
    return CredentialError(
        f"The key file {path} cannot be used: {error.strerror}.",
        hint=f"Make its folder writable for this user, or set {VARIABLE} (`opsagent key new` makes one).",
    )


# -- the OS keyring ---------------------------------------------------------------------------------------------------


def _put_in_keyring(entry: str, text: Secret) -> bool:
    """True when the keyring has it now: some say yes and keep nothing."""
    _asked(lambda keyring: keyring.set_password(SERVICE, entry, text.reveal()))
    return _asked(lambda keyring: keyring.get_password(SERVICE, entry)).reveal() == text.reveal()


def _asked(question: Callable[[Any], str | None]) -> Secret:
    """The keyring's answer; empty when the package, a keyring worth trusting, the entry or an answer in time is missing."""
    answers: list[Secret] = []

    def ask() -> None:
        try:
            import keyring
            from keyring.core import recommended

            if recommended(keyring.get_keyring()):
                answers.append(Secret(question(keyring) or ""))
        except Exception as error:  # noqa: BLE001 - its back ends raise whatever their desktop raises
            log.debug("the OS keyring does not answer: %s", type(error).__name__)

    thread = threading.Thread(target=ask, name="opsagent-keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_PATIENCE)
    return answers[0] if answers else Secret("")
