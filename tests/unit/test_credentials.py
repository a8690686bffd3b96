"""Credentials at rest: they decrypt where they belong, nowhere else, and no key or secret shows itself."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import json
import os
import pickle
import pprint
import random
import re
import stat
import subprocess
import sys
import threading
import traceback

import keyring
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from keyring.backend import KeyringBackend
from keyring.backends import fail

from opsagent_jupyter import credentials
from opsagent_jupyter.credentials import Secret, new_key, open_vault, renew, retire, rotate
from opsagent_jupyter.errors import CredentialError, DecryptionFailed, KeyMalformed, KeyMissing, KeyUnknown

KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
OTHER = "f" * 64
PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def no_keyring():
    """The OS keyring of the machine that runs the tests is never touched; tests that want one bring it."""
    of_the_machine = keyring.get_keyring()
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(of_the_machine)


class MemoryKeyring(KeyringBackend):
    """A working OS keyring, as a third-party back end registers itself."""

    priority = 5

    def __init__(self):
        super().__init__()
        self.entries = {}

    def get_password(self, service, username):
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        self.entries[service, username] = password

    def delete_password(self, service, username):
        del self.entries[service, username]


@pytest.fixture
def desktop():
    """An OS keyring that works."""
    found = MemoryKeyring()
    keyring.set_keyring(found)
    return found


def given(text):
    return open_vault(store_dir=None, shared=True, environ={"PLUGIN_ENCRYPTION_KEY": text})


# -- the format -------------------------------------------------------------------------------------------------------

#: key, nonce, text, instance, field, token: computed once with AES-GCM from its parts, and never to change.
VECTORS = [
    (
        KEY,
        "000102030405060708090a0b",
        "s3cret",
        "0123456789abcdef0123456789abcdef",
        "dsn",
        "v1.80ef80a2.AAECAwQFBgcICQoLNDG1aaCRKdxJzQ-QWSw4GIuut_ymMA",
    ),
    (KEY, "ffffffffffffffffffffffff", "", "i", "f", "v1.80ef80a2.________________sIyvJl6t1KaaGnl0dIZdaA"),
    (
        OTHER,
        "0f0e0d0c0b0a090807060504",
        "Grüße, 世界 \N{KEY}",
        "ünstance",
        "password",
        "v1.327f7e2c.Dw4NDAsKCQgHBgUE74oAR3HWsLcRzOsnObrjgZiPL_JTrUqmnt4IkPovT5FtM2l9",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "text", "instance", "field", "token"), VECTORS, ids=range(len(VECTORS)))
def test_tokens_are_what_they_always_were(monkeypatch, key, nonce, text, instance, field, token):
    """Known answers: a token of an earlier release decrypts, and the same nonce makes the same token."""
    vault = given(key)
    assert vault.decrypt(token, instance=instance, field=field) == text
    monkeypatch.setattr(credentials.os, "urandom", lambda _: bytes.fromhex(nonce))
    assert vault.encrypt(text, instance=instance, field=field) == token


def test_a_token_can_be_read_without_this_package():
    """The format is AES-256-GCM as documented, so a key and a page of script are enough for a rescue."""
    token = given(KEY).encrypt(PASSWORD, instance="i1", field="dsn")
    version, key_id, sealed = token.split(".")
    raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    bound = json.dumps(["opsagent.cred", 1, key_id, "i1", "dsn"], separators=(",", ":")).encode()
    assert version == "v1"
    assert key_id == hashlib.sha256(b"opsagent-kid" + bytes.fromhex(KEY)).hexdigest()[:8]
    assert AESGCM(bytes.fromhex(KEY)).decrypt(raw[:12], raw[12:], bound).decode() == PASSWORD


@pytest.mark.parametrize("text", ["", "x", PASSWORD, "ü∑\N{KEY}\x00\n", "\udc80 half a surrogate", "long" * 20_000])
def test_what_is_encrypted_decrypts(text):
    """Every text comes back as it was, and the token does not contain it."""
    vault = given(KEY)
    token = vault.encrypt(text, instance="i", field="f")
    assert vault.decrypt(token, instance="i", field="f") == text
    assert re.fullmatch(r"v1\.[0-9a-f]{8}\.[\w-]+", token)


def test_no_two_tokens_are_alike():
    """The nonce is new for each token: 20 000 tokens of one text have 20 000 nonces."""
    vault = given(KEY)
    tokens = [vault.encrypt(PASSWORD, instance="i", field="f").split(".")[2] for _ in range(20_000)]
    assert len({base64.urlsafe_b64decode(token + "===")[:12] for token in tokens}) == len(tokens)


def test_forked_processes_share_no_nonce():
    """Processes that are forked from one that has encrypted make different nonces."""
    program = (
        "import os\n"
        "from opsagent_jupyter.credentials import open_vault\n"
        f"vault = open_vault(store_dir=None, shared=True, environ={{'PLUGIN_ENCRYPTION_KEY': '{KEY}'}})\n"
        "vault.encrypt('x', instance='i', field='f')\n"
        "for _ in range(4):\n"
        "    if not (child := os.fork()):\n"
        "        out = '\\n'.join(vault.encrypt('x', instance='i', field='f') for _ in range(500)) + '\\n'\n"
        "        os.write(1, out.encode())\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    tokens = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert len(tokens) == 2000
    assert len({base64.urlsafe_b64decode(token.split(".")[2] + "===")[:12] for token in tokens}) == 2000


# -- tampering --------------------------------------------------------------------------------------------------------


def test_a_token_moved_to_another_place_does_not_decrypt():
    """Instance and field are bound: copying a row's token to another row or field is refused."""
    vault = given(KEY)
    token = vault.encrypt(PASSWORD, instance="shop", field="dsn")
    for instance, field in [("other", "dsn"), ("shop", "password"), ("shopd", "sn"), ("", ""), ("shop", "dsn ")]:
        with pytest.raises(DecryptionFailed):
            vault.decrypt(token, instance=instance, field=field)


def test_every_flipped_bit_is_refused():
    """2000 tokens with one bit of nonce, ciphertext or tag flipped: 2000 refusals."""
    vault, chance = given(KEY), random.Random(1)
    for _ in range(2000):
        head, sealed = vault.encrypt(PASSWORD, instance="i", field="f").rsplit(".", 1)
        raw = bytearray(base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4)))
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        with pytest.raises(DecryptionFailed):
            vault.decrypt(f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}", instance="i", field="f")


def test_every_changed_character_is_refused():
    """A token has one spelling: any other character at any place, one less or one more, is refused."""
    vault, chance = given(KEY), random.Random(2)
    token = vault.encrypt(PASSWORD, instance="i", field="f")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
    for place in range(len(token)):
        other = chance.choice([letter for letter in alphabet if letter != token[place]])
        for changed in (
            token[:place] + other + token[place + 1 :],
            token[:place],
            token[:place] + other + token[place:],
        ):
            with pytest.raises((DecryptionFailed, KeyUnknown)):
                vault.decrypt(changed, instance="i", field="f")


@pytest.mark.parametrize("token", ["", "v1", "v1.", "v1..", "v2.aaaaaaaa.bbbb", "a.b.c", "v1.aaaaaaaa.b.c", PASSWORD])
def test_what_is_no_token_is_refused(token):
    """A password in clear where a token should be is an error, not a fallback."""
    with pytest.raises((DecryptionFailed, KeyUnknown)):
        given(KEY).decrypt(token, instance="i", field="f")


def test_a_shortened_tag_is_refused():
    """A tag cut to 12 bytes does not count."""
    vault = given(KEY)
    head, sealed = vault.encrypt(PASSWORD, instance="i", field="f").rsplit(".", 1)
    raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))[:-4]
    with pytest.raises(DecryptionFailed):
        vault.decrypt(f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}", instance="i", field="f")


# -- keys in the environment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 characters instead of 64"),
        (KEY[:-1], "has 63 characters instead of 64"),
        (KEY + "0", "has 65 characters instead of 64"),
        (KEY[:-1] + "g", "has characters other than 0-9 and a-f"),
        (f"{KEY},{OTHER[:10]}", "Key 2 of 2 in PLUGIN_ENCRYPTION_KEY has 10 characters"),
        (f"{KEY},", "Key 2 of 2 in PLUGIN_ENCRYPTION_KEY has 0 characters"),
        (f"{KEY} {OTHER}", "has 129 characters"),
    ],
)
def test_a_malformed_key_is_refused_without_being_shown(text, says):
    """The message says which key is wrong and how long it is; no part of it is in the message or the traceback."""
    with pytest.raises(KeyMalformed) as caught:
        given(text)
    assert says in str(caught.value)
    assert "opsagent key new" in str(caught.value)
    for piece in (text[:16], text[-16:]):
        assert len(piece) < 8 or piece not in seen_in(caught.value)


def seen_in(error):
    """What a verbose traceback of an error shows: texts, and the values of all names in our frames."""
    found = ["".join(traceback.format_exception(error))]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "opsagent_jupyter" in frame.f_code.co_filename:
            found += [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
    return "\n".join(found)


@pytest.mark.parametrize("text", [KEY, KEY.upper(), f" {KEY} ", f"{KEY}, {OTHER}", f"{KEY},{OTHER},{'a' * 64}"])
def test_the_key_of_the_environment_is_used(text):
    """64 hexadecimal characters, small or capital, or a list: the first encrypts."""
    vault = given(text)
    assert vault.source == "environment"
    assert vault.key_id == given(KEY).key_id


def test_the_old_key_still_decrypts_and_the_new_one_encrypts():
    """`new,old` reads what `old` wrote; what it writes needs `new`."""
    token = given(OTHER).encrypt(PASSWORD, instance="i", field="f")
    both = given(f"{KEY},{OTHER}")
    assert both.decrypt(token, instance="i", field="f") == PASSWORD
    renewed = both.encrypt(PASSWORD, instance="i", field="f")
    assert given(KEY).decrypt(renewed, instance="i", field="f") == PASSWORD


def test_a_retired_key_is_named():
    """Without the key of a token the error names the key's id, and says what to set."""
    token = given(OTHER).encrypt(PASSWORD, instance="i", field="f")
    with pytest.raises(KeyUnknown) as caught:
        given(KEY).decrypt(token, instance="i", field="f")
    assert caught.value.key_id == given(OTHER).key_id == token.split(".")[1]
    assert caught.value.key_id in str(caught.value)


def test_rotation_encrypts_everything_with_the_first_key():
    """After `rotate` the old key is not needed any more, and every token is new."""
    places = [(f"i{number}", field) for number in range(20) for field in ("dsn", "key")]
    old = given(OTHER)
    tokens: dict = {}
    for instance, field in places:
        tokens.setdefault(instance, {})[field] = old.encrypt(f"{instance}/{field}", instance=instance, field=field)
    tokens["i0"]["dsn"] = given(KEY).encrypt("i0/dsn", instance="i0", field="dsn")
    rotated = rotate(given(f"{KEY},{OTHER}"), tokens)
    new = given(KEY)
    for instance, field in places:
        assert rotated[instance][field] != tokens[instance][field]
        assert new.decrypt(rotated[instance][field], instance=instance, field=field) == f"{instance}/{field}"


def test_rotation_is_all_or_nothing():
    """One token that cannot be read stops the rotation before anything is returned."""
    old = given(OTHER)
    tokens = {"a": {"dsn": old.encrypt("x", instance="a", field="dsn")}, "b": {"dsn": "v1.00000000.AAAA"}}
    with pytest.raises(KeyUnknown):
        rotate(given(f"{KEY},{OTHER}"), tokens)


def test_a_new_key_is_a_key():
    """`opsagent key new` prints what PLUGIN_ENCRYPTION_KEY takes, a different one each time."""
    keys = {new_key() for _ in range(50)}
    assert len(keys) == 50
    for key in keys:
        assert given(key).key_id


def test_a_shared_store_needs_a_key_that_is_given(tmp_path):
    """For a store on PostgreSQL no key is invented: KeyMissing says what to set, and nothing is written."""
    with pytest.raises(KeyMissing, match="PLUGIN_ENCRYPTION_KEY"):
        open_vault(store_dir=tmp_path, shared=True, environ={})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_comes_first(tmp_path):
    """With a key in the environment the key file is neither made nor read."""
    (tmp_path / "opsagent.key").write_text("nonsense")
    vault = open_vault(store_dir=tmp_path, shared=False, environ={"PLUGIN_ENCRYPTION_KEY": KEY})
    assert vault.source == "environment"


# -- the key file -----------------------------------------------------------------------------------------------------


def embedded(folder):
    return open_vault(store_dir=folder, shared=False, environ={})


def test_the_key_file_is_made_once(tmp_path):
    """First use makes it, later uses read it; only its owner can."""
    folder = tmp_path / "new" / "store"
    first, second = embedded(folder), embedded(folder)
    assert first.source == "file"
    token = first.encrypt(PASSWORD, instance="i", field="f")
    assert second.decrypt(token, instance="i", field="f") == PASSWORD
    assert re.fullmatch("[0-9a-f]{64}\n", (folder / "opsagent.key").read_text())
    if os.name == "posix":
        assert stat.S_IMODE((folder / "opsagent.key").stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {"opsagent.key", "opsagent.key.lock"}


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    """Eight processes at the first start: one key, and each reads what the others wrote."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from opsagent_jupyter.credentials import open_vault\n"
        "sys.stdin.read(1)\n"
        f"vault = open_vault(store_dir=Path({str(tmp_path)!r}), shared=False, environ={{}})\n"
        "print(vault.encrypt('x', instance='i', field='f'))\n"
    )
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(8)
    ]
    for racer in racers:
        racer.stdin.write("go")
        racer.stdin.flush()
    tokens = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    vault = embedded(tmp_path)
    assert [vault.decrypt(token, instance="i", field="f") for token in tokens] == ["x"] * 8


def test_threads_that_start_together_agree_on_one_key(tmp_path):
    """The same within one process."""
    found = []
    threads = [threading.Thread(target=lambda: found.append(embedded(tmp_path).key_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_file_that_others_can_use_is_refused(tmp_path, mode):
    """Readable or writable by others: not used, and the message has the command that mends it."""
    embedded(tmp_path)
    path = tmp_path / "opsagent.key"
    path.chmod(mode)
    with pytest.raises(CredentialError, match=f"chmod 600 {path}"):
        embedded(tmp_path)
    path.chmod(0o600)
    assert embedded(tmp_path).key_id


@pytest.mark.parametrize("text", ["", "short", "z" * 64, "\xff\xfe" * 32])
def test_a_damaged_key_file_is_named_and_not_replaced(tmp_path, text):
    """The file is left as it is: with a new key the stored credentials would be lost for good."""
    path = tmp_path / "opsagent.key"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(KeyMalformed, match=re.escape(str(path))):
        embedded(tmp_path)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_folder_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path):
    """No key file can be made: the message says where, and names the variable."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CredentialError, match="PLUGIN_ENCRYPTION_KEY"):
        embedded(tmp_path / "file" / "store")


def test_a_kept_key_can_be_changed(tmp_path):
    """renew, rotate, retire: the new key reads everything, the old one is gone from the file."""
    vault = embedded(tmp_path)
    old_id, old_text = vault.key_id, (tmp_path / "opsagent.key").read_text().strip()
    tokens = {"i": {"dsn": vault.encrypt(PASSWORD, instance="i", field="dsn")}}
    renewed = renew(vault)
    assert renewed.key_id != old_id
    assert renewed.old_key_ids == (old_id,)
    rotated = rotate(renewed, tokens)
    retire(renewed)
    assert old_text not in (tmp_path / "opsagent.key").read_text()
    fresh = embedded(tmp_path)
    assert fresh.decrypt(rotated["i"]["dsn"], instance="i", field="dsn") == PASSWORD
    with pytest.raises(KeyUnknown):
        fresh.decrypt(tokens["i"]["dsn"], instance="i", field="dsn")
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "opsagent.key").stat().st_mode) == 0o600


def test_a_change_of_keys_that_broke_off_is_gone_on_with(tmp_path):
    """After a crash between renew and retire a second renew keeps both keys, so that no credential is lost."""
    vault = embedded(tmp_path)
    token = vault.encrypt(PASSWORD, instance="i", field="f")
    first = renew(vault)
    second = renew(embedded(tmp_path))
    assert second.key_id == first.key_id
    assert second.decrypt(token, instance="i", field="f") == PASSWORD


def test_running_processes_follow_a_change_of_keys(tmp_path):
    """A vault that was open before the change reads the new tokens, and writes with the new key."""
    running = embedded(tmp_path)
    before = running.encrypt(PASSWORD, instance="i", field="f")
    renewed = renew(embedded(tmp_path))
    assert running.decrypt(renewed.encrypt(PASSWORD, instance="i", field="f"), instance="i", field="f") == PASSWORD
    assert running.encrypt(PASSWORD, instance="i", field="f").split(".")[1] == renewed.key_id
    assert running.decrypt(before, instance="i", field="f") == PASSWORD


def test_retire_forgets_only_the_keys_it_was_told(tmp_path):
    """A key that another change brought in meanwhile stays."""
    vault = renew(embedded(tmp_path))
    path = tmp_path / "opsagent.key"
    path.write_text(f"{KEY},{path.read_text()}")
    retire(vault)
    left = embedded(tmp_path)
    assert (left.key_id, left.old_key_ids) == (given(KEY).key_id, (vault.key_id,))


def test_a_key_in_the_environment_is_the_operators_to_change():
    """Renew says how, with one key; with `new,old` there is nothing to make, and retire leaves it alone."""
    with pytest.raises(CredentialError, match="PLUGIN_ENCRYPTION_KEY=new,old"):
        renew(given(KEY))
    both = given(f"{KEY},{OTHER}")
    assert renew(both) is both
    retire(both)
    assert both.old_key_ids


# -- the OS keyring ---------------------------------------------------------------------------------------------------


def test_a_working_keyring_holds_the_key(tmp_path, desktop):
    """Where there is one, the key goes there; the key file only says so."""
    vault = embedded(tmp_path)
    assert vault.source == "keyring"
    (entry,) = desktop.entries.items()
    assert entry[0][0] == "opsagent_jupyter"
    assert re.fullmatch("[0-9a-f]{64}", entry[1])
    assert entry[1] not in (tmp_path / "opsagent.key").read_text()
    token = vault.encrypt(PASSWORD, instance="i", field="f")
    assert embedded(tmp_path).decrypt(token, instance="i", field="f") == PASSWORD


def test_a_key_in_an_unreachable_keyring_is_not_replaced(tmp_path, desktop):
    """A process without the keyring, under cron for example, gets an error that says so; it invents no second key."""
    embedded(tmp_path)
    desktop.entries.clear()
    with pytest.raises(KeyMissing, match="keyring get opsagent_jupyter"):
        embedded(tmp_path)


def test_a_key_in_the_keyring_can_be_changed(tmp_path, desktop):
    """renew, rotate and retire work there as in the file."""
    vault = embedded(tmp_path)
    tokens = {"i": {"dsn": vault.encrypt(PASSWORD, instance="i", field="dsn")}}
    renewed = renew(vault)
    rotated = rotate(renewed, tokens)
    retire(renewed)
    assert embedded(tmp_path).decrypt(rotated["i"]["dsn"], instance="i", field="dsn") == PASSWORD
    (kept,) = desktop.entries.values()
    assert len(kept) == 64


def test_a_shared_store_takes_the_key_that_somebody_put_into_the_keyring(tmp_path, desktop):
    """`keyring set opsagent_jupyter PLUGIN_ENCRYPTION_KEY` does what the variable does; none is made."""
    with pytest.raises(KeyMissing):
        open_vault(store_dir=tmp_path, shared=True, environ={})
    assert desktop.entries == {}
    desktop.set_password("opsagent_jupyter", "PLUGIN_ENCRYPTION_KEY", KEY)
    vault = open_vault(store_dir=tmp_path, shared=True, environ={})
    assert (vault.source, vault.key_id) == ("keyring", given(KEY).key_id)


class Forgetful(MemoryKeyring):
    """Says yes and keeps nothing, like keyring's null back end."""

    def set_password(self, service, username, password):
        pass


class Broken(MemoryKeyring):
    """Fails as desktops fail: with errors of its own."""

    def get_password(self, *_):
        raise OSError("no session bus")

    set_password = get_password


class Clear(MemoryKeyring):
    """Keeps passwords in a plain file, so keyring does not recommend it."""

    priority = 0.5


class Asking(MemoryKeyring):
    """Waits for somebody to type the password of the keyring."""

    def get_password(self, *_):
        threading.Event().wait(30)

    set_password = get_password


@pytest.mark.parametrize("backend", [Forgetful, Broken, Clear, Asking])
def test_a_keyring_that_does_not_work_is_not_used(tmp_path, monkeypatch, backend):
    """It falls back to the file, soon, and does not fail."""
    monkeypatch.setattr(credentials, "KEYRING_PATIENCE", 0.2)
    keyring.set_keyring(backend())
    assert embedded(tmp_path).source == "file"


def test_without_the_keyring_package_the_file_is_used(tmp_path, monkeypatch):
    """Keyring is an extra: without it everything works."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert embedded(tmp_path).source == "file"


# -- nothing shows a key or a secret ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Holder:
    """A value with a secret in it."""

    secret: Secret


def test_a_secret_shows_itself_to_nobody():
    """repr, str, format, print, JSON, pickle, copy, comparison and the names of its attributes tell nothing."""
    secret = Secret(PASSWORD)
    assert secret.reveal() == PASSWORD
    shown = [
        repr(secret),
        str(secret),
        f"{secret} {secret!r} {secret!s} {secret:>40}",
        "%s %r" % (secret, secret),  # noqa: UP031 - the old way is one of the ways
        pprint.pformat({"x": [secret]}),
        repr(Holder(secret)),
        repr(dataclasses.asdict(Holder(secret))),
        repr(copy.copy(secret)),
        repr(copy.deepcopy([secret])),
        " ".join(repr(getattr(secret, name, None)) for name in dir(secret) if name != "__doc__"),
    ]
    assert not [text for text in shown if "horse" in text]
    for leak in (
        lambda: json.dumps(secret),
        lambda: pickle.dumps(secret),
        lambda: vars(secret),
        secret.__getstate__,
        lambda: secret + "",
        lambda: "" + secret,
        lambda: len(secret),
        lambda: iter(secret),
        lambda: setattr(secret, "reveal", str),
    ):
        with pytest.raises((TypeError, AttributeError)) as caught:
            leak()
        assert "horse" not in str(caught.value)
    assert secret != Secret(PASSWORD)
    assert secret != PASSWORD
    assert hash(secret) != hash(PASSWORD)
    assert not Secret("")


def decrypt_with_another_key(vault, folder):
    vault.decrypt("v1.00000000.AAAA", instance="i", field="f")


def decrypt_elsewhere(vault, folder):
    vault.decrypt(vault.encrypt(PASSWORD, instance="i", field="f"), instance="j", field="f")


def encrypt_without_the_key_file(vault, folder):
    (folder / "opsagent.key").unlink()
    vault.encrypt(PASSWORD, instance="i", field="f")


def encrypt_with_an_exposed_key_file(vault, folder):
    (folder / "opsagent.key").chmod(0o644)
    vault.encrypt(PASSWORD, instance="i", field="f")


def renew_an_exposed_key(vault, folder):
    (folder / "opsagent.key").chmod(0o644)
    renew(vault)


@pytest.mark.parametrize(
    "fails",
    [
        decrypt_with_another_key,
        decrypt_elsewhere,
        encrypt_without_the_key_file,
        encrypt_with_an_exposed_key_file,
        renew_an_exposed_key,
    ],
)
def test_no_error_shows_a_key_or_a_secret(tmp_path, fails):
    """A traceback with the values of all names in our frames, as IPython prints on request, shows neither."""
    vault = embedded(tmp_path)
    key = (tmp_path / "opsagent.key").read_text().strip()
    with pytest.raises(CredentialError) as caught:
        fails(vault, tmp_path)
    shown = seen_in(caught.value)
    assert key not in shown
    assert PASSWORD not in shown


def test_a_vault_shows_no_key():
    """Its repr names key id and source; its attributes hold nothing that prints a key, and it is not pickled."""
    vault = given(f"{KEY},{OTHER}")
    assert repr(vault) == f"Vault(key {vault.key_id} from environment)"
    shown = " ".join(repr(value) for value in [vars(vault), *vars(vault).values(), *vault._keys])
    assert KEY not in shown
    assert repr(bytes.fromhex(KEY))[2:20] not in shown
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(vault)
