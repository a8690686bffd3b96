"""Statement text without its values: what is shown of other people's statements."""

from __future__ import annotations

import re

#: Characters of a statement that are shown.
SHOWN = 500
HIDDEN = "(text hidden: it mentions PASSWORD)"

_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:\b(?:[bBxXnN]|[uU]&))?'(?:[^']|'')*(?:'|\Z))
    | (?P<parameter>\$\d+)
    | (?P<dollar>\$(?P<tag>[\w\x80-\uffff]*)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<quoted>"(?:[^"]|"")*(?:"|\Z))
    | (?P<number>(?<![\w$])(?:0[xXoObB][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?))
    """,
    re.VERBOSE | re.DOTALL,
)
_PASSWORD = re.compile(r"\bpassword\b", re.IGNORECASE)


def shown(text: str | None) -> str:
    """Return a statement fit to be shown: one line, cut, no literals; hidden when it may set a password."""
    if not text:
        return ""
    if text == "<insufficient privilege>":
        return "(hidden)"
    if _PASSWORD.search(text):
        return HIDDEN
    flat = " ".join(masked(text).split()).rstrip("; ")
    return flat if len(flat) <= SHOWN else flat[: SHOWN - 1] + "…"


def brief(text: str, longest: int = 120) -> str:
    """Return the beginning of a statement, for the middle of a sentence."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def who(role: str | None, application: str | None) -> str:
    """A session as a person calls it: ``checkout, role app``."""
    return ", ".join([*([application] if application else []), *([f"role {role}"] if role else [])]) or "hidden"


def masked(text: str) -> str:
    """Replace every literal by ``?`` and every comment by a space; names and ``$1`` stay."""
    # A plain string may end at \' or not, depending on a setting of the session: from there on, show nothing.
    doubtful = re.search(r"\\'", text)
    head = text[: doubtful.start()] if doubtful else text
    return _TOKEN.sub(_replacement, head) + (" …" if doubtful else "")


def _replacement(match: re.Match[str]) -> str:
    if match["comment"]:
        return " "
    return match[0] if match["quoted"] or match["parameter"] else "?"
