"""FeNNol models (``.fnx``), natively batched in padded groups so that the model is compiled a few times only."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.collect import collect
from mlffstore_teachers.domain import refusals
from mlffstore_teachers.groups import balanced_groups, predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch

#: Arrays of pairs and angles are this much longer than the first groups need, as every call computes what is padded ...
_HEADROOM = 1.05
#: ... and where later groups need more, this much longer than those need: growing means compiling again (seconds).
_GROWTH = 1.25
#: Padded sizes, atoms, of which the smallest that holds a group is taken; beyond them powers of two.
_SIZES = (64,)


class FeNNolTeacher:
    """A FeNNol model from a file, or a committee of several that agree on elements and units.

    Parameters
    ----------
    weights : path or sequence of paths
        ``.fnx`` files. Several are a committee: its labels are the means, see `spread`.
    name : str, optional
        Name of the label columns. Give models of different energy zeros different names.
    elements : iterable of int, optional
        Atomic numbers that the model knows, if its file does not say so.
    periodic : bool, optional
        Whether to label crystals too. Only for models that were trained on condensed phases; ANI-1x was not.
    batch_atoms : int, optional
        Largest number of atoms per call. A larger sample is labelled by itself.
    licence : str, optional
        SPDX identifier of the weights.

    Notes
    -----
    Ple, Adjoua, Lagardere and Piquemal, J. Chem. Phys. 161, 042502 (2024). Energies come in the unit that the model says.
    Atomic energies are summed in float64 here: the total of a large molecule has no digits to spare in float32.

    Files in pickle format are refused: loading them would run code that they contain.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] | None = None,
        *,
        name: str = "fennol",
        elements: Iterable[int] | None = None,
        periodic: bool = False,
        batch_atoms: int = 512,
        licence: str = "unknown",
    ) -> None:
        if importlib.util.find_spec("fennol") is None:
            raise missing_dependency("fennol", "fennol", "the teacher 'fennol'")
        if weights is None:
            raise TeacherError("fennol: expected a model file: --weights model.fnx, or weights='model.fnx'")
        if batch_atoms < 1:
            raise TeacherError(f"fennol: expected batch_atoms of at least 1, got {batch_atoms}")
        self.paths = [Path(weights)] if isinstance(weights, (str, Path)) else [Path(path) for path in weights]
        for path in self.paths:
            if not path.is_file():
                raise TeacherError(f"fennol: there is no file {path}; give the path of a .fnx model")
            if path.suffix in (".pkl", ".pickle"):
                raise TeacherError(f"fennol: {path} is a pickle, which may run any code; convert it to .fnx")
        if not self.paths:
            raise TeacherError("fennol: expected at least one model file, got none")
        self.batch_atoms, self._periodic = batch_atoms, periodic
        self._members: list[_Member] | None = None
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]
        self._info = TeacherInfo(
            name=name,
            elements=None if elements is None else frozenset(int(z) for z in elements),
            domains=frozenset({"molecule", "periodic"} if periodic else {"molecule"}),
            properties=("energy", "forces", "stress") if periodic else ("energy", "forces"),
            precision="float32",
            conservative=True,
            licence=licence,
            fingerprint="FeNNol, weights " + ", ".join(f"sha256:{digest}" for digest in digests),
            software={"fennol": version("fennol"), "jax": version("jax")},
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_members": None}  # loaded again where it is used

    @property
    def info(self) -> TeacherInfo:
        """The description of the teacher. The elements are those that all members know."""
        if self._info.elements is None:
            known = [member.elements for member in self._loaded() if member.elements is not None]
            if known:
                self._info = replace(self._info, elements=frozenset.intersection(*known))
        return self._info

    @property
    def n_compiled(self) -> int:
        """Number of compilations so far: one for each shape of a model's input."""
        return sum(member.n_compiled for member in self._members or ())

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample, many in one call; one that fails does not disturb the others."""
        return _mean(self.label_members(batch))

    def label_members(self, batch: SampleBatch) -> list[TeacherLabels]:
        """Return the labels of each member of the committee."""
        refused = refusals(self.info, batch, charged=False)
        out = []
        for member in self._loaded():
            reasons = list(refused)
            results: list[dict[str, Any] | None] = [None] * len(batch)
            periodic = [bool(row.all()) for row in batch.pbc]
            for kind in (False, True):
                wanted = [i for i, reason in enumerate(reasons) if not reason and periodic[i] == kind]
                call = _Call(member, batch, kind)
                several = balanced_groups(wanted, batch.n_atoms, self.batch_atoms, most=self.batch_atoms // 2 or 1)
                member.prepare([(int(batch.n_atoms[group].sum()), group) for group in several], call)
                for group in several:
                    predict(self._info.name, group, call, results, reasons)
            out.append(collect(self._info.name, batch, results, reasons, stress=self._periodic))
        return out

    def spread(self, batch: SampleBatch) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return how much the members of the committee differ.

        Returns
        -------
        energy : ndarray, shape (S,)
            Standard deviation of the energies an atom, eV. Members have the same zero.
        forces : ndarray, shape (A,)
            Root of the sum over x, y, z of the variances of the force on each atom, eV/angstrom.

        Raises
        ------
        TeacherError
            If there is only one member.
        """
        if len(self.paths) < 2:
            raise TeacherError(f"{self._info.name}: the spread of a committee needs at least two models, got one")
        members = self.label_members(batch)
        energy = np.std([one.energy for one in members], axis=0) / batch.n_atoms
        forces = np.sqrt(np.var([one.forces.astype(float) for one in members], axis=0).sum(axis=1))
        return energy, forces

    def _loaded(self) -> list[_Member]:
        if self._members is None:
            self._members = [_Member(path, self.batch_atoms) for path in self.paths]
            if len({member.unit for member in self._members}) > 1:
                raise TeacherError(f"{self._info.name}: the models of the committee have different energy units")
        return self._members


def _mean(members: list[TeacherLabels]) -> TeacherLabels:
    if len(members) == 1:
        return members[0]
    ok = np.all([one.ok for one in members], axis=0)
    reasons = tuple(
        next((r for r in several if r), "") for several in zip(*(one.reasons for one in members), strict=True)
    )
    stress = None
    if members[0].stress is not None:
        several = np.stack([one.stress for one in members if one.stress is not None])
        stress = np.asarray(several.mean(axis=0, dtype=np.float64), np.float32)
    forces = np.asarray(np.stack([one.forces for one in members]).mean(axis=0, dtype=np.float64), np.float32)
    return TeacherLabels(np.mean([one.energy for one in members], axis=0), forces, stress, ok, reasons)


class _Member:
    """One model, and for each padded size what FeNNol remembers of the shapes there."""

    def __init__(self, path: Path, batch_atoms: int) -> None:
        from ase.data import atomic_numbers
        from ase.units import Hartree
        from fennol import FENNIX

        try:
            self.model = FENNIX.load(path, use_atom_padding=True)
        except Exception as error:  # whatever its parser raises
            raise TeacherError(f"fennol: {path} is not a FeNNol model ({type(error).__name__}: {error})") from error
        self.unit = float(Hartree / self.model.Ha_to_model_energy)
        symbols = _species(self.model._input_args)
        self.elements = None if symbols is None else frozenset(atomic_numbers[symbol] for symbol in symbols)
        self.sizes = sorted({size for size in _SIZES if size < batch_atoms} | {batch_atoms})
        self._states: dict[tuple[int, int, bool], Any] = {}

    @property
    def n_compiled(self) -> int:
        jitted = (self.model._energy_and_forces, self.model._energy_and_forces_and_virial)
        return sum(int(function._cache_size()) for function in jitted)

    def shape_of(self, n_atoms: int, n_samples: int) -> tuple[int, int]:
        """Return the padded numbers of atoms and systems that hold so many, each with one to spare.

        There is always padding then, so that the shapes never differ. FeNNol looks at all pairs of atoms of every padded
        system, so these follow the samples closely, in powers of two.
        """
        size = next((size for size in self.sizes if size >= n_atoms), 1 << (n_atoms - 1).bit_length())
        return size + 1, 1 << n_samples.bit_length()

    def call(self, inputs: dict[str, Any], *, periodic: bool) -> dict[str, Any]:
        """Return the model's output for a batch, without padding."""
        key = (*self.shape_of(len(inputs["species"]), len(inputs["natoms"])), periodic)
        # The model holds one state; each padded size has its own.
        state = self._states.get(key) or self._fresh(*key[:2])
        object.__setattr__(self.model, "preproc_state", _with_species(state, inputs["species"]))
        function = self.model.energy_and_forces_and_virial if periodic else self.model.energy_and_forces
        output: dict[str, Any] = function(gpu_preprocessing=False, **inputs)[-1]
        self._states[key] = self.model.preproc_state
        return output

    def prepare(self, several: list[tuple[int, list[int]]], call: _Call) -> None:
        """Find the largest arrays of pairs and angles of several groups before the first is computed.

        Otherwise they would grow group by group, and each time the model would be compiled again, which takes seconds.
        """
        keys = [(*self.shape_of(n_atoms, len(group)), call.periodic) for n_atoms, group in several]
        fresh = set(keys) - set(self._states)
        for key, (_, group) in zip(keys, several, strict=True):
            if key in fresh:
                object.__setattr__(self.model, "preproc_state", self._states.get(key) or self._fresh(*key[:2]))
                with contextlib.suppress(Exception):  # what is wrong with the group shows when it is computed
                    self.model.preprocess(**call.inputs(call.part(group)))
                    self._states[key] = self.model.preproc_state
        for key in fresh & set(self._states):
            self._states[key] = _with_species(_with_headroom(self._states[key], _GROWTH))

    def _fresh(self, n_atoms: int, n_systems: int) -> Any:
        state = self.model.preprocessing.init()
        return _with_headroom({**state, "padder_state": {"prev_nat": n_atoms, "prev_nsys": n_systems}}, _HEADROOM)


def _with_headroom(state: Mapping[str, Any], factor: float) -> Any:
    """Return FeNNol's memory of shapes so that arrays of pairs and angles are longer by `factor` when they grow next."""
    from flax.core import FrozenDict

    layers = tuple(
        FrozenDict({**layer, "nblist_mult_size": factor}) if "nblist_mult_size" in layer else layer
        for layer in state["layers_state"]
    )
    return FrozenDict({**state, "layers_state": layers})


def _with_species(state: Mapping[str, Any], species: npt.NDArray[np.int32] | None = None) -> Any:
    """Return FeNNol's memory of shapes with room for more atoms of an element where these species, or any (None), need it.

    FeNNol keeps the atoms of each element in an array of its own, and grows that without any to spare.
    """
    from flax.core import FrozenDict

    layers = list(state["layers_state"])
    for i, layer in enumerate(layers):
        if "sizes" not in layer:
            continue
        sizes = {int(z): int(size) for z, size in layer["sizes"].items()}
        needed = (
            sizes
            if species is None
            else dict(zip(*(a.tolist() for a in np.unique(species, return_counts=True)), strict=True))
        )
        short = {z: n for z, n in needed.items() if species is None or n > sizes.get(z, 0)}
        if short:
            roomy = {z: -(-int(_HEADROOM * n + 4) // 8) * 8 for z, n in short.items()}
            layers[i] = FrozenDict({**layer, "sizes": {np.int32(z): np.int64(n) for z, n in (sizes | roomy).items()}})
    return FrozenDict({**state, "layers_state": tuple(layers)})


class _Call:
    """Labels a group of a batch with a member."""

    def __init__(self, member: _Member, batch: SampleBatch, periodic: bool) -> None:
        self.member, self.batch, self.periodic = member, batch, periodic

    def part(self, group: Sequence[int]) -> SampleBatch:
        """Return the samples of a group."""
        return self.batch.take(np.asarray(group))

    def inputs(self, part: SampleBatch) -> dict[str, Any]:
        """Return what FeNNol takes for these samples."""
        inputs: dict[str, Any] = {
            "species": part.numbers.astype(np.int32),
            "coordinates": part.positions.astype(np.float32),
            "natoms": part.n_atoms.astype(np.int32),
            "batch_index": np.repeat(np.arange(len(part), dtype=np.int32), part.n_atoms),
        }
        if not self.periodic:
            # Far from the origin float32 has fewer digits for distances.
            centre = np.add.reduceat(part.positions.astype(float), part.offsets[:-1]) / part.n_atoms[:, None]
            inputs["coordinates"] = (part.positions - centre[inputs["batch_index"]]).astype(np.float32)
        else:
            if part.n_atoms_total == len(part):
                raise ValueError("crystals of one atom cannot be padded; make a supercell")
            inputs["cells"] = part.cell.astype(np.float32)
            inputs["reciprocal_cells"] = np.linalg.inv(part.cell).astype(np.float32)
        return inputs

    def __call__(self, group: Sequence[int]) -> list[dict[str, Any]]:
        """Return energy, forces and stress of each sample of a group."""
        from ase.stress import full_3x3_to_voigt_6_stress

        part = self.part(group)
        output = self.member.call(self.inputs(part), periodic=self.periodic)
        forces = np.asarray(output["forces"], np.float64).reshape(-1, 3) * self.member.unit
        energies = self._energies(output, part) * self.member.unit
        out: list[dict[str, Any]] = []
        for i in range(len(part)):
            one = {"energy": float(energies[i]), "forces": forces[part.offsets[i] : part.offsets[i + 1]]}
            if self.periodic:
                virial = np.asarray(output["virial_tensor"][i], np.float64) * self.member.unit
                one["stress"] = full_3x3_to_voigt_6_stress(virial / abs(np.linalg.det(part.cell[i])))
            out.append(one)
        return out

    @staticmethod
    def _energies(output: dict[str, Any], part: SampleBatch) -> npt.NDArray[np.float64]:
        """Return total energies in the model's unit, atoms' terms summed in float64."""
        if "atomic_energies" not in output:
            return np.asarray(output["total_energy"], np.float64)[: len(part)]
        atoms = np.asarray(output["atomic_energies"], np.float64).reshape(-1)
        total = np.add.reduceat(atoms, part.offsets[:-1])
        if "system_energies" in output:
            total = total + np.asarray(output["system_energies"], np.float64)[: len(part)]
        return np.asarray(total)


def _species(node: Any) -> list[str] | None:
    """Return the symbols in a model's ``species_order``, wherever its modules say so."""
    if isinstance(node, dict):
        order = node.get("species_order")
        if isinstance(order, (list, tuple)) and all(isinstance(symbol, str) for symbol in order):
            return list(order)
        if isinstance(order, str):
            return [symbol.strip() for symbol in order.split(",")]
        children: Iterable[Any] = node.values()
    elif isinstance(node, (list, tuple)):
        children = node
    else:
        return None
    return next((symbols for child in children if (symbols := _species(child)) is not None), None)
