"""`mlffstore label`: labels of a teacher for what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, print_json, print_pairs, progress_bar
from mlffstore.cli.plugins import TeacherOptions, Weights, make_teacher, teacher_options
from mlffstore.runtime.words import counted


def label(
    store: StorePath,
    teacher: Annotated[
        str,
        typer.Option("--teacher", "-t", help="Name of the teacher, see 'mlffstore teachers'.", show_default=False),
    ],
    weights: Weights = None,
    option: TeacherOptions = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes; 1 is right for a GPU.")] = 1,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Samples that the teacher is given at a time.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Label what lacks the labels of a teacher.

    Every sample of STORE without them is labelled. Run it again to go on after an interruption.
    """
    options = teacher_options(weights, option)
    make_teacher(teacher, options)  # says what is wrong with the options before the store is opened
    target = ml.open(store, mode="a")
    with progress_bar("samples") as progress:
        report = target.add_labels(teacher, options=options, workers=workers, chunk_samples=chunk, progress=progress)
    if as_json:
        print_json({**vars(report), "reasons": dict(report.reasons)})
        return
    commits = counted(len(report.versions), "commit")
    rows = [("labelled", f"{counted(report.labelled, 'sample')} by {report.teacher}, in {commits}")]
    if report.refused:
        stay = "stays" if report.refused == 1 else "stay"
        rows.append(("refused", f"{counted(report.refused, 'sample')} {stay} without labels of {report.teacher}"))
        rows += [("", f"{n:,} x {reason}") for reason, n in report.reasons.most_common(10)]
    if report.n_conflicts:
        were = "was" if report.n_conflicts == 1 else "were"
        rows.append(
            ("conflicts", f"{counted(report.n_conflicts, 'segment')} {were} labelled by another process meanwhile")
        )
    rows.append(("store", f"{target.url}, version {target.version}"))
    print_pairs(rows)
