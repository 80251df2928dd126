"""Look into the files of a release: columns, structures, splits, statistics.

Each chunk has the HDF5 library's checksum (fletcher32), each column a digest; units, hashes of the structures, splits
and leakage follow, and the statistics, computed again with nothing but NumPy. A file that is damaged, or made to do
harm with right checksums, may make the HDF5 library crash or run for ever, so `inspect_apart` reads it in another
process. `mlffstore.release.verify` compares the checksums before that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.hashing import content_hash
from mlffstore.data.schema import STANDARD
from mlffstore.data.splits import SPLITS, assign
from mlffstore.errors import FormatError, MlffstoreError
from mlffstore.release.labels import property_in
from mlffstore.release.manifest import MANIFEST, read_manifest
from mlffstore.release.reading import Release
from mlffstore.store.maintenance.verification import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array, Column

_BLOCK = 4096
#: Relative difference of a statistic that summing in another order explains.
_TOLERANCE = 1e-9
#: Bytes of address space for a file whose sizes may be anything, seconds for it, and bytes that are read in a second,
#: at least.
_MEMORY, _SECONDS, _SPEED = 8 << 30, 60, 1 << 20


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is wrong with the data of a release.

    Attributes
    ----------
    n_samples : int
        0 if the columns cannot be read.
    problems : tuple of Problem
    """

    n_samples: int
    problems: tuple[Problem, ...]


def inspect(
    paths: Sequence[Path], folder: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Read the HDF5 files of a release in this process.

    Parameters
    ----------
    paths : sequence of Path
    folder : Path, optional
        Folder with the manifest and the statistics to compare with.
    progress : callable, optional
        It is called with the number of samples done so far and the number of all samples.
    """
    problems: list[Problem] = []
    for path in paths:
        with _told(path.name, problems):
            problems += _columns(path)
    n_samples = 0
    if paths and not problems:
        with _told(paths[0].name, problems):
            release = Release.of(paths)
            n_samples = len(release)
            content = _Content(release, progress)
            problems += content.problems()
            if folder is not None:
                manifest: dict[str, Any] = {}
                with _told(MANIFEST, problems):
                    manifest = read_manifest(folder)
                    problems += content.manifest(manifest)
                with _told("statistics.yaml", problems):
                    problems += content.statistics(folder, _mapping(manifest.get("rounding")))
    return Inspection(n_samples, tuple(problems))


def inspect_apart(
    paths: Sequence[Path], folder: Path | None = None, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Read the HDF5 files of a release in another process, with bounds on its memory and time; see `inspect`."""
    where = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    limit = _seconds(paths)
    command = [sys.executable, "-P", "-m", "mlffstore.release.inspection", str(folder or ""), *map(str, paths)]
    failed = "the HDF5 library could not read it to its end; restore the file"
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": where},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                document = json.loads(line)
                if "problems" in document:
                    problems = [Problem(str(entry["path"]), str(entry["text"])) for entry in document["problems"]]
                    return Inspection(int(document["n_samples"]), tuple(problems))
                if progress is not None:
                    progress(int(document["done"]), int(document["total"]))
        except (ValueError, KeyError, TypeError):  # it died in the middle of a line
            pass
        finally:
            timer.cancel()
            process.kill()
    return Inspection(0, (Problem(paths[0].name if len(paths) == 1 else "", failed),))


@contextlib.contextmanager
def _told(name: str, problems: list[Problem]) -> Iterator[None]:
    """Add a problem for whatever error a damaged file leads to."""
    try:
        try:
            yield
        except MlffstoreError:
            raise
        except Exception as error:
            raise FormatError(f"cannot be read ({type(error).__name__}: {error}); restore it") from error
    except MlffstoreError as error:
        problems.append(Problem(name, str(error)))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _columns(path: Path) -> Iterator[Problem]:
    """Read every chunk of a file, which checks fletcher32, and compare columns with the schema and their digests."""
    import h5py

    try:
        Release(path)
        with h5py.File(path, "r") as file:
            for split in (name for name in SPLITS if name in file):
                group = file[split]
                for name in (
                    *(n for n in STANDARD if n not in group),
                    *(n for n in ("labels",) if _lacks(group)),
                ):
                    yield Problem(path.name, f"{split}/{name} is missing")
                n = len(group["n_atoms"])
                rows = {"sample": n, "atom": int(group["n_atoms"][...].sum(dtype=np.int64))}
                for name, dataset in group.items():
                    if "axis" in dataset.attrs:
                        yield from _column(path.name, f"{split}/{name}", dataset, rows)
    except (OSError, KeyError, MlffstoreError) as error:
        yield Problem(path.name, f"cannot be read ({error}); restore it")


def _lacks(group: Any) -> bool:
    return not any(property_in(name, dataset) is not None for name, dataset in group.items())


def _column(file: str, name: str, dataset: Any, rows: Mapping[str, int]) -> Iterator[Problem]:
    key = name.rpartition("/")[2].partition(".")[0]
    label = property_in(name.rpartition("/")[2], dataset)
    column = STANDARD.get(key)
    axis = str(dataset.attrs["axis"])
    if column is not None:
        if str(dataset.attrs.get("units")) != column.unit:
            yield Problem(file, f"{name}: expected the unit {column.unit!r}, got {dataset.attrs.get('units')!r}")
        if axis != column.axis or dataset.shape[1:] != tuple(column.shape):
            yield Problem(file, f"{name}: expected rows of shape {column.shape} by {column.axis}, got {dataset.shape}")
    if label is not None and str(dataset.attrs.get("units")) != label.unit:
        yield Problem(file, f"{name}: expected the unit {label.unit!r}, got {dataset.attrs.get('units')!r}")
    if len(dataset) != rows.get(axis):
        yield Problem(file, f"{name}: expected {rows.get(axis)} rows, got {len(dataset)}")
        return
    digest = hashlib.sha256()
    size = dataset.chunks[0] if dataset.chunks else max(len(dataset), 1)
    try:
        for low in range(0, len(dataset), size):
            part = np.ascontiguousarray(dataset[low : low + size])
            digest.update(hashlib.sha256(part.data).digest())
    except OSError as error:
        yield Problem(file, f"{name}: a chunk is damaged ({error}); restore the file")
        return
    stored = dataset.attrs.get("content_sha256")
    if stored is not None and str(stored) != digest.hexdigest():
        yield Problem(file, f"{name}: its values are not those that were exported; restore the file")


class _Content:
    """One pass over the samples, and its results: splits and statistics."""

    def __init__(self, release: Release, progress: Callable[[int, int], None] | None) -> None:
        self.release, self.progress = release, progress
        self.elements = np.zeros(256, np.int64)
        self.atoms = dict.fromkeys(SPLITS, 0)
        self.sums = {teacher: _Sums() for teacher in release.teachers}
        self.user: dict[str, Column] = {}
        self.hashes: dict[str, Array] = {}
        self.roots: dict[str, Array] = {}

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with structures and splits."""
        done, name = 0, self.release.paths[0].name
        for split in self.release.counts:
            hashes, roots = [], []
            for batch in self.release.blocks(split, _BLOCK, everything=True):
                done += len(batch)
                if self.progress is not None:
                    self.progress(done, len(self.release))
                yield from self._batch(name, split, batch)
                hashes.append(batch.content_hash)
                roots.append(batch.root)
            self.hashes[split] = np.concatenate(hashes or [np.zeros(0, np.uint64)])
            self.roots[split] = np.concatenate(roots or [np.zeros(0, np.uint64)])
        yield from self._splits(name)

    def _batch(self, name: str, split: str, batch: SampleBatch) -> Iterator[Problem]:
        hashes = content_hash(
            batch.n_atoms, batch.numbers, batch.positions, batch.cell, batch.pbc, batch.charge, batch.multiplicity
        )
        wrong = np.flatnonzero(hashes != batch.content_hash)
        if len(wrong):
            yield Problem(name, f"{split}: {len(wrong):,} structures do not have their content_hash")
        for column in batch.user.values():
            first = self.user.setdefault(column.name, column)
            if not first.same_kind(column):
                self.user[column.name] = column
                yield Problem(
                    name, f"{split}/{column.name}: another dtype, shape, axis or unit than in the splits before"
                )
        self.atoms[split] += batch.n_atoms_total
        self.elements += np.bincount(batch.numbers, minlength=256)
        for teacher, sums in self.sums.items():
            labels = batch.labels.get(teacher, {})
            sums.add(batch, labels)

    def _splits(self, name: str) -> Iterator[Problem]:
        settings = self.release.settings
        for k, split in enumerate(SPLITS):
            roots = self.roots.get(split, np.zeros(0, np.uint64))
            wrong = int(np.count_nonzero(assign(roots, settings["splits"], settings["split_seed"]) != k))
            if wrong:
                yield Problem(name, f"{wrong:,} samples are in the split {split}, their root belongs into another")
        names = list(self.hashes)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                for what, of in (("structures", self.hashes), ("roots", self.roots)):
                    shared = len(np.intersect1d(of[a], of[b]))
                    if shared:
                        yield Problem(name, f"leakage: {shared:,} {what} are in {a} and in {b}")

    def manifest(self, manifest: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield where the manifest and the files differ."""
        attributes = self.release.attributes
        listed = _mapping(manifest.get("splits"))
        for split, n in self.release.counts.items():
            measured, expected = {"samples": n, "atoms": self.atoms[split]}, listed.get(split)
            if measured != expected:
                yield Problem(MANIFEST, f"{split}: the files hold {measured}, the manifest has {expected}")
        store = _mapping(manifest.get("store"))
        if (store.get("uuid"), store.get("version")) != (attributes["store_uuid"], int(attributes["store_version"])):
            yield Problem(MANIFEST, "names another store or version than the files")
        if tuple(_mapping(manifest.get("teachers"))) != self.release.teachers:
            yield Problem(
                MANIFEST, f"names other teachers than the files, which have {', '.join(self.release.teachers)}"
            )

    def statistics(self, folder: Path, rounding: Mapping[str, float]) -> Iterator[Problem]:
        """Yield which figures of the statistics the data do not give."""
        import yaml
        from ase.data import chemical_symbols

        path = folder / "statistics.yaml"
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        expected = {"samples": document["samples"], "atoms": document["atoms"]}
        expected |= {f"atoms of {k}": v["atoms"] for k, v in document["elements"].items()}
        for teacher in self.sums:
            entry = document["teachers"][teacher]
            expected[f"{teacher}: samples"] = entry["samples"]
            for what, key in (("energy", "energy_eV_per_atom"), ("forces", "force_component_eV_per_angstrom")):
                for moment in ("mean", "std"):
                    if entry[key].get("n"):
                        expected[f"{teacher}: {moment} of {what}"] = entry[key][moment]
        measured: dict[str, float] = {"samples": len(self.release), "atoms": sum(self.atoms.values())}
        measured |= {f"atoms of {chemical_symbols[z]}": int(self.elements[z]) for z in np.flatnonzero(self.elements)}
        for teacher, sums in self.sums.items():
            measured |= {f"{teacher}: {key}": value for key, value in sums.results().items()}
        for key, value in expected.items():
            other = measured.get(key, float("nan"))
            # A standard deviation of a mean far from zero loses digits: compare on the scale of both.
            scale = max(abs(value), abs(measured.get(key.replace("std", "mean"), 0.0)), 1e-12)
            # Lossy rounding came after the statistics.
            lost = rounding.get("forces", 0.0) if key.endswith("forces") else 0.0
            if not abs(other - value) <= max(_TOLERANCE * scale, 1e-12, lost):
                yield Problem(path.name, f"{key}: the file says {value!r}, the data give {other!r}")


class _Sums:
    """Means and squares of energies per atom and of force components, block by block so that they keep their digits."""

    def __init__(self) -> None:
        self.parts: dict[str, list[tuple[int, float, float]]] = {"energy": [], "forces": []}
        self.n = 0

    def add(self, batch: SampleBatch, labels: Mapping[str, Array]) -> None:
        """Take in the labels of a batch."""
        if "energy" in labels:
            energy = labels["energy"]
            self.n += int(np.count_nonzero(~np.isnan(energy)))
            self._add("energy", energy / batch.n_atoms)
        if "forces" in labels:
            self._add("forces", labels["forces"].astype(np.float64).reshape(-1))

    def _add(self, name: str, values: Array) -> None:
        x = values[np.isfinite(values)]
        if len(x):
            mean = float(x.mean())
            self.parts[name].append((len(x), mean, float(((x - mean) ** 2).sum())))

    def results(self) -> dict[str, float]:
        """Return count, means and standard deviations."""
        out: dict[str, float] = {"samples": self.n}
        for name, parts in self.parts.items():
            if parts:
                n, mean, square = (np.array(column, np.float64) for column in zip(*parts, strict=True))
                total = float((n * mean).sum() / n.sum())
                spread = float((square.sum() + (n * (mean - total) ** 2).sum()) / n.sum())
                out |= {f"mean of {name}": total, f"std of {name}": float(np.sqrt(spread))}
        return out


def _seconds(paths: Sequence[Path]) -> float:
    """Return how long reading some files may take."""
    return _SECONDS + sum(path.stat().st_size for path in paths) / _SPEED


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _main(folder: str, *names: str) -> None:
    paths = [Path(name) for name in names]
    with contextlib.suppress(ImportError):
        import hdf5plugin  # noqa: F401  (registers codecs that a release may use)
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system, or less is allowed
        import resource

        memory = max(_MEMORY, 2 * sum(path.stat().st_size for path in paths))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        seconds = int(_seconds(paths))  # also if the process that waits for this one is gone
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    inspection = inspect(
        paths, Path(folder) if folder else None, lambda done, total: _say({"done": done, "total": total})
    )
    problems = [{"path": problem.path, "text": problem.text} for problem in inspection.problems]
    _say({"n_samples": inspection.n_samples, "problems": problems})


if __name__ == "__main__":
    _main(*sys.argv[1:])
