"""Train a SchNet-like student on a release, plot its predictions, and say how long the loader made it wait.

    python examples/train_with_production_data.py release/quickstart-chgnet-1.0.0 --out student

It takes energies of the elements and the scale from the release's statistics.yaml, trains energies and forces together, and
writes student/parity.png (split val), student/model.pt and student/result.json. The model is that of Schuett et al.,
J. Chem. Phys. 148, 241722 (2018), small: continuous-filter convolutions over neighbours in all periodic images.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

import mlffstore as ml
from mlffstore.training.transforms import from_statistics

CUTOFF = 5.0  # angstrom


class Convolution(nn.Module):
    """Messages from neighbours, filtered by a function of the distance."""

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(n_radial, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(width, width, bias=False)
        self.leave = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor, edges: torch.Tensor, radial: torch.Tensor, fade: torch.Tensor) -> torch.Tensor:
        """Return the updated features of the atoms, shape (A, width)."""
        centre, neighbour = edges
        message = self.enter(x)[neighbour] * self.filter(radial) * fade
        return x + self.leave(torch.zeros_like(x).index_add(0, centre, message))


class Student(nn.Module):
    """Energy as a sum over atoms; forces are its negative gradient, so that they are conservative."""

    def __init__(self, width: int = 64, layers: int = 3, n_radial: int = 20) -> None:
        super().__init__()
        self.kind = nn.Embedding(119, width)
        self.layers = nn.ModuleList(Convolution(width, n_radial) for _ in range(layers))
        self.energy = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1))
        self.register_buffer("centres", torch.linspace(0.5, CUTOFF, n_radial))
        nn.init.zeros_(self.energy[2].weight)

    def atomic_energies(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the energies of the atoms (A,), float64, after which the positions of the batch take gradients."""
        positions = batch["positions"].requires_grad_(True)
        centre, neighbour = batch["edge_index"]
        distance = (positions[neighbour] + batch["shift"] - positions[centre]).norm(dim=1, keepdim=True)
        gap = self.centres[1] - self.centres[0]
        radial = torch.exp(-0.5 * ((distance - self.centres) / gap) ** 2)
        fade = 0.5 * (torch.cos(torch.pi * distance / CUTOFF) + 1) * (distance < CUTOFF)
        x = self.kind(batch["numbers"])
        for layer in self.layers:
            x = layer(x, batch["edge_index"], radial, fade)
        return self.energy(x)[:, 0].double()

    def forward(self, batch: dict[str, torch.Tensor], create_graph: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return energies (B,) and forces (A, 3), in the units of the batch."""
        per_atom = self.atomic_energies(batch)
        energy = torch.zeros(len(batch["n_atoms"]), dtype=torch.float64, device=per_atom.device)
        energy = energy.index_add(0, batch["batch"], per_atom)
        gradient = torch.autograd.grad(energy.sum(), batch["positions"], create_graph=create_graph)[0]
        return energy, -gradient


def known(data: ml.TorchDataset, trained: ml.TorchDataset) -> list[int]:
    """Return the samples whose elements all occur in the training set: of others the student knows nothing."""
    elements = trained.batch(range(len(trained)))["numbers"].unique()
    batch = data.batch(range(len(data)))
    strange = torch.zeros(len(data)).index_add(0, batch["batch"], (~torch.isin(batch["numbers"], elements)).float())
    return torch.nonzero(strange == 0)[:, 0].tolist()


def evaluate(model: Student, data: ml.TorchDataset, index: list[int], device: str) -> dict[str, torch.Tensor]:
    """Return predictions and labels of some samples."""
    found: dict[str, list[torch.Tensor]] = {"energy": [], "energy_label": [], "forces": [], "forces_label": []}
    for low in range(0, len(index), 16):
        batch = {name: tensor.to(device) for name, tensor in data.batch(index[low : low + 16]).items()}
        energy, forces = model(batch, create_graph=False)
        found["energy"].append((energy / batch["n_atoms"]).detach().cpu())
        found["energy_label"].append((batch["energy"] / batch["n_atoms"]).cpu())
        found["forces"].append(forces.detach().cpu())
        found["forces_label"].append(batch["forces"].cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def plot(found: dict[str, torch.Tensor], scale: float, path: Path) -> None:
    """Draw predictions over labels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    kinds = (("energy", "referenced energy, eV/atom"), ("forces", "force components, eV/angstrom"))
    for axis, (name, label) in zip(axes, kinds, strict=True):
        x, y = (scale * found[key].reshape(-1) for key in (f"{name}_label", name))
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        axis.plot([low, high], [low, high], color="0.7", linewidth=1, zorder=0)
        axis.scatter(x, y, s=6 if name == "forces" else 18, alpha=0.5, linewidths=0)
        axis.set(title=f"{label}: MAE {float((x - y).abs().mean()):.3f}", xlabel="teacher", ylabel="student")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path, help="folder of a release")
    parser.add_argument("--out", type=Path, default=Path("student"))
    parser.add_argument("--teacher", default=None, help="needed if the release has several")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)

    normal = from_statistics(args.release / "statistics.yaml", args.teacher)
    # The loss below compares energies and forces of every sample: leave out those that lack one.
    wanted = {"teacher": args.teacher, "require": ("energy", "forces")}
    options = {**wanted, "neighbours": CUTOFF, "transform": normal}
    train, val = (ml.TorchDataset(args.release, split=split, **options) for split in ("train", "val"))
    plain = [ml.TorchDataset(args.release, split=split, **wanted) for split in ("val", "train")]
    index = known(*plain)
    print(
        f"{len(train):,} samples to train, {len(index):,} to validate; {len(val) - len(index):,} have unknown elements"
    )
    scale = normal.transforms[-1].scale
    model = Student().to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=args.iterations)

    losses, waited, began = [], 0.0, time.perf_counter()
    batches = train.loader(batch_size=args.batch_size, device=args.device).endless()
    next(batches)  # starts the threads, which is not what is measured
    for k in range(args.iterations):
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        energy, forces = model(batch, create_graph=True)
        loss = ((energy - batch["energy"]) / batch["n_atoms"]).square().mean()
        loss = loss + (forces - batch["forces"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (k + 1) % max(1, args.iterations // 10) == 0:
            recent = losses[-max(1, args.iterations // 10) :]
            print(f"{k + 1:6,} iterations: loss {sum(recent) / len(recent):.4f}", flush=True)
    seconds = time.perf_counter() - began

    found = evaluate(model, val, index, args.device)
    plot(found, scale, args.out / "parity.png")
    torch.save(model.state_dict(), args.out / "model.pt")
    tenth = max(1, args.iterations // 10)
    result = {
        "iterations": args.iterations,
        "seconds": seconds,
        "share_of_time_waiting_for_the_loader": waited / seconds,
        "loss_first_tenth": sum(losses[:tenth]) / tenth,
        "loss_last_tenth": sum(losses[-tenth:]) / tenth,
        "val_mae_energy_eV_per_atom": scale * float((found["energy"] - found["energy_label"]).abs().mean()),
        "val_mae_forces_eV_per_angstrom": scale * float((found["forces"] - found["forces_label"]).abs().mean()),
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
