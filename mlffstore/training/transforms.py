"""Changes of a batch on its way to the model. They can be chained with `Compose`, pickled, and run in workers.

Each takes and returns a batch as `TorchDataset.batch` makes it, and leaves the tensors that it was given unchanged. A label
that a sample lacks stays 0.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from mlffstore.data.voigt import IN_MATRIX, IN_VOIGT
from mlffstore.errors import DataError
from mlffstore.training.window import RESERVED

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from mlffstore.training.batch import Batch


class Compose:
    """Several transforms, one after another."""

    def __init__(self, *transforms: Callable[[Batch], Batch]) -> None:
        self.transforms = transforms

    def __call__(self, batch: Batch) -> Batch:
        """Return the transformed batch."""
        for transform in self.transforms:
            batch = transform(batch)
        return batch

    def describe(self, turns: Mapping[str, str]) -> None:
        """Tell the transforms how labels turn; a dataset calls it."""
        for transform in self.transforms:
            if hasattr(transform, "describe"):
                transform.describe(turns)


class RandomRotation:
    """Turns every sample by a random rotation of its own: positions, cell and all labels together.

    Parameters
    ----------
    generator : torch.Generator, optional
        Source of the random numbers; by default torch's own, which its DataLoader seeds in each worker.
    turns : mapping of str to {"vector", "tensor", "invariant"}, optional
        How user columns turn: ``"vector"``, shape (..., 3), as R v; ``"tensor"``, shape (..., 3, 3), as R M R^T;
        ``"invariant"``, any shape, not at all. User columns with one number in a row, and those of integers and booleans,
        are invariant. Of others it has to be said.

    Raises
    ------
    DataError
        When a batch has a user column of several numbers in a row and `turns` does not name it.

    Notes
    -----
    Rotations are uniform (unit quaternions of normal numbers; Shoemake 1992).
    """

    def __init__(
        self,
        generator: torch.Generator | None = None,
        *,
        turns: Mapping[str, Literal["vector", "tensor", "invariant"]] | None = None,
    ) -> None:
        self.generator, self.turns = generator, dict(turns or {})
        #: How the labels of the dataset turn.
        self.labels: dict[str, str] = {}
        wrong = {kind for kind in self.turns.values() if kind not in ("vector", "tensor", "invariant")}
        if wrong:
            raise DataError(f"turns: expected 'vector', 'tensor' or 'invariant', got {', '.join(map(repr, wrong))}")

    def describe(self, turns: Mapping[str, str]) -> None:
        """Say how labels turn, as their properties do; a dataset calls it."""
        self.labels |= turns

    def __call__(self, batch: Batch) -> Batch:
        """Return the turned batch."""
        turn = rotations(len(batch["energy"]), self.generator).to(batch["positions"])
        atom = turn[batch["batch"]]
        out = dict(batch)
        for name in ("positions", "forces"):
            if name in batch:
                out[name] = torch.einsum("ai,aji->aj", batch[name], atom)
        out["cell"] = torch.einsum("bvi,bji->bvj", batch["cell"], turn)
        if "stress" in batch:
            full = batch["stress"][:, IN_VOIGT].reshape(-1, 3, 3)
            out["stress"] = (turn @ full @ turn.transpose(1, 2)).reshape(-1, 9)[:, IN_MATRIX]
        if "shift" in batch:
            out["shift"] = torch.einsum("ei,eji->ej", batch["shift"], turn[batch["batch"][batch["edge_index"][0]]])
        for name, tensor in batch.items():
            if name not in RESERVED and tensor.is_floating_point() and tensor.dim() > 1:
                out[name] = self._turned(name, tensor, (atom if len(tensor) == len(atom) else turn).to(tensor))
        return out

    def _turned(self, name: str, tensor: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """Return a user column, of which each row has its rotation."""
        kind = self.turns.get(name) or self.labels.get(name)
        if kind == "tensor" and name in self.labels and tensor.shape[-1] == len(IN_MATRIX):
            full = tensor[..., IN_VOIGT].reshape(*tensor.shape[:-1], 3, 3)
            turned = torch.einsum("nji,n...ik,nlk->n...jl", turn, full, turn)
            return turned.reshape(*tensor.shape[:-1], 9)[..., IN_MATRIX]
        last = {"vector": (3,), "tensor": (3, 3), "invariant": (), "scalar": ()}.get(kind or "")
        if last is None:
            raise DataError(
                f"RandomRotation: expected `turns` to name the user column {name!r}, shape {tuple(tensor.shape)}; give "
                f"turns={{{name!r}: 'vector'}}, 'tensor' or 'invariant', or leave it out with TorchDataset(columns=...)"
            )
        if last and tuple(tensor.shape[1:][-len(last) :]) != last:
            raise DataError(
                f"RandomRotation: {name!r} is no {kind}: expected last dimensions {last}, got {tuple(tensor.shape)}"
            )
        if kind == "vector":
            return torch.einsum("n...i,nji->n...j", tensor, turn)
        return torch.einsum("nji,n...ik,nlk->n...jl", turn, tensor, turn) if kind == "tensor" else tensor


def rotations(n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return n random rotation matrices, shape (n, 3, 3), float64; ``x @ R.T`` turns rows of coordinates."""
    from scipy.spatial.transform import Rotation

    quaternions = torch.randn(n, 4, dtype=torch.float64, generator=generator).numpy()
    return torch.from_numpy(Rotation.from_quat(quaternions).as_matrix())


class ReferenceEnergy:
    """Subtracts the energies of the elements from total and atomic energies, in float64.

    Parameters
    ----------
    energies : mapping of str or int to float
        Symbol or atomic number -> eV, such as ``normalisation["element_energies_eV"]["values"]``.

    Raises
    ------
    DataError
        If a key is no element, or an energy is not finite.
    """

    def __init__(self, energies: Mapping[Any, float]) -> None:
        from ase.data import atomic_numbers

        table = torch.full((256,), torch.nan, dtype=torch.float64)
        for key, value in energies.items():
            number = int(key) if str(key).isdigit() else atomic_numbers.get(key, 0)
            if not 1 <= number <= 118:
                raise DataError(f"ReferenceEnergy: expected symbols or atomic numbers of elements, got {key!r}")
            table[number] = _finite(f"ReferenceEnergy: energy of {key!r}", value)
        self.table = table

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with referenced energies."""
        self.table = self.table.to(batch["numbers"].device)
        atom_energies = self.table[batch["numbers"]]
        mask = batch.get("energy_mask")
        of_samples = atom_energies if mask is None else atom_energies.masked_fill(~mask[batch["batch"]], 0.0)
        needed = of_samples
        if _ATOMIC in batch:
            needed = needed + _of_labelled_atoms(batch, atom_energies)
        if torch.isnan(needed).any():
            missing = sorted(set(batch["numbers"][torch.isnan(needed)].tolist()))
            raise DataError(
                f"ReferenceEnergy: expected an energy of every element, got none of the atomic numbers {missing}"
            )
        total = torch.zeros_like(batch["energy"]).index_add_(0, batch["batch"], of_samples)
        out = {**batch, "energy": batch["energy"] - total}
        if _ATOMIC in batch:
            out[_ATOMIC] = _of_labelled_atoms(batch, batch[_ATOMIC] - atom_energies.to(batch[_ATOMIC]))
        return out


class Normalise:
    """Subtracts a shift per atom from energies and divides what is derived from them by a scale.

    Parameters
    ----------
    shift : float
        eV per atom. Atomic energies lose it too, so that they still add up to the energy.
    scale : float
        eV. Energies, atomic energies, forces, stress, Hessian-vector products and the spreads of a committee keep their
        relations: forces are still minus the gradient of the energy. Other labels and user columns stay as they are.

    Raises
    ------
    DataError
        If a number is not finite, or the scale not positive.
    """

    def __init__(self, shift: float, scale: float) -> None:
        self.shift, self.scale = _finite("Normalise: shift", shift), _finite("Normalise: scale", scale)
        if self.scale <= 0:
            raise DataError(f"Normalise: expected a positive scale, got {scale!r}")

    def __call__(self, batch: Batch) -> Batch:
        """Return the normalised batch."""
        energy = (batch["energy"] - self.shift * batch["n_atoms"]) / self.scale
        if "energy_mask" in batch:
            energy = energy.masked_fill(~batch["energy_mask"], 0.0)
        out = {**batch, "energy": energy}
        if _ATOMIC in batch:
            out[_ATOMIC] = _of_labelled_atoms(batch, (batch[_ATOMIC] - self.shift) / self.scale)
        for name in ("forces", "stress", "hessian_product", "energy_std", "forces_std"):
            if name in batch:
                out[name] = batch[name] / self.scale
        return out


_ATOMIC = "atomic_energies"


def _of_labelled_atoms(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """Return changed atomic energies, 0 of samples that have none."""
    mask = batch.get(f"{_ATOMIC}_mask")
    return values if mask is None else values.masked_fill(~mask[batch["batch"]], 0.0)


def _finite(what: str, value: Any) -> float:
    """Return a number as a float; raise `DataError` if it is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{what}: expected a finite number, got {value!r}")
    return number


def from_statistics(path: str | os.PathLike[str], teacher: str | None = None) -> Compose:
    """Return `ReferenceEnergy` and `Normalise` of a file that `mlffstore stats --out` or a release wrote.

    The scale is the root mean square of the force components of the split train, as in MACE.

    Raises
    ------
    DataError
        If it is no such file, or the split train has no forces.
    """
    import yaml

    from mlffstore.data.labels import choose_teacher

    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        normal = document["normalisation"]
        values = normal[choose_teacher(tuple(normal), teacher)]
        energies, shift = values["element_energies_eV"]["values"], values["referenced_energy_eV_per_atom"]
        scale = values["mace"]["std"]
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"from_statistics: expected {path} to be what 'mlffstore stats --out' or a release wrote, got "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if scale is None:
        raise DataError(
            f"from_statistics: expected forces in the split train, whose root mean square is the scale, got none in {path}; "
            f"choose the scale: Compose(ReferenceEnergy({{...}}), Normalise(shift={shift['mean']}, scale={shift['std']})), "
            "with the energies of element_energies_eV in that file"
        )
    return Compose(ReferenceEnergy(energies), Normalise(shift["mean"], scale))
