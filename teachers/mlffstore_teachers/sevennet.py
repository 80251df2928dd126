"""SevenNet-0: an equivariant model of crystals whose weights come with its package."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.ase import ASETeacher
from mlffstore_teachers.checks import check_device
from mlffstore_teachers.collect import failure, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: SevenNet's name of the model, and where its weights lie in the package.
_MODEL, _WEIGHTS = "7net-0", "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"


class SevenNetTeacher(ASETeacher):
    """SevenNet-0; see `sevennet_0`.

    Parameters
    ----------
    device : str
        Device of torch.
    """

    def __init__(self, device: str) -> None:
        super().__init__(_info(), functools.partial(_calculator, device))
        self._device = device

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Label every sample, with the properties `extra` of those that are given on request."""
        if not all(self.refusals(batch)):
            _loaded(self._device)  # what is wrong with the device is no fault of a sample
        return super().label_with(batch, extra)

    def hessian_product(self, batch: SampleBatch, probe: Array) -> Array:
        """Return the product of the Hessian of each sample with its direction, eV/angstrom^2, shape (A, 3), float32."""
        results: list[dict[str, Any] | None] = [None] * len(batch)
        reasons = self.refusals(batch)
        if not all(reasons):
            _loaded(self._device)
        for i, atoms in enumerate(batch.structures().to_ase()):
            if reasons[i]:
                continue
            try:
                results[i] = {"hessian_product": self._curvature(atoms, probe[batch.offsets[i] : batch.offsets[i + 1]])}
            except Exception as error:  # a model may raise anything; the reason is kept
                reasons[i] = failure(self._info.name, error)
        return joined("hessian_product", batch, results, reasons)

    def _result(self, atoms: Atoms, calculator: Calculator, names: Sequence[str]) -> dict[str, Any]:
        if "embedding" not in names:
            return super()._result(atoms, calculator, names)
        seen: list[Any] = []
        readout: Any = _model(calculator)["reduce_input_to_hidden"]
        hook = readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["x"].detach().cpu().numpy()))
        try:
            result = super()._result(atoms, calculator, names)
        finally:
            hook.remove()
        return {**result, "embedding": seen[0]}

    def _curvature(self, atoms: Atoms, direction: Array) -> Array:
        """Return the product of the Hessian of one sample with a direction, shape (N, 3)."""
        calculator: Any = _calculator(self._device, atoms)  # imports its package without the warnings of that
        import torch
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        graph = unlabeled_atoms_to_graph(atoms, calculator.cutoff, with_shift=False)
        data: Any = AtomGraphData.from_numpy_dict(graph)
        data = calculator.model._preprocess(data.to(self._device))
        edges = data["edge_vec"].requires_grad_(True)
        source, target = data["edge_index"]
        for name, module in _model(calculator).items():
            if name == "force_output":  # it frees the graph of the gradient
                break
            data = module(data)
        slopes = torch.autograd.grad(data["inferred_total_energy"].sum(), edges, create_graph=True)[0]
        # An edge goes from its source to its target: it changes by the difference of their displacements.
        moved = torch.as_tensor(direction, dtype=edges.dtype, device=edges.device)
        curvature = torch.autograd.grad((slopes * (moved[target] - moved[source])).sum(), edges)[0]
        product = torch.zeros_like(moved).index_add(0, target, curvature).index_add(0, source, -curvature)
        return np.asarray(product.cpu().numpy())


def sevennet_0(*, device: str = "cpu") -> SevenNetTeacher:
    """SevenNet-0 (MPtrj, PBE and PBE+U): crystals of 89 elements; refuses molecules. Slower than CHGNet, more exact.

    Parameters
    ----------
    device : str, optional
        Device of torch.

    Notes
    -----
    Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Version of July 2024; one sample a call.

    On request: atomic energies, whose sum is the energy, and the embedding, the 128 scalar features of each atom from which
    the model reads its energy. Hessian-vector products come from a second backward pass.
    """
    return SevenNetTeacher(device)


@functools.lru_cache(maxsize=2)
def _loaded(device: str) -> Calculator:
    check_device("sevennet-0", device)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # SevenNet recommends accelerators for GPUs, and deprecations of its own imports
        from sevenn.calculator import SevenNetCalculator

        calculator = SevenNetCalculator(_MODEL, device=device)
    calculator.model.requires_grad_(False)  # of the energy by positions only
    return calculator


def _model(calculator: Any) -> dict[str, Any]:
    """Return the modules of the network in their order."""
    return dict(calculator.model._modules)


def _calculator(device: str, _: Atoms) -> Calculator:
    calculator: Any = _loaded(device)
    calculator.reset()  # nothing of the sample before
    return calculator


@functools.cache
def _info() -> TeacherInfo:
    """Describe the model without importing it, which takes seconds."""
    spec = importlib.util.find_spec("sevenn")
    if spec is None or spec.origin is None:
        raise missing_dependency("sevenn", "sevennet", "the teacher 'sevennet-0'")
    weights = Path(spec.origin).parent / _WEIGHTS
    if not weights.is_file():
        raise TeacherError(f"sevennet-0: expected the weights in the package, at {weights}; sevenn 0.13 has them")
    return TeacherInfo(
        name="sevennet-0",
        elements=frozenset(range(1, 95)) - {84, 85, 86, 87, 88},  # those of MPtrj, as for CHGNet
        domains=frozenset({"periodic"}),
        properties=("energy", "forces", "stress"),
        on_request=("atomic_energies", "embedding"),
        widths={"embedding": 128},
        precision="float32",
        conservative=True,
        licence="MIT",
        fingerprint=f"{_MODEL}, weights sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
        software={"sevenn": version("sevenn"), "torch": version("torch"), "ase": version("ase")},
    )
