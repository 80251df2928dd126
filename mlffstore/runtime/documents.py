"""Documents as JSON that every parser reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def json_text(document: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a document as JSON, with null for NaN and infinities, which JSON does not have.

    Examples
    --------
    >>> json_text({"std": float("nan"), "n": 1})
    '{"std": null, "n": 1}'
    """
    return json.dumps(_finite(document), indent=indent, allow_nan=False, default=default)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
