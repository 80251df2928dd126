"""Write docs/reference/cli.md from the help texts of the command line: ``python docs/make_cli_reference.py``."""

from __future__ import annotations

from pathlib import Path

import typer.main

from mlffstore.cli.app import app

HEAD = """# Command line

Results go to stdout, progress and logs to stderr; `--json` prints one JSON document. Exit codes: 0 fine, 1 problems found,
2 wrong usage, 3 an error that says what to do, 4 unexpected, 130 interrupted, 143 terminated.
`MLFFSTORE_LOG=info` logs more.
"""


def page() -> str:
    """Return the page."""
    out = [HEAD]
    group = typer.main.get_command(app)
    commands = dict(group.commands)  # type: ignore[attr-defined]
    for name, command in list(commands.items()):
        commands |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    for name, command in sorted(commands.items()):
        out.append(f"## {name}\n\n{' '.join((command.help or '').split())}\n")
        rows = []
        for option in command.params:
            if option.name == "help":
                continue
            if option.param_type_name == "argument":
                names = option.metavar or option.name.upper()
            else:
                names = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
            default = option.default
            shown = (
                ""
                if default in (None, False, True) or option.param_type_name == "argument"
                else f" Default: `{default}`."
            )
            rows.append(f"| {names} | {' '.join((option.help or '').split())}{shown} |")
        out.append("| argument or option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(out)


if __name__ == "__main__":
    target = Path(__file__).parent / "reference" / "cli.md"
    target.write_text(page())
    print(f"wrote {target}")
