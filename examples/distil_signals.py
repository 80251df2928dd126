"""Train a small student on few labels, with and without Hessian-vector products and atomic energies of the teacher.

    python examples/distil_signals.py signals.zarr --iterations 400

It makes a store of rattled molecules, labels it with GFN2-xTB (energy, forces, atomic energies and one Hessian-vector
product per sample), trains the student of train_with_production_data.py four times from that one store, and prints the
errors on samples that no training saw. The number of samples is the same in all four; so is the number of iterations.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from train_with_production_data import CUTOFF, Student

import mlffstore as ml

MOLECULES = ("CH3CH2OH", "CH3COOH", "CH3CONH2", "CH3NO2")
PROPERTIES = ("energy", "forces", "atomic_energies", "hessian_product")
#: What each training uses beside energies and forces.
SETS = {
    "energy and forces": (),
    "+ Hessian-vector products": ("hessian",),
    "+ atomic energies": ("atomic",),
    "+ both": ("hessian", "atomic"),
}


def make_store(path: Path, frames: int, seed: int = 0) -> ml.Store:
    """Return a store of rattled molecules with all signals; one that is there is labelled further where it lacks some."""
    if path.exists():
        store = ml.open(path, mode="a")
    else:
        rng = np.random.default_rng(seed)
        store = ml.create(path)
        made = []
        for k in range(frames):
            atoms = molecule(MOLECULES[k % len(MOLECULES)])
            atoms.positions += rng.normal(0, rng.uniform(0.02, 0.06), atoms.positions.shape)
            made.append(atoms)
        store.append(made, require=())
    store.add_labels("gfn2-xtb", properties=PROPERTIES)
    return store


def centred(values: torch.Tensor, numbers: torch.Tensor, means: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return atomic energies minus the mean of their element in the training set."""
    shift = torch.zeros_like(values)
    for number, mean in means.items():
        shift[numbers == number] = mean
    return values - shift


def predict(
    model: Student, batch: dict[str, torch.Tensor], *, hessian: bool, create_graph: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return energies (B,), atomic energies (A,), forces (A, 3), and products of the Hessian (A, 3) or None."""
    each = model.atomic_energies(batch)
    energy = torch.zeros(len(batch["n_atoms"]), dtype=torch.float64).index_add(0, batch["batch"], each)
    gradient = torch.autograd.grad(energy.sum(), batch["positions"], create_graph=create_graph or hessian)[0]
    product = None
    if hessian:
        slope = (gradient * batch["hessian_probe"]).sum()  # the teacher's direction, as it is stored
        product = torch.autograd.grad(slope, batch["positions"], create_graph=create_graph)[0]
    return energy, each, -gradient, product


def train(
    data: ml.TorchDataset, rows: range, extra: tuple[str, ...], iterations: int, size: int
) -> tuple[Student, dict]:
    """Return a student that was trained on some rows of the data, and what its energies are relative to."""
    torch.manual_seed(1)
    whole = data.batch(list(rows))
    numbers = whole["numbers"]
    means = {int(z): whole["atomic_energies"][numbers == z].mean() for z in numbers.unique()}
    scale = {name: whole[name].square().mean().sqrt() for name in ("forces", "hessian_product")}
    spread = centred(whole["atomic_energies"], numbers, means).square().mean().sqrt()
    model = Student(width=48, layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=iterations)
    generator = torch.Generator().manual_seed(2)
    for _ in range(iterations):
        chosen = torch.randperm(len(rows), generator=generator)[:size].tolist()
        batch = data.batch([rows[i] for i in chosen])
        energy, each, forces, product = predict(model, batch, hessian="hessian" in extra, create_graph=True)
        target = centred(batch["atomic_energies"], batch["numbers"], means)
        total = torch.zeros_like(energy).index_add(0, batch["batch"], target)
        loss = ((energy - total) / batch["n_atoms"]).square().mean() * 100
        loss = loss + (forces - batch["forces"]).square().mean() / scale["forces"] ** 2
        if product is not None:
            loss = loss + 0.3 * (product - batch["hessian_product"]).square().mean() / scale["hessian_product"] ** 2
        if "atomic" in extra:
            loss = loss + 0.1 * (each - target).square().mean() / spread**2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return model, means


def errors(model: Student, means: dict, data: ml.TorchDataset, rows: range) -> dict[str, float]:
    """Return mean absolute errors on some rows of the data."""
    batch = data.batch(list(rows))
    energy, each, forces, product = predict(model, batch, hessian=True, create_graph=False)
    target = centred(batch["atomic_energies"], batch["numbers"], means)
    total = torch.zeros_like(energy).index_add(0, batch["batch"], target)
    assert product is not None
    energy, each, forces, product = (one.detach() for one in (energy, each, forces, product))
    return {
        "energy_meV_per_atom": 1000 * float(((energy - total) / batch["n_atoms"]).abs().mean()),
        "forces_meV_per_angstrom": 1000 * float((forces - batch["forces"]).abs().mean()),
        "hessian_product_eV_per_angstrom2": float((product - batch["hessian_product"]).abs().mean()),
        "atomic_energies_meV": 1000 * float((each - target).abs().mean()),
    }


def main() -> None:
    """Train four times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a store of this example; it is made if it is not there")
    parser.add_argument("--train", type=int, default=40, help="samples to train on")
    parser.add_argument("--test", type=int, default=60, help="samples to compare with")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    store = make_store(args.store, args.train + args.test)
    names = (*PROPERTIES, "hessian_probe")
    data = ml.TorchDataset(store.snapshot(), split=None, properties=names, neighbours=CUTOFF)
    for name, extra in SETS.items():
        began = time.process_time()
        model, means = train(data, range(args.train), extra, args.iterations, args.batch_size)
        found = errors(model, means, data, range(args.train, len(data)))
        print(json.dumps({"trained on": name, **found, "cpu_seconds": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    main()
