"""`table`: one row per sample, computed in one pass and kept in the cache folder under the digest of the samples."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import google_crc32c
import numpy as np

from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError, missing_dependency
from mlffstore.lazy.blocks import Block, sample_pass
from mlffstore.lazy.dataset import LazySamples, dataset
from mlffstore.lazy.figures import STRUCTURE, Figures, LabelPlan, UserPlan
from mlffstore.lazy.inputs import teachers_of
from mlffstore.lazy.labels import label_variables
from mlffstore.runtime.folders import building, cache_folder, make_room, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    import xarray as xr

    from mlffstore.data.schema import Column

logger = logging.getLogger(__name__)

#: Changes when the columns do.
_LAYOUT = 1
_FILE = "table.arrow"


class TabledSamples(LazySamples, Protocol):
    """What a table needs of samples; see `mlffstore.store.samples.Samples`."""

    def to_xarray(self) -> xr.Dataset:
        """Return the samples as a lazy Dataset."""
        ...


def table(samples: TabledSamples) -> pa.Table:
    """Return one row per sample; see `mlffstore.store.samples.Samples.table`."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise missing_dependency("pyarrow", "select", "a table of samples") from error
    folder = cache_folder() / hashlib.sha256(f"table {_LAYOUT} {samples.digest}".encode()).hexdigest()[:32]
    kept = _opened(folder)
    if kept is not None:
        return kept
    computed = compute(samples)
    try:
        _keep(folder, computed, f"{samples.url}, version {samples.version}, table")
    except (OSError, DataError) as error:
        logger.warning("%s: the table of samples cannot be kept, it is computed again next time (%s)", folder, error)
        return computed
    return _opened(folder) or computed


def compute(samples: TabledSamples) -> pa.Table:
    """Compute the table in one pass over blocks of whole samples; Dask decides where they run."""
    ds = samples.to_xarray()
    figures = _figures(ds, samples)
    names = [
        *STRUCTURE, *(plan.variable for plan in figures.labels), *(plan.column.name for plan in figures.user),
        *(plan.mask for plan in figures.user if plan.mask is not None),
    ]  # fmt: skip
    if ds.sizes["sample"]:
        # Without the positions: nothing here needs them, and they would be read to be compared with the hashes.
        rows = sample_pass(ds[list(dict.fromkeys(names))], names, figures, _joined).compute()
    else:
        bare = dataset(samples)
        rows = figures(Block(0, {name: np.asarray(bare[name]) for name in names}, offsets([])))
    import pyarrow as pa

    about = {"unit": "1", "description": "index of the sample in the snapshot or release"}
    field = pa.field("sample", pa.int64(), metadata=about)
    return rows.combine_chunks().add_column(0, field, pa.array(np.arange(len(rows)), pa.int64()))


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(list(parts)).combine_chunks()


def _figures(ds: xr.Dataset, samples: TabledSamples) -> Figures:
    """Return what the table holds, told by the variables of a Dataset."""
    shared = tuple(str(name) for name in np.atleast_1d(ds["teacher"].values)) if "teacher" in ds.coords else ()
    labels = tuple(
        LabelPlan(name, label.spec, shared if label.teacher is None else (label.teacher,), label.teacher is None)
        for name, label in label_variables(ds).items()
    )
    masks = samples.mask_names()
    user = {name: column for name, column in samples.user_columns.items() if column.axis == "sample"}
    taken = Figures(tuple(teachers_of(ds)), labels, (), samples.vocabulary("source"), samples.vocabulary("sampler"))
    names = user_names(user.values(), _names(taken, ds))
    plans = tuple(
        UserPlan(names[name], column, masks.get(name), samples.vocabulary(name) if column.coded else None)
        for name, column in user.items()
    )
    return Figures(taken.teachers, labels, plans, taken.sources, taken.samplers)


def _names(figures: Figures, ds: xr.Dataset) -> set[str]:
    """Return the names of the columns of the table without user columns."""
    wanted = [*STRUCTURE, *(plan.variable for plan in figures.labels)]
    none = {name: np.empty((0, *ds[name].shape[1:]), ds[name].dtype) for name in wanted}
    return {"sample", *figures(Block(0, none, offsets([]))).column_names}


def user_names(columns: Iterable[Column], taken: set[str]) -> dict[str, str]:
    """Return the names of user columns in the table: ``column.NAME`` if the table has a column NAME of its own.

    SQL does not tell capital from small letters, so that neither may the names.
    """
    used = {name.lower() for name in taken} | {name.partition(".")[0].lower() for name in taken}
    out = {}
    for column in columns:
        name = column.name
        if name.lower() in used:
            name = f"column.{column.name}"
        while name.lower() in used:
            name += "_"
        used.add(name.lower())
        out[column.name] = name
    return out


# -- kept in the cache folder ------------------------------------------------------------------------------------


def _keep(folder: Path, rows: pa.Table, title: str) -> None:
    """Write a table under another name, and rename it when it is whole."""
    import pyarrow as pa

    make_room(rows.nbytes)
    with building(folder) as temporary:
        path = temporary / _FILE
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        about = {
            "kind": "table", "title": title, "samples": rows.num_rows, "nbytes": path.stat().st_size,
            "crc32c": google_crc32c.value(path.read_bytes()),
        }  # fmt: skip
        text = json.dumps(about, indent=1, sort_keys=True)
        (temporary / "about.json").write_text(f"{zlib.crc32(text.encode())}\n{text}")
        for _ in range(2):
            try:
                temporary.rename(folder)
                return
            except OSError:  # another process was faster, or left a part of what it removed
                if _opened(folder) is not None:
                    return
                remove(folder)


def _opened(folder: Path) -> pa.Table | None:
    """Map a table that is kept; None if there is none, or one that is damaged, which is removed."""
    if not folder.is_dir():
        return None
    text = damage(folder)
    if text:
        logger.warning("%s: the table of samples is damaged (%s); it is computed again", folder, text)
        remove(folder)
        return None
    import pyarrow as pa

    with contextlib.suppress(OSError):  # removed meanwhile
        source = pa.memory_map(str(folder / _FILE), "r")
        Path(folder).touch()
        return pa.ipc.open_file(source).read_all()
    return None


def damage(folder: Path) -> str:
    """Return what is wrong with a table that is kept, after reading all of it; nothing if it is what was written."""
    try:
        checksum, _, text = (folder / "about.json").read_text().partition("\n")
        if int(checksum) != zlib.crc32(text.encode()):
            return "about.json changed"
        about: dict[str, Any] = json.loads(text)
        total, nbytes = 0, 0
        with (folder / _FILE).open("rb") as file:
            for part in iter(partial(file.read, 1 << 24), b""):
                total, nbytes = google_crc32c.extend(total, part), nbytes + len(part)
        return "" if (total, nbytes) == (about["crc32c"], about["nbytes"]) else f"{_FILE} changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
