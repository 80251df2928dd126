"""Parquet files as the Hugging Face Hub expects them: one row per sample, a file or more for each split, and a card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.masks import user_rows
from mlffstore.data.schema import CODED, is_mask
from mlffstore.data.splits import SPLITS
from mlffstore.errors import missing_dependency
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore.runtime.words import counted
from mlffstore.store.presence import present
from mlffstore_exporters.columns import FileColumns, choose_teachers, root_attributes
from mlffstore_exporters.folder import BLOCK, Account, new_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array, Column
    from mlffstore.store.samples import Samples

#: Key of the metadata of the schema that says where the samples come from, JSON.
METADATA = "mlffstore"
#: Bytes of a file, about; the Hub asks for less than 500 MB.
FILE_NBYTES = 400 << 20
#: What the Hub calls the splits.
HUB_SPLITS = dict(zip(SPLITS, ("train", "validation", "test"), strict=True))


def export_parquet(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | Sequence[str] | None = None,
    title: str = "",
    licence: str = "",
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as Parquet.

    Parameters
    ----------
    snapshot : Snapshot, Selection or Release
    path : path
        A new folder, which can be uploaded to the Hub as it is.
    teacher : str or sequence of str, optional
        Teachers whose labels are written; required if there are several. For several teachers, the columns are named
        ``energy.NAME`` and so on.
    title : str, optional
        Heading of the card; by default the name of the folder.
    licence : str, optional
        Identifier of the licence, such as ``cc-by-4.0``; without it the card has none.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    ``data/train-00000-of-00001.parquet`` and so on; the split val is called validation. Columns have the names and units of
    an HDF5 release (docs/format.md), the units as metadata of the fields. A column of atoms is a list per sample, inner
    dimensions are lists of fixed size. What is missing is null: a label that a sample lacks, a user column without a value.
    Embeddings of 16 bits are written as 32 bits, which changes no number.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_dependency("pyarrow", "parquet", "the export to Parquet") from error
    teachers, target = choose_teachers(snapshot, teacher), local_path(path)
    splits = select(snapshot, teachers)
    total, done, account = sum(map(len, splits.values())), 0, Account(teachers)
    with new_folder(target) as folder:
        (folder / "data").mkdir()
        for split, index in splits.items():
            source, files = FileColumns(snapshot, teachers), 0
            writer: Any = None
            for low in range(0, len(index), BLOCK):
                batch = snapshot.read(index[low : low + BLOCK], teacher=teachers)
                account.add(batch)
                table = _table(batch, source, teachers, root_attributes(snapshot, teachers))
                if writer is None:
                    file = folder / "data" / f"{HUB_SPLITS[split]}-{files:05d}"
                    writer = pq.ParquetWriter(file, table.schema, compression="zstd")
                writer.write_table(table)
                done += len(batch)
                if progress is not None:
                    progress(done, total)
                if file.stat().st_size > FILE_NBYTES or low + BLOCK >= len(index):
                    writer.close()
                    writer, files = None, files + 1
            for k in range(files):
                file = folder / "data" / f"{HUB_SPLITS[split]}-{k:05d}"
                file.rename(file.with_name(f"{file.name}-of-{files:05d}.parquet"))
        used = [HUB_SPLITS[split] for split, index in splits.items() if len(index)]
        card = _card(title or target.name, licence, used, total, FileColumns(snapshot, teachers))
        (folder / "README.md").write_text(card, encoding="utf-8")
    account.tell()
    return target


def _table(batch: SampleBatch, source: FileColumns, teachers: Sequence[str], about: dict[str, Any]) -> pa.Table:
    """Return a batch as a table with one row per sample."""
    import pyarrow as pa

    arrays, fields = [], []
    for name, (column, key) in source.columns.items():
        if is_mask(key):
            continue
        if column.quantity is not None:
            teacher = name.partition(".")[2] or teachers[0]
            there, rows = present(batch, teacher, key), None
        elif name in batch.user:
            there, rows = np.ones(len(batch), bool), user_rows(batch, column)[1]
        else:
            there, rows = np.full(len(batch), name in batch.columns), None
        if column.coded or name in CODED:
            words = batch.vocabulary.get(name, ("",))
            codes = batch.columns[name] if name in batch.columns else np.zeros(_n_rows(batch, column), np.uint32)
            values: Any = pa.DictionaryArray.from_arrays(
                pa.array(codes.astype(np.int32), mask=None if rows is None else ~rows), pa.array(words, pa.string())
            ).cast(pa.string())
        else:
            values = _nested(source.values(batch, name), rows)
        array = _per_sample(values, column, batch, there)
        arrays.append(array)
        described = {k: str(v) for k, v in source.attributes(name).items() if k != "ancillary_variables"}
        described |= {"dtype": column.dtype} if column.dtype == "float16" else {}
        fields.append(pa.field(name, array.type, metadata=described))
    document = json.dumps(about, sort_keys=True)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata={METADATA: document}))


def _n_rows(batch: SampleBatch, column: Column) -> int:
    return batch.n_atoms_total if column.axis == "atom" else len(batch)


def _nested(values: Array, rows: Array | None) -> Any:
    """Return rows with inner dimensions as lists of fixed size; rows without a value are null."""
    import pyarrow as pa

    if values.dtype == np.float16:
        values = values.astype(np.float32)
    mask = None if rows is None else pa.array(~rows)
    if values.ndim == 1:
        return pa.array(values, mask=None if rows is None else ~rows)
    out = pa.array(np.ascontiguousarray(values).reshape(-1))
    for k, size in enumerate(reversed(values.shape[1:]), 2):
        outermost = k == values.ndim
        out = pa.FixedSizeListArray.from_arrays(out, size, mask=mask if outermost else None)
    return out


def _per_sample(values: Any, column: Column, batch: SampleBatch, there: Array) -> Any:
    """Return one entry per sample; those that are not there are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.axis == "atom":
        missing = None if there.all() else pa.array(~there)
        return pa.ListArray.from_arrays(pa.array(batch.offsets.astype(np.int32)), values, mask=missing)
    return values if there.all() else pc.if_else(pa.array(there), values, pa.scalar(None, values.type))


def _card(title: str, licence: str, splits: list[str], n_samples: int, source: FileColumns) -> str:
    """Return the card that tells the Hub which files are which split."""
    head = ["---", f"pretty_name: {json.dumps(title)}"]
    head += [f"license: {json.dumps(licence)}"] if licence else []
    head += ["tags: [atomistic, chemistry, machine-learned-force-field]", "configs:", "- config_name: default"]
    head += ["  data_files:"]
    for split in splits:
        head += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    rows = [
        f"| `{name}` | {column.unit} | {column.axis} | {column.long_name} |".replace("\n", " ")
        for name, (column, key) in source.columns.items()
        if not is_mask(key)
    ]
    words = (
        f"{counted(n_samples, 'atomistic sample')} with labels, one row per sample. Cell rows are lattice vectors; stress "
        "is xx yy zz yz xz xy, tension positive; what is missing is null."
    )
    code = [
        "```python",
        "from datasets import load_dataset",
        "",
        'data = load_dataset("this folder, or its name")',
        "```",
    ]
    table = ["| column | unit | per | what it is |", "|---|---|---|---|", *rows]
    return "\n".join([*head, "---", "", f"# {title}", "", words, "", *code, "", *table, ""])
