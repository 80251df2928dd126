"""Calls of the command line for tests: in this process, or as the shell makes them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from typer.testing import CliRunner


def cli(*args: Any, code: int | None = 0) -> Any:
    """Run a verb in this process; fail unless it ends with that exit code (None: with any)."""
    from mlffstore.cli.app import app

    done = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="mlffstore")
    assert code in (None, done.exit_code), f"exit code {done.exit_code}\n{done.stdout}\n{done.stderr}"
    return done


def shell(*args: Any, code: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own."""
    command = [sys.executable, "-m", "mlffstore", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert code in (None, done.returncode), f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
