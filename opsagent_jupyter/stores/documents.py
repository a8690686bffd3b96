"""Values as the JSON texts that are kept of them."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel

from opsagent_jupyter.errors import StoreError
from opsagent_jupyter.models import canonical


def document(value: BaseModel, *, exclude: set[str] | None = None) -> str:
    """The canonical JSON of a value. A database knows NaN and infinity, JSON does not: they are spelled as words."""
    try:
        return canonical(spelled(value.model_dump(mode="json", exclude=exclude)))
    except ValueError as error:
        raise StoreError(f"A {type(value).__name__} cannot be kept as JSON: {error}.") from None


def spelled(value: Any) -> Any:
    """The same JSON value with ``NaN``, ``Infinity`` and ``-Infinity`` as texts."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {key: spelled(each) for key, each in value.items()}
        case list() | tuple():
            return [spelled(each) for each in value]
    return value
