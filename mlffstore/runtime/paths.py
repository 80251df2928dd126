"""Local paths as users write them, in Python, in recipes and in environment variables, where no shell expands ``~``."""

from __future__ import annotations

import os
from pathlib import Path


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return a path whose leading ``~`` or ``~user`` is the home folder, as fsspec, pandas and xarray take it."""
    return Path(os.path.expanduser(path))
