"""`Problems`: why frames cannot be imported, told once for all frames that share the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.errors import problems_message

if TYPE_CHECKING:
    from pathlib import Path


class Problems:
    """Gathers problems of frames, in the order in which they are met."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, path: Path, where: str, text: str) -> None:
        """Note a problem of a frame."""
        self._places.setdefault((str(path), text), []).append(where)

    def merge(self, other: Problems) -> None:
        """Add the problems of others, after these."""
        for key, places in other._places.items():
            self._places.setdefault(key, []).extend(places)

    def lines(self) -> list[str]:
        """Return one line for each reason and file, which names the first frames."""
        out = []
        for (path, text), places in self._places.items():
            shown = ", ".join(places[:3])
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            out.append(f"{path}, {shown}{more}: {text}")
        return out

    def message(self) -> str:
        """Return all of it under one headline."""
        n = sum(map(len, self._places.values()))
        return problems_message(
            f"{n} problems with these files:" if n > 1 else "a problem with these files:", self.lines()
        )
