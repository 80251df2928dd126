"""CHGNet's layers of messages with fewer multiplications: the same function, and the same weights.

A message is a gated network of the features of an atom, of bonds and of an angle, put side by side. Its first layer is
linear, so each feature may be multiplied by its block of the weights before it is copied to the messages: there are ten to
a hundred times as many angles as atoms and bonds. Values differ from those of the package by rounding only.

Does not: change what is learnt, or read weights. `lean` takes a model that is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def lean(model: Any) -> None:
    """Replace the layers of messages of a CHGNet model by layers with the same weights that multiply less.

    Parameters
    ----------
    model : chgnet.model.CHGNet
        A model for inference: weights are copied, so it cannot be trained afterwards.
    """
    model.atom_conv_layers = nn.ModuleList(_Atoms(layer) for layer in model.atom_conv_layers)
    model.bond_conv_layers = nn.ModuleList(_Bonds(layer) for layer in model.bond_conv_layers)
    # Nothing reads the angles that the last of these layers gives.
    model.angle_layers = nn.ModuleList([*map(_Angles, model.angle_layers[:-1]), None])  # type: ignore[list-item]


class _Gated(nn.Module):
    """A gated network whose first layer takes each feature by itself."""

    def __init__(self, gated: Any) -> None:
        super().__init__()
        core = [layer for layer in gated.mlp_core.layers if isinstance(layer, nn.Linear)]
        gate = [layer for layer in gated.mlp_gate.layers if isinstance(layer, nn.Linear)]
        # Both networks at once: their outputs are side by side.
        self.weight = torch.cat([core[0].weight, gate[0].weight]).detach()
        self.bias = torch.cat([core[0].bias, gate[0].bias]).detach()
        self.core, self.gate = nn.ModuleList(core[1:]), nn.ModuleList(gate[1:])
        self.hidden = gated.mlp_core.layers[1] if self.core else None
        self.core_norm, self.gate_norm = gated.bn1, gated.bn2
        self.activation, self.sigmoid = gated.activation, gated.sigmoid

    def forward(self, features: Sequence[Tensor], rows: Sequence[Tensor | None]) -> Tensor:
        """Return the messages, shape (messages, width).

        Parameters
        ----------
        features : sequence of Tensor
            In the order of the columns of the weights, each of shape (rows, width).
        rows : sequence of Tensor or None
            The row of each feature that a message takes; None for the messages' own.
        """
        out, column = None, 0
        for values, row in zip(features, rows, strict=True):
            block = self.weight[:, column : column + values.shape[1]]
            product = linear(values, block, self.bias if column == 0 else None)
            product = product if row is None else product.index_select(0, row)
            out = product if out is None else out.add_(product)
            column += values.shape[1]
        assert out is not None
        if self.hidden is not None:
            out = self.hidden(out)
        core, gate = out.chunk(2, dim=1)
        for one, other in zip(self.core, self.gate, strict=True):
            core, gate = one(core), other(gate)
        messages: Tensor = self.activation(self.core_norm(core)) * self.sigmoid(self.gate_norm(gate))
        return messages


class _Atoms(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.messages, self.out, self.norm = _Gated(layer.twoBody_atom), layer.mlp_out, layer.atom_norm

    def forward(
        self,
        atom_feas: Tensor,
        bond_feas: Tensor,
        bond_weights: Tensor,
        atom_graph: Tensor,
        directed2undirected: Tensor,
    ) -> Tensor:
        centers, neighbors = atom_graph[:, 0], atom_graph[:, 1]
        messages = self.messages((atom_feas, bond_feas, atom_feas), (centers, directed2undirected, neighbors))
        messages = messages * bond_weights.index_select(0, directed2undirected)
        return _summed(self, atom_feas, messages, centers)


class _Bonds(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.messages, self.out, self.norm = _Gated(layer.twoBody_bond), layer.mlp_out, layer.bond_norm

    def forward(
        self, atom_feas: Tensor, bond_feas: Tensor, bond_weights: Tensor, angle_feas: Tensor, bond_graph: Tensor
    ) -> Tensor:
        centers, first, second = bond_graph.unbind(1)
        messages = self.messages((bond_feas, bond_feas, angle_feas, atom_feas), (first, second, None, centers))
        messages = messages * bond_weights.index_select(0, first) * bond_weights.index_select(0, second)
        return _summed(self, bond_feas, messages, first)


class _Angles(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.messages, self.norm = _Gated(layer.twoBody_bond), layer.angle_norm

    def forward(self, atom_feas: Tensor, bond_feas: Tensor, angle_feas: Tensor, bond_graph: Tensor) -> Tensor:
        centers, first, second = bond_graph.unbind(1)
        update = self.messages((bond_feas, bond_feas, angle_feas, atom_feas), (first, second, None, centers))
        return _normalised(self.norm, angle_feas + update)


def _summed(layer: Any, features: Tensor, messages: Tensor, owners: Tensor) -> Tensor:
    """Return the features with the messages added, each to its owner."""
    total = messages.new_zeros(features.shape).index_add_(0, owners, messages)
    return _normalised(layer.norm, features + layer.out(total))


def _normalised(norm: Any, features: Tensor) -> Tensor:
    out: Tensor = features if norm is None else norm(features)
    return out
