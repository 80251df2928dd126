"""The app with all verbs."""

from __future__ import annotations

from typing import Annotated

import typer

from mlffstore.cli import (
    active,
    cache,
    care,
    check,
    distil,
    export,
    importing,
    info,
    label,
    log,
    plugins,
    remove,
    revert,
    run,
    select,
    tag,
)
from mlffstore.cli.entry import CommandLine
from mlffstore.runtime.version import VERSION

app = typer.Typer(
    name="mlffstore",
    help="Make, keep, check and release datasets for machine-learned force fields.",
    cls=CommandLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlffstore {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Make, keep, check and release datasets for machine-learned force fields."""


app.command("run")(run.run)
app.command("active")(active.active)
app.command("import")(importing.import_)
app.command("label")(label.label)
app.command("info")(info.info)
app.command("select")(select.select)
app.command("log")(log.log)
app.command("export")(export.export)
app.command("tag")(tag.tag)
app.command("remove")(remove.remove)
app.command("revert")(revert.revert)
app.command("validate")(check.validate)
app.command("stats")(check.stats)
app.command("report")(check.report)
app.command("distil-check")(distil.distil_check)
app.command("cache")(cache.cache)
app.command("verify")(care.verify)
app.command("compact")(care.compact)
app.command("gc")(care.gc)
app.command("backup")(care.backup)
app.add_typer(plugins.teachers_app, name="teachers")
app.add_typer(plugins.generators_app, name="generators")
