"""A small student: PaiNN (Schütt, Unke and Gastegger, ICML 2021, arXiv:2102.03150), invariant energies and their gradient.

It is for comparing datasets in minutes, not for simulations: narrow, two rounds of messages, no charges and no spin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from mlffstore.training.batch import Batch

#: Distance up to which atoms see each other, angstrom.
CUTOFF = 5.0
_ELEMENTS = 119


class _Message(nn.Module):
    """What atoms learn from their neighbours."""

    def __init__(self, width: int, n_radial: int) -> None:
        super().__init__()
        self.scalars = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3 * width))
        self.filter = nn.Linear(n_radial, 3 * width)

    def forward(
        self, s: torch.Tensor, v: torch.Tensor, edges: torch.Tensor, radial: torch.Tensor, unit: torch.Tensor,
        fade: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        centre, neighbour = edges
        message = self.scalars(s)[neighbour] * self.filter(radial) * fade
        scalar, along, turned = message.chunk(3, dim=1)
        vector = unit[:, :, None] * along[:, None] + v[neighbour] * turned[:, None]
        return s.index_add(0, centre, scalar), v.index_add(0, centre, vector)


class _Update(nn.Module):
    """What atoms make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, 2 * width, bias=False)
        self.scalars = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, s: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = self.mix(v).chunk(2, dim=2)
        length = (right.square().sum(dim=1) + 1e-8).sqrt()
        a, b, c = self.scalars(torch.cat([s, length], dim=1)).chunk(3, dim=1)
        return s + a + b * (left * right).sum(dim=1), v + c[:, None] * left


class Student(nn.Module):
    """Energies and forces of a batch.

    Parameters
    ----------
    references : torch.Tensor, shape (119,), float64
        Energies of the elements, eV: what is learned are the energies above them.
    scale : float
        Typical force, eV/angstrom.
    width, layers, n_radial : int, optional
    """

    references: torch.Tensor
    centres: torch.Tensor

    def __init__(
        self, references: torch.Tensor, scale: float, *, width: int = 48, layers: int = 2, n_radial: int = 16
    ) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.kind = nn.Embedding(_ELEMENTS, width)
        self.messages = nn.ModuleList(_Message(width, n_radial) for _ in range(layers))
        self.updates = nn.ModuleList(_Update(width) for _ in range(layers))
        self.energy = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.register_buffer("references", references)
        self.register_buffer("centres", torch.arange(1, n_radial + 1) * (torch.pi / CUTOFF))

    def forward(self, batch: Batch, *, create_graph: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return energies (B,) float64, eV, and forces (A, 3), eV/angstrom.

        Parameters
        ----------
        batch : dict of torch.Tensor
            Of a `TorchDataset` with ``neighbours=CUTOFF``.
        create_graph : bool, optional
            Whether the forces are differentiated again, for training.
        """
        positions = batch["positions"].detach().requires_grad_(True)
        centre, neighbour = batch["edge_index"]
        step = positions[neighbour] + batch["shift"] - positions[centre]
        distance = step.norm(dim=1, keepdim=True).clamp(min=1e-3)
        radial = torch.sin(distance * self.centres) / distance
        fade = 0.5 * (torch.cos(torch.pi * distance / CUTOFF) + 1) * (distance < CUTOFF)
        s = self.kind(batch["numbers"])
        v = s.new_zeros((len(s), 3, self.width))
        for message, update in zip(self.messages, self.updates, strict=True):
            s, v = message(s, v, batch["edge_index"], radial, step / distance, fade)
            s, v = update(s, v)
        atoms = self.scale * self.energy(s)[:, 0].double()
        total = torch.zeros(len(batch["n_atoms"]), dtype=torch.float64, device=s.device)
        learned = total.index_add(0, batch["batch"], atoms)
        forces = -torch.autograd.grad(learned.sum(), positions, create_graph=create_graph)[0]
        return learned.index_add(0, batch["batch"], self.references[batch["numbers"]]), forces
