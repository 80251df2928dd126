"""`create` and `open`: how a store comes to be, and how it is opened, here or in another process."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.data.casting import integer
from mlffstore.data.splits import DEFAULT_FRACTIONS, check_fractions
from mlffstore.errors import DataError, StoreExistsError, StoreNotFoundError
from mlffstore.format.entry import Entry, entry_path, now
from mlffstore.format.root import read_root, root_document
from mlffstore.storage import open_storage
from mlffstore.store.arguments import check_new_place, json_mapping
from mlffstore.store.facade import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from mlffstore.store.opened import Mode
    from mlffstore.store.snapshot import Snapshot


def create(
    url: str | os.PathLike[str],
    *,
    precision: Literal["float32", "float64"] = "float32",
    splits: Mapping[str, float] = DEFAULT_FRACTIONS,
    split_seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    exist_ok: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    single_writer: bool = False,
) -> Store:
    """Create an empty store and open it for appending.

    Parameters
    ----------
    url : str or path
        A folder that does not exist or is empty, or a URL such as ``s3://bucket/d.zarr``.
    precision : {"float32", "float64"}, optional
        dtype of the stored positions.
    splits : mapping of str to float, optional
        Shares of "train", "val" and "test". They are fixed for the life of the store, so that no sample ever moves from
        one split to another.
    split_seed : int, optional
        Seed of the hash that decides the split of a sample; another seed gives another split.
    provenance : mapping, optional
        JSON that says where the data will come from. The first commit keeps it.
    exist_ok : bool, optional
        Whether to open a store with the same settings that is there already.
    storage_options, single_writer
        As for `open`.

    Raises
    ------
    StoreExistsError
        If there is a store (and not `exist_ok`) or something else at that place.
    """
    storage = open_storage(url, storage_options, single_writer=single_writer)
    if precision not in ("float32", "float64"):
        raise DataError(f"precision: expected 'float32' or 'float64', got {precision!r}")
    settings = {"splits": check_fractions(splits), "split_seed": integer("split_seed", split_seed)}
    notes = json_mapping("provenance", provenance or {})
    expected = root_document(uuid.uuid4().hex, precision, settings)
    storage.check_claims()
    try:
        root, root_digest = read_root(storage)
    except StoreNotFoundError:
        try:
            check_new_place(storage)
        except StoreExistsError as error:  # unless another process has made the store meanwhile
            try:
                root, root_digest = read_root(storage)
            except StoreNotFoundError:
                raise error from None
        else:
            storage.make_root()
            storage.put_if_absent("zarr.json", json.dumps(expected, indent=1).encode())
            root, root_digest = read_root(storage)
    if _without_uuid(root) != _without_uuid(expected):
        raise StoreExistsError(
            f"{storage.url}: there is a store with other settings already; open it with ml.open(...)"
        )
    entry = Entry(
        version=0,
        store=root["attributes"]["uuid"],
        transaction=uuid.uuid4().hex,
        parent=None,
        time=now(),
        operation="create",
        body={
            "root": root_digest,
            "settings": settings,
            "precision": precision,
            "provenance": notes,
        },
    )
    # The first process that gets here finishes a creation that was interrupted after zarr.json.
    created = storage.put_if_absent(entry_path(0), entry.encode())
    if not created and not exist_ok:
        raise StoreExistsError(
            f"{storage.url}: there is a store already; open it with ml.open({str(url)!r}, mode='a'), or remove it"
        )
    return Store(storage, "a", StoreOpener(storage.url, storage_options, single_writer))


def open(
    url: str | os.PathLike[str],
    mode: Mode = "r",
    *,
    storage_options: Mapping[str, Any] | None = None,
    single_writer: bool = False,
) -> Store:
    """Open a store.

    Parameters
    ----------
    url : str or path
        The folder of the store, or a URL such as ``s3://bucket/d.zarr`` (extra ``s3``).
    mode : {"r", "a"}, optional
        "r" opens the store for reading, "a" for appending too.
    storage_options : mapping, optional
        Options of an object store that `obstore.store.from_url` takes, such as ``region``, ``endpoint``,
        ``access_key_id`` and ``client_options``. Without them the usual environment variables count (``AWS_...``). They are
        never logged and never stored.
    single_writer : bool, optional
        Whether to write to an object store that ignores conditional writes. Two writers would lose commits there: the
        caller promises that there is only one.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    FormatError
        If the place holds something else than a store of this library, or a store of a newer format version.
    """
    if mode not in ("r", "a"):
        raise DataError(f"mode: expected 'r' to read or 'a' to append, got {mode!r}")
    storage = open_storage(url, storage_options, single_writer=single_writer)
    if mode == "a":
        storage.check_claims()
    return Store(storage, mode, StoreOpener(storage.url, storage_options, single_writer))


def _without_uuid(root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the root document of a store without what differs between two stores of the same settings."""
    return {**root, "attributes": {**root["attributes"], "uuid": None}}


@dataclass(frozen=True)
class StoreOpener:
    """Opens a store again, in another process too, and makes sure that it is the same store.

    Attributes
    ----------
    url : str
        Absolute, since another process may run in another folder.
    options : mapping or None
        Storage options. They may hold credentials, so that `repr` leaves them out.
    single_writer : bool
    uuid : str
        UUID that the store must have.
    """

    url: str
    options: Mapping[str, Any] | None = field(repr=False)
    single_writer: bool
    uuid: str = ""

    def of(self, uuid: str) -> StoreOpener:
        """Return an opener that expects the store of this UUID."""
        return replace(self, uuid=uuid)

    def __call__(self, mode: Mode = "r") -> Store:
        """Open the store."""
        store = open(self.url, mode, storage_options=self.options, single_writer=self.single_writer)
        if store.uuid != self.uuid:
            raise StoreNotFoundError(
                f"{self.url}: expected the store {self.uuid}, got {store.uuid}: another store was put in its place; open "
                "it anew with ml.open(...)"
            )
        return store

    def snapshot(self, version: int) -> Snapshot:
        """Return a snapshot of the store."""
        return self().snapshot(version)

    def provenance(self, version: int) -> list[dict[str, Any]]:
        """Return the provenance of the commits up to a version."""
        return [record for record in self().provenance() if record["version"] <= version]

    def committed(self, version: int) -> str:
        """Return when a version was committed."""
        return self().committed(version)


__all__ = ["StoreOpener", "create", "open"]
