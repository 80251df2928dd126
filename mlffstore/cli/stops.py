"""What asks a verb to stop: Ctrl-C, and SIGTERM, which `kill`, batch systems and containers send."""

from __future__ import annotations


class Terminated(KeyboardInterrupt):
    """SIGTERM. A verb takes it as it takes Ctrl-C: it puts away what is not complete, and says what is safe."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return what a shell says of a process that the signal ended: 128 and its number."""
    return 143 if isinstance(stop, Terminated) else 130


def stop_text(stop: KeyboardInterrupt) -> str:
    """Return what happened, for messages."""
    return "terminated" if isinstance(stop, Terminated) else "interrupted"
