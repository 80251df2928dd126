"""One FeNNol model, called with padded groups so that it is compiled a few times only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch

#: Arrays of pairs and angles are this much longer than the first groups need, as every call computes what is padded ...
_HEADROOM = 1.05
#: ... and where later groups need more, this much longer than those need: growing means compiling again (seconds).
_GROWTH = 1.25
#: Padded sizes, atoms, of which the smallest that holds a group is taken; beyond them powers of two.
_SIZES = (64,)


class Member:
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
        #: Output with the features of the atoms, and None if the model says of no module that it makes them.
        self.embedding_key = _embedding_key(self.model._input_args)
        self._states: dict[tuple[int, int, bool], Any] = {}
        self._product: Any = None

    @property
    def n_compiled(self) -> int:
        """Number of compilations so far: one for each shape of the input."""
        jitted = (self.model._energy_and_forces, self.model._energy_and_forces_and_virial, self._product)
        return sum(int(function._cache_size()) for function in jitted if function is not None)

    def shape_of(self, n_atoms: int, n_samples: int) -> tuple[int, int]:
        """Return the padded numbers of atoms and systems that hold so many, each with one to spare.

        There is always padding then, so that the shapes never differ. FeNNol looks at all pairs of atoms of every padded
        system, so these follow the samples closely, in powers of two.
        """
        size = next((size for size in self.sizes if size >= n_atoms), 1 << (n_atoms - 1).bit_length())
        return size + 1, 1 << n_samples.bit_length()

    def call(self, inputs: dict[str, Any], *, periodic: bool) -> dict[str, Any]:
        """Return the model's output for a batch, without padding."""
        function = self.model.energy_and_forces_and_virial if periodic else self.model.energy_and_forces
        with self._padded(inputs, periodic):
            output: dict[str, Any] = function(gpu_preprocessing=False, **inputs)[-1]
        return output

    def hessian_product(
        self, inputs: dict[str, Any], direction: npt.NDArray[np.float32], *, periodic: bool
    ) -> npt.NDArray[np.float64]:
        """Return the product of the Hessian with a direction, shape (A, 3), in the model's unit of energy per angstrom^2."""
        if self._product is None:
            self._product = _product_of(self.model._total_energy_raw)
        with self._padded(inputs, periodic):
            data = self.model.preprocess(**inputs)
        # FeNNol appends the padding: the first atoms are those of the batch.
        padded = np.zeros(data["coordinates"].shape, np.float32)
        padded[: len(direction)] = direction
        return np.asarray(self._product(self.model.variables, data, padded), np.float64)[: len(direction)]

    @contextlib.contextmanager
    def _padded(self, inputs: dict[str, Any], periodic: bool) -> Iterator[None]:
        """Let the model remember the shapes of this padded size: it holds one memory, and each size has its own."""
        key = (*self.shape_of(len(inputs["species"]), len(inputs["natoms"])), periodic)
        state = self._states.get(key) or self._fresh(*key[:2])
        object.__setattr__(self.model, "preproc_state", _with_species(state, inputs["species"]))
        yield
        self._states[key] = self.model.preproc_state

    def prepare(self, several: list[tuple[int, list[int]]], call: Call) -> None:
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


class Call:
    """Labels a group of a batch with a member."""

    def __init__(self, member: Member, batch: SampleBatch, periodic: bool, extra: frozenset[str] = frozenset()) -> None:
        self.member, self.batch, self.periodic, self.extra = member, batch, periodic, extra

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
            inputs["cells"] = part.cell.astype(np.float32)
            inputs["reciprocal_cells"] = np.linalg.inv(part.cell).astype(np.float32)
        return inputs

    def __call__(self, group: Sequence[int]) -> list[dict[str, Any]]:
        """Return energy, forces, stress and the properties `extra` of each sample of a group."""
        from ase.stress import full_3x3_to_voigt_6_stress

        part = self.part(group)
        output = self.member.call(self.inputs(part), periodic=self.periodic)
        forces = np.asarray(output["forces"], np.float64).reshape(-1, 3) * self.member.unit
        energies = self._energies(output, part) * self.member.unit
        out: list[dict[str, Any]] = []
        for i in range(len(part)):
            one = {"energy": float(energies[i]), "forces": forces[part.offsets[i] : part.offsets[i + 1]]}
            one |= self._extra(output, slice(part.offsets[i], part.offsets[i + 1]))
            if self.periodic:
                virial = np.asarray(output["virial_tensor"][i], np.float64) * self.member.unit
                one["stress"] = full_3x3_to_voigt_6_stress(virial / abs(np.linalg.det(part.cell[i])))
            out.append(one)
        return out

    def product(self, direction: npt.NDArray[np.float32], group: Sequence[int]) -> list[dict[str, Any]]:
        """Return the Hessian-vector product of each sample of a group, eV/angstrom^2; `direction` is that of the batch."""
        part = self.part(group)
        starts = self.batch.offsets
        chosen = np.concatenate([direction[starts[i] : starts[i + 1]] for i in group])
        product = self.member.hessian_product(self.inputs(part), chosen, periodic=self.periodic) * self.member.unit
        return [{"hessian_product": some} for some in np.split(product, part.offsets[1:-1])]

    def _extra(self, output: dict[str, Any], atoms: slice) -> dict[str, Any]:
        """Return the properties of one sample that are given on request, as far as the model has them."""
        out: dict[str, Any] = {}
        if "atomic_energies" in self.extra and "atomic_energies" in output and "system_energies" not in output:
            each = np.asarray(output["atomic_energies"], np.float64).reshape(-1)
            out["atomic_energies"] = each[atoms] * self.member.unit
        if "embedding" in self.extra:
            out["embedding"] = np.asarray(output[self.member.embedding_key or ""], np.float32)[atoms]
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


def _product_of(total_energy: Callable[[Any, dict[str, Any]], Any]) -> Any:
    """Return a compiled function of weights, inputs and a direction: the derivative of the gradient along the direction."""
    import jax

    def product(variables: Any, data: dict[str, Any], direction: Any) -> Any:
        def energy(coordinates: Any) -> Any:
            return total_energy(variables, {**data, "coordinates": coordinates})[0].sum()

        return jax.jvp(jax.grad(energy), (data["coordinates"],), (direction,))[1]

    return jax.jit(product)


def _embedding_key(arguments: Mapping[str, Any]) -> str | None:
    """Return the name of the output with the features of the atoms, from the description of a model."""
    module = arguments["modules"].get("embedding")
    return None if module is None else str(module.get("embedding_key", "embedding"))
