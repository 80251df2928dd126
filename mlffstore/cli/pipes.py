"""Output that goes into a pipe whose reader may leave, as ``head`` does."""

from __future__ import annotations

import io
import os
import stat
from typing import Any


class _Pipe(io.RawIOBase):
    """The writing end of a pipe or socket; what its reader does not want any more is lost without an error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        try:
            return os.write(self._descriptor, view)
        except (BrokenPipeError, ConnectionResetError):
            return view.nbytes


def unbreakable(stream: Any) -> Any:
    """Return a text stream that writes where another does, and goes on when the reader of a pipe has left.

    A verb then ends with its own exit code, not with one that depends on how much the reader took. Streams that are no pipe
    are returned as they are.
    """
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
            return stream
    except (OSError, ValueError, AttributeError):  # closed, or none of the system's
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(descriptor)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )
