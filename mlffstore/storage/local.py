"""A store in a folder of a POSIX file system."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore.errors import FormatError, MlffstoreError, ReadOnlyError, StorageError
from mlffstore.runtime.threads import io_pool
from mlffstore.storage.base import SET_ASIDE, TEMPORARY, ListedObject, NotDurableError, check_path
from mlffstore.storage.permissions import Permissions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Errors of `link` where there are no hard links (some FUSE, SMB and FAT mounts).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
#: Folders known to be where they seem to be, at most.
_MAX_CHECKED = 100_000
#: Bytes that are written in one system call, at least.
_PIECE_NBYTES = 1 << 20


class LocalStorage:
    """A folder of a POSIX file system.

    Parameters
    ----------
    root : path
        The folder. Made when the first file is written.

    Notes
    -----
    Claims go through a temporary file and `os.link`, which is atomic on local file systems and on NFS. After an
    unclear reply of `link` (NFS may lose it), the link count of the temporary file tells whether it took effect
    (open(2), section on O_EXCL). Every file is fsynced before its folder, and every folder before its parent's claim.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(os.path.abspath(root))
        self._checked: set[str] = set()
        #: Folders of the first level whose names this object has made durable.
        self._named: set[str] = set()
        self._permissions: Permissions | None = None

    @property
    def url(self) -> str:
        """The absolute path."""
        return str(self.root)

    @property
    def remote(self) -> bool:
        """False."""
        return False

    def _path(self, path: str) -> str:
        """Return the absolute path, after making sure that no link leads out of the folder."""
        full = os.path.join(self.root, check_path(path))
        self._check_folder(os.path.dirname(path))
        if os.path.islink(full):
            raise _link_error(full)
        return full

    def _check_folder(self, folder: str) -> None:
        """Raise `FormatError` if a folder is not where it seems to be. A folder that passed is not checked again."""
        if folder in self._checked or not self.root.exists():
            return
        real = os.path.realpath(self.root)
        expected = os.path.join(real, folder) if folder else real
        if os.path.realpath(os.path.join(self.root, folder)) != expected:
            raise _link_error(os.path.join(self.root, folder))
        if os.path.isdir(expected):
            if len(self._checked) > _MAX_CHECKED:
                self._checked.clear()
            self._checked.add(folder)

    def _make_folder(self, folder: str) -> None:
        """Make a folder and those above, but for the root; what is made here cannot be a link."""
        if not folder:
            return
        self._make_folder(os.path.dirname(folder))
        full = os.path.join(self.root, check_path(folder))
        try:
            os.mkdir(full)
        except FileExistsError:
            self._check_folder(folder)
        else:
            if (permissions := self._shared()) is not None:
                permissions.apply_to_folder(full)

    def _shared(self) -> Permissions | None:
        """Return the permissions of new files and folders; None while the store is being made: then the umask decides."""
        if self._permissions is None and hasattr(os, "fchown"):
            self._permissions = Permissions.of_store(self.root)
        return self._permissions

    def make_root(self) -> None:
        """Make the folder of a new store, and those above, so that they survive a power loss."""
        with _translated(self.url):
            missing = []
            folder = str(self.root)
            while not os.path.isdir(folder):
                missing.append(folder)
                folder = os.path.dirname(folder)
            os.makedirs(self.root, exist_ok=True)
            for made in missing:
                _fsync_folder(os.path.dirname(made))

    def _unnamed(self, folder: str) -> list[str]:
        """Return the folders to fsync so that the name of a first-level folder, and of the root, survive a power loss.

        Another process may have made these folders a moment ago and not have come to its own fsync yet.
        """
        if folder in self._named:
            return []
        return [str(self.root)] if "" in self._named else [str(self.root), os.path.dirname(self.root)]

    def read(self, path: str, start: int = 0, nbytes: int | None = None) -> bytes:
        """Return `nbytes` bytes from `start` (fewer at the end of the file), or all."""
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        full = os.path.join(self.root, check_path(path))
        self._check_folder(os.path.dirname(path))
        if not hasattr(os, "O_NOFOLLOW"):
            self._path(path)
        with _translated(self.url, reading=True), open(os.open(full, flags), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            wanted = max(0, min(size - start, size if nbytes is None else nbytes))
            file.seek(start)
            parts = []
            while wanted:
                part = file.read(wanted)
                if not part:
                    break
                parts.append(part)
                wanted -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, path: str) -> int:
        """Return the size of the file in bytes."""
        with _translated(self.url, reading=True):
            return os.stat(self._path(path), follow_symlinks=False).st_size

    def modified(self, path: str) -> float:
        """Return when the file was written, or its times were renewed."""
        with _translated(self.url, reading=True):
            return os.stat(self._path(path), follow_symlinks=False).st_mtime

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Write a file under a name that no other process writes, and fsync it, its folder, and the folders above."""
        with _translated(self.url):
            folder = os.path.dirname(path)
            self._make_folder(folder)
            full = os.path.join(self.root, check_path(path))
            try:
                folders = [os.path.dirname(full), *self._unnamed(folder)]
                _write_file(full, parts, self._shared(), partial(self._fsync_all, folders))
                self._named |= {"", folder}
            except FileExistsError:  # of another process
                raise
            except BaseException:
                with contextlib.suppress(OSError, StorageError):  # nothing names it; what stays is for gc
                    os.unlink(full)
                raise

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create a file with `data` unless it exists."""
        with _translated(self.url):
            target = self._path(path)
            self._make_folder(os.path.dirname(path))
            temporary = os.path.join(os.path.dirname(target), f"{TEMPORARY}{uuid.uuid4().hex}")
            try:
                _write_file(temporary, [data], self._shared())
                folder = os.path.dirname(path)
                for above in self._unnamed(folder):
                    self._fsync_folder(above)
                self._named |= {"", folder}
                created = _link(temporary, target) or self.read(path) == data
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            if created:
                self._sync_name(path)
            return created

    def settle(self, path: str) -> None:
        """Make sure that a file that is there, and its name, survive a power loss."""
        with _translated(self.url):
            # After a failed fsync a second one may report success without writing anything. A change of the folder makes it
            # write the names anew.
            probe = os.path.join(os.path.dirname(self._path(path)), f"{TEMPORARY}{uuid.uuid4().hex}")
            _write_file(probe, [], self._shared())
            os.unlink(probe)
            _fsync(self._path(path))
            self._sync_name(path)

    def touch(self, path: str) -> None:
        """Set the times of a file to now, on the clock of the file system."""
        try:
            os.utime(os.path.join(self.root, check_path(path)), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"{self.url}/{path}") from None
        except OSError as error:
            raise _ours(error, self.url, reading=False) from error

    def _sync_name(self, path: str) -> None:
        """Make a claimed name survive a power loss. It can be seen already, so a failure here is an unclear one."""
        try:
            _fsync_folder(os.path.dirname(os.path.join(self.root, path)))
        except OSError as error:
            raise NotDurableError(
                error.errno,
                f"{self.url}: the commit is visible, but whether it survives a power loss is unknown ({error}); "
                "check the disk, then append again with the same key",
            ) from error

    def _fsync_folder(self, path: str) -> None:
        """Make the names in a folder survive a power loss, as far as the folder above the store may be opened."""
        try:
            _fsync_folder(path)
        except PermissionError:
            if path != os.path.dirname(self.root):
                raise

    def _fsync_all(self, folders: list[str]) -> None:
        for folder in folders:
            self._fsync_folder(folder)

    def replace(self, path: str, data: bytes) -> None:
        """Create or replace a file; readers see the old bytes or the new ones."""
        with _translated(self.url):
            target = self._path(path)
            self._make_folder(os.path.dirname(path))
            temporary = os.path.join(os.path.dirname(target), f"{TEMPORARY}{uuid.uuid4().hex}")
            try:
                _write_file(temporary, [data], self._shared())
                os.replace(temporary, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise

    def clock(self) -> float:
        """Return the time that the file system gives a change now: the clock of a server may differ from the local one.

        It is the store's own folder that is touched, since a full disk may have no room for another file.
        """
        with _translated(self.url):
            os.utime(self.root)
            return os.stat(self.root).st_mtime

    def check_claims(self) -> None:
        """Do nothing: `link` reports by itself where it is not supported."""

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield all files below a folder, temporary ones too. Links are not followed."""
        base = self._folder(prefix)
        for folder, _, names in os.walk(base, followlinks=False):
            relative = os.path.relpath(folder, self.root).replace(os.sep, "/")
            for name in sorted(names):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    status = os.stat(os.path.join(folder, name), follow_symlinks=False)
                    path = name if relative == "." else f"{relative}/{name}"
                    yield ListedObject(path, status.st_size, status.st_mtime)

    def _folder(self, prefix: str) -> str:
        """Return the absolute path of a folder, after making sure, now, that no link leads out of the store."""
        self._checked.discard(prefix)
        self._check_folder(prefix)
        return os.path.join(self.root, prefix)

    def list_top(self) -> Iterator[ListedObject]:
        """Yield the files of the folder itself."""
        with os.scandir(self.root) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield ListedObject(entry.name, status.st_size, status.st_mtime)

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files."""
        with _translated(self.url):
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(path))

    def delete_old(self, path: str, before: float, needed: Callable[[], bool]) -> bool:
        """Remove a file unless it was touched after a time or is needed; return whether it was removed.

        The file is renamed before the last look: a writer touched it earlier, and it gets its name back, or finds it gone.
        """
        with _translated(self.url), contextlib.suppress(FileNotFoundError):
            full = self._path(path)
            if os.stat(full, follow_symlinks=False).st_mtime > before:
                return False
            aside = self._aside(path)
            os.rename(full, aside)
            if _modified_now(aside) <= before and not needed():
                os.unlink(aside)
                return True
            self.restore(path)
        return False

    def restore(self, path: str) -> bool:
        """Give a file its name back that an interrupted `delete_old` set aside; return whether there was one."""
        with _translated(self.url):
            try:
                os.rename(self._aside(path), self._path(path))
            except FileNotFoundError:
                return False
            self._sync_name(path)
            return True

    def _aside(self, path: str) -> str:
        folder, name = os.path.split(path)
        return self._path(f"{folder}/{SET_ASIDE}{name}")


def _modified_now(path: str) -> float:
    """Return when a file was changed. Opening it makes NFS ask the server, whatever the client remembers."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        return os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def _link_error(path: str) -> FormatError:
    return FormatError(
        f"{path}: expected a file inside the store, got a symbolic link; nothing was read or written. "
        "Replace the link by what it points to"
    )


def _link(temporary: str, target: str) -> bool:
    """Give a file its name unless that is taken; return whether it got it.

    NFS may lose the reply to `link` and may answer a repeated request with "exists". The link count of the temporary file
    tells whether the call took effect (open(2), on O_EXCL).
    """
    try:
        os.link(temporary, target)
    except OSError as error:
        if os.stat(temporary).st_nlink == 2:
            return True
        if isinstance(error, FileExistsError):
            return False
        if error.errno in _NO_LINKS:
            raise StorageError(
                error.errno,
                f"{target}: the file system has no hard links ({error.strerror}), which claim a version for one writer; "
                "put the store on a local disk, NFS or an object store (s3://...)",
            ) from error
        raise
    return True


def _write_file(
    path: str, parts: Iterable[bytes], permissions: Permissions | None, sync_names: Callable[[], None] | None = None
) -> None:
    """Create a file that must not exist yet, write it whole and fsync it, and call `sync_names` meanwhile.

    Neither needs the other, and a journal writes both at once.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if permissions is not None:
            permissions.apply_to_file(fd)
        for data in _joined(parts):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        names = None if sync_names is None else io_pool().submit(sync_names)
        try:
            os.fsync(fd)
        finally:
            if names is not None:
                names.result()
    finally:
        os.close(fd)


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces that are worth a system call each."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _PIECE_NBYTES:
            yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _fsync_folder(path: str) -> None:
    """Make the names in a folder survive a power loss."""
    _fsync(path)


def _fsync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(url: str, *, reading: bool = False) -> Iterator[None]:
    """Turn errors of the operating system into those of mlffstore, with what to do, except that a file is absent."""
    try:
        yield
    except OSError as error:
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError))
        if isinstance(error, MlffstoreError) or (absent and reading):
            raise
        raise _ours(error, url, reading=reading) from error


def _ours(error: OSError, url: str, *, reading: bool) -> MlffstoreError:
    """Return the error of mlffstore for one of the operating system."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        expected = "a file that can be read" if reading else "a folder that can be written"
        return ReadOnlyError(
            f"{url}: expected {expected}, got {error.strerror!r} for {error.filename}; check its owner and permissions"
            + ("" if reading else ", or write to another place")
        )
    if error.errno == errno.ELOOP:  # O_NOFOLLOW met a link
        return _link_error(str(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(error.errno, f"{url}: no space left; nothing was committed. Free space and append again")
    if isinstance(error, FileNotFoundError) and not os.path.isdir(url):
        return StorageError(
            error.errno, f"{url}: the folder is gone: it was removed, renamed or unmounted. Nothing was committed"
        )
    what = "Check the disk and try again" if reading else "Nothing was committed; append again"
    return StorageError(error.errno, f"{url}: the file system refused ({error}). {what}")
