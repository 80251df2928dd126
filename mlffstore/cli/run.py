"""`mlffstore run`: make what a recipe says, with progress, and go on after any interruption."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, cores, print_json, print_pairs, remark, say, status
from mlffstore.cli.plugins import Recheck, recheck_labels
from mlffstore.cli.watch import print_event, watched
from mlffstore.errors import ExecutorError, MlffstoreError, ReleaseError, StoreNotFoundError, missing_dependency
from mlffstore.runtime.paths import local_path
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.pipeline.account import Account
    from mlffstore.pipeline.recipe import Recipe
    from mlffstore.pipeline.run import RunReport


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE", show_default=False)],
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Processes; the number of cores by default.", show_default=False),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a Dask scheduler to run on instead, such as tcp://node7:8786.",
            show_default=False,
        ),
    ] = None,
    scheduler_file: Annotated[
        Path | None,
        typer.Option(
            "--scheduler-file",
            metavar="FILE",
            help="File in which a Dask scheduler wrote its address.",
            show_default=False,
        ),
    ] = None,
    recheck: Recheck = True,
    as_json: AsJson = False,
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json-lines", help="Print one JSON object per task as it is done, and what --json prints at the end."
        ),
    ] = False,
) -> None:
    """Generate, label, check and store what RECIPE says.

    Run it again to go on after an interruption.
    """
    from mlffstore.pipeline.account import account
    from mlffstore.pipeline.recipe import load_recipe
    from mlffstore.pipeline.run import run as run_recipe
    from mlffstore.store.describe import describe

    options = {"--workers": workers, "--scheduler": scheduler, "--scheduler-file": scheduler_file}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise typer.BadParameter("expected one of these options, got several", param_hint=" and ".join(given))
    parsed = load_recipe(recipe)
    _check_release(parsed)
    began = time.monotonic()
    if scheduler is None and scheduler_file is None:
        with watched(parsed, workers=counted(workers or cores(), "process"), json_lines=json_lines) as progress:
            report = run_recipe(parsed, workers=workers or cores(), progress=progress)
    else:
        report = _run_on_dask(parsed, scheduler, scheduler_file, json_lines)
    unfinished = report.failed or report.short or report.stopped
    files: list[dict[str, Any]] = []
    refused: ReleaseError | None = None  # told after the summary of what was made
    if not unfinished and parsed.release is not None:
        try:
            files = _release(parsed, recheck)
        except ReleaseError as error:
            refused = error
    # A release labels samples again by itself, and its verdict says so.
    labelled_again = files or refused is not None
    compared, good = _recheck(parsed) if recheck and report.accepted and not labelled_again else ([], True)
    # The diversity takes seconds, and is the same as before if nothing was added.
    totals = account(parsed, n_environments=2000 if report.accepted else 0)
    about = describe(ml.open(parsed.store))
    seconds = time.monotonic() - began
    if as_json or json_lines:
        document = {
            "tasks": report.n_tasks,
            "done_before": report.n_done_before,
            "accepted": report.accepted,
            "rejected": report.rejected,
            "reasons": dict(report.reasons),
            "failed": report.failed,
            "short": report.short,
            "set_aside": report.set_aside,
            "stopped": report.stopped,
            "warnings": report.warnings,
            "account": dataclasses.asdict(totals),
            "release": files,
            "recheck": [text for _, text in compared],
            "seconds": seconds,
            "store": about,
        }
        if json_lines:
            print_event({"event": "end", **document})
        else:
            print_json(document)
    else:
        _print(parsed, report, totals, about, files, compared, seconds)
    if refused is not None:
        raise refused
    if unfinished or not good:
        raise typer.Exit(1)


#: Seconds to wait for a Dask scheduler to answer, and for one to come back that answered before.
_CONNECT_SECONDS, _RETURN_SECONDS = 20.0, 1800.0


def _run_on_dask(recipe: Recipe, address: str | None, file: Path | None, json_lines: bool) -> RunReport:
    """Run the tasks on a Dask cluster; a scheduler that restarts, also elsewhere under the same file, is waited for."""
    from mlffstore.pipeline.run import run as run_recipe

    option = f"--scheduler {address}" if file is None else f"--scheduler-file {file}"
    client = _connect(address, file, option)
    while True:
        with client:
            workers = f"{counted(len(client.nthreads()), 'worker')} of {client.scheduler.address}"
            try:
                with watched(
                    recipe, workers=workers, json_lines=json_lines, dashboard=client.dashboard_link
                ) as progress:
                    return run_recipe(recipe, executor=client, progress=progress)
            except ExecutorError:
                if _answers(client):  # the workers are the trouble
                    raise
        remark(f"{option}: waiting for the Dask scheduler, which is gone; what was committed is safe")
        deadline = time.monotonic() + _RETURN_SECONDS
        while True:
            try:
                client = _connect(address, file, option)
                break
            except MlffstoreError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)


def _answers(client: Any) -> bool:
    """Return whether a client's scheduler is there; the client itself notices its loss a moment later."""
    if client.status != "running":
        return False
    try:
        client.nthreads()
    except OSError:
        return False
    return True


def _connect(address: str | None, file: Path | None, option: str) -> Any:
    """Return a client of a Dask scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        raise missing_dependency("distributed", "dask", "a Dask scheduler") from error
    if file is not None and not file.is_file():  # Dask would wait for it
        raise MlffstoreError(f"{option}: there is no such file; start 'dask scheduler --scheduler-file {file}'")
    where: dict[str, Any] = {"address": address} if file is None else {"scheduler_file": str(file)}
    try:
        return Client(**where, timeout=_CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # Dask has many errors for a wrong address or file, and no base of them
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise MlffstoreError(
            f"{option}: no Dask scheduler answers there ({reason}); check the address (tcp://HOST:8786), that the scheduler "
            "runs, and that this machine reaches it"
        ) from error


def _recheck(recipe: Recipe) -> tuple[list[tuple[str, str]], bool]:
    """Label some samples of each teacher of a recipe again."""
    options = {one.teacher: one.options for one in recipe.more_teachers}
    options |= {part.teacher: part.teacher_options for part in recipe.parts}
    return recheck_labels(ml.open(recipe.store), [ml.get_teacher(name, **given) for name, given in options.items()])


def _check_release(recipe: Recipe) -> None:
    """Refuse a recipe whose release is published while there are tasks to do: it would not hold their samples."""
    from mlffstore.pipeline.account import Ledger

    if recipe.release is None:
        return
    known = {part.teacher: part.teacher_options for part in recipe.parts}
    known |= {more.teacher: more.options for more in recipe.more_teachers}
    version, folder = recipe.release.version, local_path(recipe.release.folder)
    if not any(folder.glob(f"{recipe.name}-*-{version}")):
        return  # teachers take long to load
    names = {ml.get_teacher(name, **options).info.name for name, options in known.items()} - _partial(recipe)
    there = [path for name in sorted(names) if (path := folder / f"{recipe.name}-{name}-{version}").exists()]
    try:
        ledger = Ledger(recipe, ml.open(recipe.store))
    except StoreNotFoundError:
        missing = len(recipe.tasks())
    else:
        ledger.refresh()
        missing = sum(task not in ledger for task in recipe.tasks())
        missing = missing or sum(len(ledger.follow(part)[1]) for part in recipe.parts)
    if there and missing:
        raise ReleaseError(
            f"release.version: {there[0]} is published and is never overwritten, while {counted(missing, 'task')} of this "
            "recipe are to do; nothing was run. Set the next version in the recipe (1.1.0: more samples; 2.0.0: other "
            "labels or splits)"
        )


def _release(recipe: Recipe, recheck: bool) -> list[dict[str, Any]]:
    """Cut the recipe's releases, one for each teacher; leave those alone that were cut from this version before."""
    from mlffstore.release.manifest import is_cut_from

    assert recipe.release is not None
    snap, folder = ml.open(recipe.store).snapshot(), local_path(recipe.release.folder)
    files = []
    partial = _partial(recipe)
    for teacher in snap.teachers:
        if teacher in partial:
            remark(f"no release of {teacher}: the recipe asks it for no energy and forces; its labels are in the store")
            continue
        name, version = f"{recipe.name}-{teacher}", recipe.release.version
        path = folder / f"{name}-{version}" / f"{name}-{version}.h5"
        if not is_cut_from(path.parent, snap):
            with status(f"cutting {path.parent} ..."):
                path = ml.export_release(snap, folder, name=name, version=version, teacher=teacher, recheck=recheck)
        files.append({"path": str(path), "teacher": teacher, "bytes": path.stat().st_size})
    return files


def _partial(recipe: Recipe) -> set[str]:
    """Return the names of the teachers that a recipe asks for some properties beside those of others."""
    some = [one for one in recipe.more_teachers if one.properties and not {"energy", "forces"} <= set(one.properties)]
    whole = [(one.teacher, one.options) for one in recipe.more_teachers if one not in some]
    whole += [(part.teacher, part.teacher_options) for part in recipe.parts]
    names = {ml.get_teacher(one.teacher, **one.options).info.name for one in some}
    return names - {ml.get_teacher(name, **options).info.name for name, options in (whole if names else ())}


def _print(
    recipe: Recipe,
    report: RunReport,
    totals: Account,
    about: dict[str, Any],
    files: list[dict[str, Any]],
    compared: list[tuple[str, str]],
    seconds: float,
) -> None:
    from mlffstore.store.describe import human_bytes, lines

    rows = lines(about)
    if totals.diversity is not None:
        score = totals.diversity
        rows.append(("diversity", f"{score.score:.2f} of {score.n_environments:,} environments"))
    rows += [("release", f"{file['path']} ({file['teacher']}, {human_bytes(file['bytes'])})") for file in files]
    rows += compared
    resumed = f", {report.n_done_before} of {report.n_tasks} tasks were done before" if report.n_done_before else ""
    rows.append(
        (
            "this run",
            f"{counted(report.accepted, 'sample')} accepted, {report.rejected:,} rejected, {seconds:.0f} s{resumed}",
        )
    )
    for reason, count in report.reasons.most_common(8):
        rows.append(("", f"{count:,} x {reason}"))
    print_pairs(rows, title=f"{recipe.name}: {recipe.store}")
    for line in report.warnings:
        remark(f"warning: {line}")
    for line in report.set_aside:
        remark(f"set aside: {line}")
    for line in report.failed:
        remark(f"failed: {line}")
    for line in report.short:
        remark(f"short: {line}")
    if report.stopped:
        remark(f"stopped: {report.stopped}")
        return
    if report.short and not report.failed:
        remark("some parts cannot be made as planned; change their options, or the limits, and run the recipe again")
        return
    if report.failed:
        remark("some tasks failed; mend the cause and run the same command again: it goes on from here")
        return
    steps = [f"mlffstore info {recipe.store}", f"mlffstore log {recipe.store}"]
    if files:
        code = f"import mlffstore as ml; print(ml.TorchDataset('{files[0]['path']}', split='train').batch([0, 1]))"
        steps.append(f'python -c "{code}"')
        steps.append(f"mlffstore report {recipe.store} --out report  # needs pip install 'mlffstore[report]'")
    say("\nNext, try:")
    for step in steps[:3]:
        say(f"  {step}")
