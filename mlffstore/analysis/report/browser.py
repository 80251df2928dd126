"""Prints the page to a PDF with Chromium, if there is one."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

#: Names of browsers that print, in the order in which they are looked for.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
#: Seconds after which the browser is stopped.
_PATIENCE = 120


def find_browser() -> str | None:
    """Return the path of a Chromium, or None: ``MLFFSTORE_BROWSER`` if it is set (empty for none), else one on the path."""
    chosen = os.environ.get("MLFFSTORE_BROWSER")
    if chosen is not None:
        return shutil.which(chosen) if chosen else None
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def print_page(browser: str, html: Path, pdf: Path) -> bool:
    """Print a page to a PDF, and return whether that succeeded; the log says why it did not."""
    with tempfile.TemporaryDirectory(prefix="mlffstore-report-") as folder:
        made = Path(folder) / "report.pdf"
        command = [
            browser, "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions",
            f"--user-data-dir={folder}/profile", "--window-size=760,1000", "--virtual-time-budget=20000",
            "--no-pdf-header-footer", f"--print-to-pdf={made}",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to run as root with it
        try:
            ended = subprocess.run(
                [*command, html.resolve().as_uri() + "#print"], capture_output=True, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("report: %s could not print the PDF: %s", browser, error)
            return False
        if ended.returncode or not made.is_file() or not made.read_bytes().startswith(b"%PDF-"):
            last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
            logger.warning("report: %s could not print the PDF: %s", browser, *(last or ["no message"]))
            return False
        shutil.move(made, pdf)
    return True
