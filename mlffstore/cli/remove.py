"""`mlffstore remove`: samples go to the quarantine, or lose the labels of a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.correction import Key, Reason, Yes, show_and_do
from mlffstore.cli.output import AsJson, StorePath, Tag, Version, judged
from mlffstore.cli.sources import Where, chosen


def remove(
    store: StorePath,
    reason: Reason,
    index: Annotated[
        list[int] | None,
        typer.Option("--index", "-i", help="Index of a sample; may be given again.", show_default=False),
    ] = None,
    indices_file: Annotated[
        Path | None,
        typer.Option("--indices-file", help="Text file with one index per line; - for stdin.", show_default=False),
    ] = None,
    where: Where = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="Remove only the labels of this teacher; of all samples, if no index is given.",
            show_default=False,
        ),
    ] = None,
    version: Version = None,
    tag: Tag = None,
    key: Key = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove samples of STORE, or labels of a teacher.

    Indices are those of the latest version, or of --version or --tag. Without --yes, what would go is shown. Samples go to
    the quarantine with the reason; earlier versions and tags keep them, and 'mlffstore revert' brings them back.
    """
    samples = [*(index or ()), *([] if indices_file is None else _read(indices_file))]
    named = samples if index or indices_file is not None else None
    if named is None and teacher is None and where is None:
        raise typer.BadParameter(
            "expected --index, --indices-file, --where or --teacher, got none of them", param_hint="--index"
        )
    if named is not None and where is not None:
        raise typer.BadParameter("expected indices or a condition, got both", param_hint="--where")
    handle = ml.open(store, "a" if yes else "r")
    with judged(reason="--reason", key="--key", teacher="--teacher", tag="--tag", version="--version"):
        # Indices of a removal that was done under its key mean those of the first time.
        keys = handle.keys()
        known = key in keys and version is None and tag is None
        snapshot = None if known else handle.snapshot(version, tag=tag)
        what: Any = named
        if where is not None:  # a condition means the samples that there were before the removal
            snapshot = handle.snapshot(keys[str(key)] - 1) if known else snapshot
            assert snapshot is not None
            what = chosen(snapshot, where).indices
        try:
            plan = handle.remove(what, reason=reason, key=key, teacher=teacher, snapshot=snapshot, dry_run=True)
        except IndexError as error:
            raise typer.BadParameter(str(error), param_hint="--index or --indices-file") from error

        def commit() -> int:
            writer = handle if yes else ml.open(store, "a")
            return writer.remove(what, reason=reason, key=key, teacher=teacher, snapshot=snapshot)

        show_and_do(plan, commit, yes=yes, as_json=as_json)


def _read(path: Path) -> list[int]:
    """Return the indices of a text file."""
    text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                out.append(int(line))
            except ValueError as error:
                raise typer.BadParameter(
                    f"{path}, line {number}: expected an integer, got {line.strip()[:40]!r}",
                    param_hint="--indices-file",
                ) from error
    return out
