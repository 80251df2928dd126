"""Documents as JSON that every parser reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from typing import Any


def json_text(document: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a document as JSON, with null for NaN and infinities, which JSON does not have.

    Parameters
    ----------
    document : object
        Mappings, lists, tuples, sets, numbers, texts; scalars and arrays of numpy count as numbers and lists.
    indent : int, optional
        Spaces per level; one line by default.
    default : callable, optional
        What other objects become.

    Examples
    --------
    >>> json_text({"std": float("nan"), "n": 1})
    '{"std": null, "n": 1}'
    """
    return json.dumps(_plain(document), indent=indent, allow_nan=False, default=default)


def _plain(value: Any) -> Any:
    """Return the value with null for what is not finite, and without types that `json` does not know."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # a scalar or an array of numpy
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Set):
        return [_plain(one) for one in sorted(value, key=str)]
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
