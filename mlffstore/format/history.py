"""The files that keep the history of a store beside its checkpoints.

Like checkpoints they only save time: the log has everything. The file of a checkpoint holds the commits since the checkpoint
that it counts from, so that the history of 10,000 commits is a few files. Each line is a
`mlffstore.format.commit.Record`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlffstore.data.schema import FORMAT_VERSION
from mlffstore.errors import FormatError
from mlffstore.format import checkpoint
from mlffstore.format.fields import Fields
from mlffstore.format.increment import unseal
from mlffstore.format.sealing import seal

if TYPE_CHECKING:
    from collections.abc import Sequence


def path_of(version: int) -> str:
    """Return the path of the records that go with the checkpoint of a version."""
    return f"{checkpoint.FOLDER}/{version:020d}.history.json"


def encode(store: str, version: int, base: int | None, parent: str | None, lines: Sequence[bytes]) -> bytes:
    """Return the file of the records of the commits after `base` up to `version`.

    `store` is the UUID of the store, and `parent` the digest of the entry of `version`.
    """
    head = {"format": FORMAT_VERSION, "store": store, "version": version, "base": base, "parent": parent}
    text = json.dumps(head, separators=(",", ":")).encode()[:-1]
    return seal(text + b',"commits":[\n%s\n]' % b",\n".join(lines))


def decode(data: bytes, version: int, store: str, where: str) -> tuple[int | None, str, list[bytes]]:
    """Return base, digest of the entry of `version`, and lines of a file.

    Raises
    ------
    CorruptionError, FormatError
        If it is damaged, of another store or version, or not a file of records.
    """
    head, _, text = data[: unseal(data, where)].partition(b',"commits":[\n')
    try:
        about = Fields(json.loads(head + b"}"), where)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not a history ({error})") from error
    lines = text.removesuffix(b"\n]").split(b",\n")
    base = None if about.document.get("base") is None else about.integer("base", 0, version - 1)
    if (
        about.integer("format") != FORMAT_VERSION
        or about.text("store") != store
        or about.integer("version") != version
        or len(lines) != version - (-1 if base is None else base)
    ):
        raise FormatError(f"{where}: a history of another store or version")
    return base, about.text("parent"), lines
