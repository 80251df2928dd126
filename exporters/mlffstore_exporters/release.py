"""A release: one folder with the HDF5 files and everything that is needed to use them.

::

    NAME-VERSION/
      NAME-VERSION.h5      or NAME-VERSION-00001-of-00004.h5, ...
      statistics.yaml      of all samples; normalisation for trainers from the split train
      validation.json      the verdict, the acceptance table, the findings
      README.md            the dataset card
      croissant.json       the same for machines (mlcommons.org/croissant)
      CITATION.cff
      MANIFEST.json        SHA-256 and size of all of these, counts, identity of store and teachers
      SHA256SUMS           SHA-256 of all of these and of the manifest, for sha256sum -c

It is made under another name and renamed when it is complete. A version that is there is never written again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.schema import label_key
from mlffstore.data.splits import SPLITS
from mlffstore.errors import GateError, ReleaseError
from mlffstore.release import Release
from mlffstore.release.changes import changes
from mlffstore.release.manifest import CHECKSUMS, MANIFEST, MANIFEST_FORMAT, checksums_text, describe_file
from mlffstore.release.selection import select
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.paths import local_path
from mlffstore.runtime.version import SEMANTIC_VERSION, VERSION
from mlffstore_exporters import card
from mlffstore_exporters.about import About
from mlffstore_exporters.columns import choose_teachers, steps_of
from mlffstore_exporters.folder import new_folder
from mlffstore_exporters.hdf5 import export_hdf5, filters_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlffstore.analysis.statistics.result import Statistics
    from mlffstore.analysis.validation.result import Validation
    from mlffstore.data.ragged import Ints
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
#: Bytes of a shard, at least: smaller ones are mostly overhead.
_SHARD_NBYTES = 1 << 20
_SOFTWARE = ("numpy", "h5py", "numcodecs", "deflate", "zarr", "ase")


def export_release(
    snapshot: Samples,
    folder: str | os.PathLike[str],
    *,
    name: str,
    version: str = "1.0.0",
    teacher: str | Sequence[str] | None = None,
    counts: Mapping[str, int] | None = None,
    policy: Any = None,
    allow_failing: bool = False,
    recheck: bool = True,
    since: str | os.PathLike[str] | None = None,
    shard_nbytes: int | None = None,
    licence: str = "",
    authors: str | Sequence[str] = (),
    description: str = "",
    codec: str = "gzip",
    compression_level: int = 4,
    rounding: Mapping[str, float] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the release ``folder/NAME-VERSION/`` of a snapshot.

    Parameters
    ----------
    snapshot : Samples
    folder : path
        Folder of the releases. It is made if it does not exist.
    name, version : str
        Name and semantic version, such as ``1.0.0``, of the release.
    teacher : str or sequence of str, optional
        Teachers whose labels are exported; required if there are several. The labels of several teachers become named
        columns of one file (heads).
    counts : mapping of str to int, optional
        Exact number of samples of splits, such as ``{"train": 100_000, "val": 10_000, "test": 10_000}``. Roots are taken
        whole in the order of their hash, but for the last one.
    policy : Policy, mapping, name or path, optional
        Policy of the validation; see `mlffstore.validate`.
    allow_failing : bool, optional
        Publish although the validation fails; the manifest and the card record it.
    recheck : bool, optional
        Whether some 50 samples of each teacher are labelled again, if exactly that teacher is installed here.
    since : path, optional
        An older release, under whatever name. The manifest and the card list the differences from it, and a version that
        does not rise with them is refused.
    shard_nbytes : int, optional
        Uncompressed bytes of an HDF5 file, about; one file by default.
    licence : str, optional
        SPDX identifier of the dataset's licence.
    authors : str or sequence of str, optional
        One author or several, each as "Family, Given".
    description : str, optional
        One or two sentences for the card.
    codec, compression_level, rounding
        See `mlffstore_exporters.hdf5.export_hdf5`.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path
        Path of the HDF5 file, or of the folder if there are several files.

    Raises
    ------
    ReleaseError
        If that version exists, it does not rise with what changed, the validation fails, or there are too few samples.
    """
    target = local_path(folder) / f"{name}-{version}"
    older = None if since is None else Release(since)
    _check_names(name, version, target)
    licence = _spdx(licence)
    filters_of(codec, compression_level)  # wrong options are refused before a long validation
    steps_of(rounding or {})
    authors = (authors,) if isinstance(authors, str) else tuple(authors)
    teachers = choose_teachers(snapshot, teacher)
    splits = select(snapshot, teachers)
    if counts is not None:
        splits = exactly(snapshot, splits, counts)
    chosen = np.sort(np.concatenate(list(splits.values())))
    if not len(chosen):
        raise ReleaseError(f"{target}: expected labelled samples, got none of {', '.join(teachers)}")
    shards = _shards(snapshot, splits, shard_nbytes)
    validation, statistics = _examine(snapshot, teachers, chosen, policy, recheck)
    if not allow_failing:  # before a long export; the size of the files is known only after it
        _gate(target, validation, _passes_but_for_size(validation))
    provenance = snapshot.provenance()
    document = {**statistics.to_dict(), "normalisation": {}}
    for teacher_name in teachers:
        if document["teachers"][teacher_name]["samples_with_energy_by_split"]["train"]:
            document["normalisation"][teacher_name] = statistics.normalisation(teacher_name)
    about = About(
        name, version, licence, authors, description, snapshot, teachers, splits, counts is not None, provenance,
        document, validation, _rounding(snapshot, teachers, rounding or {}), snapshot.committed(),
    )  # fmt: skip
    with new_folder(target) as temporary:
        done = 0
        for k, part in enumerate(shards):
            suffix = f"-{k + 1:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            export_hdf5(
                snapshot, temporary / f"{name}-{version}{suffix}.h5", teacher=teachers, splits=part, title=name,
                version=version, codec=codec, compression_level=compression_level, rounding=rounding,
                provenance=provenance, progress=_shifted(progress, done, len(chosen)),
            )  # fmt: skip
            done += sum(len(index) for index in part.values())
        about = replace(about, validation=validation.of_size(sum(file.stat().st_size for file in temporary.iterdir())))
        if not allow_failing:
            _gate(target, about.validation, about.validation.ok)
        if older is not None:
            about = replace(about, since=changes(older, Release.of(sorted(temporary.iterdir()))))
            _check_rises(about)
        _write_documents(temporary, about)
    return target / f"{name}-{version}.h5" if len(shards) == 1 else target


def _rounding(snapshot: Samples, teachers: Sequence[str], rounding: Mapping[str, float]) -> dict[str, float]:
    """Return the largest step that each label was rounded to, now or in the release that the samples come from."""
    before = snapshot.rounding()
    steps = {
        name: max([rounding.get(name, 0.0), *(before.get(label_key(name, teacher), 0.0) for teacher in teachers)])
        for name in ("forces", "stress")
    }
    return {name: step for name, step in steps.items() if step}


def _gate(target: Path, validation: Validation, ok: bool) -> None:
    if not ok:
        raise GateError(
            f"{target}: the samples do not pass the validation; nothing was written. Mend the store (mlffstore validate), "
            f"choose another policy, or publish all the same with allow_failing (--allow-failing)\n{validation.table()}"
        )


def _passes_but_for_size(validation: Validation) -> bool:
    lines = all(line.passed for line in validation.acceptance if line.quantity != "gigabytes")
    return lines and not any(problem.severity == "error" for problem in validation.problems)


def _check_names(name: str, version: str, target: Path) -> None:
    if not _NAME.fullmatch(name):
        raise ReleaseError(f"name: expected letters, digits, '_', '.', '+' and '-', got {name!r}")
    if not SEMANTIC_VERSION.fullmatch(version):
        raise ReleaseError(f"version: expected a semantic version such as 1.0.0, got {version!r}")
    if target.exists():
        raise ReleaseError(
            f"{target}: this version is published and is never overwritten; choose the next one "
            "(1.0.1: same samples; 1.1.0: more of them; 2.0.0: other labels or splits)"
        )


def _spdx(licence: str) -> str:
    """Return an SPDX expression in its canonical spelling; refuse what is none, for machines read it."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if not licence:
        return ""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression as error:
        raise ReleaseError(
            f"licence: expected an SPDX identifier, such as CC-BY-4.0, CC0-1.0 or ODbL-1.0 (https://spdx.org/licenses), or "
            f"LicenseRef-NAME for a licence of your own, got {licence!r}"
        ) from error


def _check_rises(about: About) -> None:
    """Refuse a version that does not rise as much as what changed since the older release demands."""
    since = about.since
    if since is None:
        return
    match = SEMANTIC_VERSION.fullmatch(since.version)
    if match is None:
        logger.warning(
            "%r: expected a semantic version of the older release, got %r; whether %s rises enough was not compared",
            since.name, since.version, about.version,
        )  # fmt: skip
        return
    before, now = (tuple(map(int, text.partition("-")[0].split("."))) for text in (since.version, about.version))
    if match[4]:  # such as 1.0.0-rc.1, after which anything may change until 1.0.0
        least, rises = f"a version after {since.version}", _precedence(about.version) > _precedence(since.version)
    else:
        part = {"major": 1, "minor": 2, "patch": 3}[since.bump]
        if part == 1 and before[0] == 0:
            part = 2  # https://semver.org: anything may change in versions before 1.0.0
        least = ".".join(map(str, [*before[: part - 1], before[part - 1] + 1, *[0] * (3 - part)])) + " or later"
        rises = now[:part] > before[:part]
    if not rises:
        other = (
            f". The older release has another name; leave since (--from-release) out if {about.name} is another dataset"
            if since.name != about.name
            else ""
        )
        raise ReleaseError(
            f"version: expected {least}, since these are the changes from {since.name} {since.version}: "
            f"{'; '.join(since.lines())}; got {about.version}{other}"
        )


def _precedence(version: str) -> tuple[Any, ...]:
    """Return what orders versions (https://semver.org, 11): numbers before words, and a version after its candidates."""
    core, dash, candidate = version.partition("+")[0].partition("-")
    words = [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in candidate.split(".")]
    return (tuple(map(int, core.split("."))), not dash, words if dash else [])


def exactly(snapshot: Samples, splits: Mapping[str, Ints], counts: Mapping[str, int]) -> dict[str, Ints]:
    """Return exact numbers of samples of each split, by whole roots in the order of their hash but for the last one.

    A larger store keeps the roots that a smaller one had before others, and no root ever changes its split.
    """
    from mlffstore.data.hashing import mix

    if not isinstance(counts, Mapping) or set(counts) - set(SPLITS) or not all(map(_is_count, counts.values())):
        raise ReleaseError(
            f"counts: expected whole numbers that are not negative, of {', '.join(SPLITS)}, got {counts!r}; give a mapping "
            'such as {"train": 1000, "val": 100, "test": 100}'
        )
    out = {}
    for split, index in splits.items():
        wanted = int(counts.get(split, 0))
        if wanted > len(index):
            have = ", ".join(f"{name} {len(index):,}" for name, index in splits.items())
            raise ReleaseError(
                f"counts: expected {wanted:,} samples of {split}, the store has {have}; add samples, or make a store with "
                "other fractions of the splits: a sample never changes its split"
            )
        order = np.lexsort((index, mix(snapshot.roots()[index])))
        out[split] = np.sort(index[order[:wanted]])
    return out


def _is_count(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 0)


def _examine(
    snapshot: Samples, teachers: Sequence[str], chosen: Ints, policy: Any, recheck: bool
) -> tuple[Validation, Statistics]:
    from mlffstore.analysis.statistics import statistics
    from mlffstore.analysis.validation import validate

    data = snapshot.to_xarray(teachers=list(teachers))
    if len(chosen) < len(snapshot):
        data = data.mlff.isel(sample=chosen)
    return validate(data, policy, teacher="at hand" if recheck else None).compute(), statistics(data).compute()


def _shards(snapshot: Samples, splits: Mapping[str, Ints], nbytes: int | None) -> list[dict[str, Ints]]:
    """Cut every split into as many parts as keep the files under a size."""
    if nbytes is None:
        return [dict(splits)]
    if nbytes < _SHARD_NBYTES:
        raise ReleaseError(f"shard_nbytes: expected at least {_SHARD_NBYTES:,}, got {nbytes}")
    share = sum(len(index) for index in splits.values()) / max(len(snapshot), 1)
    n = max(1, -(-int(snapshot.summary()["nbytes_raw"] * share) // nbytes))
    parts = {split: np.array_split(index, n) for split, index in splits.items()}
    return [{split: parts[split][k] for split in splits} for k in range(n)]


def _shifted(progress: Callable[[int, int], object] | None, before: int, total: int) -> Any:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _write_documents(folder: Path, about: About) -> None:
    import yaml

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    files = {path.name: describe_file(path) for path in sorted(folder.iterdir())}
    data = dict(files)
    write("statistics.yaml", yaml.safe_dump(dict(about.statistics), sort_keys=False, allow_unicode=True))
    write("validation.json", json_text(about.validation.to_json(), indent=1))
    write("README.md", card.readme(about, data))
    write("CITATION.cff", card.citation(about))
    write("croissant.json", json_text(card.croissant(about, data), indent=1))
    files |= {path.name: describe_file(path) for path in sorted(folder.iterdir()) if path.name not in files}
    write(MANIFEST, json_text(_manifest(about, files), indent=1))
    digests = {path.name: describe_file(path)["sha256"] for path in folder.iterdir()}
    write(CHECKSUMS, checksums_text(digests))


def _manifest(about: About, files: dict[str, Any]) -> dict[str, Any]:
    snapshot, verdict = about.snapshot, about.validation
    return {
        "format": MANIFEST_FORMAT,
        "name": about.name,
        "version": about.version,
        "licence": about.licence,
        "files": dict(sorted(files.items())),
        "splits": about.statistics["splits"],
        "exact_counts": about.exact,
        "store": {"uuid": snapshot.store_uuid, "version": snapshot.version, "committed": about.committed},
        "selection": snapshot.selection_record(),
        "settings": snapshot.settings,
        "precision": snapshot.precision,
        "teachers": {name: snapshot.teacher_info(name) for name in about.teachers},
        "rounding": dict(about.rounding),
        "since": None if about.since is None else about.since.to_json(),
        "validation": {
            "ok": verdict.ok,
            "allow_failing": not verdict.ok,
            "invalid": int(verdict.invalid.sum()),
            "failed": [line.quantity for line in verdict.acceptance if not line.passed],
        },
        "recipe": next((entry["recipe"] for entry in reversed(about.provenance) if "recipe" in entry), None),
        "software": _software(),
    }


def _software() -> dict[str, str]:
    import h5py

    out = {"mlffstore": VERSION, "hdf5": h5py.version.hdf5_version}
    for package in _SOFTWARE:
        out[package] = installed(package)
    return out
