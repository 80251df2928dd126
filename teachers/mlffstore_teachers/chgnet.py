"""CHGNet, natively batched: the default teacher of crystals."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.ase import other_properties
from mlffstore_teachers.checks import check_device, check_whole
from mlffstore_teachers.chgnet_graphs import graph_of
from mlffstore_teachers.collect import collect, failure, joined
from mlffstore_teachers.domain import refusals
from mlffstore_teachers.groups import groups, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

#: Angles of an atom of most crystals, at most; each takes about 0.1 MB.
_ANGLES = 128
#: Vacuum around a molecule, angstrom: more than the model's cutoff of 6, so that its images do not see each other.
_VACUUM = 8.0


class CHGNetTeacher:
    """CHGNet 0.3.0 (MPtrj, PBE and PBE+U): crystals of 89 elements; refuses molecules unless asked for them.

    Parameters
    ----------
    batch_atoms : int, optional
        Atoms of one call of the model, at most (a larger sample goes alone); those of a dense crystal count for more.
        Bounds the memory; on a CPU more is not faster (dense crystals have a hundred neighbours within the cutoff of 6
        angstrom), on a GPU it is.
    device : str, optional
        Device of torch.
    molecules : bool, optional
        Whether samples that are not periodic are labelled too, so that one teacher, with one zero of the energy, labels a
        whole mix of molecules and crystals. They lie outside the domain of the model. Charged samples are refused.

    Notes
    -----
    Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3. The weights come with the package.
    CHGNet gives energies in eV per ATOM; they are converted. Forces and stress are the gradient of the energy in one
    backward pass, where the package makes two that can be differentiated again; and a message's features are multiplied by
    their weights before they are copied to the messages (`chgnet_layers`). The numbers are the same to rounding.

    The magnetic moments are absolute values, Bohr magnetons per atom: the model does not know their signs.

    On request (`label_with`): atomic energies, which are the model's site energies and the energies of the elements that it
    adds; and the embedding, the 64 features of each atom before the last convolution, from which the model predicts the
    magnetic moment. Hessian-vector products come from a second backward pass. They are those of the very point: the
    curvature of CHGNet's energy changes by a tenth and more within 0.005 angstrom, so that differences of forces over wider
    steps give other numbers.

    The energy of a molecule is that of the same model: nothing beyond the cutoff of 6 angstrom counts, so a box of vacuum
    changes nothing. On 62 neutral molecules and 32 clusters in thermal motion, its forces differ from those of GFN2-xTB by
    0.31 and 0.35 of the rms force (SevenNet-0, at twice the cost, by 0.28 and 0.33; GFN1-xTB by 0.10 and 0.11).
    """

    def __init__(self, *, batch_atoms: int = 64, device: str = "cpu", molecules: bool = False) -> None:
        check_whole("chgnet", "batch_atoms", batch_atoms)
        if not isinstance(molecules, bool):
            raise TeacherError(f"chgnet: expected molecules of true or false, got {molecules!r}")
        self.batch_atoms, self.device = batch_atoms, device
        # The fingerprint is the same: it is one function of the structure, whatever it is asked for.
        self._info = replace(_info(), domains=frozenset({"periodic", "molecule"})) if molecules else _info()
        self._model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # the weights are loaded again where it is used

    @property
    def info(self) -> TeacherInfo:
        """What the teacher is."""
        return self._info

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample, many in one call of the model; one that fails does not disturb the others."""
        return self.label_with(batch, ())

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Label every sample, with the properties `extra` of those that are given on request."""
        reasons = refusals(self._info, batch, charged=False)
        call = functools.partial(self._call, np.asarray(batch.pbc.all(axis=1)), frozenset(extra))
        results = self._each(batch, reasons, call)
        more = (*other_properties(self._info), *extra)
        return collect(self._info.name, batch, results, reasons, stress=True, more=more, widths=self._info.widths)

    def hessian_product(self, batch: SampleBatch, probe: Array) -> Array:
        """Return the product of the Hessian of each sample with its direction, eV/angstrom^2, shape (A, 3), float32."""
        reasons = refusals(self._info, batch, charged=False)
        results = self._each(batch, reasons, functools.partial(self._curvature, batch, np.asarray(probe)))
        return joined("hessian_product", batch, results, reasons)

    def _each(
        self,
        batch: SampleBatch,
        reasons: list[str],
        call: Callable[[dict[int, Any], Sequence[int]], list[dict[str, Any]]],
    ) -> list[dict[str, Any] | None]:
        """Return what `call` says of each sample that is not refused: it takes graphs by sample, and a group of samples."""
        results: list[dict[str, Any] | None] = [None] * len(batch)
        graphs: dict[int, Any] = {}
        if not all(reasons):
            self._loaded()  # what is wrong with the device is no fault of a sample
        for i in (i for i, reason in enumerate(reasons) if not reason):
            try:
                graphs[i] = self._graph(batch, i)
            except Exception as error:  # isolated atoms and whatever else pymatgen raises
                reasons[i] = failure(self._info.name, error)
        # A dense crystal has far more angles than atoms, and its memory grows with them.
        sizes = batch.n_atoms.astype(np.int64)
        for i, graph in graphs.items():
            sizes[i] = max(sizes[i], len(graph.bond_graph) // _ANGLES)
        for group in groups(list(graphs), sizes, self.batch_atoms):
            predict(self._info.name, group, functools.partial(call, graphs), results, reasons)
        return results

    def _loaded(self) -> Any:
        if self._model is None:
            check_device(self._info.name, self.device)
            # CHGNet prints on loading, and deprecations of its own imports say nothing to our users.
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                from chgnet.model import CHGNet

                from mlffstore_teachers.chgnet_layers import lean

                self._model = CHGNet.load(use_device=self.device, verbose=False)
            self._model.eval()
            self._model.requires_grad_(False)  # of the energy by positions and strains only
            lean(self._model)
        return self._model

    def _graph(self, batch: SampleBatch, i: int) -> Any:
        atoms = slice(batch.offsets[i], batch.offsets[i + 1])
        positions, cell = batch.positions[atoms].astype(np.float64), batch.cell[i]
        if not batch.pbc[i].any():
            cell = np.diag(np.ptp(positions, axis=0) + _VACUUM)
        converter = self._loaded().graph_converter
        return graph_of(batch.numbers[atoms], positions, cell, converter.atom_graph_cutoff, converter.bond_graph_cutoff)

    def _batched(self, graphs: dict[int, Any], group: Sequence[int], *, stress: bool) -> tuple[list[Any], Any]:
        """Return the graphs of a group, and CHGNet's batch of them."""
        from chgnet.model.model import BatchedGraph

        model = self._loaded()
        chosen = [graphs[i].to(self.device) for i in group]
        with warnings.catch_warnings():
            # CHGNet converts volumes that require gradients; torch warns once per process.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            batched = BatchedGraph.from_graphs(
                chosen,
                bond_basis_expansion=model.bond_basis_expansion,
                angle_basis_expansion=model.angle_basis_expansion,
                compute_stress=stress,
            )
        return chosen, batched

    def _call(
        self, periodic: Array, extra: frozenset[str], graphs: dict[int, Any], group: Sequence[int]
    ) -> list[dict[str, Any]]:
        import torch
        from ase.stress import full_3x3_to_voigt_6_stress

        model = self._loaded()
        chosen, batched = self._batched(graphs, group, stress=True)
        prediction = model._compute(
            batched,
            compute_magmom="magmoms" in self._info.properties,
            return_site_energies="atomic_energies" in extra,
            return_atom_feas="embedding" in extra,
        )
        per_atom, n_atoms = prediction["e"], prediction["atoms_per_graph"]
        gradients = torch.autograd.grad((per_atom * n_atoms).sum(), [*batched.atom_positions, *batched.strains])
        per_atom = (per_atom + model.composition_model(chosen)).detach().cpu().numpy()
        results: list[dict[str, Any]] = []
        for k, i in enumerate(group):
            forces = -gradients[k].cpu().numpy()
            results.append({"energy": float(per_atom[k]) * len(forces), "forces": forces})
            if "m" in prediction:
                results[k]["magmoms"] = prediction["m"][k].detach().cpu().numpy()
            if periodic[i]:
                # The derivative by the strain of the lattice's rows, per volume: tension positive, eV/angstrom^3.
                stress = gradients[len(group) + k].cpu().numpy().astype(np.float64) / abs(float(batched.volumes[k]))
                results[k]["stress"] = full_3x3_to_voigt_6_stress(stress)
            if "atomic_energies" in extra:
                elements = model.composition_model.get_site_energies([chosen[k]])[0].cpu().numpy()
                sites = prediction["site_energies"][k].detach().cpu().numpy()
                results[k]["atomic_energies"] = sites.astype(np.float64) + elements
            if "embedding" in extra:
                results[k]["embedding"] = prediction["atom_fea"][k].detach().cpu().numpy()
        return results

    def _curvature(
        self, batch: SampleBatch, probe: Array, graphs: dict[int, Any], group: Sequence[int]
    ) -> list[dict[str, Any]]:
        import torch

        _, batched = self._batched(graphs, group, stress=True)  # positions take gradients with strains only
        prediction = self._loaded()._compute(batched)
        energy = (prediction["e"] * prediction["atoms_per_graph"]).sum()
        gradients = torch.autograd.grad(energy, batched.atom_positions, create_graph=True)
        directions = [
            torch.as_tensor(
                probe[batch.offsets[i] : batch.offsets[i + 1]], dtype=gradients[0].dtype, device=self.device
            )
            for i in group
        ]
        slope = sum((g * u).sum() for g, u in zip(gradients, directions, strict=True))
        # The samples of a group do not depend on each other: one pass gives the product of each.
        products = torch.autograd.grad(slope, batched.atom_positions)
        return [{"hessian_product": product.cpu().numpy()} for product in products]


@functools.cache
def _info() -> TeacherInfo:
    """Describe the model without importing it, which takes seconds."""
    spec = importlib.util.find_spec("chgnet")
    if spec is None or spec.origin is None:
        raise missing_dependency("chgnet", "chgnet", "the teacher 'chgnet'")
    weights = sorted((Path(spec.origin).parent / "pretrained" / "0.3.0").glob("*.pth.tar"))
    if len(weights) != 1:
        raise TeacherError(f"chgnet: expected the weights of version 0.3.0 in the package, got {len(weights)} files")
    digest = hashlib.sha256(weights[0].read_bytes()).hexdigest()
    return TeacherInfo(
        name="chgnet",
        # The elements of MPtrj: all up to Pu but Po, At, Rn, Fr and Ra (Deng et al., figure 2).
        elements=frozenset(range(1, 95)) - {84, 85, 86, 87, 88},
        domains=frozenset({"periodic"}),
        properties=("energy", "forces", "stress", "magmoms"),
        on_request=("atomic_energies", "embedding"),
        widths={"embedding": 64},
        precision="float32",
        conservative=True,
        licence="BSD-3-Clause",
        fingerprint=f"CHGNet 0.3.0, weights sha256:{digest}",
        software={"chgnet": version("chgnet"), "torch": version("torch"), "pymatgen": version("pymatgen")},
    )
