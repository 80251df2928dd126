"""Files that options name: their versions, so that what was made of an older one is not used any more."""

from __future__ import annotations

import os
import stat
from typing import Any


def named_files(options: Any) -> list[tuple[str, int, int]]:
    """Return path, time of modification in ns and size of each file that options name.

    Parameters
    ----------
    options : object
        Mappings and sequences are looked through, mappings by the order of their keys; texts with a suffix or a folder that
        are paths of files count.
    """
    if isinstance(options, dict):
        return [file for _, value in sorted(options.items()) for file in named_files(value)]
    if isinstance(options, (list, tuple)):
        return [file for value in options for file in named_files(value)]
    if not isinstance(options, str) or not ("." in options or "/" in options):
        return []
    try:
        about = os.stat(options)
    except (OSError, ValueError):
        return []
    return [(options, about.st_mtime_ns, about.st_size)] if stat.S_ISREG(about.st_mode) else []
