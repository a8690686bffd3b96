"""Strikes secrets out of texts: every registered one in the forms in which it shows up, and what looks like one."""

from __future__ import annotations

import base64
import json
import re
import threading
from urllib.parse import quote, quote_plus

MASK = "•••"
_PATTERNS = (
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@'\"]*):([^\s/'\"]+)@"), rf"\1:{MASK}@"),
    (re.compile(r"(?i)\b(password|passwd|pwd|secret|api[_-]?key|token)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&)]+)"), rf"\1\2{MASK}"),
    (re.compile(r"(?i)\b(PASSWORD\s+)(E?'(?:[^']|'')*')"), rf"\1{MASK}"),
    (re.compile(r"SCRAM-SHA-256\$[^\s'\"]+"), MASK),
    (re.compile(r"(?i)\b(bearer\s+)[a-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
    (re.compile(r"\b(sk|pk|rk)-[A-Za-z0-9_-]{16,}"), MASK),
)


class Redactor:
    """Thread-safe; secrets are only ever added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._known: re.Pattern[str] | None = None

    def add(self, *secrets: str) -> None:
        """Know some more secrets."""
        with self._lock:
            fresh = {form for secret in secrets if secret for form in forms(secret)} - self._forms
            if fresh:
                self._forms |= fresh
                ordered = sorted(self._forms, key=len, reverse=True)
                self._known = re.compile("|".join(_shape(form) for form in ordered))

    def redact(self, text: str) -> str:
        """The text without secrets."""
        known = self._known
        if known is not None:
            text = known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text


def forms(secret: str) -> set[str]:
    """The forms in which a secret shows up: raw, in a URL, in JSON, in base64."""
    encoded = base64.b64encode(secret.encode()).decode()
    return {
        secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1], encoded, encoded.rstrip("="),
    }  # fmt: skip


def _shape(form: str) -> str:
    """A short secret counts only when it stands alone, else every text would be struck."""
    escaped = re.escape(form)
    return escaped if len(form) >= 4 else rf"(?<!\w){escaped}(?!\w)"
