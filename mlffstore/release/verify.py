"""`verify_release`: find out whether a release is what was published, and whether its data are sound.

Checksums of all files come first, before any parser sees one; then `mlffstore.release.inspection` looks into the data.
Damage never stops the search: everything that is wrong is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlffstore.errors import FormatError, StoreNotFoundError
from mlffstore.release.inspection import inspect_apart
from mlffstore.release.manifest import (
    CHECKSUMS,
    MANIFEST,
    checksums_text,
    describe_file,
    is_plain,
    load_manifest,
    name_error,
)
from mlffstore.runtime.paths import local_path
from mlffstore.store.maintenance.verification import Problem

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ReleaseVerification:
    """The result of `verify_release`.

    Attributes
    ----------
    path : str
    n_files : int
        Files that were looked at.
    nbytes : int
        Their size.
    n_samples : int
    problems : tuple of Problem
        Empty if all is well.
    """

    path: str
    n_files: int
    nbytes: int
    n_samples: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_release(
    path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> ReleaseVerification:
    """Check the folder of a release, or a single file of one, without changing it.

    Parameters
    ----------
    path : path
        The folder, or an ``.h5`` file. A file alone has no checksum to compare it with: only its data are looked at.
    progress : callable, optional
        It is called with the number of samples done so far and the number of all samples.

    Returns
    -------
    ReleaseVerification
        The result has a problem for every file of the folder in which a bit was changed.

    Raises
    ------
    StoreNotFoundError
        If there is nothing.
    FormatError
        If the manifest names a file outside its folder (``..``).

    Notes
    -----
    The HDF5 files are read in another process, with bounds on its memory and time: a file that is damaged, or that
    was made to do harm and has right checksums, may crash the HDF5 library or keep it busy for ever. Verify a release
    of unknown origin before any other program opens it.
    """
    path = local_path(path)
    if not path.exists():
        raise StoreNotFoundError(f"{path}: there is no such release; make one with 'mlffstore export'")
    if not path.is_dir():
        inspection = inspect_apart([path], None, progress)
        return ReleaseVerification(str(path), 1, path.stat().st_size, inspection.n_samples, inspection.problems)
    listed, problems = _manifest(path)
    there = {
        file.name: describe_file(file) for file in sorted(path.iterdir()) if file.is_file() and not file.is_symlink()
    }
    problems += _files(path, listed, there)
    problems += _checksums(path, there, {problem.path for problem in problems})
    names = listed if listed is not None else there
    data = [path / name for name in names if name.endswith(".h5") and name in there]
    content = inspect_apart(data, path if listed is not None else None, progress)
    return ReleaseVerification(
        str(path), len(there), sum(entry["bytes"] for entry in there.values()), content.n_samples,
        (*problems, *content.problems),
    )  # fmt: skip


def _manifest(folder: Path) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return the entries of the manifest by file name, None if it cannot be read, and what is wrong with it."""
    try:
        listed = load_manifest(folder)["files"]
    except FormatError as error:
        return None, [Problem(MANIFEST, str(error))]
    strange = [name for name in listed if not is_plain(name)]
    for name in strange:
        if ".." in name.replace("\\", "/").split("/"):
            raise name_error(folder, name)
    problems = [Problem(MANIFEST, str(name_error(folder, name))) for name in strange]
    return {name: entry for name, entry in listed.items() if name not in strange}, problems


def _checksums(folder: Path, there: Mapping[str, Mapping[str, Any]], reported: set[str]) -> Iterator[Problem]:
    """Compare the file of checksums with the files; files that have a problem already are left out."""
    if CHECKSUMS not in there:
        yield Problem(CHECKSUMS, "is missing, or no plain file; restore it")
        return
    expected = checksums_text({name: entry["sha256"] for name, entry in there.items() if name != CHECKSUMS}).encode()
    stated = (folder / CHECKSUMS).read_bytes()
    if stated == expected:
        return
    lines = set(stated.split(b"\n")) ^ set(expected.split(b"\n"))
    names = {line.partition(b"  ")[2].decode(errors="replace") for line in lines} - reported
    if MANIFEST in names:
        yield Problem(MANIFEST, f"its SHA-256 is not the one in {CHECKSUMS}; restore both")
    elif names or not reported:
        yield Problem(CHECKSUMS, "does not hold the checksums of these files; restore it")


def _files(folder: Path, listed: Mapping[str, Any] | None, there: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Compare the files with the manifest."""
    for name, entry in (listed or {}).items():
        expected = entry if isinstance(entry, dict) else {}
        if name not in there:
            yield Problem(name, "is missing, or no plain file; restore it")
        elif there[name]["bytes"] != expected.get("bytes"):
            yield Problem(
                name, f"has {there[name]['bytes']:,} bytes, the manifest has {expected.get('bytes')!r}; restore it"
            )
        elif there[name]["sha256"] != expected.get("sha256"):
            yield Problem(name, f"its SHA-256 is {there[name]['sha256'][:16]}..., the manifest has another; restore it")
    for path in sorted(folder.iterdir()):
        if listed is not None and path.name not in (*listed, MANIFEST, CHECKSUMS):
            yield Problem(path.name, "is not in the manifest; remove it, or make the release again")
