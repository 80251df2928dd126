"""Students of two mixes, with equally many samples, on the same held-out samples: which mix teaches better.

    python benchmarks/old_mix.py old_mix                     # the mix of before, 3,000 samples
    mlffstore run recipes/acceptance.yaml                    # the mix of today
    mlffstore run benchmarks/referee.yaml                    # samples of neither
    python benchmarks/bench_students.py old_mix/old_mix.zarr acceptance.zarr --referee referee.zarr --steps 3000

For each teacher and domain (molecules, periodic), students learn from the same number of samples of either training split,
whole roots, and are tested on the test splits of both and on a third store: those samples whose elements both kinds of
students know and whose roots, and compositions of periodic ones, neither has seen. The ratio is new over old, of mean
absolute errors of forces; below 1 the new mix is better. Half the range over the seeds is beside each error.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.pipeline.distillation.fitting import evaluate, fit
from mlffstore.pipeline.distillation.subsets import labelled, nested

if TYPE_CHECKING:
    from mlffstore.data.ragged import Ints
    from mlffstore.pipeline.distillation.fitting import Errors
    from mlffstore.pipeline.distillation.subsets import Labelled


def equal(samples: Labelled, among: Ints, count: int) -> Ints:
    """Return about so many samples, whole roots in random order."""
    return nested(samples, [min(1.0, count / len(among))], 0, among)[0]


def unknown(held_out: Labelled, rows: Ints, trained: Labelled, learned: Ints) -> Ints:
    """Return those samples of whose root, and composition if it is periodic, a student has seen nothing."""
    rows = held_out.known(rows, trained, learned)
    seen = {composition.tobytes() for composition in trained.composition[learned[trained.periodic[learned]]]}
    return rows[[not (held_out.periodic[row] and held_out.composition[row].tobytes() in seen) for row in rows]]


def figure(errors: list[Errors], rows: np.ndarray | slice = slice(None)) -> tuple[float, str]:
    """Return the mean error in meV/angstrom, and as text with half its range."""
    values = [1e3 * one.force_mae(rows) for one in errors]
    return float(np.mean(values)), f"{np.mean(values):.0f} +- {np.ptp(values) / 2:.0f}"


def pooled(group: str) -> str:
    """Return the wider group of a group: dynamics at all temperatures, or what lies about the relaxed cells of crystals."""
    kind, sampler = group.split(", ")
    if sampler.startswith("md-"):
        return "in dynamics"
    near = kind == "aflow" and (sampler == "rattle" or sampler.startswith("relaxation-"))
    return "crystals near equilibrium" if near else group


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--teachers", default="gfn2-xtb,chgnet")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-test", type=int, default=600, help="samples of each test split")
    parser.add_argument("--referee", help="a third store, whose samples of all splits are tested on")
    parser.add_argument("--domains", default="molecules,periodic")
    parser.add_argument("--workers", type=int, default=2, help="students that learn at the same time")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print("| teacher | domain | learned from | tested on | samples | roots | old, meV/angstrom | new | new / old |")
    print("|---|---|---|---|---|---|---|---|---|")
    for teacher in args.teachers.split(","):
        train = {name: labelled(url, "train", teacher) for name, url in (("old", args.old), ("new", args.new))}
        for domain in args.domains.split(","):
            periodic = domain == "periodic"
            among = {name: np.flatnonzero(one.periodic == periodic) for name, one in train.items()}
            if not all(len(rows) for rows in among.values()):
                continue
            count = min(map(len, among.values()))
            learned = {name: equal(train[name], among[name], count) for name in train}
            with ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                learning = {
                    name: [pool.submit(fit, train[name].data, rows, steps=args.steps, seed=seed, device=args.device)
                           for seed in range(args.seeds)]
                    for name, rows in learned.items()
                }  # fmt: skip
                students = {name: [one.result() for one in several] for name, several in learning.items()}
            test = {"old mix": labelled(args.old, "test", teacher), "new mix": labelled(args.new, "test", teacher)}
            if args.referee:
                test["neither"] = labelled(args.referee, None, teacher)
            for where, held_out in test.items():
                rows = np.flatnonzero(held_out.periodic == periodic)
                for name in train:
                    rows = unknown(held_out, rows, train[name], learned[name])
                rows = held_out.thinned(rows, args.max_test)
                if not len(rows):
                    continue
                errors = {name: [evaluate(one, held_out.data, rows, args.device) for one in several]
                          for name, several in students.items()}  # fmt: skip
                groups = np.array([held_out.group[row] for row in rows])
                kinds = np.array([pooled(group) for group in groups])
                parts = {"all": np.ones(len(rows), bool)}
                parts |= {str(name): values == name for values in (kinds, groups) for name in np.unique(values)}
                for name, which in parts.items():
                    if which.sum() < 10:
                        continue
                    (old, old_text), (new, new_text) = (
                        figure(errors[mix], np.flatnonzero(which)) for mix in ("old", "new")
                    )
                    sizes = f"{len(learned['old'])}, {len(learned['new'])}"
                    n_roots = len(np.unique(held_out.root[rows[which]]))
                    cells = [teacher, domain, sizes, f"{where}, {name}", int(which.sum()), n_roots, old_text, new_text]
                    print(f"| {' | '.join(map(str, cells))} | {new / old:.2f} |", flush=True)


if __name__ == "__main__":
    main()
