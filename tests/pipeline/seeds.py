"""Classes of seeds for tests of runs: metals, of which some draws end their process."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlffstore_generators.seeds.base import Seed

if TYPE_CHECKING:
    import numpy as np


class Foreign(Exception):
    """An error that pickle cannot make again, since it takes more than its message."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"code {code}: {text}")


@dataclass(frozen=True)
class Deadly:
    """Metals; a share of the draws, decided by the random numbers, kills the process.

    Parameters
    ----------
    share : float
        Of the draws.
    how : {"signal", "memory", "error", "foreign", "exit"}
        SIGKILL; memory without end, at 400 MB/s; an error that no class of seeds should raise; one that cannot be made again
        in another process; or `sys.exit`.
    spared : str, optional
        Path of a folder; nothing dies while it exists.
    """

    share: float = 0.1
    how: str = "signal"
    spared: str = ""

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a metal, or die."""
        from ase.build import bulk

        if rng.random() < self.share and not (self.spared and Path(self.spared).exists()):
            if self.how == "error":
                raise ZeroDivisionError("a fault of this class")
            if self.how == "foreign":
                raise Foreign(7, "a fault of this class")
            if self.how == "exit":
                sys.exit(0)
            hold = []
            while self.how == "memory":
                hold.append(os.urandom(20_000_000))
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        atoms = bulk(str(rng.choice(["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"])), cubic=True)
        return Seed(atoms * (1, 1, int(rng.integers(2, 5))), "bulk")

    def provenance(self) -> list[dict[str, str]]:
        """Return the source."""
        return [{"name": "ase.build.bulk", "what": "metals", "licence": "LGPL-2.1"}]
