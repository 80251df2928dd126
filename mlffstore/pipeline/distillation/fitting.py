"""Training of a student, and its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mlffstore.pipeline.distillation.student import Student

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.training.batch import Batch
    from mlffstore.training.dataset import TorchDataset

#: Atoms of a batch that is only evaluated.
_EVALUATED_ATOMS = 1024
#: Ridge of the energies of elements, in atoms: two elements that always come together share.
_RIDGE = 1e-3
_RATE, _CLIP = 3e-3, 5.0
#: Weight of the error of the energy of an atom beside that of a force of the typical size.
_ENERGY_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Errors:
    """What a model predicted of some samples, beside their labels.

    Attributes
    ----------
    energy : ndarray, shape (S,)
        Absolute error of the energy per atom, eV.
    force : ndarray, shape (S,)
        Mean absolute error of the components of the forces, eV/angstrom.
    n_atoms : ndarray, shape (S,)
    """

    energy: Array
    force: Array
    n_atoms: Array

    def force_mae(self, samples: Array | slice = slice(None)) -> float:
        """Return the mean absolute error of the components of the forces of some samples, eV/angstrom."""
        return float(np.average(self.force[samples], weights=self.n_atoms[samples]))

    def energy_mae(self, samples: Array | slice = slice(None)) -> float:
        """Return the mean absolute error of the energy per atom of some samples, eV."""
        return float(self.energy[samples].mean())


def packed(n_atoms: Array, order: Ints, atoms: int) -> Iterator[Ints]:
    """Yield samples in an order, as many at a time as have so many atoms together, and at least one."""
    start = total = 0
    for k, sample in enumerate(order):
        if total and total + int(n_atoms[sample]) > atoms:
            yield order[start:k]
            start, total = k, 0
        total += int(n_atoms[sample])
    if start < len(order):
        yield order[start:]


def fit(
    data: TorchDataset, samples: Ints, *, steps: int, seed: int, batch_atoms: int = 256, device: str = "cpu"
) -> Student:
    """Return a student that has learned from some samples of a dataset.

    Parameters
    ----------
    data : TorchDataset
        With neighbours up to `CUTOFF`; all samples have energies and forces.
    samples : ndarray of int
    steps : int
        Steps of the optimiser: the same for much and for little data, so that students differ by their data.
    seed : int
        Of the weights and of the order of the samples.
    batch_atoms : int, optional
        Atoms of a batch.
    device : str, optional
    """
    references, scale = _normalisation(data, samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Student(references, scale).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE)
    schedule = schedule_of(optimiser, steps)
    batches = _endless(data, samples, np.random.default_rng(seed), batch_atoms)
    for _ in range(steps):
        batch = {name: tensor.to(device) for name, tensor in data.batch(next(batches)).items()}
        energy, forces = model(batch, create_graph=True)
        energy_loss = ((energy - batch["energy"]) / batch["n_atoms"]).abs().mean() / scale
        force_loss = ((forces - batch["forces"]).square().sum(dim=1) + 1e-8).sqrt().mean() / scale
        optimiser.zero_grad()
        (force_loss + _ENERGY_WEIGHT * energy_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimiser.step()
        schedule.step()
    return model


def schedule_of(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate of each step: it rises during a tenth of them, and falls to the end."""
    rising = 0.1 if steps != 10 else 0.2  # torch divides by the steps in which the rate rises, less one
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps, pct_start=rising)


def evaluate(model: Student | None, data: TorchDataset, samples: Ints, device: str = "cpu") -> Errors:
    """Return the errors of a student; of None, which predicts no forces and the right energy, the size of the forces."""
    energies, forces = [], []
    n_atoms = data.n_atoms
    for some in packed(n_atoms, samples, _EVALUATED_ATOMS):
        batch: Batch = {name: tensor.to(device) for name, tensor in data.batch(some).items()}
        energy, predicted = (batch["energy"], torch.zeros_like(batch["forces"])) if model is None else model(batch)
        energies.append(((energy - batch["energy"]) / batch["n_atoms"]).abs().detach().cpu().numpy())
        error = (predicted - batch["forces"]).abs().mean(dim=1).detach().double().cpu().numpy()
        owner = batch["batch"].cpu().numpy()
        forces.append(np.bincount(owner, error, minlength=len(some)) / np.bincount(owner, minlength=len(some)))
    return Errors(np.concatenate(energies), np.concatenate(forces), n_atoms[samples])


def _endless(data: TorchDataset, samples: Ints, rng: np.random.Generator, atoms: int) -> Iterator[Ints]:
    n_atoms = data.n_atoms
    while True:
        yield from packed(n_atoms, rng.permutation(samples), atoms)


def _normalisation(data: TorchDataset, samples: Ints) -> tuple[torch.Tensor, float]:
    """Return the energies of the elements that fit the samples best, shape (119,), float64, eV, and the rms force."""
    gram, right = torch.zeros((119, 119), dtype=torch.float64), torch.zeros(119, dtype=torch.float64)
    squares = n = 0.0
    for some in packed(data.n_atoms, samples, 8 * _EVALUATED_ATOMS):
        batch = data.gathered(some)
        counts = torch.zeros((len(some), 119), dtype=torch.float64)
        counts.index_put_(
            (batch["batch"], batch["numbers"]), torch.ones(len(batch["batch"]), dtype=torch.float64), accumulate=True
        )
        counts, energy = counts / batch["n_atoms"][:, None], batch["energy"] / batch["n_atoms"]
        gram, right = gram + counts.T @ counts, right + counts.T @ energy
        squares, n = squares + float(batch["forces"].double().square().sum()), n + batch["forces"].numel()
    ridge = _RIDGE * torch.eye(119, dtype=torch.float64)
    return torch.linalg.solve(gram + ridge, right), max((squares / max(n, 1)) ** 0.5, 1e-3)
