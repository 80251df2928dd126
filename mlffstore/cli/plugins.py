"""`mlffstore teachers` and `mlffstore generators`: what is installed, and whether it works."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlffstore.cli.output import (
    AsJson,
    ShowAll,
    cores,
    few,
    judged,
    print_grid,
    print_json,
    print_pairs,
    progress_bar,
    remark,
    say,
    status,
)
from mlffstore.contracts.registry import available, get_generator, get_teacher, load
from mlffstore.errors import MissingDependencyError, MlffstoreError, TeacherError
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.contracts.examination import Check
    from mlffstore.contracts.protocols import Teacher
    from mlffstore.pipeline.account import Account
    from mlffstore.pipeline.plan import Planned
    from mlffstore.store.facade import Store

Weights = Annotated[
    str | None, typer.Option("--weights", help="File with the weights of the teacher.", show_default=False)
]
TeacherOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-O", metavar="NAME=VALUE", help="Option of the teacher, such as device=cuda. Repeat it.",
        show_default=False,
    ),
]  # fmt: skip


Recheck = Annotated[
    bool,
    typer.Option(
        "--recheck/--no-recheck",
        help="Label some 50 samples of each teacher again, and compare the labels that are stored.",
    ),
]


def recheck_labels(store: Store, teachers: Sequence[Teacher]) -> tuple[list[tuple[str, str]], bool]:
    """Label some samples again, and return lines that say what was found, and whether all of it is right."""
    from mlffstore.analysis.validation import load_policy
    from mlffstore.analysis.validation.recheck import recheck

    policy, snapshot = load_policy(), store.snapshot()
    rows: list[tuple[str, str]] = []
    good = True
    for teacher in teachers:
        name = teacher.info.name
        if name not in snapshot.teachers:
            continue
        with status(f"labelling some samples of {name} again ..."):
            result = recheck(snapshot.to_xarray(), teacher, policy, 0, quick=True).result(name, policy)
        rows.append(("recheck" if not rows else "", result.figure))
        good &= not result.problem
    return rows, good


def teacher_options(weights: str | None, items: list[str] | None) -> dict[str, Any]:
    """Return the options of a teacher from the command line: values are JSON, or text where they are not."""
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    for item in items or []:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, such as device=cuda, got {item!r}", param_hint="--option")
        if name in options:
            given = "--weights and --option" if name == "weights" and weights is not None else "--option"
            raise typer.BadParameter(f"expected one value of {name!r}, got several", param_hint=given)
        try:
            options[name] = json.loads(text)
        except (ValueError, RecursionError):
            options[name] = text
    return options


def make_teacher(name: str, options: dict[str, Any]) -> Teacher:
    """Return a teacher; a name or an option that does not exist is wrong usage."""
    with judged("--teacher, --weights or --option"):
        return get_teacher(name, **options)


def _listed(kind: str, ask: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what there is to say of every plugin of a kind. One that breaks is listed as broken, the others are asked.

    Parameters
    ----------
    kind : {"teacher", "generator"}
    ask : callable
        Returns what a plugin of that name says of itself.
    """
    out = []
    for name in available(kind):
        try:
            about = {
                "state": "installed",
                "about": (inspect.getdoc(load(kind, name)) or "").split("\n")[0],
                **ask(name),
            }
        except MissingDependencyError as error:
            about = {"state": "not installed", "about": str(error)}
        except MlffstoreError as error:
            about = {"state": "broken", "about": str(error)}
        except Exception as error:  # a plugin may come from anywhere, and fail in any way
            about = {"state": "broken", "about": f"{type(error).__name__}: {error}"}
        out.append({"name": name, "installed": about["state"] == "installed", **about})
    return out


teachers_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@teachers_app.callback()
def teachers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the teachers, or check one of them.

    The list says what each of them labels, and how to install what is missing. A teacher that breaks is listed as broken.
    """
    if context.invoked_subcommand is not None:
        return
    found = _listed("teacher", _about_teacher)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            one["name"],
            {"installed": "yes", "not installed": "no"}.get(one["state"], one["state"]),
            ", ".join(one.get("domains", ())),
            ", ".join(one.get("properties", ())),
            ", ".join(one.get("more", ())),
            str(len(one["elements"])) if one.get("elements") else "",
            one.get("licence", ""),
            one["about"],
        ]
        for one in found
    ]
    print_grid(["teacher", "installed", "domain", "labels", "on request", "elements", "licence", ""], rows)


def _about_teacher(name: str) -> dict[str, Any]:
    """Return what a teacher says of itself; one that lacks an option, such as its weights, says which."""
    try:
        teacher = get_teacher(name)
    except TeacherError as error:
        needs = str(error).partition(": expected ")[2].partition(", got")[0]
        doc = (inspect.getdoc(load("teacher", name)) or "").split("\n")[0]
        return {"about": f"{doc} Needs {needs or error}."}
    # What would have to be fetched first is not asked what it knows.
    if getattr(teacher, "downloads", False):
        return {}
    from mlffstore.contracts.request import on_request

    return teacher.info.to_json() | {"more": list(on_request(teacher.info))}


@teachers_app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="Name of the teacher.", metavar="NAME", show_default=False)],
    weights: Weights = None,
    option: TeacherOptions = None,
    as_json: AsJson = False,
) -> None:
    """Check that a teacher keeps its contract.

    Invariances, derivatives, signs, units and sums of every property that it gives, on request too, are checked on small
    structures. What cannot be checked is listed as not measured. The exit code is 1 if a check fails.
    """
    from mlffstore.contracts.conformance import check as examine
    from mlffstore.contracts.conformance import failed

    with judged("NAME, --weights or --option"):
        teacher = get_teacher(name, **teacher_options(weights, option))
    with status(f"checking {name} ..."):
        checks = examine(teacher)
    bad = failed(checks)
    if as_json:
        lines = [{**dataclasses.asdict(c), "figure": _number(c.figure), "limit": _number(c.limit)} for c in checks]
        print_json({"teacher": teacher.info.to_json(), "ok": not bad, "checks": lines})
    else:
        rows = [[c.name, _verdict(c), _text(c.figure), _text(c.limit), c.unit, c.note] for c in checks]
        say(f"{teacher.info.name}: {teacher.info.fingerprint}")
        print_grid(["check", "", "figure", "limit", "unit", ""], rows)
        say(f"{len(bad)} of {counted(len(checks), 'check')} failed" if bad else "all checks passed")
    if bad:
        raise typer.Exit(1)


def _verdict(check: Check) -> str:
    """Return what came of a check in a word or two: without a figure it was not measured, without a limit not judged."""
    if check.passed is None:
        return "not measured" if math.isnan(check.figure) else "reported"
    return "passed" if check.passed else "FAILED"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2g}"


generators_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@generators_app.callback()
def generators(context: typer.Context, as_json: AsJson = False) -> None:
    """List the generators, or try a recipe.

    The list gives their options and defaults, and says how to install what is missing. A generator that breaks is
    listed as broken.
    """
    if context.invoked_subcommand is not None:
        return
    found = _listed("generator", lambda name: {"options": get_generator(name).provenance().get("options", {})})
    if as_json:
        print_json([{"options": {}, **one} for one in found])
        return
    for one in found:
        state = "" if one["installed"] else f" ({one['state']})"
        say(f"{one['name']}{state}  {one['about']}")
        for option, value in one.get("options", {}).items():
            say(f"    {option} = {value}")


@generators_app.command("plan")
def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe.", metavar="RECIPE", show_default=False)],
    count: Annotated[int, typer.Option("--samples", "-n", min=1, help="Samples to try of each part.")] = 8,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Processes. [default: the number of cores]", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what RECIPE will make, and how long it takes.

    A few samples of every part are made and labelled. Nothing is stored. The exit code is 1 if a part cannot be made.
    """
    from mlffstore.pipeline.plan import plan as make_plan
    from mlffstore.pipeline.recipe import load_recipe

    parsed = load_recipe(recipe)
    with progress_bar("parts") as progress:
        parts = make_plan(parsed, count=count, workers=workers or cores(), progress=progress)
    bad = [one for one in parts if one.problem]
    elements = sorted({symbol for one in parts for symbol in one.elements})
    total, hours = sum(one.samples for one in parts), sum(one.hours for one in parts)
    periodic = sum(one.samples * one.periodic for one in parts) / total
    calls = sum(one.samples * one.calls for one in parts) / total
    if as_json:
        print_json(
            {
                "samples": total, "hours_one_process": hours, "periodic": periodic, "elements": elements,
                "calls_per_sample": calls, "parts": [dataclasses.asdict(one) for one in parts],
            }
        )  # fmt: skip
    else:
        rows = [[one.part, f"{one.samples:,}", f"{one.samples / total:.0%}", *_figures(one)] for one in parts]
        headings = [
            "part", "samples", "share", "accepted", "calls per sample", "s per sample", "core-hours", "elements", "atoms",
            "rejected",
        ]  # fmt: skip
        print_grid(headings, rows)
        say()
        say(
            f"{counted(total, 'sample')}, {periodic:.0%} periodic, {counted(len(elements), 'element')} seen in {count} of "
            "each part"
        )
        labels: dict[str, dict[str, None]] = {}
        for one in parts:
            for teacher, names in (one.labels or {}).items():
                labels.setdefault(teacher, {}).update(dict.fromkeys(names))
        for teacher, stored in labels.items():
            say(f"labels of {teacher}: {', '.join(stored)}")
        if hours:
            time = f"{hours:,.1f} hours" if hours >= 1 else counted(max(1, round(hours * 60)), "minute")
            say(
                f"about {time} of one core like this, {total / hours:,.0f} samples per core-hour, {calls:.1f} teacher calls "
                "per sample"
            )
    if bad:
        raise typer.Exit(1)


def _figures(one: Planned) -> list[str]:
    """Return what a line of the plan says after the shares."""
    from mlffstore.pipeline.plan import SIZES

    if one.problem:
        return ["", "", "", "", "", "", one.problem]
    reasons = ", ".join(f"{n} x {reason}" for reason, n in list((one.reasons or {}).items())[:2])
    sizes = " ".join(f"{low}+:{n}" for low, n in zip(SIZES, one.sizes, strict=False) if n)
    cost = [f"{one.calls:.1f}", f"{one.seconds:.2f}", f"{one.hours:.1f}"]
    return [f"{one.accepted:.0%}", *cost, str(len(one.elements)), sizes, reasons]


@generators_app.command("account")
def account(
    recipe: Annotated[Path, typer.Argument(help="The recipe.", metavar="RECIPE", show_default=False)],
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Say what the store of RECIPE holds of it.

    The exit code is 1 if a part departs from the plan.
    """
    from mlffstore.pipeline.account import account as make_account
    from mlffstore.pipeline.recipe import load_recipe

    found = make_account(load_recipe(recipe))
    if as_json:
        print_json({**dataclasses.asdict(found), "drift": found.drift})
    else:
        _print_account(found, show_all)
    if found.drift:
        raise typer.Exit(1)


def _print_account(found: Account, show_all: bool) -> None:
    from mlffstore.pipeline.plan import SIZES

    rows = [
        [
            one.part, f"{one.wanted:,}", f"{one.accepted:,}", f"{one.rejected:,}", str(one.tasks), str(one.refills),
            f"{one.calls_per_sample:.1f}", f"{one.samples_per_hour:,.0f}",
            ", ".join(f"{n:,} x {reason}" for reason, n in list(one.reasons.items())[:2]),
            ", ".join(f"{n:,} x {reason}" for reason, n in list(one.skipped.items())[:1]),
        ]
        for one in found.parts
    ]  # fmt: skip
    headings = [
        "part", "wanted", "accepted", "rejected", "tasks", "refills", "calls per sample", "samples per core-hour",
        "rejected for", "draws without structure",
    ]  # fmt: skip
    print_grid(headings, rows)
    say()
    sizes = [f"{low}+: {n:,}" for low, n in zip(SIZES, found.sizes, strict=True) if n]
    print_pairs(
        [
            ("in all", found.line),
            ("atoms", f"{found.atoms:,}; samples by size {', '.join(sizes)}"),
            ("samples with", _figures_by_name(found.elements, show_all)),
            ("classes", _figures_by_name(found.classes, show_all)),
            ("samplers", _figures_by_name(found.samplers, show_all)),
            ("labelled by", _figures_by_name(found.labelled, show_all)),
            ("different", _figures_by_name(found.structures, show_all)),
        ]
    )
    for line in found.drift:
        remark(f"drift: {line}")
    for one in found.parts:
        for number, error in one.set_aside.items():
            remark(f"set aside: {one.part}/{number} killed its worker twice: {error}")


def _figures_by_name(figures: dict[str, int], show_all: bool) -> str:
    """Return a line such as ``C 12, H 40``, cut if it is long."""
    shown, more = few(list(figures.items()), show_all)
    return ", ".join(f"{name} {n:,}" for name, n in shown) + (f" and {more} more (--all)" if more else "")
