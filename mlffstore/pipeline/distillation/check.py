"""`distil_check`: what small students learn from a dataset, with how many samples."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import DataError, missing_dependency
from mlffstore.pipeline.distillation.result import DistilCheck, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlffstore.data.ragged import Ints
    from mlffstore.pipeline.distillation.subsets import Labelled
    from mlffstore.training.dataset import TorchDataset

#: Structures from which new dynamics starts, its temperature, kelvin, and frames from each start, at most.
_STARTS, _KELVIN, _FRAMES = 8, 300, 40


def distil_check(
    source: Any,
    *,
    teacher: str | None = None,
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    steps: int = 600,
    seeds: int = 2,
    batch_atoms: int = 256,
    max_test: int = 1000,
    test: Any = None,
    trajectory: int = 0,
    teacher_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> DistilCheck:
    """Train small students on growing shares of the training split, and test them on roots that they have not seen.

    Parameters
    ----------
    source : path, URL, Store, Snapshot
        A store, or a release.
    teacher : str, optional
        Teacher whose energies and forces are learned. It is required if there are several.
    shares : sequence of float, optional
        Rising shares of the roots of the training split.
    steps : int, optional
        Steps of the optimiser for each student, however many samples it has.
    seeds : int, optional
        Students of each share, which differ by their weights and the order of the samples.
    batch_atoms : int, optional
        Atoms of a batch.
    max_test : int, optional
        Samples of the test split, at most.
    test : path, URL, Store, Snapshot, optional
        Another source whose test split is used, so that datasets are compared on the same samples.
    trajectory : int, optional
        Frames of new dynamics by the teacher at 300 K, from structures of the test split, on which students are tested too.
    teacher_options : mapping, optional
        Options of the teacher, for the trajectory.
    device : str, optional
        Such as ``"cuda"``, the default where there is one.
    progress : callable, optional
        It is called with the number of students trained so far and the number of all students.

    Returns
    -------
    DistilCheck

    Raises
    ------
    DataError
        If an option is wrong, or there are no samples to learn from or to test on.
    MissingDependencyError
        If torch is not installed.

    Notes
    -----
    The student is a small PaiNN (arXiv:2102.03150). All students are tested on the same samples: those whose elements all
    occur in the smallest share. The baseline learns from the samples of the training split that were displaced at random;
    where the calls of teachers are on record, from as many as the same number of calls buys, or as there are.
    """
    try:
        import torch
    except ImportError as error:
        raise missing_dependency("torch", "torch", "distil_check") from error
    from mlffstore.pipeline.distillation.fitting import evaluate, fit
    from mlffstore.pipeline.distillation.subsets import calls_per_sample, labelled, nested

    shares = sorted(shares)
    if not shares or not 0 < shares[0] <= shares[-1] <= 1:
        raise DataError(f"shares: expected numbers above 0 and up to 1, got {tuple(shares)}")
    if min(steps, seeds, batch_atoms, max_test) < 1 or trajectory < 0:
        raise DataError(
            "expected positive steps, seeds, batch_atoms and max_test, and a trajectory of 0 frames or more"
        )
    began = time.process_time()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"device: expected one that torch can use here, such as cpu or cuda, got {device!r} ({reason})"
        ) from error
    train = labelled(source, "train", teacher)
    held_out = labelled(source if test is None else test, "test", train.data.teacher)
    subsets = nested(train, shares, 0)
    every = np.arange(len(held_out))
    tested = held_out.known(every, train, subsets[0])
    if test is not None:  # the other source may hold what this one trains on
        tested = held_out.known(tested, train, subsets[-1])
    if not len(tested):
        raise DataError(
            f"{held_out.data.title}: expected test samples whose elements occur in the {len(subsets[0]):,} samples of the "
            f"smallest share, got none of {len(every):,}; give larger shares"
        )
    unknown = len(every) - len(tested)
    tested = held_out.thinned(tested, max_test)
    most = _FRAMES * min(_STARTS, len(tested))
    if trajectory > most:
        raise DataError(
            f"trajectory: expected up to {most} frames, {_FRAMES} from each of {most // _FRAMES} test samples, got "
            f"{trajectory}"
        )
    calls = calls_per_sample(source)
    jobs = [("share", share, some) for share, some in zip(shares, subsets, strict=True)]
    baseline = _baseline(train, subsets[-1], calls)
    if baseline is not None:
        jobs.append(("rattled", shares[-1], baseline))
    with tempfile.TemporaryDirectory() as folder:
        frames = _trajectory(held_out, tested, trajectory, teacher_options or {}, Path(folder)) if trajectory else None
        results = []
        for number, (what, share, some) in enumerate(jobs):
            errors, along = [], []
            for seed in range(seeds):
                model = fit(train.data, some, steps=steps, seed=seed, batch_atoms=batch_atoms, device=device)
                errors.append(evaluate(model, held_out.data, tested, device))
                if frames is not None:
                    along.append(evaluate(model, frames, np.arange(len(frames)), device).force_mae())
                if progress is not None:
                    progress(number * seeds + seed + 1, len(jobs) * seeds)
            results.append(
                Trained(
                    what, float(share), len(some), len(np.unique(train.root[some])),
                    tuple(one.force_mae() for one in errors), tuple(one.energy_mae() for one in errors), tuple(along),
                    {name: float(np.mean([one.force_mae(rows) for one in errors]))
                     for name, rows in _groups(held_out, tested).items()},
                )
            )  # fmt: skip
        nothing = evaluate(None, held_out.data, tested)
    groups = _groups(held_out, tested)
    return DistilCheck(
        train.data.title, str(train.data.teacher), tuple(results), len(tested), unknown, nothing.force_mae(),
        {name: nothing.force_mae(rows) for name, rows in groups.items()},
        {name: len(rows) for name, rows in groups.items()}, steps, seeds, calls, 0 if frames is None else len(frames),
        time.process_time() - began,
    )  # fmt: skip


def _groups(samples: Labelled, tested: Ints) -> dict[str, Ints]:
    """Return, by domain and by class and sampler, which of the tested samples belong there; the most frequent first."""
    out = {}
    for name, wanted in (("molecules", False), ("periodic", True)):
        rows = np.flatnonzero(samples.periodic[tested] == wanted)
        if len(rows):
            out[name] = rows
    names = np.array([samples.group[i] for i in tested])
    for name, _ in Counter(names.tolist()).most_common():
        out[name] = np.flatnonzero(names == name)
    return out


def _baseline(train: Labelled, largest: Ints, calls: float | None) -> Ints | None:
    """Return rattled samples that cost as many calls as the largest share; None if there are none, or nothing else."""
    rattled = np.intersect1d(train.rattled, largest)
    if not len(rattled) or len(rattled) == len(largest):
        return None
    return train.thinned(rattled, round(len(largest) * (1.0 if calls is None else calls)))


def _trajectory(
    held_out: Labelled, tested: Ints, n_frames: int, options: Mapping[str, Any], folder: Path
) -> TorchDataset:
    """Return frames of new dynamics by the teacher that labelled the samples, from some of them."""
    from ase import Atoms
    from ase.io import write

    from mlffstore.contracts.registry import get_generator, shared_teacher
    from mlffstore.pipeline.distillation.student import CUTOFF
    from mlffstore.pipeline.task import labelled
    from mlffstore.store.opening import create
    from mlffstore.training.dataset import TorchDataset

    teacher = str(held_out.data.teacher)
    model = shared_teacher(teacher, dict(options))
    if held_out.fingerprint not in (None, model.info.fingerprint):
        raise DataError(
            f"teacher_options: expected the teacher that labelled the samples, {held_out.fingerprint!r}, got "
            f"{model.info.fingerprint!r}; give the options that it had"
        )
    starts = []
    for sample in held_out.thinned(tested, _STARTS):
        one = held_out.data.gathered([int(sample)])
        info = {name: int(one[name][0]) for name in ("charge", "multiplicity")}
        starts.append(
            Atoms(one["numbers"].numpy(), one["positions"].numpy(), cell=one["cell"][0].numpy(),
                  pbc=one["pbc"][0].numpy(), info=info)
        )  # fmt: skip
    path = folder / "starts.extxyz"
    write(path, starts)
    generator = get_generator(
        "md", seeds={"name": "files", "paths": [str(path)]}, teacher=teacher, teacher_options=dict(options),
        temperatures=[_KELVIN], frames=-(-n_frames // len(starts)),
    )  # fmt: skip
    made = generator.generate(np.random.default_rng(0), n_frames)
    batch, _ = labelled(model, made, "float32")
    store = create(str(folder / "trajectory.zarr"))
    store.append(batch)
    return TorchDataset(
        store, split=None, teacher=teacher, neighbours=CUTOFF, require=("energy", "forces"), cache="memory"
    )
