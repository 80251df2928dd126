"""A store in an object store: S3 and what speaks its protocol, Google, Azure, or the memory of this process."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

from mlffstore.errors import ReadOnlyError, StorageError, missing_dependency
from mlffstore.storage.base import TEMPORARY, ListedObject, check_path
from mlffstore.storage.client_options import is_panic, refused_options, without_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: Waits before an unclear claim is tried again, seconds, with jitter. The client itself retries each request before.
_WAITS = (0.1, 0.3, 1.0, 3.0)
#: Codes of S3 for temporary credentials whose time is over. They come as 400, which the client does not tell from others.
_EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_memory: dict[str, Any] = {}


class ObjectStorage:
    """A prefix of an object store.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/prefix`` or ``memory://name``.
    options : mapping
        See `mlffstore.storage.open_storage`.
    single_writer : bool, optional
        Do not rely on conditional writes; only one process may write.

    Notes
    -----
    Claims are PUTs with ``If-None-Match: *``. After an unclear failure (timeout, 409, 5xx) the object is read back: each
    claim holds a fresh transaction id, so equal bytes mean success. Putting the same bytes again is safe, since a
    request that arrives late finds the name taken.

    The client's threads do not survive a fork: use spawn or forkserver with object stores.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, single_writer: bool = False) -> None:
        try:
            import obstore
            from obstore.store import MemoryStore, from_url
        except ImportError as error:
            raise missing_dependency("obstore", "s3", f"{url.partition('://')[0]}://") from error
        self._api = obstore
        self._url, self._options, self._single_writer = url.rstrip("/"), dict(options), single_writer
        if url.startswith("memory://"):
            self._store = _memory.setdefault(self._url, MemoryStore())
            return
        if wrong := sorted(set(url) & set("#?%")):
            # The client would read a fragment, a query or an escaped character: another place.
            raise StorageError(f"{url}: expected a URL without {' '.join(wrong)}; choose another name")
        try:
            self._store = from_url(self._url, **dict(options))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            places = refused_options(lambda some: from_url(self._url, **dict(some)), options)
            what = ", ".join(places) or f"the URL or its options ({self._text(error)})"
        else:
            return
        raise StorageError(  # outside of the handler: the message of the client may hold the values of options
            f"{url}: the object store's client refused {what}. Expected what obstore.store.from_url takes; options of its "
            "HTTP client, such as allow_http and timeout, belong into storage_options['client_options'], those of retries "
            "into storage_options['retry_config']"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self._url, self._options, self._single_writer))

    @property
    def url(self) -> str:
        """The URL, without credentials."""
        return self._url

    @property
    def remote(self) -> bool:
        """True."""
        return True

    def make_root(self) -> None:
        """Do nothing: a prefix need not be made."""

    def read(self, path: str, start: int = 0, nbytes: int | None = None) -> bytes:
        """Return `nbytes` bytes from `start` (fewer at the end), or all."""
        check_path(path)
        if nbytes == 0:
            return b""
        with self._translated(path):
            if nbytes is None and start == 0:
                return bytes(self._api.get(self._store, path).bytes())
            span: Any = {"offset": start} if nbytes is None else (start, start + nbytes)
            try:
                return bytes(self._api.get(self._store, path, options={"range": span}).bytes())
            except self._api.exceptions.GenericError:
                if self.size(path) <= start:  # a range that begins after the end is an error to the protocol
                    return b""
                raise

    def size(self, path: str) -> int:
        """Return the size of the object in bytes."""
        with self._translated(path):
            return int(self._api.head(self._store, check_path(path))["size"])

    def modified(self, path: str) -> float:
        """Return when the object was written."""
        with self._translated(path):
            return float(self._api.head(self._store, check_path(path))["last_modified"].timestamp())

    def write(self, path: str, parts: Iterable[bytes]) -> None:
        """Put an object under a name that no other process writes. An acknowledged PUT is durable.

        The client sends an object that is larger than 5 MiB in several parts at a time.
        """
        data = b"".join(parts)
        with self._translated(path, writing=True):
            self._api.put(self._store, check_path(path), data)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Create an object with `data` unless there is one."""
        check_path(path)
        if self._single_writer:
            existing = self._peek(path)
            if existing is None:
                self.replace(path, data)
            return existing is None or existing == data
        for wait in (*_WAITS, None):
            try:
                self._api.put(self._store, path, data, mode="create", use_multipart=False)
                return True
            except BaseException as error:
                if is_panic(error):
                    raise self._panic(error) from None
                if not isinstance(error, (self._api.exceptions.BaseError, OSError)):
                    raise
                refused = self._refused(error)
                if refused is not None:
                    raise refused from self._cause(error)
                with contextlib.suppress(StorageError):
                    existing = self._peek(path)
                    if existing is not None:
                        return existing == data
                if wait is None:
                    raise StorageError(
                        f"{self._url}/{path}: whether the commit took effect is unknown ({self._text(error)}); open the "
                        "store again and append with the same key: what is there already is recognised"
                    ) from self._cause(error)
            time.sleep(wait * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    def settle(self, path: str) -> None:
        """Do nothing: what can be read from an object store is durable."""

    def touch(self, path: str) -> None:
        """Put the object again: it is young when it was just written."""
        self.replace(path, self.read(path))

    def _peek(self, path: str) -> bytes | None:
        """Return an object, or None if there is none."""
        try:
            return self.read(path)
        except FileNotFoundError:
            return None

    def replace(self, path: str, data: bytes) -> None:
        """Create or replace an object."""
        with self._translated(path, writing=True):
            self._api.put(self._store, check_path(path), data, use_multipart=False)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Yield all objects below a prefix."""
        with self._translated(prefix):
            for page in self._api.list(self._store, prefix or None):
                for item in page:
                    yield ListedObject(item["path"], int(item["size"]), item["last_modified"].timestamp())

    def list_top(self) -> Iterator[ListedObject]:
        """Yield the objects of the prefix itself."""
        with self._translated(""):
            for item in self._api.list_with_delimiter(self._store)["objects"]:
                yield ListedObject(item["path"], int(item["size"]), item["last_modified"].timestamp())

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        wanted = [check_path(path) for path in paths]
        for start in range(0, len(wanted), 1000):
            with contextlib.suppress(FileNotFoundError), self._translated("", writing=True):
                self._api.delete(self._store, wanted[start : start + 1000])

    def delete_old(self, path: str, before: float, needed: Callable[[], bool]) -> bool:
        """Remove an object unless it was written after a time or is needed; return whether it was removed."""
        with contextlib.suppress(FileNotFoundError):
            if self.modified(path) <= before and not needed():
                self.delete([path])
                return True
        return False

    def restore(self, path: str) -> bool:
        """Return False: nothing is ever set aside here."""
        return False

    def clock(self) -> float:
        """Return the time that the object store gives a new object."""
        probe = f"{TEMPORARY}{uuid.uuid4().hex}"
        self.replace(probe, b"")
        try:
            with self._translated(probe):
                return float(self._api.head(self._store, probe)["last_modified"].timestamp())
        finally:
            self.delete([probe])

    def check_claims(self) -> None:
        """Raise `StorageError` if a second conditional PUT of one name is accepted: two writers would lose commits."""
        if self._single_writer:
            return
        probe = f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            first, second = self.put_if_absent(probe, b"1"), self.put_if_absent(probe, b"2")
        finally:
            with contextlib.suppress(StorageError):
                self.delete([probe])
        if not first or second:
            raise StorageError(
                f"{self._url}: the object store ignores conditional writes (If-None-Match), so two writers could overwrite "
                "each other's commits. Use one that has them (AWS S3, MinIO, Ceph, R2, GCS, Azure), or open with "
                "single_writer=True and make sure that only one process ever writes"
            )

    def _refused(self, error: BaseException) -> ReadOnlyError | StorageError | None:
        """Return the error to raise if trying again cannot help: no bucket, no credentials, or not enough of them."""
        names = self._api.exceptions
        denied = isinstance(error, (names.PermissionDeniedError, names.UnauthenticatedError, PermissionError))
        if denied or any(f"<Code>{code}</Code>" in str(error) for code in _EXPIRED):
            return ReadOnlyError(
                f"{self._url}: the object store refused access ({self._text(error)}); check the credentials"
            )
        if isinstance(error, (names.NotFoundError, FileNotFoundError)):
            return self._no_bucket()
        return None

    def _panic(self, error: BaseException) -> StorageError:
        return StorageError(
            f"{self._url}: the object store's client could not make a request of its options ({self._text(error)}); check "
            f"the spelling of {', '.join(f'storage_options[{name!r}]' for name in self._options) or 'the URL'}"
        )

    def _text(self, error: BaseException) -> str:
        """Return the first line of an error without the values of options."""
        return without_values(_first_line(error), self._options)

    def _cause(self, error: BaseException) -> BaseException | None:
        """Return an error to be shown as the cause, or None if its message holds the value of an option."""
        return error if without_values(str(error), self._options) == str(error) else None

    def _no_bucket(self) -> StorageError:
        return StorageError(f"{self._url}: there is no such bucket; make it first")

    @contextlib.contextmanager
    def _translated(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Turn errors of the client into those of mlffstore, with what to do."""
        try:
            yield
        except (FileNotFoundError, self._api.exceptions.NotFoundError) as error:
            if writing:
                raise self._no_bucket() from self._cause(error)
            raise FileNotFoundError(f"{self._url}/{path}") from self._cause(error)
        except StorageError:
            raise
        except (self._api.exceptions.BaseError, OSError) as error:
            refused = self._refused(error)
            if refused is not None:
                raise refused from self._cause(error)
            raise StorageError(
                f"{self._url}/{path}: the object store did not answer as expected ({self._text(error)}); nothing was "
                "committed. Try again"
            ) from self._cause(error)
        except BaseException as error:
            if is_panic(error):
                raise self._panic(error) from None
            raise


def _reopen(url: str, options: Mapping[str, Any], single_writer: bool) -> ObjectStorage:
    """Open the storage in another process. `options` may hold credentials: pickles of it are for workers, not for disk."""
    return ObjectStorage(url, options, single_writer=single_writer)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
