"""The entry point: logging, and the app.

Results go to stdout, progress and logs to stderr.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

from mlffstore.cli.stops import Terminated, exit_code, stop_text


def main() -> None:
    """Run the command line and exit."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    level = os.environ.get("MLFFSTORE_LOG", "warning").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        print(
            f"error: MLFFSTORE_LOG: expected debug, info, warning, error or critical, got {level.lower()!r}",
            file=sys.stderr,
        )
        sys.exit(2)
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        from mlffstore.cli.app import app

        app()
    except KeyboardInterrupt as stop:  # before or after the verb
        print(stop_text(stop), file=sys.stderr)
        sys.exit(exit_code(stop))


def _stop(*_: Any) -> None:
    raise Terminated
