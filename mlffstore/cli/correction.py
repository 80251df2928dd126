"""What `mlffstore remove` and `mlffstore revert` share: they show what would be done, and do it only when told to."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mlffstore.cli.output import print_json, print_pairs, remark, say
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlffstore.store.correction import Correction

Reason = Annotated[str, typer.Option("--reason", help="Why; the log and the quarantine keep it.", show_default=False)]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Idempotency key: the same under this key is done once.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without it, what would be done is shown.")]

_ACTIONS = {
    "remove": "would go to the quarantine",
    "restore": "would come back from the quarantine",
    "clear": "would lose values",
    "refill": "would get values back",
}


def show_and_do(plan: Correction, commit: Callable[[], int], *, yes: bool, as_json: bool) -> None:
    """Show what would be done; do it with --yes, or if the user says so on a terminal.

    Parameters
    ----------
    plan : Correction
    commit : callable
        It does it and returns the version.
    yes, as_json : bool
        The options.
    """
    nothing = not plan.n_samples and plan.done is None
    if not as_json:
        _show(plan)
    if not yes and not nothing and plan.done is None and not as_json and sys.stdin.isatty() and sys.stdout.isatty():
        yes = typer.confirm("Do it?")
    version = plan.done if plan.done is not None else commit() if yes and not nothing else None
    if as_json:
        print_json({**dataclasses.asdict(plan), "dry_run": version is None, "committed": version})
    elif version is not None and plan.done is None:
        say(f"done: version {version}; 'mlffstore revert STORE {version}' takes it back")
    elif version is None and not nothing:
        remark("nothing was changed; add --yes to do it")


def _show(plan: Correction) -> None:
    from mlffstore.store.describe import human_bytes

    if plan.done is not None:
        say(f"nothing to do: version {plan.done} did this under the same key")
        return
    gone = f"{counted(plan.n_gone, 'sample')} gone already"
    if not plan.n_samples:
        say(f"nothing to do: {gone if plan.n_gone else 'no sample is concerned'}")
        return
    more = f"; {gone}" if plan.n_gone else ""
    say(f"{counted(plan.n_samples, 'sample')} ({counted(plan.n_atoms, 'atom')}) {_ACTIONS[plan.action]}{more}")
    rows = [("splits", ", ".join(f"{split} {n:,}" for split, n in plan.splits.items()))]
    if plan.columns:
        rows.append(("columns", ", ".join(plan.columns)))
    if plan.labels:
        rows.append(("labels", ", ".join(f"{teacher} {n:,}" for teacher, n in plan.labels.items())))
    rows.append(("written anew", f"{counted(len(plan.segments), 'segment')}, {human_bytes(plan.nbytes)}"))
    print_pairs(rows)
