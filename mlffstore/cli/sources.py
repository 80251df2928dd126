"""What verbs read: a version of a store, a kept selection, a release, or those samples of them that meet a condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import judged, status
from mlffstore.errors import DataError, TeacherError
from mlffstore.runtime.words import counted, nearest

if TYPE_CHECKING:
    from mlffstore.store.samples import Samples, Selection

SourcePath = Annotated[
    str, typer.Argument(help="Path of a store, or of a release.", metavar="STORE|RELEASE", show_default=False)
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Only samples that meet this condition, such as \"n_atoms < 50 and list_contains(elements, 'Li')\"; see "
        "docs/how_to/select.md.",
        show_default=False,
    ),
]


def open_samples(path: str, version: int | None = None, tag: str | None = None, where: str | None = None) -> Samples:
    """Return the samples that a verb is about.

    Raises
    ------
    BadParameter
        If an option does not fit, or no sample meets the condition.
    """
    from mlffstore.release.samples import is_release, open_release

    if is_release(path):
        if version is not None or tag is not None:
            raise typer.BadParameter(
                "expected a store, got a release, which has one version", param_hint="--version or --tag"
            )
        samples: Samples = open_release(path)
    else:
        handle = ml.open(path)
        with judged("--version or --tag", version="--version", tag="--tag"):
            named = tag is not None and version is None and tag in handle.selections
            samples = handle.selection(str(tag)) if named else handle.snapshot(version, tag=tag)
    return samples if where is None else chosen(samples, where)


def not_empty(path: str, samples: Samples) -> Samples:
    """Return samples; raise `DataError` if there are none."""
    if not len(samples):
        raise DataError(f"{path}: expected at least one sample, got none; append or import some first")
    return samples


def check_teacher(samples: Samples, teacher: str | None) -> None:
    """Raise unless there are labels, of the teacher if one was asked for.

    Raises
    ------
    TeacherError
        If there are no labels at all.
    BadParameter
        If there are none of the teacher.
    """
    if not samples.teachers:
        raise TeacherError(f"{samples.url}: there are no labels here; label the samples first (mlffstore label)")
    if teacher is not None and teacher not in samples.teachers:
        raise typer.BadParameter(
            f"expected one of {', '.join(samples.teachers)}, got {teacher!r}{nearest(teacher, samples.teachers)}",
            param_hint="--teacher",
        )


def chosen(samples: Samples, where: str) -> Selection:
    """Return the samples that meet a condition; raise `BadParameter` if there are none."""
    with judged(where="--where"), status(f"choosing from {counted(len(samples), 'sample')} ..."):
        selection = samples.select(where)
    if not len(selection):
        raise typer.BadParameter(
            f"expected samples that meet the condition, got none of {len(samples):,}: {where}", param_hint="--where"
        )
    return selection
