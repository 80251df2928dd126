"""Students of two mixes, with equally many samples, on the same held-out samples: which mix teaches better.

    mlffstore run benchmarks/old_mix.yaml                    # the mix of before, 3,000 samples
    mlffstore run recipes/acceptance.yaml                    # the mix of today
    python benchmarks/bench_students.py old_mix.zarr acceptance.zarr [--teachers gfn2-xtb,chgnet] [--steps 1500] [--seeds 3]

For each teacher and domain (molecules, periodic), students learn from the same number of samples of either training split,
whole roots, and are tested on the test splits of both: those samples whose elements both kinds of students know and whose
roots neither has seen. The ratio is new over old, of mean absolute errors of forces; below 1 the new mix is better. Half the
range over the seeds is beside each error.
"""

from __future__ import annotations

import argparse
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


def figure(errors: list[Errors], rows: np.ndarray | slice = slice(None)) -> tuple[float, str]:
    """Return the mean error in meV/angstrom, and as text with half its range."""
    values = [1e3 * one.force_mae(rows) for one in errors]
    return float(np.mean(values)), f"{np.mean(values):.0f} +- {np.ptp(values) / 2:.0f}"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--teachers", default="gfn2-xtb,chgnet")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-test", type=int, default=600, help="samples of each test split")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print("| teacher | domain | learned from | tested on | samples | old, meV/angstrom | new | new / old |")
    print("|---|---|---|---|---|---|---|---|")
    for teacher in args.teachers.split(","):
        train = {name: labelled(url, "train", teacher) for name, url in (("old", args.old), ("new", args.new))}
        test = {name: labelled(url, "test", teacher) for name, url in (("old", args.old), ("new", args.new))}
        for domain, periodic in (("molecules", False), ("periodic", True)):
            among = {name: np.flatnonzero(one.periodic == periodic) for name, one in train.items()}
            if not all(len(rows) for rows in among.values()):
                continue
            count = min(map(len, among.values()))
            learned = {name: equal(train[name], among[name], count) for name in train}
            students = {
                name: [fit(train[name].data, rows, steps=args.steps, seed=seed, device=args.device)
                       for seed in range(args.seeds)]
                for name, rows in learned.items()
            }  # fmt: skip
            for where, held_out in test.items():
                rows = np.flatnonzero(held_out.periodic == periodic)
                for name in train:
                    rows = held_out.known(rows, train[name], learned[name])
                rows = held_out.thinned(rows, args.max_test)
                if not len(rows):
                    continue
                errors = {name: [evaluate(one, held_out.data, rows, args.device) for one in several]
                          for name, several in students.items()}  # fmt: skip
                groups = np.array([held_out.group[row] for row in rows])
                for group in ["all", *np.unique(groups)]:
                    some = np.arange(len(rows)) if group == "all" else np.flatnonzero(groups == group)
                    if len(some) < 10:
                        continue
                    (old, old_text), (new, new_text) = (figure(errors[name], some) for name in ("old", "new"))
                    tested = f"{where} mix, {group}"
                    sizes = f"{len(learned['old'])}, {len(learned['new'])}"
                    cells = [teacher, domain, sizes, tested, len(some), old_text, new_text, f"{new / old:.2f}"]
                    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
