"""Checked access to JSON that comes from a file of a store, which may be damaged or come from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.errors import FormatError

if TYPE_CHECKING:
    import re

#: Largest count that is accepted: 2**40 atoms are 13 TB of positions.
MAX_COUNT = 1 << 40


class Fields:
    """Checked access to the members of a JSON object.

    Parameters
    ----------
    document : object
        The parsed JSON; anything but an object is refused.
    where : str
        The file and the place in it, for error messages.

    Raises
    ------
    FormatError
        By the constructor and by each method, if the member is missing or not of the expected type.
    """

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, dict):
            raise FormatError(f"{where}: expected a JSON object, got {type(document).__name__}")
        self.document, self.where = document, where

    def _get(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        value = self.document.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FormatError(f"{self.where}: {name}: expected {what}, got {str(value)[:60]!r}; the store is damaged")
        return value

    def integer(self, name: str, low: int = 0, high: int = MAX_COUNT) -> int:
        """Return an integer within limits."""
        value: int = self._get(name, int, "an integer")
        if not low <= value <= high:
            raise FormatError(f"{self.where}: {name}: expected {low} to {high}, got {value}; the store is damaged")
        return value

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """Return a string, which matches `pattern` as a whole."""
        value: str = self._get(name, str, "a string")
        if pattern is not None and not pattern.fullmatch(value):
            raise FormatError(f"{self.where}: {name}: unexpected value {value[:80]!r}; the store is damaged")
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list."""
        value: list[Any] = self._get(name, list, "a list")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return an object."""
        value: dict[str, Any] = self._get(name, dict, "an object")
        return value

    def flag(self, name: str) -> bool:
        """Return a boolean, False if it is absent."""
        value = self.document.get(name, False)
        if not isinstance(value, bool):
            raise FormatError(
                f"{self.where}: {name}: expected true or false, got {str(value)[:60]!r}; the store is damaged"
            )
        return value
