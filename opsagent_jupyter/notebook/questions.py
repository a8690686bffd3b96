"""A question may end with a question mark: without this, IPython would take it for a request for help."""

from __future__ import annotations

import re

#: ``%opsagent ask …?``, with or without an assignment before it.
_QUESTION = re.compile(r"^(?P<before>\s*(?:[A-Za-z_][\w.]*\s*=\s*)?)%opsagent\s+(?P<line>.*\S.*\?)\s*$")


def keep_question_marks(lines: list[str]) -> list[str]:
    """Rewrite such lines to the call that they stand for; an input transformer of IPython (lines keep their ends)."""
    if lines and lines[0].startswith("%%"):
        return lines
    return [_rewritten(line) for line in lines]


def _rewritten(line: str) -> str:
    found = _QUESTION.match(line)
    if found is None:
        return line
    return f"{found['before']}get_ipython().run_line_magic('opsagent', {found['line']!r})\n"
