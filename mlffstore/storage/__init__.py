"""Where a store lies: a small interface (`base`), the local file system (`local`) and object stores (`object`) behind it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mlffstore.errors import StorageError
from mlffstore.runtime.paths import local_path
from mlffstore.storage.base import ListedObject, Storage, check_path
from mlffstore.storage.local import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ListedObject", "LocalStorage", "Storage", "check_path", "open_storage"]
#: Schemes of object stores that can create an object only if it is absent.
OBJECT_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")


def open_storage(
    url: str | os.PathLike[str], options: Mapping[str, Any] | None = None, *, single_writer: bool = False
) -> Storage:
    """Return the storage for a path or URL.

    Parameters
    ----------
    url : str or path
        A local path, ``file:///path``, ``s3://bucket/prefix`` (also ``gs://`` and ``az://``), or ``memory://name`` for the
        life of this process.
    options : mapping, optional
        For object stores: what `obstore.store.from_url` takes, such as ``region``, ``endpoint``, ``access_key_id``,
        ``client_options`` and ``retry_config``. They are never logged nor written.
    single_writer : bool, optional
        Use an object store that ignores conditional writes; the caller makes sure that no other process writes.

    Raises
    ------
    StorageError
        If the scheme of the URL is unknown, or options are given for a local path.
    MissingDependencyError
        If the package for object stores is not installed.
    """
    text = os.fspath(url)
    scheme, separator, _ = text.partition("://")
    if separator and scheme in OBJECT_SCHEMES:
        from mlffstore.storage.object import ObjectStorage

        return ObjectStorage(text, options or {}, single_writer=single_writer)
    if options:
        raise StorageError(f"{text}: storage_options are for object stores such as s3://..., a local path has none")
    if separator and scheme != "file":
        known = ", ".join(f"{name}://" for name in ("file", *OBJECT_SCHEMES))
        raise StorageError(f"{text}: expected a local path or one of {known}, got the scheme {scheme!r}")
    return LocalStorage(local_path(text.removeprefix("file://")))
