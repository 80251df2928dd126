"""Train a small model of energies and forces on a store or release, and say how well it does on the test split.

    python examples/train_energy_model.py metals.zarr --teacher emt --epochs 20

The model is a pair potential with learned element embeddings: a few thousand parameters, no periodic images beyond the
nearest. It shows how batches are used, not how far one can get: it learns a few elements from a hundred samples or more,
and next to nothing from the quickstart's few samples of each of 45 elements.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import mlffstore as ml


class PairModel(nn.Module):
    """Energy as a sum over atoms and over pairs within `cutoff` angstrom; forces are its gradient."""

    def __init__(self, cutoff: float = 5.0, width: int = 32) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.atom_energy = nn.Embedding(119, 1, dtype=torch.float64)
        self.kind = nn.Embedding(119, width)
        self.centres = nn.Parameter(torch.linspace(0.5, cutoff, 16), requires_grad=False)
        self.pair = nn.Sequential(nn.Linear(width + 16, 64), nn.SiLU(), nn.Linear(64, 1))
        nn.init.zeros_(self.atom_energy.weight)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return energies (B,) float64, eV, and forces (A, 3), eV/angstrom."""
        positions = batch["positions"].requires_grad_(True)
        owner, n = batch["batch"], len(batch["energy"])
        a, b = pairs(batch["ptr"])
        step = positions[b] - positions[a]
        cell = batch["cell"][owner[a]]
        periodic = batch["pbc"][owner[a]]
        # The nearest image, by rounding fractional coordinates; cells that are periodic nowhere are zeros.
        safe = torch.where(periodic.any(1)[:, None, None], cell, torch.eye(3))
        fractional = torch.linalg.solve(safe.transpose(1, 2), step.detach()[..., None])[..., 0]
        step = step - ((fractional.round() * periodic)[:, None] @ safe)[:, 0]
        distance = step.norm(dim=1)
        near = distance < self.cutoff
        a, b, distance = a[near], b[near], distance[near]
        radial = torch.exp(-4 * (distance[:, None] - self.centres) ** 2)
        smooth = 0.5 * (torch.cos(torch.pi * distance / self.cutoff) + 1)
        kinds = self.kind(batch["numbers"][a]) * self.kind(batch["numbers"][b])
        pair = self.pair(torch.cat([kinds, radial], 1))[:, 0] * smooth
        energy = torch.zeros(n, dtype=torch.float64)
        energy = energy.index_add(0, owner, self.atom_energy(batch["numbers"])[:, 0])
        energy = energy.index_add(0, owner[a], 0.5 * pair.double())
        forces = -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]
        return energy, forces


def pairs(ptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all ordered pairs of different atoms of the same sample."""
    counts = torch.diff(ptr)
    sizes = counts.repeat_interleave(counts)
    a = torch.arange(int(ptr[-1])).repeat_interleave(sizes)
    first = ptr[:-1].repeat_interleave(counts).repeat_interleave(sizes)
    rank = torch.arange(len(a)) - (torch.cumsum(sizes, 0) - sizes).repeat_interleave(sizes)
    b = first + rank
    different = a != b
    return a[different], b[different]


def fit_atom_energies(model: PairModel, data: ml.TorchDataset) -> None:
    """Start from the energies of the elements that fit the training set best (least squares, minimum norm)."""
    batch = data.batch(range(len(data)))
    counts = torch.zeros(len(data), 119, dtype=torch.float64)
    ones = torch.ones(len(batch["numbers"]), dtype=torch.float64)
    counts.index_put_((batch["batch"], batch["numbers"]), ones, accumulate=True)
    solution = torch.linalg.lstsq(counts, batch["energy"][:, None], driver="gelsd").solution
    with torch.no_grad():
        model.atom_energy.weight.copy_(solution)


def errors(model: PairModel, data: ml.TorchDataset) -> tuple[float, float]:
    """Return the mean absolute errors of energies (eV an atom) and forces (eV/angstrom)."""
    batch = data.batch(range(len(data)))
    energy, forces = model(batch)
    per_atom = (energy - batch["energy"]).abs() / batch["n_atoms"]
    return float(per_atom.mean().detach()), float((forces - batch["forces"]).abs().mean().detach())


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a store or a release (.h5)")
    parser.add_argument("--teacher", default=None)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(0)
    # The loss below compares energies and forces of every sample: leave out those that lack one.
    options = {"teacher": args.teacher, "require": ("energy", "forces")}
    train, test = (ml.TorchDataset(args.source, split=split, **options) for split in ("train", "test"))
    batches = train.loader(batch_size=16, shuffle=True)  # one loader: each pass has another order
    model = PairModel()
    fit_atom_energies(model, train)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(args.epochs + 1):
        energy_error, force_error = errors(model, test)
        text = f"{1e3 * energy_error:8.1f} meV/atom, {1e3 * force_error:8.1f} meV/angstrom"
        print(f"epoch {epoch:3d}: test error {text}", flush=True)
        if epoch == args.epochs:
            break
        for batch in batches:
            energy, forces = model(batch)
            loss = ((energy - batch["energy"]) / batch["n_atoms"]).square().mean()
            loss = loss + (forces - batch["forces"]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()


if __name__ == "__main__":
    main()
