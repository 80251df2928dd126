"""Options of generators and seeds are of the types that their dataclasses name: nothing is cut up, rounded or guessed."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mlffstore.errors import DataError
from mlffstore.runtime.words import nearest

#: What was expected, by the type of pydantic's error.
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}
#: Options of several texts, of which one may be given by itself.
_TEXTS = ("elements", "ions", "kinds", "paths")


def check_options(what: str, options: Any) -> None:
    """Check the fields of a dataclass, in its ``__post_init__``, and make tuples of lists where it has tuples.

    Parameters
    ----------
    what : str
        The generator or class of seeds, for messages.
    options : dataclass
        Its annotations are the types. A field `elements` has symbols of elements.

    Raises
    ------
    DataError
        If a value has another type: a text where several are expected, a fraction or a bool as an integer, NaN.
    """
    for name, adapter in _adapters(options.__class__).items():
        value = getattr(options, name)
        value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        value = tuple(value) if isinstance(value, list) else value
        value = (value,) if isinstance(value, str) and name in _TEXTS else value
        try:
            object.__setattr__(options, name, adapter.validate_python(value))
        except ValidationError as error:
            # Of a union the first type is the one to give; of several values the first wrong one is shown.
            first = error.errors()[0]
            place = "".join(f"[{step}]" for step in first["loc"] if isinstance(step, int))
            expected = _EXPECTED.get(first["type"], first["msg"])
            raise DataError(f"{what}: {name}{place}: expected {expected}, got {first['input']!r}") from None
    symbols = getattr(options, "elements", None)
    if symbols is not None:
        _check_symbols(what, symbols)


@functools.cache
def _adapters(options: type) -> dict[str, TypeAdapter[Any]]:
    hints = typing.get_type_hints(options)
    config = ConfigDict(strict=True, allow_inf_nan=False)
    return {
        field.name: TypeAdapter(hints[field.name], config=config)
        for field in dataclasses.fields(options)
        if hints[field.name] is not Any
    }


def _check_symbols(what: str, symbols: tuple[str, ...]) -> None:
    from ase.data import chemical_symbols

    for symbol in symbols:
        if symbol not in chemical_symbols[1:]:
            hint = nearest(symbol, chemical_symbols[1:])
            raise DataError(f"{what}: elements: expected symbols of elements, got {symbol!r}{hint}")
    if not symbols:
        raise DataError(f"{what}: elements: expected at least one symbol, got none; leave it out for all elements")
