"""Cost of further labels in CPU time, beside energy and forces alone: ``python benchmarks/bench_signals.py``.

Each line alternates a plain pass and one with more labels over the same structures, and gives the ratio of the medians.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.probes import probe
from mlffstore.contracts.request import label_with

if TYPE_CHECKING:
    from collections.abc import Callable

MORE = {"gfn2-xtb": ("charges", "dipole"), "chgnet": ("magmoms",), "sevennet-0": ()}


def structures(name: str) -> ml.SampleBatch:
    """Return some tens of atoms, displaced."""
    if name == "gfn2-xtb":
        frames = [molecule(one) for one in ("CH3CONH2", "C6H6", "CH3CH2OH", "CH3COOH")]
    else:
        frames = [bulk("MgO", "rocksalt", 4.21, cubic=True) * (2, 1, 1), bulk("Si", cubic=True)]
    for k, frame in enumerate(frames):
        frame.rattle(0.05, seed=k)
    return ml.SampleBatch.from_ase(frames)


def ratio(plain: Callable[[], Any], more: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the median CPU seconds of `plain`, and those of `more` divided by them; the two alternate."""
    plain(), more()
    seconds: dict[Any, list[float]] = {plain: [], more: []}
    for _ in range(rounds):
        for work in (plain, more):
            began = time.process_time()
            work()
            seconds[work].append(time.process_time() - began)
    return median(seconds[plain]), median(seconds[more]) / median(seconds[plain])


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--teachers", nargs="*", default=list(MORE))
    args = parser.parse_args()
    for name in args.teachers:
        teacher, batch = ml.get_teacher(name), structures(name)
        bare = ml.get_teacher(name)
        # A teacher that declares nothing else computes nothing else.
        bare._info = replace(bare.info, properties=tuple(p for p in bare.info.properties if p not in MORE[name]))
        cases: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = []
        if MORE[name]:
            cases.append((", ".join(MORE[name]), lambda: bare.label(batch), lambda: teacher.label(batch)))
        names = tuple(one for one in teacher.info.on_request)
        cases.append((", ".join(names), lambda: teacher.label(batch), lambda: label_with(teacher, batch, names)))
        if hasattr(teacher, "hessian_product"):
            direction = probe(batch)
            cases.append(
                ("one Hessian-vector product alone", lambda: teacher.label(batch),
                 lambda: teacher.hessian_product(batch, direction))
            )  # fmt: skip
        for what, plain, more in cases:
            seconds, times = ratio(plain, more, args.rounds)
            print(f"{name:12} {what:40} {1000 * seconds:8.1f} ms plain, x {times:.3f}", flush=True)


if __name__ == "__main__":
    main()
