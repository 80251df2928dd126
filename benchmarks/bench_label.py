"""Labelling: ours, natively batched, beside the package's own batched call and its ASE calculator in a loop.

    python benchmarks/bench_label.py [--rounds 3] [--device cpu] [--molecules 2000] [--samples 96] [--only orb,fennol,chgnet]

Per model, in one run, rounds interleaved, medians:
- ours: `teacher.label(batch)`, from columns to columns, domain guard and checks for finite labels included;
- the package's own batched call, on the same groups of samples (same atom budget), from
  ase.Atoms (pymatgen structures for CHGNet) that were made before;
- its ASE calculator in a loop, one calculator for all samples.
"First" is the first pass in the process (loading and compiling included), the others are warm.
Then the share of wall time outside the model of a whole label pass over a store (read, group, graphs' inputs, check, write,
fsync, commit): the model's share is what is spent in the package's graph construction and forward pass.

Molecules are conformations of SPICE's DES monomers with H C N O, crystals those of our generator, at most 64 atoms.
Orb is the package's 25 million parameter architecture with a seeded state dict (its weights come from a network);
FeNNol is ANI-1x. Data and weights: $MLFFSTORE_SHARED, default ../shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import mlffstore as ml
from mlffstore.data.concatenation import concatenate
from mlffstore_teachers.groups import balanced_groups, groups

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = Path(os.environ.get("MLFFSTORE_SHARED", "../shared"))


def molecules(n: int) -> ml.SampleBatch:
    """Return n conformations of many molecules of H, C, N and O, in random order."""
    from mlffstore.importing import import_files

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "m.zarr"
        import_files([SHARED / "data" / "spice_des_monomers.hdf5"], store, require=())
        batch = ml.open(store).snapshot().read().structures()
    known = np.logical_and.reduceat(np.isin(batch.numbers, [1, 6, 7, 8]), batch.offsets[:-1])
    chosen = np.random.default_rng(0).choice(np.flatnonzero(known), n)
    out = batch.take(chosen)
    moved = out.positions + np.random.default_rng(1).normal(
        0, 0.02, out.positions.shape
    )  # angstrom: no two are the same
    return ml.SampleBatch(n_atoms=out.n_atoms, numbers=out.numbers, positions=moved.astype(np.float32))


def crystals(n: int) -> ml.SampleBatch:
    """Return n strained and rattled crystals."""
    generator = ml.get_generator("crystals", max_atoms=64)
    made = generator.generate(np.random.default_rng(0), n).batch
    return made.structures().astype("float32")


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Clock:
    """Adds up the time spent in functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        return inner


# -- the models --------------------------------------------------------------------------------------------------


def orb(
    args: argparse.Namespace, folder: Path
) -> tuple[str, ml.SampleBatch, Any, dict[str, Callable[[], Any]], Callable[..., None]]:
    import torch
    from orb_models.forcefield import atomic_system, base, pretrained
    from orb_models.forcefield.calculator import ORBCalculator

    torch.manual_seed(0)
    weights = folder / "orb.ckpt"
    torch.save(pretrained.orb_v2_architecture(device="cpu").state_dict(), weights)
    teacher = ml.get_teacher("orb-v2", weights=weights, device=args.device, batch_atoms=args.batch_atoms)
    half = args.samples // 2
    batch = concatenate([crystals(half), molecules(args.samples - half)])
    several = groups(range(len(batch)), batch.n_atoms, args.batch_atoms)
    frames = batch.to_ase()
    for frame in frames:
        frame.info = {}
    model = teacher._loaded()

    def package() -> None:
        for group in several:
            graphs = [
                atomic_system.ase_atoms_to_atom_graphs(frames[i], model.system_config, device=args.device)
                for i in group
            ]
            out = model.predict(base.batch_graphs(graphs))
            out["forces"].cpu()

    def loop() -> None:
        calculator = ORBCalculator(model, device=args.device)
        for frame in frames:
            one = frame.copy()
            one.calc = calculator
            one.get_forces()

    def watch(teacher: Any, clock: Clock) -> None:
        teacher._graphs = clock.around(teacher._graphs)
        teacher._loaded().predict = clock.around(teacher._loaded().predict)

    return "Orb-v2 architecture", batch, teacher, {"package": package, "ASE loop": loop}, watch


def fennol(
    args: argparse.Namespace, folder: Path
) -> tuple[str, ml.SampleBatch, Any, dict[str, Callable[[], Any]], Callable[..., None]]:
    from fennol import FENNIX
    from fennol.ase import FENNIXCalculator

    weights = SHARED / "models" / "ani1x" / "ani1x_model0.fnx"
    teacher = ml.get_teacher("fennol", weights=weights, name="ani1x")
    batch = molecules(args.molecules)
    several = balanced_groups(range(len(batch)), batch.n_atoms, teacher.batch_atoms, most=teacher.batch_atoms // 2)
    model = FENNIX.load(weights, use_atom_padding=True)
    parts = [batch.take(np.array(group)) for group in several]
    frames = batch.to_ase()

    def package() -> None:
        for part in parts:
            _, forces, _ = model.energy_and_forces(
                species=part.numbers.astype(np.int32), coordinates=part.positions, natoms=part.n_atoms.astype(np.int32),
                batch_index=np.repeat(np.arange(len(part), dtype=np.int32), part.n_atoms), gpu_preprocessing=False,
            )  # fmt: skip
            np.asarray(forces)

    calculator = FENNIXCalculator(str(weights), gpu_preprocessing=False)

    def loop() -> None:
        for frame in frames[: args.loop]:
            frame.calc = calculator
            frame.get_forces()

    def watch(teacher: Any, clock: Clock) -> None:
        member = teacher._loaded()[0]
        member.call, member.prepare = clock.around(member.call), clock.around(member.prepare)

    return "FeNNol ANI-1x", batch, teacher, {"package": package, "ASE loop": loop}, watch


def chgnet(
    args: argparse.Namespace, folder: Path
) -> tuple[str, ml.SampleBatch, Any, dict[str, Callable[[], Any]], Callable[..., None]]:
    from chgnet.model.dynamics import CHGNetCalculator
    from pymatgen.core import Lattice, Structure

    teacher = ml.get_teacher("chgnet", device=args.device)
    batch = crystals(args.samples)
    several = groups(range(len(batch)), batch.n_atoms, teacher.batch_atoms)
    structures = [
        Structure(
            Lattice(batch.cell[i]),
            batch.numbers[a:b].tolist(),
            batch.positions[a:b].astype(float),
            coords_are_cartesian=True,
        )
        for i, (a, b) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True))
    ]
    frames = batch.to_ase()
    model = teacher._loaded()

    def package() -> None:
        for group in several:
            model.predict_structure([structures[i] for i in group], task="efs", batch_size=len(group))

    def loop() -> None:
        calculator = CHGNetCalculator(model, use_device=args.device)
        for frame in frames:
            frame.calc = calculator
            frame.get_forces()

    def watch(teacher: Any, clock: Clock) -> None:
        model = teacher._loaded()
        model.graph_converter.forward = clock.around(model.graph_converter.forward)
        model.predict_graph = clock.around(model.predict_graph)

    return "CHGNet", batch, teacher, {"package": package, "ASE loop": loop}, watch


# -- the tables --------------------------------------------------------------------------------------------------


def outside(batch: ml.SampleBatch, teacher: Any, watch: Callable[..., None], folder: Path) -> float:
    """Return the share of a label pass over a store that is not spent in the model."""
    clock = Clock()
    watch(teacher, clock)
    store = ml.create(folder / f"{teacher.info.name}.zarr")
    store.append(batch, require=())
    total = timed(lambda: store.add_labels(teacher))
    return 1 - clock.seconds / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--molecules", type=int, default=2000, help="of FeNNol")
    parser.add_argument("--samples", type=int, default=96, help="of Orb and CHGNet")
    parser.add_argument("--loop", type=int, default=300, help="of FeNNol's molecules go through its ASE calculator")
    parser.add_argument("--batch-atoms", type=int, default=1024, help="of Orb")
    parser.add_argument("--only", default="fennol,chgnet,orb")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = [["model", "samples", "atoms", "what", "first s", "samples/s", "atoms/s", "ours / this"]]
    shares = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in args.only.split(","):
            title, batch, teacher, others, watch = {"orb": orb, "fennol": fennol, "chgnet": chgnet}[model](args, folder)
            calls = {"ours": lambda: teacher.label(batch), **others}
            taken: dict[str, list[float]] = {what: [] for what in calls}
            first: dict[str, float] = {}
            # The loop by itself: the thousand shapes that it compiles push what the others compiled out of jax's cache.
            for several in (["ours", "package"], ["ASE loop"]):
                first |= {what: timed(calls[what]) for what in several}
                for _ in range(args.rounds):
                    for what in several:
                        taken[what].append(timed(calls[what]))
            middle = {what: statistics.median(several) for what, several in taken.items()}
            counts = {what: len(batch) for what in calls}
            if model == "fennol":
                counts["ASE loop"] = min(args.loop, len(batch))
            atoms = {what: int(batch.offsets[n]) for what, n in counts.items()}
            rates = {what: [counts[what] / seconds for seconds in several] for what, several in taken.items()}
            ratios = {what: statistics.median(np.divide(rates["ours"], rates[what])) for what in calls}
            lines += [
                [
                    title, f"{counts[what]:,}", f"{atoms[what]:,}", what, f"{first[what]:.1f}",
                    f"{counts[what] / middle[what]:,.1f}",
                    f"{atoms[what] / middle[what]:,.0f}", f"{ratios[what]:.2f}",
                ]
                for what in calls
            ]  # fmt: skip
            if model == "fennol":
                cold = first["ASE loop"] / counts["ASE loop"] / (first["ours"] / counts["ours"])
                lines[-3][3] += f" ({teacher.n_compiled} compilations)"
                lines[-1][3] += f" (first pass: ours {cold:.0f} x as fast a sample)"
            shares.append(
                f"{title}: {outside(batch, teacher, watch, folder):.1%} of a label pass is spent outside the model"
            )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print(
            "  ".join(
                text.ljust(width) if i in (0, 3) else text.rjust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            )
        )
    print(*shares, sep="\n")


if __name__ == "__main__":
    main()
