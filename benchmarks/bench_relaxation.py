"""How far crystals are worth relaxing: calls of the teacher for a seed, and how near its equilibrium the cell then is.

    python benchmarks/bench_relaxation.py [--draws 64] [--fmax 0.05,0.1,0.3,0.5] [--time]

Each draw is a crystal of `recipes/production.yaml`, with the same random numbers for every `fmax`. The pressure is that of
the cell in which the relaxation ends. A seed within the recipe's limits (no force above 1 eV/angstrom, 4.5 GPa) is kept.
`--time` also relaxes the draws of the last `fmax` one by one, and prints the time of side by side over that of one by one.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.units import GPa

from mlffstore_generators.seeds.base import NoSeedError, Seed
from mlffstore_generators.seeds.drawing import draw_together, drawing
from mlffstore_generators.seeds.relaxed import Relaxed

if TYPE_CHECKING:
    from mlffstore_generators.seeds.drawing import Drawing


@dataclass(eq=False)
class Counted:
    """Seeds that count what they ask the teacher."""

    seeds: Relaxed
    calls: int = 0

    def draw(self, rng: np.random.Generator) -> Seed:
        return self.seeds.draw(rng)

    def drawing(self, rng: np.random.Generator) -> Drawing:
        draw = drawing(self.seeds, rng)
        try:
            question = next(draw)
            while True:
                self.calls += 1
                question = draw.send((yield question))
        except StopIteration as end:
            seed: Seed = end.value
            return seed

    def provenance(self) -> list[dict[str, str]]:
        return self.seeds.provenance()


def relaxed(fmax: float) -> Relaxed:
    """Return the recipe's crystals; without limits, so that all of them have an end."""
    return Relaxed({"name": "crystals", "max_atoms": 40}, steps=30, fmax=fmax, force=1e6, pressure=1e6)


def main() -> None:
    """Print a row for each `fmax`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--fmax", default="0.05,0.1,0.3,0.5")
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()

    def streams() -> list[np.random.Generator]:
        return [np.random.default_rng(draw) for draw in range(args.draws)]

    draw_together(relaxed(0.3), streams()[:2])  # models are loaded, tables read
    print(
        "| fmax, eV/angstrom | calls per seed | median pressure, GPa | 90 % below | above the lowest, meV/atom "
        "| within the limits |"
    )
    print("|---|---|---|---|---|---|")
    together = 0.0
    lowest: dict[int, float] = {}
    for fmax in sorted(float(text) for text in args.fmax.split(",")):
        seeds = Counted(relaxed(fmax))
        began = time.perf_counter()
        drawn = draw_together(seeds, streams())
        together = time.perf_counter() - began
        ends = {k: one.path for k, one in enumerate(drawn) if not isinstance(one, NoSeedError) and one.path is not None}
        pressure = np.abs([path.stress[-1][:3].mean() / GPa for path in ends.values()])
        force = np.array([np.linalg.norm(path.forces[-1], axis=1).max() for path in ends.values()])
        energy = {k: path.energy[-1] / len(path.frames[-1]) for k, path in ends.items()}
        lowest = lowest or energy  # the smallest fmax comes first
        above = 1e3 * np.median([energy[k] - lowest[k] for k in energy if k in lowest])
        kept = np.mean((force <= 1.0) & (pressure <= 4.5))
        print(
            f"| {fmax:g} | {seeds.calls / len(ends):.1f} | {np.median(pressure):.2f} | {np.quantile(pressure, 0.9):.2f} "
            f"| {above:.1f} | {kept:.0%} of {len(ends)} |",
            flush=True,
        )
    if args.time:
        last = relaxed(max(float(text) for text in args.fmax.split(",")))
        began = time.perf_counter()
        for rng in streams():
            try:
                last.draw(rng)
            except NoSeedError:
                continue
        print(f"\nside by side over one by one: {together / (time.perf_counter() - began):.2f} of the time")


if __name__ == "__main__":
    main()
