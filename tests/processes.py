"""Processes for tests, whose functions are pickled as with "spawn"."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext


def fresh_processes() -> ForkServerContext:
    """Return the context of processes that share nothing with this one.

    They are forked from a server that has imported what all need, since an interpreter of its own takes each of them two
    seconds of processor time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "mlffstore.store.facade", "mlffstore.store.labelling", "tests.samples"])
    return context
