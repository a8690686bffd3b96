"""No secret gets past redaction, and what is no secret does."""

from __future__ import annotations

import base64
import html
import json
import logging
import pickle
import sys
import threading
import time
import traceback
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsagent_jupyter import redaction
from opsagent_jupyter.redaction import DEEPEST, STRUCK, WITHHELD, Redactor

CANARIES = [
    "hunter2hunter2",
    "p@ss/w:rd?&=#%",
    'it\'s "quoted"',
    "back\\slash\\n",
    "line\nbreak\ttab",
    "Grüße-∑-パスワード",
    "<b>&amp;</b>",
    "spaces in the middle",
    "$1$abc$def",
    "0123456789abcdef",
    "trailing ",
    "--comment;drop",
    "%2Fencoded%20already",
    "a" * 200,
    "emoji-🔑-key",
    "{{template}}",
]

FORMS = {
    "raw": str,
    "url": lambda secret: quote(secret, safe=""),
    "url, slashes kept": quote,
    "url, plus for space": quote_plus,
    "url, small letters": lambda secret: "".join(
        part.lower() if part.startswith("%") else part for part in _percent_parts(quote(secret, safe=""))
    ),
    "json": json.dumps,
    "json, unicode": lambda secret: json.dumps(secret, ensure_ascii=False),
    "json in json": lambda secret: json.dumps(json.dumps(secret)),
    "repr": repr,
    "repr of a dict": lambda secret: repr({"dsn": f"host=h {secret}"}),
    "sql": lambda secret: "'" + secret.replace("'", "''") + "'",
    "conninfo": lambda secret: "'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'",
    "html": html.escape,
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "base64 for urls": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "hex": lambda secret: secret.encode().hex(),
    "bytea": lambda secret: "\\x" + secret.encode().hex().upper(),
}


def _percent_parts(text):
    while text:
        width = 3 if text[0] == "%" else 1
        yield text[:width]
        text = text[width:]


@pytest.fixture
def redactor():
    found = Redactor()
    found.add(*CANARIES)
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("canary", CANARIES, ids=range(len(CANARIES)))
def test_a_known_secret_is_struck_in_every_form(redactor, canary, form):
    """Raw, encoded or escaped, alone or in the middle of a sentence, nothing of the secret is left."""
    written = FORMS[form](canary)
    assert redactor.redact(f"before <{written}> after") != f"before <{written}> after"
    for forbidden in {canary, written.strip("'\"")}:
        assert forbidden not in redactor.redact(f"before <{written}> after")


@pytest.mark.parametrize("before", ["", "a", "ab", "user:", "bob:"])
def test_a_secret_within_base64_is_struck(before):
    """In a longer base64 text, as in an authorization header, the part that is the secret is struck."""
    redactor = Redactor()
    redactor.add("correct horse battery")
    encoded = base64.b64encode(f"{before}correct horse battery staple".encode()).decode()
    left = redactor.redact(f"header {encoded}").split(STRUCK)
    for piece in left:
        padded = piece.removeprefix("header ")
        assert b"horse" not in base64.b64decode(padded[: len(padded) // 4 * 4] or "")


LIKELY = {
    "postgresql://bob:CANARY@db.example/shop?sslmode=require": "postgresql://bob:***@db.example/shop?sslmode=require",
    "postgres://:CANARY@db/shop": "postgres://:***@db/shop",
    "mongodb+srv://bob:CANARY@db/shop and more": "mongodb+srv://bob:***@db/shop and more",
    "postgresql://bob:CAN@ARY/x@db/shop": "postgresql://bob:***@db/shop",
    "host=db password=CANARY user=bob": "host=db password=*** user=bob",
    "host=db password='CAN ARY' user=bob": "host=db password='***' user=bob",
    "host=db password = 'CAN\\'ARY' user=bob": "host=db password = '***' user=bob",
    "sslpassword=CANARY": "sslpassword=***",
    "PGPASSWORD=CANARY psql": "PGPASSWORD=*** psql",
    "PLUGIN_ENCRYPTION_KEY=CANARY": "PLUGIN_ENCRYPTION_KEY=***",
    "ALTER ROLE bob PASSWORD 'CANARY' VALID UNTIL 'infinity'": "ALTER ROLE bob PASSWORD '***' VALID UNTIL 'infinity'",
    "create role bob encrypted password 'CAN''ARY'": "create role bob encrypted password '***'",
    "CREATE ROLE bob PASSWORD E'CAN\\'ARY' LOGIN": "CREATE ROLE bob PASSWORD E'***' LOGIN",
    "CREATE ROLE bob PASSWORD $x$CANARY$x$ LOGIN": "CREATE ROLE bob PASSWORD $x$***$x$ LOGIN",
    "CREATE ROLE bob PASSWORD 'CANARY that was cut off": "CREATE ROLE bob PASSWORD '***",
    "CREATE USER bob IDENTIFIED BY 'CANARY'": "CREATE USER bob IDENTIFIED BY '***'",
    "Filter: ((password)::text = 'CANARY'::text)": "Filter: ((password)::text = '***'::text)",
    "SELECT * FROM t WHERE token='CANARY' AND id=7": "SELECT * FROM t WHERE token='***' AND id=7",
    '{"password": "CANARY", "n": 1}': '{"password": "***", "n": 1}',
    '"{\\"apiKey\\": \\"CANARY\\", \\"n\\": 1}"': '"{\\"apiKey\\": \\"***\\", \\"n\\": 1}"',
    "{'pwd': 'CANARY', 'n': 1}": "{'pwd': '***', 'n': 1}",
    "db.createUser({user: 'bob', pwd: 'CANARY'})": "db.createUser({user: 'bob', pwd: '***'})",
    "SCRAM-SHA-256$4096:CANARY==$CANARY=:CANARY=": "***",
    "md50123456789abcdef0123456789abcdef": "***",
    "Authorization: Basic CANARY": "Authorization: ***",
    "authorization='Bearer CANARY'": "authorization='***'",
    "curl -H 'bearer CANARY0123'": "curl -H 'bearer ***'",
    "sk-CANARYCANARYCANARYCANARY": "***",
    "the key is ghp_CANARYCANARYCANARYCANARY0": "the key is ***",
    "eyJhbGciOiJIUzI1NiJ9.eyJCANARYiJ9.CANARY": "***",
    "-----BEGIN RSA PRIVATE KEY-----\nCANARY\n-----END RSA PRIVATE KEY-----\nafter": "***\nafter",
    "İ password=CANARY": "İ password=***",
}


@pytest.mark.parametrize("text", LIKELY)
def test_what_looks_like_a_secret_is_struck(text):
    """A secret that nobody registered is recognised by its surroundings, and only it is struck."""
    assert Redactor().redact(text) == LIKELY[text]
    assert Redactor().redact(Redactor().redact(text)) == LIKELY[text]


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX CONCURRENTLY orders_customer_id_idx ON public.orders USING btree (customer_id)",
        "Index Scan using orders_pkey on orders  (cost=0.42..8.44 rows=1 width=97)",
        'duplicate key value violates unique constraint "orders_email_key"',
        "Key (id)=(42) already exists.",
        'password authentication failed for user "bob"',
        "Check user and password (and pg_hba.conf), then attach again.",
        "SELECT * FROM users WHERE password = $1 AND token = ?",
        "UPDATE users SET password = NULL, token = %s",
        "password_encryption = scram-sha-256",
        "https://jupyter.example:8888/tree?x=1",
        "2026-11-23T10:24:00+00:00 3f2a9c0d4b5e6f708192a3b4c5d6e7f8",
        "use bearer authentication for this",
        "PRIMARY KEY (id), FOREIGN KEY (customer_id) REFERENCES customers",
        "token bucket, secret sauce, primaryKey: id",
        "",
    ],
)
def test_ordinary_text_is_left_alone(text):
    """What a DBA needs to read stays as it is."""
    assert Redactor().redact(text) == text


def test_short_secrets_are_struck_where_they_stand_alone():
    """A password of one to three characters is struck as a word, not out of every word."""
    redactor = Redactor()
    redactor.add("a", "x1")
    assert redactor.redact("a cat sat at x1, (x1) and x12") == "*** cat sat at ***, (***) and x12"


def test_overlapping_secrets_leave_nothing():
    """Where two secrets share characters, all of both is struck."""
    redactor = Redactor()
    redactor.add("abcdef", "defghi", "cdefgh")
    assert redactor.redact("1abcdefghi2") == "1***2"
    assert redactor.redact("abcdefabcdef") == STRUCK


def test_a_pattern_does_not_hide_a_known_secret():
    """A secret with a space is struck whole, although the pattern for password=... ends at the space."""
    redactor = Redactor()
    redactor.add("two words")
    assert redactor.redact("password=two words;") == "password=***;"


def test_a_known_secret_does_not_hide_a_pattern():
    """Striking one secret does not make another one unrecognisable."""
    redactor = Redactor()
    redactor.add("tag")
    assert "CANARY" not in redactor.redact("PASSWORD $tag$CANARY$tag$ LOGIN")


def test_json_values_keep_their_shape():
    """Names that promise a secret have their value struck, whatever it is; the rest keeps its type."""
    redactor = Redactor()
    redactor.add("hunter2hunter2", "987654321")
    value = {
        "table": "orders",
        "limit": 10,
        "ratio": 0.5,
        "password": "x",
        "apiKey": 7,
        "clientSecret": ["a", {"b": 1}],
        "PGPASSWORD": None,
        "has_password": True,
        "primaryKey": "id",
        "max_tokens": 5,
        "nested": [{"text": "say hunter2hunter2", "number": 987654321}, None, True],
        "hunter2hunter2": 1,
    }
    assert redactor.redact_json(value) == {
        "table": "orders",
        "limit": 10,
        "ratio": 0.5,
        "password": STRUCK,
        "apiKey": STRUCK,
        "clientSecret": STRUCK,
        "PGPASSWORD": None,
        "has_password": True,
        "primaryKey": "id",
        "max_tokens": 5,
        "nested": [{"text": f"say {STRUCK}", "number": STRUCK}, None, True],
        STRUCK: 1,
    }


def test_what_cannot_be_redacted_is_withheld():
    """An error in redaction drops the payload: wrong types, foreign objects, values that never end."""
    redactor = Redactor()
    redactor.add("hunter2hunter2")
    assert redactor.redact(b"hunter2hunter2") == WITHHELD
    assert redactor.redact(None) == WITHHELD
    assert redactor.redact_json({"x": object()}) == {"x": WITHHELD}
    assert redactor.redact_json({1: "hunter2hunter2"}) == WITHHELD
    deep: list = ["hunter2hunter2"]
    for _ in range(DEEPEST + 10):
        deep = [deep]
    assert "hunter2" not in json.dumps(redactor.redact_json(deep))
    endless: list = []
    endless.append(endless)
    assert WITHHELD in json.dumps(redactor.redact_json(endless))


def test_the_redactor_tells_nothing():
    """Neither its repr, nor pickling, nor a verbose traceback through it shows a secret."""
    redactor = Redactor()
    redactor.add("hunter2hunter2")
    assert "hunter2" not in repr(redactor)
    assert "hunter2" not in str(redactor)
    assert not hasattr(redactor, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(redactor)


def test_threads_can_add_and_redact_at_once():
    """While some threads add secrets, others redact; no secret is lost."""
    redactor = Redactor()
    names = [f"secret-number-{number}-of-many" for number in range(40)]
    stop = threading.Event()

    def read():
        while not stop.is_set():
            redactor.redact("secret-number-0-of-many and more")

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=redactor.add, args=names[start::4]) for start in range(4)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert redactor.redact(" ".join(names)) == " ".join([STRUCK] * len(names))


@settings(max_examples=150, deadline=None)
@given(
    secret=st.text(min_size=4, max_size=40).filter(lambda text: text.strip() == text), before=st.text(), after=st.text()
)
def test_no_secret_survives_in_any_text(secret, before, after):
    """Whatever the secret and whatever stands around it, it is not in the result."""
    redactor = Redactor()
    redactor.add(secret)
    if secret not in STRUCK:
        assert secret not in redactor.redact(before + secret + after).replace(STRUCK, "\0")


@pytest.mark.parametrize(
    "text",
    [
        "@" + "://a:" * 20_000,
        "password=" * 12_000,
        "password='" + "\\'" * 50_000,
        "password" + " " * 100_000,
        "password::" + "a " * 50_000,
        "password $a$" * 10_000,
        "-----BEGIN PRIVATE KEY-----" * 4_000,
        "bearer " * 20_000,
        "A" * 100_000,
    ],
    ids=range(9),
)
def test_no_text_makes_redaction_slow(text):
    """A text made to hurt regular expressions, 100 kB long, takes a small part of a minute."""
    started = time.process_time()
    Redactor().redact(text)
    assert time.process_time() - started < 5


def test_a_log_record_with_a_traceback_can_be_redacted():
    """The text of an exception chain, as a log shows it, has no secret after redaction."""
    redactor = Redactor()
    redactor.add("hunter2hunter2")
    try:
        raise ValueError("could not connect with password=hunter2hunter2")
    except ValueError:
        text = "".join(traceback.format_exception(*sys.exc_info()))
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, redactor.redact(text), None, None)
    assert "hunter2" not in record.getMessage()


@pytest.mark.parametrize("text", ['{"token": 1}', '{"api_key": -1, "at": 1}', '{"token": {"$exists": true}}'])
def test_the_order_of_an_index_and_an_operator_are_no_secrets(text: str) -> None:
    """An index on a field called token can be asked for, and its key stands on the card."""
    assert Redactor().redact(text) == text


def test_a_short_password_in_a_connection_string_is_still_struck() -> None:
    """What stands behind an equals sign is a value, whatever it looks like."""
    assert Redactor().redact("password=1,host=x") != "password=1,host=x"


def test_a_text_that_was_clean_is_looked_at_again_when_a_secret_is_new() -> None:
    """What is remembered as clean was clean of the secrets that were known then."""
    redactor = Redactor()
    assert redactor.redact("orders_by_maria") == "orders_by_maria"
    assert redactor.redact("orders_by_maria") == "orders_by_maria"
    redactor.add("by_maria")
    assert redactor.redact("orders_by_maria") == "orders_***"
    redactor.add("x1y")
    assert redactor.redact("the x1y there") == "the *** there"


def test_a_secret_that_comes_while_a_text_is_looked_at_is_struck_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in the middle of a look must not remember the text as clean for those who come later."""
    redactor, likely = Redactor(), redaction._likely

    def meanwhile(text: str) -> list[tuple[int, int]]:
        redactor.add("by_maria")
        return likely(text)

    monkeypatch.setattr(redaction, "_likely", meanwhile)
    redactor.redact("orders_by_maria")
    monkeypatch.setattr(redaction, "_likely", likely)
    assert redactor.redact("orders_by_maria") == "orders_***"


def test_what_is_remembered_as_clean_has_an_end() -> None:
    """Texts without number make the memory no larger than its limit."""
    redactor = Redactor()
    for number in range(2 * redaction.MOST_REMEMBERED):
        redactor.redact(f"name {number}")
    assert len(redactor._clean) <= redaction.MOST_REMEMBERED
    for start in range(0, 4 * redaction.MOST_REMEMBERED, 3_000):
        assert redactor.all_clean([f"other {start + number}" for number in range(2 * redaction.MOST_REMEMBERED)])
        assert len(redactor._clean) <= redaction.MOST_REMEMBERED


_SECRETS = ["Zeppelin-7", "x1y", "\u00e9clair!", "two\nlines"]
#: Pieces that an expression for secrets, or for what looks like one and is none, could put together.
_PIECES = [
    *LIKELY,
    *_SECRETS,
    "secret_key: 1",
    ", 2",
    "}",
    "token = {",
    '"$a',
    "password =",
    "?",
    "= ?",
    "K",
    "\u0130",
    "",
    ".",
]
_PIECES += ["password", "identified", "by 'x'", "'", '"', "bearer", "abcdefgh1", "md5", "0" * 32, "x1", "y", "n", "\\"]


@settings(max_examples=400, deadline=None)
@given(texts=st.lists(st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=3).map("".join), max_size=5))
def test_texts_that_are_clean_together_are_clean_each(texts: list[str]) -> None:
    """One look at all of them finds whatever a look at each would."""
    together, each = Redactor(), Redactor()
    together.add(*_SECRETS)
    each.add(*_SECRETS)
    if together.all_clean(texts):
        assert [each.redact(text) for text in texts] == texts
        assert [together.redact(text) for text in texts] == texts


def test_a_look_at_many_texts_finds_the_secret_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is known, what looks like one, and one that is new; a look that fails finds nothing clean."""
    redactor = Redactor()
    redactor.add("Zeppelin-7")
    names = [f"orders_{number}" for number in range(500)]
    assert redactor.all_clean(names)
    assert redactor.all_clean(names)
    assert not redactor.all_clean([*names, "by Zeppelin-7"])
    assert not redactor.all_clean([*names, "password=hunter2"])
    redactor.add("orders_42")
    assert not redactor.all_clean(names)
    monkeypatch.setattr(redaction, "_likely", None)
    assert not redactor.all_clean(["something new"])
