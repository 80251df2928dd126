"""What an exporter must be, and exporters by name. The command line and users call them; plugins implement them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from mlffstore.contracts.registry import load

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mlffstore.store.samples import Samples


class Exporter(Protocol):
    """A function that writes a snapshot to a file or folder of another layout."""

    def __call__(
        self,
        snapshot: Samples,
        path: str | os.PathLike[str],
        *,
        teacher: str | Sequence[str] | None = None,
        progress: Callable[[int, int], object] | None = None,
        **options: Any,
    ) -> Path:
        """Write a snapshot.

        Parameters
        ----------
        snapshot : Samples
            A snapshot, a selection, or the samples of a release.
        path : path
            A new file or folder. What is there already is never overwritten, and the name appears only when it is complete.
        teacher : str or sequence of str, optional
            The teacher whose labels are written; needed when there are several.
        progress : callable, optional
            It is called with the number of samples written so far and the number of all samples. The command line always
            gives one.
        **options
            Options of the layout.

        Returns
        -------
        Path
            Path of what was written.
        """
        ...


def get_exporter(name: str) -> Exporter:
    """Return an exporter by name, such as ``get_exporter("hdf5")``."""
    return cast("Exporter", load("exporter", name))


def export_release(
    snapshot: Samples,
    folder: str | os.PathLike[str],
    *,
    name: str,
    version: str = "1.0.0",
    teacher: str | Sequence[str] | None = None,
    **options: Any,
) -> Path:
    """Write the release ``folder/NAME-VERSION/`` of a snapshot: HDF5, card, statistics, verdict and manifest.

    Parameters
    ----------
    snapshot : Samples
        A snapshot, a selection, or the samples of a release.
    folder : path
        The folder that holds releases; made if it does not exist.
    name, version : str
        Name and version of the release.
    teacher : str or sequence of str, optional
        The teacher whose labels are written; needed when there are several. Several teachers become named columns of one
        file (heads).
    **options
        ``counts``, ``policy``, ``allow_failing``, ``shard_nbytes``, ``licence``, ``authors``, ``description``, ``codec``,
        ``compression_level``, ``rounding``; see `mlffstore_exporters.release.export_release`.

    Returns
    -------
    Path
        Path of the HDF5 file ``folder/NAME-VERSION/NAME-VERSION.h5``, or of the folder if there are several files.

    Raises
    ------
    ReleaseError
        If that version exists, the validation fails, or there are too few samples.
    """
    return get_exporter("release")(snapshot, folder, name=name, version=version, teacher=teacher, **options)
