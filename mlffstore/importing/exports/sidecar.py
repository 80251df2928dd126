"""The file ``mlffstore.json`` beside the data of exports whose format has no place for what says where they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: Its name; `mlffstore_exporters.folder.write_sidecar` writes it.
NAME = "mlffstore.json"


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return what the file says, nothing if there is none or if it cannot be read."""
    try:
        document = json.loads((path / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
