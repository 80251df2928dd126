"""`mlffstore distil-check`: what students learn from a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlffstore.cli.output import (
    AsJson,
    ShowAll,
    few,
    judged,
    print_grid,
    print_json,
    progress_bar,
    remark,
    say,
    say_more,
)
from mlffstore.cli.plugins import TeacherOptions, teacher_options
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.words import counted


def distil_check(
    source: Annotated[str, typer.Argument(help="A store, or a release.", metavar="STORE|RELEASE", show_default=False)],
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", "-t", help="Teacher to learn from, if there are several.", show_default=False),
    ] = None,
    shares: Annotated[
        str, typer.Option("--shares", help="Shares of the training roots, separated by commas.")
    ] = "0.125,0.25,0.5,1",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of training of each student.")] = 600,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Students of each share.")] = 2,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="STORE|RELEASE",
            help="Test on the test split of this dataset instead.",
            show_default=False,
        ),
    ] = None,
    trajectory: Annotated[
        int, typer.Option("--trajectory", min=0, help="Also test on so many frames of new dynamics by the teacher.")
    ] = 0,
    option: TeacherOptions = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where students are trained, such as cuda. [default: a GPU if there is one]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for curve.png and result.json.", show_default=False),
    ] = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Train small students on growing shares of a dataset, and test them on roots that they have not seen.

    The exit code is 1 if students of all samples do not predict forces, or are no better than those of the smallest share.
    """
    from mlffstore.pipeline.distillation.check import distil_check as check

    if option and not trajectory:
        raise typer.BadParameter("expected --trajectory N beside it, got none", param_hint="--option")
    if out is not None:  # before students learn for minutes
        out.mkdir(parents=True, exist_ok=True)
    with (
        judged("--shares, --teacher, --test or --device", shares="--shares", teacher="--teacher", device="--device"),
        progress_bar("students") as progress,
    ):
        result = check(
            source, teacher=teacher, shares=_numbers(shares), steps=steps, seeds=seeds, test=test, trajectory=trajectory,
            teacher_options=teacher_options(None, option), device=device, progress=progress,
        )  # fmt: skip
    if out is not None:
        (out / "result.json").write_text(json_text(result.to_json()), encoding="utf-8")
        result.plot(out / "curve.png")
    if as_json:
        print_json(result.to_json())
    else:
        _print(result, show_all)
        if out is not None:
            say(f"wrote {out / 'curve.png'} and {out / 'result.json'}")
    if not result.ok:
        raise typer.Exit(1)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers separated by commas, such as 0.25,1, got {text!r}", param_hint="--shares"
        ) from None


def _print(result: Any, show_all: bool) -> None:
    def errors(values: tuple[float, ...]) -> str:
        spread = f" +- {1e3 * (max(values) - min(values)) / 2:.0f}" if len(values) > 1 else ""
        return f"{1e3 * sum(values) / len(values):.0f}{spread}" if values else ""

    say(f"students of {result.teacher} ({result.title}), {result.steps:,} steps each")
    rows = [
        [
            f"{one.share:.0%}" if one.what == "share" else "rattled only", f"{one.samples:,}", f"{one.roots:,}",
            errors(one.force_mae), errors(one.energy_mae), errors(one.trajectory_mae),
        ]
        for one in result.trained
    ]  # fmt: skip
    print_grid(
        ["learned from", "samples", "roots", "forces, meV/angstrom", "energy, meV/atom", "forces, new dynamics"], rows
    )
    say()
    last, first = result.shares[-1], result.shares[0]
    shown, more = few(list(result.sizes.items()), show_all)
    print_grid(
        ["held-out samples", "number", "forces, smallest share", "largest share", "no forces"],
        [
            [name, f"{n:,}", f"{1e3 * first.groups[name]:.0f}", f"{1e3 * last.groups[name]:.0f}",
             f"{1e3 * result.no_forces_groups[name]:.0f}"]
            for name, n in shown
        ],
    )  # fmt: skip
    say_more(more, "group")
    say()
    words = [
        f"{counted(result.held_out, 'held-out sample')}",
        f"{result.unknown:,} left out for unknown elements or roots",
    ]
    if result.calls_per_sample is not None:
        words.append(f"{result.calls_per_sample:.1f} teacher calls per sample")
    say(", ".join([*words, f"{result.seconds:,.0f} s of processor time"]))
    for line in result.problems:
        remark(line)
