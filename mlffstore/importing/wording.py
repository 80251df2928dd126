"""How options are written in messages: as arguments of `import_files`, or as options of the command line."""

from __future__ import annotations

from typing import Any, Literal

Interface = Literal["python", "command line"]
#: Options that repeat on the command line, one value at a time.
_SINGULAR = {"keys": "key", "columns": "column"}


class Wording:
    """Writes options in the words of the interface that the user called.

    Examples
    --------
    >>> Wording("python").option("keys", {"energy": "REF_energy"})
    "keys={'energy': 'REF_energy'}"
    >>> Wording("command line").option("keys", {"energy": "REF_energy"})
    '--key energy=REF_energy'
    """

    def __init__(self, interface: Interface = "python") -> None:
        self.interface = interface

    def name(self, option: str) -> str:
        """Return the name of an option."""
        if self.interface == "python":
            return option
        return "--" + _SINGULAR.get(option, option).replace("_", "-")

    def option(self, option: str, value: Any) -> str:
        """Return an option with its value."""
        if self.interface == "python":
            return f"{option}={value!r}"
        name = self.name(option)
        if isinstance(value, bool):
            return name if value else name.replace("--", "--no-", 1)
        if isinstance(value, dict):
            return " ".join(f"{name} {key}={_words(one)}" for key, one in value.items())
        return f"{name} {_words(value)}"


def _words(value: Any) -> str:
    if value is None or value == ():
        return "none"
    text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return f"'{text}'" if any(c in text for c in " \t'\"$") else text
