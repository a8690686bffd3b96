"""Says in plain words what a tool found or did, from its result alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from opsagent_jupyter.agent.exchange import Called
from opsagent_jupyter.models import Effect, Json, Result, Suggestion, Table
from opsagent_jupyter.plugin import Tool

#: Rows that are told when a result has no highlights of its own.
TOLD_ROWS = 5
#: Points that are told of each result when there are many.
POINTS = 3


def described(call: Called, *, briefly: bool = False) -> str:
    """What became of one call; briefly, when it is one of many."""
    answer = call.answer
    if answer is None:
        return _sentence(call.text)
    result = answer.result or (answer.effect.result if answer.effect else None)
    match answer.status:
        case "succeeded" if answer.effect is not None:
            return _effect(answer.effect)
        case "succeeded" if result is not None:
            return told(result, most=POINTS if briefly else None)
        case "succeeded":
            return _sentence(answer.summary or "Done.")
        case "unknown":
            return _unknown(answer.summary, answer.effect)
        case "failed":
            return _failed(answer.summary, answer.effect)
        case "waiting" | "running":
            return f"This call is not finished: {_sentence(answer.summary)}"
        case "cancelled":
            return f"Cancelled: {_sentence(answer.summary)}"
    return _refused(answer.summary)


def told(result: Result, most: int | None = None) -> str:
    """A result: its summary, its points or first rows, and what limits it; at most so many points, and then no notes."""
    rows = [line for table in result.tables for line in _rows(table)] if most is None else []
    points = [f"- {point}" for point in result.highlights[:most]] or rows
    notes = [f"Note: {_sentence(note)}" for note in result.notes] if most is None else []
    return "\n".join(part for part in (_sentence(result.summary), *points, *notes) if part)


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows[:TOLD_ROWS]:
        cells = zip(table.columns, row, strict=False)
        said = [f"{name} {_cell(value)}{_unit(table, name)}" for name, value in cells if value not in (None, "")]
        yield "- " + ", ".join(said[:6])
    if table.total > TOLD_ROWS:
        yield f"- … {table.total} in all"


def _unit(table: Table, column: str) -> str:
    return f" {table.units[column]}" if column in table.units else ""


def _cell(value: Json) -> str:
    text = f"{value:,.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


def _effect(effect: Effect) -> str:
    parts = [f"Done. {_sentence(effect.summary)}", *(f"- {rest}" for rest in effect.residue)]
    return "\n".join([*parts, told(effect.result)] if effect.result else parts)


def _failed(summary: str, effect: Effect | None) -> str:
    left = [f"- left behind: {rest}" for rest in (effect.residue if effect else ())]
    return "\n".join([f"That failed. {_sentence(summary)}", *left])


def _unknown(summary: str, effect: Effect | None) -> str:
    left = [f"- {rest}" for rest in (effect.residue if effect else ())]
    tail = "It may have run, and it is not tried again by itself: look at the target before you ask for it once more."
    return "\n".join([f"The outcome is unknown. {_sentence(summary)} {tail}", *left])


def _refused(summary: str) -> str:
    text = _sentence(summary)
    return text if re.search(r"\bnot(?:hing was)? run\b|\brefused\b", text, re.IGNORECASE) else f"Not run. {text}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?:…\n" else f"{text}."


def comparison(before: Called, after: Called) -> str:
    """The figures of one question asked twice, where they changed; empty when none did."""
    old, new = _figures(before), _figures(after)
    changed = [
        f"{name.replace('_', ' ')} {_cell(old[name])} → {_cell(value)}"
        for name, value in new.items()
        if name in old and not name.startswith("planning") and _differs(old[name], value)
    ]
    return f"Before and after: {', '.join(changed[:4])}." if changed else ""


def _figures(call: Called) -> Mapping[str, float]:
    found = call.answer.result.figures if call.answer and call.answer.result else {}
    return {k: float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _differs(old: float, new: float) -> bool:
    return abs(old - new) > 0.01 * max(abs(old), abs(new), 1e-9)


def suggestions(calls: Sequence[Called]) -> list[tuple[Suggestion, str]]:
    """What the answers of some calls suggest, each once, with the database that it is for."""
    found: dict[str, tuple[Suggestion, str]] = {}
    for call in calls:
        answer = call.answer
        for source in (answer.result, answer.effect) if answer else ():
            for suggestion in source.suggestions if source else ():
                found.setdefault(
                    suggestion.model_dump_json(exclude={"why"}), (suggestion, answer.instance if answer else "")
                )
    return list(found.values())


def in_words(tool: Tool, arguments: Mapping[str, Json]) -> Iterator[str]:
    """Requests that may ask for this call, made from the tool's own phrases."""
    for phrase in tool.phrases:
        places = set(re.findall(r"\{(\w+)\}", phrase))
        if places <= set(arguments):
            yield re.sub(r"\{(\w+)\}", lambda found: _spoken(arguments[found[1]]), phrase)


def _spoken(value: Json) -> str:
    return " and ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def example(tool: Tool) -> str:
    """How a person may ask for this tool, with examples in the places of its arguments."""
    holes = {name: arg.example or f"<{name}>" for name, arg in tool.slots.items()}
    return re.sub(r"\{(\w+)\}", lambda found: holes.get(found[1], f"<{found[1]}>"), tool.phrases[0])
