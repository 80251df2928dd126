"""One entry of the log: its members, its bytes, and the checks that every entry passes when it is read.

It does not read the storage and does not know what the operations mean: see `mlffstore.format.log` and
`mlffstore.format.state`.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlffstore.data.schema import FORMAT_VERSION
from mlffstore.errors import CorruptionError, FormatError
from mlffstore.format.fields import Fields
from mlffstore.format.records import DIGEST
from mlffstore.format.sealing import seal, sealed_nbytes

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG_FOLDER = "_log"
OPERATIONS = ("create", "append", "layer", "replace", "remove", "tag", "untag", "expire")
#: Largest entry that is read into memory, bytes. The largest entries in use are far smaller.
MAX_ENTRY_NBYTES = 64 << 20
#: A time in UTC, ISO 8601.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)", re.ASCII)
#: Members of an entry that are not part of the operation's body.
_ENVELOPE = ("format", "version", "store", "transaction", "parent", "time", "operation", "key", "crc32c")


def entry_path(version: int) -> str:
    """Return the path of the entry of a version."""
    return f"{LOG_FOLDER}/{version:020d}.json"


def now() -> str:
    """Return the present time as entries have it: UTC, ISO 8601, milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit.

    Attributes
    ----------
    version : int
        Its number; the first is 0.
    store : str
        UUID of the store, so that an entry of another store is recognised.
    transaction : str
        UUID of the attempt: after an unclear failure, a writer sees by it whether the entry is the one that it wrote.
    parent : str or None
        `mlffstore.format.codec.digest` of the file of the entry before, which makes the log a chain.
    time : str
        UTC, ISO 8601; for people, never for order.
    operation : {"create", "append", "layer", "replace", "remove", "tag", "untag", "expire"}
    key : str or None
        Idempotency key: a key occurs at most once in a log.
    body : dict
        Members of the operation; see docs/format.md.
    nbytes : int
        Size of its file; 0 if it was not written or read yet.
    """

    version: int
    store: str
    transaction: str
    parent: str | None
    time: str
    operation: str
    key: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    nbytes: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        """Return the bytes of the file. The last member is the CRC-32C of everything before it."""
        document = {
            "format": FORMAT_VERSION,
            "version": self.version,
            "store": self.store,
            "transaction": self.transaction,
            "parent": self.parent,
            "time": self.time,
            "operation": self.operation,
            "key": self.key,
            **self.body,
        }
        return seal(json.dumps(document, separators=(",", ":"), allow_nan=False)[:-1].encode())


def decode_entry(data: bytes, version: int, store: str | None, where: str) -> Entry:
    """Parse and check the envelope of an entry.

    Raises
    ------
    CorruptionError
        If the bytes are not what was written.
    FormatError
        If it is of a newer format, another store, or not an entry at all.
    """
    end = sealed_nbytes(data)
    if end is None:
        raise CorruptionError(f"{where}: the log entry is damaged or was edited; restore it from a copy")
    try:
        document = json.loads(data[:end] + b"}")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: expected a JSON object, got something else ({error})") from error
    fields = Fields(document, where)
    if fields.integer("format") != FORMAT_VERSION:
        raise FormatError(
            f"{where}: written in format version {document['format']}, this release reads version {FORMAT_VERSION}; "
            "use the release that fits"
        )
    parent = document.get("parent")
    entry = Entry(
        version=fields.integer("version"),
        store=fields.text("store"),
        transaction=fields.text("transaction"),
        parent=None if parent is None else fields.text("parent", DIGEST),
        time=fields.text("time", _TIME),
        operation=fields.text("operation"),
        key=None if document.get("key") is None else fields.text("key"),
        body={k: v for k, v in document.items() if k not in _ENVELOPE},
        nbytes=len(data),
    )
    if entry.version != version:
        raise CorruptionError(f"{where}: expected version {version}, got {entry.version}; the file was moved or copied")
    if store is not None and entry.store != store:
        raise CorruptionError(f"{where}: belongs to another store ({entry.store}, not {store}); restore the right file")
    if entry.operation not in OPERATIONS:
        raise FormatError(f"{where}: unknown operation {entry.operation!r}; upgrade mlffstore")
    return entry
