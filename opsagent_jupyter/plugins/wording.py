"""Figures as a person reads them: sizes, counts, durations and lists in plain English."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def size(value: float) -> str:
    """Bytes with the unit a person would pick, in steps of 1024: ``4.4 MB``, ``61 GB``."""
    number, unit = float(value), _UNITS[0]
    for unit in _UNITS:
        if abs(number) < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    digits = 1 if unit != "bytes" and abs(number) < 9.95 else 0
    return f"{number:,.{digits}f}".removesuffix(".0") + f" {unit}"


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{round(value):,}"


def plural(value: float, noun: str, many: str = "") -> str:
    """A counted noun: ``1 row``, ``200,000 rows``."""
    return f"{count(value)} {noun if round(value) == 1 else many or noun + 's'}"


def article(noun: str) -> str:
    """A noun with ``a`` or ``an``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def verb(value: float, one: str, many: str) -> str:
    """The form of a verb that goes with a count."""
    return one if round(value) == 1 else many


def duration(value: float | timedelta) -> str:
    """Seconds as a person says them: ``12 ms``, ``4.2 s``, ``3 min 20 s``, ``5 h 12 min``, ``3 d 4 h``."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return (f"{seconds:.1f}" if seconds < 9.95 else f"{seconds:.0f}").removesuffix(".0") + " s"
    for large, small, names in ((86400, 3600, ("d", "h")), (3600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if seconds >= large:
            whole, rest = divmod(seconds, large)
            tail = f" {rest // small:.0f} {names[1]}" if rest >= small else ""
            return f"{whole:.0f} {names[0]}{tail}"
    return f"{seconds:.0f} s"


def milliseconds(value: float) -> str:
    """Milliseconds: ``0.35 ms``, ``41 ms``, ``2.4 s``."""
    if value >= 1000:
        return duration(value / 1000)
    return f"{value:.2f} ms" if value < 1 else f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def percent(part: float, whole: float) -> str:
    """A share of a whole: ``71 %``; ``0 %`` of nothing."""
    share = 100 * part / whole if whole else 0.0
    return "under 1 %" if 0 < share < 1 else f"{share:.0f} %"


def listing(items: Sequence[str], limit: int = 3) -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b, c and 4 more``."""
    shown = list(items[:limit])
    if len(items) > limit:
        return f"{', '.join(shown)} and {len(items) - limit} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def sentence(text: str) -> str:
    """A text with a capital first letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", ":")) else ".")
