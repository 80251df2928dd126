"""`mlffstore run`: make what a recipe says, with progress, and go on after any interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import mlffstore as ml
from mlffstore.cli.output import AsJson, err, out, pairs, print_json
from mlffstore.pipeline.account import account
from mlffstore.pipeline.recipe import load_recipe
from mlffstore.pipeline.run import run as run_recipe
from mlffstore.release.manifest import is_cut_from
from mlffstore.store.describe import describe, human_bytes, lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlffstore.pipeline.account import Account
    from mlffstore.pipeline.recipe import Recipe
    from mlffstore.pipeline.run import RunReport
    from mlffstore.pipeline.task import Outcome


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE", show_default=False)],
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", min=1, help="Processes; the number of cores by default.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a Dask scheduler to run on instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Generate, label, check and store what RECIPE says; run it again to go on after an interruption."""
    parsed = load_recipe(recipe)
    began = time.monotonic()
    with _progress(parsed) as progress:
        if scheduler is None:
            count = workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else workers or 1
            report = run_recipe(parsed, workers=count, progress=progress)
        else:
            report = _run_on_dask(parsed, scheduler, progress)
    files = [] if report.failed or report.short or parsed.release is None else _release(parsed)
    progress_account = account(
        parsed, n_environments=2000 if report.accepted else 0
    )  # it takes seconds, and is the same as before
    about = describe(ml.open(parsed.store))
    seconds = time.monotonic() - began
    if as_json:
        print_json(
            {
                "tasks": report.n_tasks,
                "done_before": report.n_done_before,
                "accepted": report.accepted,
                "rejected": report.rejected,
                "reasons": dict(report.reasons),
                "failed": report.failed,
                "short": report.short,
                "warnings": report.warnings,
                "account": dataclasses.asdict(progress_account),
                "release": files,
                "seconds": seconds,
                "store": about,
            }
        )
    else:
        _print(parsed, report, progress_account, about, files, seconds)
    if report.failed or report.short:
        raise typer.Exit(1)


#: Seconds between two accounts, at least (their diversity takes some) and at most (a tenth of a large run is hours).
_ACCOUNT_SECONDS, _SILENT_SECONDS = 60.0, 1800.0


@contextlib.contextmanager
def _progress(recipe: Recipe) -> Iterator[Callable[[Outcome], None]]:
    """Show a bar on a terminal, and in words, at every tenth of the tasks and every half hour, what there is."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=err,
    )
    began = told_at = time.monotonic()
    samples = tasks = 0
    total = len(recipe.tasks())
    told: set[str] = set()
    row = bar.add_task("tasks", total=None, rate="starting")

    def progress(outcome: Outcome) -> None:
        nonlocal samples, tasks, told_at
        samples, tasks = samples + outcome.accepted, tasks + 1
        rate = f"{samples / (time.monotonic() - began):.1f} samples/s"
        bar.update(row, total=max(total, tasks), completed=tasks, rate=rate)
        silent = time.monotonic() - told_at
        if tasks % max(1, total // 10) and silent < _SILENT_SECONDS:
            return
        line = f"{tasks}/{max(total, tasks)} tasks, {rate}"
        if silent < _ACCOUNT_SECONDS:
            if not err.is_terminal:
                err.print(line)
            return
        now, told_at = account(recipe), time.monotonic()
        err.print(f"{line}; {now.line}", markup=False, soft_wrap=True)
        for one in now.parts:
            if one.drift and one.part not in told:
                told.add(one.part)
                err.print(f"drift: {one.drift}", markup=False, soft_wrap=True)

    with (
        bar if err.is_terminal else contextlib.nullcontext()
    ):  # rich would print an empty line for a bar that is not shown
        yield progress


def _run_on_dask(recipe: Recipe, scheduler: str, progress: Any) -> RunReport:
    from mlffstore.errors import missing_dependency

    try:
        from distributed import Client
    except ImportError as error:
        raise missing_dependency("distributed", "dask", "--scheduler") from error
    with Client(scheduler) as client:
        return run_recipe(recipe, executor=client.get_executor(retries=2), progress=progress)


def _release(recipe: Recipe) -> list[dict[str, Any]]:
    """Cut the recipe's releases, one for each teacher; leave those alone that were cut from this version before."""
    assert recipe.release is not None
    snap, folder = ml.open(recipe.store).snapshot(), Path(recipe.release.folder)
    files = []
    for teacher_name in snap.teachers:
        name, version = f"{recipe.name}-{teacher_name}", recipe.release.version
        path = folder / f"{name}-{version}" / f"{name}-{version}.h5"
        if not is_cut_from(path.parent, snap):
            with err.status(f"cutting {path.parent} ..."):
                path = ml.export_release(snap, folder, name=name, version=version, teacher=teacher_name)
        files.append({"path": str(path), "teacher": teacher_name, "bytes": path.stat().st_size})
    return files


def _print(
    recipe: Recipe,
    report: RunReport,
    progress_account: Account,
    about: dict[str, Any],
    files: list[dict[str, Any]],
    seconds: float,
) -> None:
    rows = lines(about)
    if progress_account.diversity is not None:
        score = progress_account.diversity
        rows.append(("diversity", f"{score.score:.2f} of {score.n_environments:,} environments"))
    rows += [("release", f"{one['path']} ({one['teacher']}, {human_bytes(one['bytes'])})") for one in files]
    resumed = f", {report.n_done_before} of {report.n_tasks} tasks were done before" if report.n_done_before else ""
    rows.append(
        ("this run", f"{report.accepted:,} samples accepted, {report.rejected:,} rejected, {seconds:.0f} s{resumed}")
    )
    for reason, count in report.reasons.most_common(8):
        rows.append(("", f"{count:,} x {reason}"))
    out.print(pairs(rows, title=f"{recipe.name}: {recipe.store}"))
    for line in report.warnings:
        err.print(f"warning: {line}", markup=False)
    for line in report.failed:
        err.print(f"failed: {line}", markup=False)
    for line in report.short:
        err.print(f"short: {line}", markup=False)
    if report.short and not report.failed:
        err.print("some parts cannot be made as planned; change their options, or the limits, and run the recipe again")
        return
    if report.failed:
        err.print("some tasks failed; mend the cause and run the same command again: it goes on from here")
        return
    steps = [f"mlffstore info {recipe.store}", f"mlffstore log {recipe.store}"]
    if files:
        code = f"import mlffstore as ml; print(ml.TorchDataset('{files[0]['path']}', split='train').batch([0, 1]))"
        steps.append(f'python -c "{code}"')
        steps.append(f"mlffstore report {recipe.store} --out report  # needs pip install 'mlffstore[report]'")
    out.print("\nNext, try:")
    for step in steps[:3]:
        out.print(f"  {step}", markup=False)
