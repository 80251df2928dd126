"""Permissions of a store that several people share: what one of them writes, the others can read and write too."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Permissions:
    """Mode and group of new files and folders: those of ``zarr.json`` and of the folder that it lies in.

    The process's umask decides when a store is made, and never again: a colleague whose umask is 077 would otherwise
    leave segments that no one else can read.

    Attributes
    ----------
    file_mode, folder_mode : int
        Permission bits; of folders also set-group-ID.
    group : int
        Numeric ID.
    """

    file_mode: int
    folder_mode: int
    group: int

    @classmethod
    def of_store(cls, root: Path) -> Permissions | None:
        """Return the permissions of a store, or None while there is no ``zarr.json``."""
        try:
            file, folder = os.stat(root / "zarr.json", follow_symlinks=False), os.stat(root)
        except OSError:
            return None
        return cls(file.st_mode & 0o666, stat.S_IMODE(folder.st_mode) & 0o2777, file.st_gid)

    def apply_to_file(self, fd: int) -> None:
        """Give an open file that was just created mode and group, as far as its owner may."""
        status = os.fstat(fd)
        if status.st_gid != self.group:
            with contextlib.suppress(OSError):  # not a member of the group
                os.fchown(fd, -1, self.group)
        if stat.S_IMODE(status.st_mode) != self.file_mode:
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(fd, self.file_mode)

    def apply_to_folder(self, path: str) -> None:
        """Give a folder that was just created mode and group, as far as its owner may."""
        status = os.stat(path, follow_symlinks=False)
        if status.st_gid != self.group:
            with contextlib.suppress(OSError):
                os.chown(path, -1, self.group, follow_symlinks=False)
        if stat.S_IMODE(status.st_mode) & 0o2777 != self.folder_mode:
            with contextlib.suppress(OSError):
                os.chmod(path, self.folder_mode)
