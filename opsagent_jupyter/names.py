"""Names that people type: near matches for the ones that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean a, b?)``, or `` (there are a, b)`` when few exist, or nothing."""
    names = sorted(set(known))
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if matches:
        return f" (did you mean {', '.join(matches)}?)"
    return f" (there is {', '.join(names)})" if 0 < len(names) <= 12 else ""
