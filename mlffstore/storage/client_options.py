"""Messages about wrong options of an object store's client, without the values, which may be credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Strings shorter than this are no secrets, and would be replaced inside other words.
_SHORTEST = 4


def is_panic(error: BaseException) -> bool:
    """Return whether an exception is a panic of the client's Rust code, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


def refused_options(make: Callable[[Mapping[str, Any]], Any], options: Mapping[str, Any]) -> list[str]:
    """Return the places of the options that the client refuses by themselves, such as ``storage_options['timeout']``.

    Parameters
    ----------
    make : callable
        Makes a client of some options, without any request.
    options : mapping
        Nested by one level, as ``client_options`` and ``retry_config`` are.
    """

    def fails(some: Mapping[str, Any]) -> bool:
        try:
            make(some)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:
            return True
        return False

    if fails({}):
        return []  # it is the URL, or an option that is missing
    places = []
    for name, value in options.items():
        if not fails({name: value}):
            continue
        inner = [key for key in value if fails({name: {key: value[key]}})] if isinstance(value, Mapping) else []
        places += [f"storage_options[{name!r}][{key!r}]" for key in inner] or [f"storage_options[{name!r}]"]
    return places


def without_values(text: str, options: Mapping[str, Any]) -> str:
    """Return a message with the values of options replaced by their places."""
    for place, value in sorted(_strings(options, "storage_options"), key=lambda pair: -len(pair[1])):
        if len(value) >= _SHORTEST:
            text = text.replace(value, f"<{place}>")
    return text


def _strings(options: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        here = f"{place}[{name!r}]"
        if isinstance(value, Mapping):
            yield from _strings(value, here)
        elif isinstance(value, str):
            yield here, value
