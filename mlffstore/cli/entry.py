"""`CommandLine`: what becomes of errors and interruptions of a verb: a message in words, and an exit code.

Exit codes: 0 fine, 1 problems found, 2 usage, 3 library error, 4 unexpected, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
import traceback
from concurrent.futures import BrokenExecutor
from typing import Any

import typer
from typer.core import TyperGroup

from mlffstore.cli.pipes import unbreakable
from mlffstore.cli.stops import exit_code, stop_text
from mlffstore.errors import DataError, GateError, MlffstoreError
from mlffstore.runtime.words import printable

#: Base of the errors of usage. typer brings a copy of click or imports it, so it is found through a class that typer names.
_UsageError: Any = typer.BadParameter.__mro__[1]
_NOTHING_CHANGED = "nothing was changed; run the same command again"
#: What is safe after Ctrl-C, and how to go on, by verb.
_INTERRUPTED = {
    "run": "what was committed is safe; run the same command again to go on from there",
    "active": "finished rounds are safe; run the same command again to make the interrupted round anew and go on",
    "import": "an import is stored as a whole or not at all; run the same command again, it never stores a file twice",
    "label": "the labels that were committed are safe; run the same command again to label what is left",
    "validate": "the samples are as they were, and flags are stored only at the end; run the same command again",
    "stats": "nothing was stored; run the same command again",
    "report": "the report is not complete; run the same command again",
    "export": "a release appears only when it is complete, so this one does not exist; a file in another layout may be "
    "incomplete: delete it, and run the same command again",
    "cache": "a cache is used only when it is complete; run the same command again",
    "compact": "every sample is safe, and what was merged stays merged; run the same command again to merge the rest",
    "gc": "every sample is safe, and what was removed was not needed; run the same command again to remove the rest",
    "backup": "the store is as it was, and the copy is not complete; run the same command again to go on",
    "remove": "a removal takes effect as a whole or not at all: 'mlffstore log STORE' shows whether it did",
    "revert": "a reversal takes effect as a whole or not at all: 'mlffstore log STORE' shows whether it did",
    "tag": "a tag is there or it is not: 'mlffstore tag STORE' lists them",
}


class CommandLine(TyperGroup):
    """The group of all verbs. It ends the process with an exit code, and prints a traceback only for what is a bug."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a verb and exit."""
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            # Closed by the shell (>&-). Otherwise the next file that is opened would get its number, and what is printed.
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a path may hold bytes that are no text
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = unbreakable(sys.stdout), unbreakable(sys.stderr)
        try:
            code = int(super().main(*args, **extra | {"standalone_mode": False}) or 0)
        except Exception as error:
            code = _tell(error)
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; say what is safe if it is interrupted."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as stop:
            safe = _INTERRUPTED.get(str(ctx.invoked_subcommand), _NOTHING_CHANGED)
            print(f"\n{stop_text(stop)}: {safe}", file=sys.stderr)
            raise typer.Exit(exit_code(stop)) from None
        except EOFError as error:  # the parser would take it for the end of what a person types
            raise DataError(f"expected more data, got the end of a file ({error})") from error
        return result


def _tell(error: Exception) -> int:
    """Print an error to stderr and return the exit code."""
    if isinstance(error, _UsageError):
        context = error.ctx
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked for: its message is the help
            _print(error.format_message())
            return 2
        if context is not None:
            _print(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n")
        _print(f"error: {error.format_message()}")
        return 2
    if hasattr(error, "format_message"):  # other errors of the parser, such as a file that cannot be opened
        _print(f"error: {error.format_message()}")
        return 2
    if isinstance(error, typer.Abort):
        _print("aborted")
        return 130
    text = _words(error)
    if text is not None:
        _print(f"error: {text}")
        return 1 if isinstance(error, GateError) else 3
    traceback.print_exc()
    _print(f"unexpected error: {type(error).__name__}: {error}; this is a bug: please report it with the lines above")
    return 4


def _words(error: Exception) -> str | None:
    """Return what to tell of an error that is no bug of this library, or None."""
    if isinstance(error, MlffstoreError):
        return str(error)
    if isinstance(error, BrokenExecutor):
        return (
            "a worker process died (out of memory?); what was committed is safe. Run the same command again, with fewer "
            "--workers if memory is short"
        )
    if isinstance(error, MemoryError):
        return "there is not enough memory; what was committed is safe. Use fewer --workers, or a machine with more"
    if isinstance(error, UnicodeDecodeError):
        return f"expected text in UTF-8, got other bytes ({error.reason} at byte {error.start}); check the path"
    if isinstance(error, UnicodeEncodeError):
        return f"expected names and paths of text, got one with other bytes: {error.object[:200]!r}"
    if isinstance(error, OSError):
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        reason = error.strerror or str(error) or type(error).__name__
        return f"{names}: {reason}; check the path, its permissions and the free space" if names else reason
    return None


def _print(text: str) -> None:
    print(printable(text, lines=True), file=sys.stderr)
