"""`mlffstore label`: labels of a teacher for what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, judged, print_json, print_pairs, progress_bar
from mlffstore.cli.plugins import Recheck, TeacherOptions, Weights, make_teacher, recheck_labels, teacher_options
from mlffstore.cli.sources import Where, chosen
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.store.facade import Store
    from mlffstore.store.labelling import LabelReport


def label(
    store: StorePath,
    teacher: Annotated[
        str,
        typer.Option("--teacher", "-t", help="Name of the teacher, see 'mlffstore teachers'.", show_default=False),
    ],
    where: Where = None,
    weights: Weights = None,
    option: TeacherOptions = None,
    properties: Annotated[
        str | None,
        typer.Option(
            "--properties",
            "-p",
            metavar="NAME,NAME",
            help="What to store, such as energy,forces,hessian_product. [default: what 'mlffstore teachers' lists]",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Ask again for samples that the teacher refused or failed on before.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Processes; 1 is right for a GPU.")] = 1,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Samples that the teacher is given at a time.")] = 512,
    recheck: Recheck = True,
    as_json: AsJson = False,
) -> None:
    """Label the samples of STORE with a teacher.

    Labels that samples have are left as they are. Run it again to go on after an interruption, or with more properties.
    The exit code is 1 if the teacher labelled none of the samples that it was given.
    """
    options = teacher_options(weights, option)
    model = make_teacher(teacher, options)  # says what is wrong with the options before the store is opened
    names = None if properties is None else tuple(name for part in properties.split(",") if (name := part.strip()))
    if names is not None:
        with judged(properties="--properties"):
            from mlffstore.contracts.request import wanted

            wanted(model, names)
    target = ml.open(store, mode="a")
    samples = None if where is None else chosen(target.snapshot(), where)
    with progress_bar("samples") as progress:
        report = target.add_labels(
            teacher,
            properties=names,
            samples=samples,
            retry=retry,
            options=options,
            workers=workers,
            chunk_samples=chunk,
            progress=progress,
        )
    compared, good = recheck_labels(target, [model]) if recheck and report.labelled else ([], True)
    if as_json:
        print_json({**vars(report), "reasons": dict(report.reasons), "recheck": [text for _, text in compared]})
    else:
        _print(target, report, compared)
    if not good or (report.refused and not report.labelled):
        raise typer.Exit(1)


def _print(target: Store, report: LabelReport, compared: list[tuple[str, str]]) -> None:
    commits = counted(len(report.versions), "commit")
    rows = [("labelled", f"{counted(report.labelled, 'sample')} by {report.teacher}, in {commits}")]
    if report.refused:
        rows.append(("refused", f"{report.teacher} gave no labels for {counted(report.refused, 'sample')}"))
        rows += [("", f"{n:,} x {reason}") for reason, n in report.reasons.most_common(10)]
        rows.append(("", "--retry asks for them again, if that was not their fault"))
    if report.refused_before:
        have = "has" if report.refused_before == 1 else "have"
        before = (
            f"{counted(report.refused_before, 'sample')} {have} no labels since an earlier pass; --retry asks again"
        )
        rows.append(("refused before", before))
    if report.n_conflicts:
        were = "was" if report.n_conflicts == 1 else "were"
        text = (
            f"{counted(report.n_conflicts, 'segment')} {were} changed by another process meanwhile, and looked at again"
        )
        rows.append(("conflicts", text))
    rows += compared
    rows.append(("store", f"{target.url}, version {target.version}"))
    print_pairs(rows)
