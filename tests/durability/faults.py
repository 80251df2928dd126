"""Faults on demand: a stand-in for `os` whose n-th call fails, and a storage that loses replies."""

from __future__ import annotations

import os
import threading
from typing import Any

#: Everything that `LocalStorage` asks of the operating system, but for pure functions on paths.
CALLS = ("open", "write", "fsync", "link", "unlink", "stat", "makedirs", "mkdir", "replace", "rmdir", "scandir",
         "utime")  # fmt: skip


class FaultyOs:
    """The module `os`, whose call number `fail_at` raises `OSError(code)`, before or after it took effect."""

    def __init__(self, fail_at: int | None = None, code: int = 0, *, after: bool = False, only: str = "") -> None:
        self._fail_at, self._code, self._after, self._only = fail_at, code, after, only
        self._lock, self.calls = threading.Lock(), []

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS or (self._only and name != self._only):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                mine = len(self.calls) == self._fail_at
                self.calls.append(name)
            if mine and not self._after:
                raise OSError(self._code, os.strerror(self._code), str(args[0]) if args else None)
            answer = real(*args, **kwargs)
            if mine:
                if name == "open":  # the caller never learns of the descriptor
                    os.close(answer)
                raise OSError(self._code, os.strerror(self._code), str(args[0]) if args else None)
            return answer

        return call


class LossyStorage:
    """A storage whose claims lose their request or their reply, as often as `plan` says.

    Parameters
    ----------
    inner : Storage
    plan : list of {"ok", "request", "reply"}
        What happens to each call of `put_if_absent` in turn; later ones are fine.
    """

    def __init__(self, inner: Any, plan: list[str]) -> None:
        self._inner, self._plan = inner, plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        what = self._plan.pop(0) if self._plan else "ok"
        if what == "request":
            raise TimeoutError("the request was lost")
        answer = self._inner.put_if_absent(path, data)
        if what == "reply":
            raise TimeoutError("the reply was lost")
        return answer
