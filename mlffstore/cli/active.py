"""`mlffstore active`: a pool, the committee's disagreement, labels, and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlffstore.cli.output import AsJson, cores, print_grid, print_json, remark, say, status

if TYPE_CHECKING:
    from mlffstore.pipeline.active import Round


def active(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE", show_default=False)],
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", "-r", min=1, help="Further rounds, at most; all by default.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", min=1, help="Processes; the number of cores by default.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add what a committee of teachers disagrees on.

    Run it again to go on with the next round.
    """
    from mlffstore.pipeline.active import learn, to_json
    from mlffstore.pipeline.campaign import load_active_recipe

    parsed = load_active_recipe(recipe)
    with status(f"{parsed.name} ..."):
        report = learn(parsed, rounds=rounds, workers=workers or cores(), progress=_tell)
    if as_json:
        print_json(to_json(report))
        return
    headings = ["round", "pool", "confident", "beyond", "refused", "familiar", "wanted", "stored", "rejected",
                "median", "largest", "version"]  # fmt: skip
    rows = [
        [
            str(outcome.number), f"{outcome.pool:,}", f"{outcome.confident:,}", f"{outcome.beyond:,}",
            f"{outcome.refused:,}", f"{outcome.familiar:,}", f"{outcome.wanted:,} ({outcome.share:.0%})",
            f"{outcome.accepted:,}", f"{outcome.rejected:,}", f"{outcome.median:.2f}", f"{outcome.largest:.2f}",
            str(outcome.version),
        ]
        for outcome in report.rounds
    ]  # fmt: skip
    print_grid(headings, rows, title=f"{parsed.name}: {parsed.store}")
    low, high = parsed.window
    say(f"\nwanted: disagreement of {low:g} to {high:g} eV/angstrom, and new to the store")
    say("median, largest: disagreement of the pool, eV/angstrom")
    say(f"{'converged' if report.converged else 'not converged'}: {report.stopped}")


def _tell(outcome: Round) -> None:
    remark(f"round {outcome.number}: {outcome.wanted:,} of {outcome.pool:,} wanted, {outcome.accepted:,} stored")
