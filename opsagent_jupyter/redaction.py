"""Strikes secrets out of text: those that are known, in every form they travel in, and what looks like one.

Every text that leaves a host passes here: to the audit, a log, the model, a screen. When redaction itself fails the text
is withheld, never let through.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn
from urllib.parse import quote, quote_plus

from opsagent_jupyter.models import Json

STRUCK = "***"
WITHHELD = "[withheld: redaction failed]"
#: Shorter secrets are struck only where they stand alone: "a" can be a password, and is in most words.
SHORTEST = 4
#: Characters of a text that was found clean and is not looked at again, and how many of them: names of tables and tools
#: pass here in every call.
REMEMBERED, MOST_REMEMBERED = 200, 5_000
#: Pieces of base64 that are shorter turn up by chance.
SHORTEST_PIECE = 6
#: Between texts that are looked at together: a line feed bounds a word as the end of a text does, and nothing that an
#: expression takes for harmless goes on beyond a NUL.
_BOUND = "\n\0\n"
#: Values that are nested deeper are withheld.
DEEPEST = 100

_NAME = (
    "(?:password|passwd|passphrase|passcode|pwd|secret|token|credentials?"
    "|(?:api|access|auth|private|secret|encryption|stored|server)[_-]?key)"
)
_SECRET_NAME = re.compile(f"{_NAME}$")
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

#: A quoted value; a text that was cut may lack the closing quote.
_QUOTED = r"""'((?:[^'\\]|''|\\.)*)(?:'|\Z)|"((?:[^"\\]|\\.)*)(?:"|\Z)|\\"((?:[^"\\]|\\[^"])*)(?:\\"|\Z)"""
#: What stands in the place of a value and is none; the last two are the order of an index key, and a query's operator.
_PLACEHOLDER = (
    r"""(?!(?:\$\d+|\?|%s|null|none|true|false|\*\*\*)(?:[\s,;)\]}"']|\Z)"""
    r"""|(?<!=)(?<!=\s)-?1\s{0,9}[,}\]]|\{\s{0,9}["']?\$[a-z])"""
)
_ASSIGNED = rf"""{_NAME}(?:\)*::[a-z ]{{1,30}}\)?)?\\?["']?[ \t]*(?:=>|:=|<>|!=|[:=])[ \t]*"""
#: Keys by the marks of those who issue them; the last is a JSON web token.
_ISSUED = (
    r"sk-[\w-]{16,}|gh[opsru]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|akia[0-9a-z]{16}\b"
    r"|aiza[\w-]{30,}|hf_\w{20,}|eyj[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
)

#: How the names of keys above end: texts about a primary key or orders_pkey are many, and need no closer look.
_KEY_ENDS = tuple(f"{letter}{between}key" for letter in "ishetndr" for between in ("", "_", "-"))

#: Texts of which one must occur, and an expression whose last group is the secret, all of it when there is none.
_EXPRESSIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("://",), r"""://[^\s:/?#@"'<>]*:([^\s"'<>]{1,1000})@"""),
    (
        ("pass", "pwd", "secret", "token", "credential", *_KEY_ENDS),
        rf"""{_ASSIGNED}(?:(?:e|u&)?(?:{_QUOTED})|{_PLACEHOLDER}([^\s"']+))""",
    ),
    (
        ("password", "identified"),
        rf"""(?:password|identified\s+by)\s+(?:(?:e|u&)?(?:{_QUOTED})|\$(\w*)\$(.*?)(?:\$\4\$|\Z))""",
    ),
    (("scram-sha-",), r"""scram-sha-(?:1|256)\$[^\s"']+"""),
    (("md5",), r"\bmd5[0-9a-f]{32}\b"),
    (("authorization",), r"""authorization["']?\s*[:=]\s*["']?((?:\w+[ \t]+)?[^\s"']+)"""),
    (("bearer",), r"bearer\s+(?=\S{0,200}\d)([\w.~+/=-]{8,})"),
    (("sk-", "gh", "glpat-", "xox", "akia", "aiza", "hf_", "eyj"), rf"\b(?:{_ISSUED})"),
    (("private key",), r"-----begin [a-z ]{0,30}private key-----.*?(?:-----end [a-z ]{0,30}private key-----|\Z)"),
)
#: Secrets that nobody told us of. The expressions run over lower-case text; each begins with a literal and repeats within
#: bounds or over a class that it cannot leave, so that nobody can make them slow.
_PATTERNS = tuple((signs, re.compile(expression, re.DOTALL)) for signs, expression in _EXPRESSIONS)


class Redactor:
    """Knows this host's secrets. Safe to use from several threads."""

    __slots__ = ("_adding", "_clean", "_forms", "_short")

    def __init__(self) -> None:
        self._adding = threading.Lock()
        self._forms: tuple[str, ...] = ()
        self._short: frozenset[str] = frozenset()
        self._clean: set[str] = set()

    def __repr__(self) -> str:
        return "Redactor()"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Redactor holds secrets and is not pickled.")

    def add(self, *secrets: str) -> None:
        """Know these secrets from now on, for good."""
        long, short = set(self._forms), set(self._short)
        for secret in filter(None, {*secrets, *(secret.strip() for secret in secrets)}):
            (long if len(secret) >= SHORTEST else short).update(_forms_of(secret))
        with self._adding:
            self._forms = tuple(sorted(long.union(self._forms), key=len, reverse=True))
            self._short = self._short | short
            # Last, and another set: what was found clean without these secrets goes into the one that is left behind.
            self._clean = set()

    def redact(self, text: str) -> str:
        """Return the text without its secrets."""
        try:
            clean = self._clean
            if text in clean:
                return text
            spans = self._known(text) + _likely(text)
            if spans:
                return struck_out(text, spans)
            if len(text) <= REMEMBERED:
                if len(clean) >= MOST_REMEMBERED:
                    clean.clear()
                clean.add(text)
            return text
        except Exception:  # noqa: BLE001 - fail closed: whatever went wrong, the text does not pass
            return WITHHELD

    def all_clean(self, texts: Collection[str]) -> bool:
        """Whether none of these texts holds a secret, by one look at all of them; False may also mean that each has to be
        looked at by itself."""
        clean = self._clean
        unseen = {*texts} - clean
        if not unseen:
            return True
        joined = _BOUND.join(unseen)
        try:
            if len(joined.lower()) != len(joined) or self._known(joined) or _likely(joined):
                return False
        except Exception:  # noqa: BLE001 - fail closed: whatever went wrong, each of them is looked at
            return False
        short = [text for text in unseen if len(text) <= REMEMBERED][:MOST_REMEMBERED]
        if len(clean) + len(short) > MOST_REMEMBERED:
            clean.clear()
        clean.update(short)
        return True

    def redact_json(self, value: Json) -> Json:
        """Return a JSON value without its secrets; under a name such as "password" everything is struck."""
        try:
            return self._redact_json(value, DEEPEST)
        except Exception:  # noqa: BLE001 - as above
            return WITHHELD

    def _redact_json(self, value: Json, depth: int) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, int | float):
            return STRUCK if self._known(str(value)) else value
        if not depth or not isinstance(value, list | tuple | Mapping):
            return WITHHELD
        if isinstance(value, Mapping):
            return {self.redact(name): self._redact_entry(name, item, depth - 1) for name, item in value.items()}
        return [self._redact_json(item, depth - 1) for item in value]

    def _redact_entry(self, name: str, value: Json, depth: int) -> Json:
        if _names_secret(name) and value is not None and not isinstance(value, bool):
            return STRUCK
        return self._redact_json(value, depth)

    def _known(self, text: str) -> list[tuple[int, int]]:
        """Where known secrets stand."""
        spans = [span for form in self._forms if form in text for span in _places(form, text)]
        for form in self._short:
            if form in text:
                alone = rf"(?<![^\W_]){re.escape(form)}(?![^\W_])"
                spans += [match.span() for match in re.finditer(alone, text)]
        return spans


def _forms_of(secret: str) -> Iterator[str]:
    """A secret as it stands in texts, URLs, JSON, SQL, connection strings, HTML, tracebacks, and encoded."""
    yield secret
    for encoded in (
        quote(secret, safe="", errors="replace"),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
    ):
        yield encoded
        yield re.sub("%..", lambda match: match[0].lower(), encoded)
    for ascii_only in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
    yield repr(secret)[1:-1]
    yield secret.replace("'", "''")
    yield secret.replace("\\", "\\\\").replace("'", "\\'")
    yield html.escape(secret)
    yield from _encoded(secret.encode(errors="surrogatepass"))


def _encoded(raw: bytes) -> Iterator[str]:
    """Hexadecimal, and base64 wherever in a longer text the secret begins."""
    forms = {raw.hex(), raw.hex().upper()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        forms |= {whole, whole.rstrip("=")}
        for before, affected in ((0, 0), (1, 2), (2, 3)):
            shifted = encode(bytes(before) + raw).decode()
            forms.add(shifted[affected : (before + len(raw)) * 8 // 6])
    yield from (form for form in forms if len(form) >= SHORTEST_PIECE)


def _places(form: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a form stands, overlaps included."""
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + 1)


def struck_out(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with each stretch of covered characters replaced once."""
    parts: list[str] = []
    end = 0
    for start, stop in sorted(spans):
        if start > end or not parts:
            parts += [text[end:start], STRUCK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _likely(text: str) -> list[tuple[int, int]]:
    """Where something stands that looks like a secret."""
    lowered = text.lower()
    if len(lowered) != len(text):  # some letters have a longer lower case, and places would shift
        lowered = text.translate(_ASCII_LOWER)
    return [
        match.span(match.lastindex or 0)
        for signs, pattern in _PATTERNS
        if any(sign in lowered for sign in signs)
        for match in pattern.finditer(lowered)
    ]


def _names_secret(name: str) -> bool:
    """True for password, apiKey, PGPASSWORD, client-secret and the like."""
    return _SECRET_NAME.search(_CAMEL.sub("_", name).lower()) is not None


def place_of(error: BaseException) -> str:
    """Say for a log what kind of error a bug was and where, but not its text, which may hold a secret."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
