"""`mlffstore teachers` and `mlffstore generators`: what is installed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlffstore.cli.output import AsJson, err, grid, out, pairs, print_json, progress_bar
from mlffstore.contracts.registry import available, get_generator, get_teacher
from mlffstore.errors import DataError, MlffstoreError, TeacherError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mlffstore.pipeline.account import Account
    from mlffstore.pipeline.plan import Planned


def _first_line(point: EntryPoint) -> str:
    return (inspect.getdoc(point.load()) or "").split("\n")[0]


teachers_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@teachers_app.callback()
def teachers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the teachers, what they label, and how to install what is missing; or check one of them."""
    if context.invoked_subcommand is not None:
        return
    plugins: list[dict[str, Any]] = []
    for name, point in available("teacher").items():
        try:
            teacher = get_teacher(name)
            # What would have to be fetched first is not asked what it knows.
            about = {} if getattr(teacher, "downloads", False) else teacher.info.to_json()
            plugins.append({"name": name, "installed": True, "about": _first_line(point), **about})
        except TeacherError as error:  # it needs an option, such as its weights
            needs = str(error).partition(": expected ")[2].partition(", got")[0]
            plugins.append({"name": name, "installed": True, "about": f"{_first_line(point)} Needs {needs or error}."})
        except (MlffstoreError, ImportError) as error:
            plugins.append({"name": name, "installed": False, "about": str(error)})
    if as_json:
        print_json(plugins)
        return
    rows = [
        [
            one["name"],
            "yes" if one["installed"] else "no",
            ", ".join(one.get("domains", ())),
            ", ".join(one.get("properties", ())),
            str(len(one["elements"])) if one.get("elements") else "",
            one.get("licence", ""),
            one["about"],
        ]
        for one in plugins
    ]
    out.print(grid(["teacher", "installed", "domain", "labels", "elements", "licence", ""], rows))


@teachers_app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Name of the teacher.", metavar="NAME", show_default=False)],
    weights: Annotated[str | None, typer.Option("--weights", help="File with the weights of the teacher.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-O", help="Option of the teacher, such as device=cuda. Repeat it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a teacher keeps its contract: invariances, derivatives, signs, units. Exit code 1 if it does not."""
    from mlffstore.contracts.conformance import check as examine
    from mlffstore.contracts.conformance import failed

    teacher = get_teacher(name, **teacher_options(weights, option))
    with err.status(f"checking {name} ..."):
        checks = examine(teacher)
    bad = failed(checks)
    if as_json:
        lines = [{**dataclasses.asdict(c), "figure": _number(c.figure), "limit": _number(c.limit)} for c in checks]
        print_json({"teacher": teacher.info.to_json(), "ok": not bad, "checks": lines})
    else:
        verdict = {True: "passed", False: "FAILED", None: ""}
        rows = [[c.name, verdict[c.passed], _text(c.figure), _text(c.limit), c.unit, c.note] for c in checks]
        out.print(f"{teacher.info.name}: {teacher.info.fingerprint}", markup=False)
        out.print(grid(["check", "", "figure", "limit", "unit", ""], rows))
        out.print(f"{len(bad)} of {len(checks)} checks failed" if bad else "all checks passed")
    if bad:
        raise typer.Exit(1)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


def teacher_options(weights: str | None, items: list[str] | None) -> dict[str, Any]:
    """Return the options of a teacher from the command line: values are JSON, or text where they are not."""
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    for item in items or []:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise DataError(f"--option: expected NAME=VALUE, got {item!r}")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


generators_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@generators_app.callback()
def generators(context: typer.Context, as_json: AsJson = False) -> None:
    """List the generators, their options and the classes of seeds; or plan what a recipe will make."""
    if context.invoked_subcommand is not None:
        return
    plugins: list[dict[str, Any]] = []
    for name, point in available("generator").items():
        try:
            options = get_generator(name).provenance().get("options", {})
            plugins.append({"name": name, "installed": True, "about": _first_line(point), "options": options})
        except (MlffstoreError, ImportError) as error:
            plugins.append({"name": name, "installed": False, "about": str(error), "options": {}})
    if as_json:
        print_json(plugins)
        return
    for one in plugins:
        out.print(f"[bold]{one['name']}[/bold]{'' if one['installed'] else ' (not installed)'}  {one['about']}")
        for option, value in one["options"].items():
            out.print(f"    {option} = {value}", markup=False)


@generators_app.command("plan")
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe.", metavar="RECIPE", show_default=False)],
    count: Annotated[int, typer.Option("--samples", "-n", min=1, help="Samples to try of each part.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Try a few samples of every part of RECIPE and say what it will make and how long that takes. Nothing is stored."""
    from mlffstore.pipeline.plan import plan as make_plan
    from mlffstore.pipeline.recipe import load_recipe

    parsed = load_recipe(recipe)
    with progress_bar("parts") as progress:
        parts = make_plan(parsed, count=count, progress=progress)
    bad = [one for one in parts if one.problem]
    elements = sorted({symbol for one in parts for symbol in one.elements})
    total, hours = sum(one.samples for one in parts), sum(one.hours for one in parts)
    periodic = sum(one.samples * one.periodic for one in parts) / total
    if as_json:
        print_json(
            {
                "samples": total, "hours_one_process": hours, "periodic": periodic, "elements": elements,
                "parts": [dataclasses.asdict(one) for one in parts],
            }
        )  # fmt: skip
    else:
        rows = [[one.part, f"{one.samples:,}", f"{one.samples / total:.0%}", *_figures(one)] for one in parts]
        headings = ["part", "samples", "share", "accepted", "s a sample", "hours", "elements", "atoms", "rejected"]
        out.print(grid(headings, rows))
        out.print()
        out.print(
            f"{total:,} samples, {periodic:.0%} periodic, {len(elements)} elements seen in {count} of each part; about "
            f"{hours:,.1f} hours on one process like this, {total / max(hours, 1e-9):,.0f} samples per hour"
        )
    if bad:
        raise typer.Exit(1)


def _figures(one: Planned) -> list[str]:
    """Return what a line of the plan says after the shares."""
    from mlffstore.pipeline.plan import SIZES

    if one.problem:
        return ["", "", "", "", "", one.problem]
    reasons = ", ".join(f"{n} x {reason}" for reason, n in list((one.reasons or {}).items())[:2])
    sizes = " ".join(f"{low}+:{n}" for low, n in zip(SIZES, one.sizes, strict=False) if n)
    return [f"{one.accepted:.0%}", f"{one.seconds:.2f}", f"{one.hours:.1f}", str(len(one.elements)), sizes, reasons]


@generators_app.command("account")
def account(
    recipe: Annotated[Path, typer.Argument(help="The recipe.", metavar="RECIPE", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say what the store of RECIPE holds of it, now or afterwards. Exit code 1 if a part departs from the plan."""
    from mlffstore.pipeline.account import account as make_account
    from mlffstore.pipeline.recipe import load_recipe

    account = make_account(load_recipe(recipe))
    if as_json:
        print_json({**dataclasses.asdict(account), "drift": account.drift})
    else:
        _print_account(account)
    if account.drift:
        raise typer.Exit(1)


def _print_account(account: Account) -> None:
    from mlffstore.pipeline.plan import SIZES

    rows = [
        [
            one.part, f"{one.wanted:,}", f"{one.accepted:,}", f"{one.rejected:,}", str(one.tasks), str(one.refills),
            ", ".join(f"{n:,} x {reason}" for reason, n in list(one.reasons.items())[:2]),
            ", ".join(f"{n:,} x {reason}" for reason, n in list(one.skipped.items())[:1]),
        ]
        for one in account.parts
    ]  # fmt: skip
    headings = ["part", "wanted", "accepted", "rejected", "tasks", "refills", "rejected for", "draws without structure"]
    out.print(grid(headings, rows))
    out.print()
    sizes = [f"{low}+: {n:,}" for low, n in zip(SIZES, account.sizes, strict=True) if n]
    out.print(
        pairs(
            [
                ("in all", account.line),
                ("atoms", f"{account.atoms:,}; samples by size {', '.join(sizes)}"),
                ("samples with", ", ".join(f"{symbol} {n:,}" for symbol, n in account.elements.items())),
                ("classes", ", ".join(f"{name} {n:,}" for name, n in account.classes.items())),
                ("samplers", ", ".join(f"{name} {n:,}" for name, n in account.samplers.items())),
            ]
        )
    )
    for line in account.drift:
        err.print(f"drift: {line}", markup=False)
