"""The entry point: the app, its exit codes, and logging.

Results go to stdout, progress and logs to stderr. Exit codes: 0 fine, 1 problems found, 2 usage, 3 library error,
4 unexpected, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback

from mlffstore.errors import GateError, MissingDependencyError, MlffstoreError, missing_dependency


def main() -> None:
    """Run the command line and exit."""
    sys.exit(_run())


def _run() -> int:
    try:
        from mlffstore.cli.app import app
    except ImportError as error:
        if isinstance(error, MissingDependencyError) or (error.name or "").split(".")[0] in ("typer", "rich"):
            print(f"error: {missing_dependency('typer', 'cli', 'the command line')}", file=sys.stderr)
            return 3
        raise
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("MLFFSTORE_LOG", "WARNING").upper(),
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        return int(app(standalone_mode=False) or 0)
    except MlffstoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, GateError) else 3
    except KeyboardInterrupt:
        print("interrupted; what was committed is safe, and the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # usage errors of the parser
            error.show() if hasattr(error, "show") else None
            return int(error.exit_code)
        if type(error).__name__ in ("Exit", "Abort"):
            return int(getattr(error, "exit_code", 130))
        traceback.print_exc()
        print(
            f"unexpected error: {type(error).__name__}: {error}; please report it with the lines above", file=sys.stderr
        )
        return 4
