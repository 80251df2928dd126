"""Orb-v2 and Orb-v3, natively batched graphs."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.hessian import require_conservative
from mlffstore.contracts.protocols import TeacherInfo
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.checks import check_device, check_whole
from mlffstore_teachers.collect import collect, joined
from mlffstore_teachers.domain import refusals
from mlffstore_teachers.groups import groups, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlffstore.contracts.protocols import TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


#: Features of an atom in all models of orb-models that are listed here.
_WIDTH = 256


class OrbTeacher:
    """A model of the package orb-models.

    Parameters
    ----------
    model : str
        Name of a function of `orb_models.forcefield.pretrained`, such as ``"orb_v2"``.
    name : str
        Name of the label columns.
    conservative : bool
        Whether forces and stress are gradients of the energy.
    weights : path, optional
        File with the state dict. By default the package downloads its own weights when they are first needed.
    device : str, optional
        Device of torch, such as ``"cuda"``.
    precision : str, optional
        As in orb-models: "float32-high", "float32-highest" or "float64".
    compile : bool, optional
        Compile the model. Off by default on a CPU, the package's choice elsewhere.
    batch_atoms : int, optional
        Atoms of one call, at most (a larger sample goes alone); halved when a GPU's memory is full.

    Notes
    -----
    Neumann et al., arXiv:2410.22570 (v2); Rhodes et al., arXiv:2504.06231 (v3). The forces of Orb-v2 come from a head of
    their own, with net force and torque removed: they differ from -dE/dx, and `mlffstore teachers check` says by how much.
    It therefore has no Hessian. Conservative models differentiate their forces once more.

    On request (`label_with`): the embedding, the features of each atom from which the heads predict. They need not stay the
    same when the structure turns, as nothing in the model does so by construction. The energy is read from the mean of these
    features: there are no atomic energies.
    """

    def __init__(
        self,
        model: str,
        name: str,
        *,
        conservative: bool,
        weights: str | Path | None = None,
        device: str = "cpu",
        precision: str = "float32-high",
        compile: bool | None = None,
        batch_atoms: int = 1024,
    ) -> None:
        if importlib.util.find_spec("orb_models") is None:
            raise missing_dependency("orb-models", "orb", f"the teacher {name!r}")
        check_whole(name, "batch_atoms", batch_atoms)
        if weights is not None and not Path(weights).is_file():
            raise TeacherError(f"{name}: there is no file {weights}; give the path of the model's state dict")
        self.model_name, self.name, self.conservative = model, name, conservative
        self.weights = None if weights is None else Path(weights)
        self.device, self.precision, self.batch_atoms = device, precision, batch_atoms
        self.compile = False if compile is None and device == "cpu" else compile
        self._model: Any = None
        self._adapter: Any = None

    #: The weights may have to be fetched before `info` is known.
    @property
    def downloads(self) -> bool:
        """Whether `info` and `label` fetch the weights from the network."""
        return self.weights is None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_adapter": None}  # loaded again where it is used

    @functools.cached_property
    def info(self) -> TeacherInfo:
        """What the teacher is."""
        digest = hashlib.sha256(self._file().read_bytes()).hexdigest()
        return TeacherInfo(
            name=self.name,
            elements=frozenset(range(1, 119)),
            domains=frozenset({"molecule", "periodic"}),
            properties=("energy", "forces", "stress"),
            precision="float64" if self.precision == "float64" else "float32",
            conservative=self.conservative,
            licence="Apache-2.0",
            fingerprint=f"{self.model_name}, {self.precision}, weights sha256:{digest}",
            software={"orb-models": version("orb-models"), "torch": version("torch")},
            on_request=("embedding",),
            widths={"embedding": _WIDTH},
            equivariant=False,  # the network sees directions; v3 was only trained to turn with the structure
        )

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample, many in one call of the model; one that fails does not disturb the others."""
        return self.label_with(batch, ())

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Label every sample, with the properties `extra` of those that are given on request."""
        reasons = refusals(self.info, batch, charged=False)
        results = self._each(batch, reasons, functools.partial(self._call, "embedding" in extra))
        return collect(self.name, batch, results, reasons, stress=True, more=tuple(extra), widths=self.info.widths)

    def hessian_product(self, batch: SampleBatch, probe: Array) -> Array:
        """Return the product of the Hessian of each sample with its direction, eV/angstrom^2, shape (A, 3), float32.

        Raises
        ------
        TeacherError
            If the forces of the model are no gradient.
        """
        require_conservative(self.info)
        reasons = refusals(self.info, batch, charged=False)
        directions = np.split(np.asarray(probe), batch.offsets[1:-1])
        results = self._each(batch, reasons, functools.partial(self._curvature, directions))
        return joined("hessian_product", batch, results, reasons)

    def _each(
        self, batch: SampleBatch, reasons: list[str], call: Callable[[list[Any], Sequence[int]], list[dict[str, Any]]]
    ) -> list[dict[str, Any] | None]:
        """Return what `call` says of each sample that is not refused: it takes all frames, and a group of samples."""
        results: list[dict[str, Any] | None] = [None] * len(batch)
        self._loaded()  # what is wrong with the weights is no fault of a sample
        todo = [i for i, reason in enumerate(reasons) if not reason]
        frames = batch.structures().to_ase()
        for frame, charge, multiplicity in zip(frames, batch.charge, batch.multiplicity, strict=True):
            frame.info = {"charge": float(charge), "spin": float(multiplicity)}  # orb-models wants both or neither
        while todo:
            # Anew for each group: the budget may have been halved.
            group = groups(todo, batch.n_atoms, self.batch_atoms)[0]
            predict(self.name, group, functools.partial(call, frames), results, reasons, self._shrink)
            taken = set(group)
            todo = [i for i in todo if i not in taken]
        return results

    def _shrink(self) -> None:
        import torch

        self.batch_atoms = max(1, self.batch_atoms // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _call(self, embedding: bool, frames: list[Any], group: Sequence[int]) -> list[dict[str, Any]]:
        model = self._loaded()
        chosen = [frames[i] for i in group]
        counts = np.array([len(frame) for frame in chosen])
        seen: list[Any] = []
        hook = model.model.register_forward_hook(lambda *call: seen.append(call[-1]["node_features"]))
        try:
            out = model.predict(self._graphs(chosen))
        finally:
            hook.remove()
        outputs = {
            name: value.detach().cpu().double().numpy() for name, value in out.items() if hasattr(value, "detach")
        }
        names = ("forces", "stress") if not self.conservative else (
            getattr(model, "grad_forces_name", "grad_forces"), getattr(model, "grad_stress_name", "grad_stress")
        )  # fmt: skip
        energy = outputs["energy"].reshape(-1)
        forces = np.split(outputs[names[0]].reshape(-1, 3), np.cumsum(counts)[:-1])
        features = np.split(seen[0].detach().cpu().float().numpy(), np.cumsum(counts)[:-1]) if embedding else []
        results: list[dict[str, Any]] = []
        for i, frame in enumerate(chosen):
            one = {"energy": float(energy[i]), "forces": forces[i]}
            if frame.pbc.all() and names[1] in outputs:
                one["stress"] = outputs[names[1]].reshape(len(chosen), -1)[i][:6]  # as ASE orders it
            if embedding:
                one["embedding"] = features[i]
            results.append(one)
        return results

    def _curvature(self, directions: list[Array], frames: list[Any], group: Sequence[int]) -> list[dict[str, Any]]:
        import torch

        model = self._loaded()
        graphs = self._graphs([frames[i] for i in group])
        # The forward pass keeps the graph of the gradient only if it believes that the model is being trained. Layers of the
        # model have a flag of their own and stay as they are.
        model.training = True
        try:
            out = model(graphs)
        finally:
            model.training = False
        forces = out[getattr(model, "grad_forces_name", "grad_forces")]
        direction = torch.as_tensor(
            np.concatenate([directions[i] for i in group]), dtype=forces.dtype, device=self.device
        )
        product = torch.autograd.grad(-(forces * direction).sum(), graphs.node_features["positions"])[0]
        counts = np.cumsum([len(frames[i]) for i in group])[:-1]
        return [{"hessian_product": some} for some in np.split(product.cpu().numpy(), counts)]

    def _graphs(self, frames: list[Any]) -> Any:
        if self._adapter is not None:  # orb-models 0.6 and later
            return self._adapter.from_ase_atoms_list(frames, device=self.device)
        from orb_models.forcefield import atomic_system, base

        config = self._loaded().system_config
        graphs = [atomic_system.ase_atoms_to_atom_graphs(frame, config, device=self.device) for frame in frames]
        return base.batch_graphs(graphs)

    def _loaded(self) -> Any:
        if self._model is None:
            check_device(self.name, self.device)
            path = self._file()
            try:
                with warnings.catch_warnings():
                    # orb-models says that it sets torch's default dtype, which is what `precision` asks for.
                    warnings.filterwarnings("ignore", message="Setting global torch default dtype")
                    loaded = self._function()(
                        weights_path=str(path), device=self.device, precision=self.precision, compile=self.compile
                    )
            except Exception as error:  # a state dict of another architecture, a broken file
                raise TeacherError(
                    f"{self.name}: {path} does not hold the weights of this model ({type(error).__name__}: "
                    f"{str(error).splitlines()[0][:200] if str(error) else ''}); check the file"
                ) from error
            self._model, self._adapter = loaded if isinstance(loaded, tuple) else (loaded, None)
            self._model.eval()
        return self._model

    def _function(self) -> Any:
        from orb_models.forcefield import pretrained

        return getattr(pretrained, self.model_name)

    def _file(self) -> Path:
        """Return the file with the weights, after fetching it if it was not given and is not there."""
        if self.weights is not None:
            return self.weights
        url = inspect.signature(self._function()).parameters["weights_path"].default
        try:
            from cached_path import cached_path

            return Path(cached_path(url))
        except Exception as error:  # no network, a proxy, a full disk
            raise TeacherError(
                f"{self.name}: the weights could not be fetched from {url} ({type(error).__name__}); fetch that file on a "
                "machine with a network and give its path: --weights FILE, or weights='FILE'"
            ) from error


def orb_v2(**options: Any) -> OrbTeacher:
    """Orb-v2 (MPtrj and Alexandria): all elements, molecules and crystals; direct forces.

    Options: ``weights``, ``device``, ``precision``, ``compile``, ``batch_atoms``, see `OrbTeacher`.
    """
    return OrbTeacher("orb_v2", "orb-v2", conservative=False, **options)


def orb_v3_conservative_inf_omat(**options: Any) -> OrbTeacher:
    """Orb-v3 (OMat24), conservative, unlimited neighbours: the most accurate."""
    return OrbTeacher("orb_v3_conservative_inf_omat", "orb-v3-conservative-inf-omat", conservative=True, **options)


def orb_v3_conservative_20_omat(**options: Any) -> OrbTeacher:
    """Orb-v3 (OMat24), conservative, 20 neighbours."""
    return OrbTeacher("orb_v3_conservative_20_omat", "orb-v3-conservative-20-omat", conservative=True, **options)


def orb_v3_direct_20_omat(**options: Any) -> OrbTeacher:
    """Orb-v3 (OMat24), direct forces, 20 neighbours: the quickest."""
    return OrbTeacher("orb_v3_direct_20_omat", "orb-v3-direct-20-omat", conservative=False, **options)
