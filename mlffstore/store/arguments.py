"""Checks of the arguments that callers of a store pass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlffstore.data.casting import integer
from mlffstore.errors import DataError, StoreExistsError
from mlffstore.runtime.words import is_text
from mlffstore.storage import LocalStorage, Storage
from mlffstore.storage.base import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Longest idempotency key, tag and reason, characters.
MAX_KEY, MAX_TAG, MAX_REASON = 1024, 128, 4096


def check_key(key: str | None) -> str | None:
    """Return an idempotency key; raise `DataError` if it cannot be one."""
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_KEY and key.isprintable()):
        raise DataError(f"key: expected a string of 1 to {MAX_KEY} printable characters, got {key!r}")
    return key


def check_tag(name: str) -> str:
    """Return the name of a tag; raise `DataError` if it cannot be one."""
    if not (isinstance(name, str) and name.strip() and len(name) <= MAX_TAG and name.isprintable()) or name.isdigit():
        raise DataError(
            f"tag: expected a name of at most {MAX_TAG} printable characters that is not just a number, got {name!r}"
        )
    return name


def check_version(version: Any, last: int) -> int:
    """Return a version that the caller names; raise `DataError` unless it is an integer from 0 to `last`."""
    number = integer("version", version, f"0 to {last}")
    if not 0 <= number <= last:
        raise DataError(f"version: expected 0 to {last}, got {version}")
    return number


def check_reason(reason: str) -> str:
    """Return the reason for a removal; raise `DataError` if it says nothing."""
    if not isinstance(reason, str) or not reason.strip() or len(reason) > MAX_REASON or not is_text(reason):
        raise DataError(f"reason: expected a text of 1 to {MAX_REASON} characters, got {str(reason)[:80]!r}; say why")
    return reason


def json_mapping(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain JSON copy of a mapping; raise `DataError` if JSON cannot hold it."""
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        text.encode()  # refuses lone surrogates, of names of files that are not UTF-8
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected what JSON can hold, got {type(error).__name__}: {error}") from error


def check_new_place(storage: Storage, allowed: Collection[str] = ()) -> None:
    """Raise `StoreExistsError` if a local folder holds something else than a store.

    Parameters
    ----------
    storage : Storage
        The place of a new store. A prefix of an object store is not looked at: only listing it would show that it is
        empty.
    allowed : collection of str, optional
        Names of files and folders that may be there.
    """
    if not isinstance(storage, LocalStorage):
        return
    path = storage.root
    if path.is_dir() and any(
        not (entry.name.startswith(TEMPORARY) or entry.name in allowed) for entry in path.iterdir()
    ):
        raise StoreExistsError(
            f"{path}: expected a new or empty folder, got one with other files; choose another place"
        )
    if path.exists() and not path.is_dir():
        raise StoreExistsError(f"{path}: expected a new or empty folder, got a file; choose another place")
