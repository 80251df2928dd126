"""`mlffstore revert`: a whole commit is taken back."""

from __future__ import annotations

from typing import Annotated

import typer

import mlffstore as ml
from mlffstore.cli.correction import Key, Reason, Yes, show_and_do
from mlffstore.cli.output import AsJson, StorePath, judged


def revert(
    store: StorePath,
    version: Annotated[
        int, typer.Argument(min=0, help="The commit, see 'mlffstore log'.", metavar="VERSION", show_default=False)
    ],
    reason: Reason,
    key: Key = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take back the commit VERSION of STORE.

    The samples of an append go to the quarantine, a layer loses its labels or its column, removed samples come back.
    Without --yes, what would be done is shown. Earlier versions and tags stay as they are.
    """
    handle = ml.open(store, "a" if yes else "r")
    with judged(reason="--reason", key="--key", version="VERSION"):
        plan = handle.revert(version, reason=reason, key=key, dry_run=True)

        def commit() -> int:
            return (handle if yes else ml.open(store, "a")).revert(version, reason=reason, key=key)

        show_and_do(plan, commit, yes=yes, as_json=as_json)
