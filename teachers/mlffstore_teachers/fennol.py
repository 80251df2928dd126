"""FeNNol models (``.fnx``), natively batched in padded groups so that the model is compiled a few times only."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.contracts.protocols import TeacherInfo, TeacherLabels
from mlffstore.data.spread import principal_deviations
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.checks import check_whole
from mlffstore_teachers.collect import collect, joined
from mlffstore_teachers.domain import refusals
from mlffstore_teachers.fennol_member import Call, Member
from mlffstore_teachers.groups import balanced_groups, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


class FeNNolTeacher:
    """A FeNNol model from a file, or a committee of several that agree on elements and units.

    Parameters
    ----------
    weights : path or sequence of paths
        ``.fnx`` files. Several are a committee: its labels are the means of the members'. The properties `energy_std` and
        `forces_std` are the standard deviations about these means (divided by the number of members), eV per sample and
        eV/angstrom along the principal axes of the scatter, see `mlffstore.data.spread`; `spread` has them per atom.
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

    On request (`label_with`): atomic energies, if the energy is nothing but their sum; and, of a single model, the features
    of its module ``embedding`` (384 numbers per atom for ANI-1x: its fixed descriptors). Hessian-vector products come from
    forward differentiation of the gradient (`jax.jvp`).

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
        check_whole("fennol", "batch_atoms", batch_atoms)
        self.paths = [Path(weights)] if isinstance(weights, (str, Path)) else [Path(path) for path in weights]
        for path in self.paths:
            if not path.is_file():
                raise TeacherError(f"fennol: there is no file {path}; give the path of a .fnx model")
            if path.suffix in (".pkl", ".pickle"):
                raise TeacherError(f"fennol: {path} is a pickle, which may run any code; convert it to .fnx")
        if not self.paths:
            raise TeacherError("fennol: expected at least one model file, got none")
        self.batch_atoms, self._periodic = batch_atoms, periodic
        self._members: list[Member] | None = None
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]
        self._info = TeacherInfo(
            name=name,
            elements=None if elements is None else frozenset(int(z) for z in elements),
            domains=frozenset({"molecule", "periodic"} if periodic else {"molecule"}),
            properties=(
                "energy", "forces", *(["stress"] if periodic else ()),
                *(["energy_std", "forces_std"] if len(self.paths) > 1 else ()),
            ),
            precision="float32",
            conservative=True,
            licence=licence,
            fingerprint="FeNNol, weights " + ", ".join(f"sha256:{digest}" for digest in digests),
            software={"fennol": version("fennol"), "jax": version("jax")},
            on_request=("atomic_energies",) if len(self.paths) > 1 else ("atomic_energies", "embedding"),
        )  # fmt: skip

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

    def _refusals(self, batch: SampleBatch) -> list[str]:
        """Return why each sample is not labelled, an empty string where it is."""
        reasons = refusals(self._info, batch, charged=False)
        for i in np.flatnonzero(batch.pbc.all(axis=1) & (batch.n_atoms == 1)):  # FeNNol's padding needs more
            reasons[i] = reasons[i] or f"{self._info.name}: crystals of one atom cannot be padded; make a supercell"
        return reasons

    def label(self, batch: SampleBatch) -> TeacherLabels:
        """Label every sample, many in one call; one that fails does not disturb the others."""
        return self.label_with(batch, ())

    def label_with(self, batch: SampleBatch, extra: Sequence[str]) -> TeacherLabels:
        """Label every sample, with the properties `extra` of those that are given on request."""
        return _mean(self.label_members(batch, extra))

    def label_members(self, batch: SampleBatch, extra: Sequence[str] = ()) -> list[TeacherLabels]:
        """Return the labels of each member of the committee, with the properties `extra`."""
        refused = self._refusals(batch)
        wanted = frozenset(extra)
        out = []
        for member in self._loaded():
            reasons = list(refused)
            if "embedding" in wanted and member.embedding_key is None:
                raise TeacherError(f"{self._info.name}: this model has no module 'embedding'; leave out the embedding")
            results = self._each(member, batch, reasons, wanted, lambda call: call)
            out.append(collect(self._info.name, batch, results, reasons, stress=self._periodic, more=tuple(extra)))
        return out

    def hessian_product(self, batch: SampleBatch, probe: Array) -> Array:
        """Return the product of the Hessian of each sample with its direction, eV/angstrom^2, shape (A, 3), float32.

        That of a committee is the mean over its members, as its energy is.
        """
        direction = np.asarray(probe, np.float32)
        refused = self._refusals(batch)
        products = []
        for member in self._loaded():
            reasons = list(refused)
            results = self._each(
                member, batch, reasons, frozenset(), lambda call: functools.partial(call.product, direction)
            )
            products.append(joined("hessian_product", batch, results, reasons))
        return np.asarray(np.mean(products, axis=0, dtype=np.float64), np.float32)

    def _each(
        self,
        member: Member,
        batch: SampleBatch,
        reasons: list[str],
        extra: frozenset[str],
        ask: Callable[[Call], Callable[[Sequence[int]], list[dict[str, Any]]]],
    ) -> list[dict[str, Any] | None]:
        """Return what a member says of each sample that is not refused; `ask` says what a call is asked for."""
        results: list[dict[str, Any] | None] = [None] * len(batch)
        periodic = [bool(row.all()) for row in batch.pbc]
        for kind in (False, True):
            wanted = [i for i, reason in enumerate(reasons) if not reason and periodic[i] == kind]
            call = Call(member, batch, kind, extra)
            several = balanced_groups(wanted, batch.n_atoms, self.batch_atoms, most=self.batch_atoms // 2 or 1)
            member.prepare([(int(batch.n_atoms[group].sum()), group) for group in several], call)
            for group in several:
                predict(self._info.name, group, ask(call), results, reasons)
        return results

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

    def _loaded(self) -> list[Member]:
        if self._members is None:
            self._members = [Member(path, self.batch_atoms) for path in self.paths]
            if len({member.unit for member in self._members}) > 1:
                raise TeacherError(f"{self._info.name}: the models of the committee have different energy units")
        return self._members


def _mean(members: list[TeacherLabels]) -> TeacherLabels:
    """Return the means over the members of a committee, and the standard deviations of energies and forces."""
    if len(members) == 1:
        return members[0]
    ok = np.all([one.ok for one in members], axis=0)
    reasons = tuple(
        next((r for r in several if r), "") for several in zip(*(one.reasons for one in members), strict=True)
    )

    def mean(arrays: Any) -> Any:
        return np.mean(np.stack(arrays), axis=0, dtype=np.float64).astype(arrays[0].dtype)

    energies, forces = (np.stack([getattr(one, name) for one in members]) for name in ("energy", "forces"))
    stresses = [one.stress for one in members if one.stress is not None]
    more = {name: mean([one.more[name] for one in members]) for name in members[0].more}
    more["energy_std"] = energies.std(axis=0)
    more["forces_std"] = principal_deviations(forces)
    return TeacherLabels(mean(energies), mean(forces), mean(stresses) if stresses else None, ok, reasons, more)
