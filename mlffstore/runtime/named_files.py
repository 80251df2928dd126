"""Files that options name: their versions, so that what was made of an older one is not used any more."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

#: Options whose texts are paths, also without a suffix, such as POSCAR.
_PATHS = ("path", "paths", "files", "weights")


def named_files(options: Any, are_paths: bool = False) -> list[tuple[str, int, int]]:
    """Return path, time of modification in ns and size of each file that options name.

    Parameters
    ----------
    options : object
        Mappings and sequences are looked through, mappings by the order of their keys; texts that are paths of files count,
        if they have a suffix or a folder, or are the values of options for paths. So does what follows the colon of a
        teacher's name: ``"fennol:student.fnx"``.
    are_paths : bool, optional
        Whether these are the values of such an option.
    """
    if isinstance(options, dict):
        return [file for name, value in sorted(options.items()) for file in named_files(value, name in _PATHS)]
    if isinstance(options, (list, tuple)):
        return [file for value in options for file in named_files(value, are_paths)]
    if not isinstance(options, str) or not (are_paths or "." in options or "/" in options):
        return []
    for path in (options, options.partition(":")[2]):
        with contextlib.suppress(OSError, ValueError):
            about = os.stat(path)
            if stat.S_ISREG(about.st_mode):
                return [(path, about.st_mtime_ns, about.st_size)]
    return []
