"""`mlffstore label`: labels of a teacher for what a store holds."""

from __future__ import annotations

from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, out, pairs, print_json, progress_bar
from mlffstore.cli.plugins import teacher_options


def label(
    store: StorePath,
    teacher: Annotated[str, typer.Option("--teacher", "-t", help="Name of the teacher, see 'mlffstore teachers'.")],
    weights: Annotated[str | None, typer.Option("--weights", help="File with the weights of the teacher.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-O", help="Option of the teacher, such as device=cuda. Repeat it.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes; 1 is right for a GPU.")] = 1,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Samples that the teacher is given at a time.")] = 512,
    as_json: AsJson = False,
) -> None:
    """Label every sample of STORE that lacks the labels of a teacher. Run it again to go on after an interruption."""
    options = teacher_options(weights, option)
    target = ml.open(store, mode="a")
    with progress_bar("samples") as progress:
        report = target.add_labels(teacher, options=options, workers=workers, chunk_samples=chunk, progress=progress)
    if as_json:
        print_json({**vars(report), "reasons": dict(report.reasons)})
        return
    rows = [("labelled", f"{report.labelled:,} samples by {report.teacher}, in {len(report.versions)} commits")]
    if report.refused:
        rows.append(("refused", f"{report.refused:,} samples stay without labels of {report.teacher}"))
        rows += [("", f"{n:,} x {reason}") for reason, n in report.reasons.most_common(10)]
    if report.n_conflicts:
        rows.append(
            ("conflicts", f"{report.n_conflicts} segments were labelled or merged by another process meanwhile")
        )
    rows.append(("store", f"{target.url}, version {target.version}"))
    out.print(pairs(rows))
