"""The contract of a class of seeds, and the look-up of a class by its name."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError, RegistryError
from mlffstore.runtime.words import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from mlffstore.contracts.protocols import TeacherInfo

#: What samplers take in the place of a teacher, and is none.
FORCE_FIELD = "mmff94"
#: Name -> module and class below this package; what they need is imported when they draw.
_KNOWN = {
    "molecules": "molecules:Molecules",
    "clusters": "clusters:Clusters",
    "liquids": "liquids:Liquids",
    "crystals": "crystals:Crystals",
    "random-crystals": "random_crystals:RandomCrystals",
    "slabs": "slabs:Slabs",
    "nanoparticles": "nanoparticles:Nanoparticles",
    "defects": "defects:Defects",
    "few-atoms": "few_atoms:FewAtoms",
    "files": "files:Files",
    "relaxed": "relaxed:Relaxed",
}


class NoSeedError(Exception):
    """A draw gives no structure; the text is the reason under which it is counted."""


@dataclass(frozen=True, slots=True)
class PathFrames:
    """Structures on a path of a relaxation, with labels of the teacher that relaxed them.

    Attributes
    ----------
    teacher : TeacherInfo
    frames : tuple of ase.Atoms
        Positions are rounded to float32, as they are stored.
    energy : ndarray, shape (S,)
        eV. All NaN if labels depend on the way and must be computed again: then the others are no labels either.
    forces : tuple of ndarray of shape (N, 3)
        eV/angstrom.
    stress : ndarray, shape (S, 6)
        eV/angstrom^3, tension positive.
    more : tuple of mapping of str to ndarray
        For each structure what the teacher gave beside these, by property, with one row or a row for each atom.
    """

    teacher: TeacherInfo
    frames: tuple[Atoms, ...]
    energy: np.ndarray
    forces: tuple[np.ndarray, ...]
    stress: np.ndarray
    more: tuple[Mapping[str, np.ndarray], ...] = ()


@dataclass(frozen=True, slots=True)
class Seed:
    """A structure to start from.

    Attributes
    ----------
    atoms : ase.Atoms
        The structure, with `charge` and `multiplicity` in `info` where they are not 0 and the lowest.
    source : str
        Origin of the seed, such as ``"nci"`` or ``"aflow:A2B_cF12_225_a_c"``.
    bonds : ndarray, shape (B, 2), int64
        Pairs of atoms that must stay together; empty for crystals.
    fragments : tuple of ndarray of int
        Atoms of each molecule, if there are several.
    family : str
        What it is whatever its coordinates, such as a canonical SMILES: seeds of one family share their root, so that
        conformers of a molecule never straddle splits. Empty where the structure itself is what it is.
    molecule : rdkit.Chem.Mol, optional
        The atoms with their bond orders, in the same order, for force fields of molecules.
    path : PathFrames, optional
        Structures on the way to `atoms` that a teacher has labelled.
    origin : uint64, optional
        Root of another seed, of which this is a relaxed form.
    """

    atoms: Atoms
    source: str
    bonds: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    fragments: tuple[np.ndarray, ...] = ()
    family: str = ""
    molecule: Any = None
    path: PathFrames | None = None
    origin: np.uint64 | None = None

    @property
    def root(self) -> np.uint64:
        """Root of the seed from which it was made; else hash of the family, or of the structure as it would be stored."""
        if self.origin is not None:
            return self.origin
        if self.family:
            return np.uint64(int.from_bytes(hashlib.sha256(self.family.encode()).digest()[:8], "little"))
        return np.uint64(SampleBatch.from_ase([self.atoms]).astype("float32").content_hash[0])

    @property
    def periodic(self) -> bool:
        """Whether it is periodic anywhere."""
        return bool(self.atoms.pbc.any())


@runtime_checkable
class Seeds(Protocol):
    """A class of seeds. All randomness comes from the generator of random numbers that it is given."""

    def draw(self, rng: np.random.Generator) -> Seed:
        """Return a seed; raise `NoSeedError` if this draw gives none."""
        ...

    def provenance(self) -> list[dict[str, str]]:
        """Return name, description and licence of every source."""
        ...


def known() -> tuple[str, ...]:
    """Return the names of the classes that come with the package."""
    return tuple(_KNOWN)


def get_seeds(spec: str | Mapping[str, Any]) -> Seeds:
    """Return a class of seeds.

    Parameters
    ----------
    spec : str or mapping
        A name, the import path ``package.module:Class`` of your own, or a mapping with it as ``name`` beside options.

    Raises
    ------
    RegistryError
        If there is none of that name.
    DataError
        If an option does not exist or is wrong.
    """
    if not isinstance(spec, (str, Mapping)):
        raise DataError(f"seeds: expected a name, or a mapping with a name and options, got {spec!r}")
    options = {} if isinstance(spec, str) else {str(k): v for k, v in spec.items() if k != "name"}
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    made = seeds_class(name)
    if not isinstance(made, type):
        raise RegistryError(f"seeds: expected {name!r} to be a class, got a {type(made).__name__}; check the path")
    parameters = inspect.signature(made).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for option in options:
            if option not in parameters:
                raise DataError(
                    f"seeds {name!r}: there is no option {option!r}{nearest(option, parameters)}; the options are "
                    f"{', '.join(parameters) or 'none'}"
                )
    return cast("Seeds", made(**options))


def teachers_of(maker: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and options of the teachers that a sampler or a class of seeds asks, and those of the seeds it draws."""
    name = getattr(maker, "teacher", None)
    if isinstance(name, str) and name != FORCE_FIELD:
        yield name, dict(getattr(maker, "teacher_options", {}))
    for attribute in ("source", "hosts"):
        if (inner := getattr(maker, attribute, None)) is not None:
            yield from teachers_of(inner)


def seeds_class(name: str) -> Any:
    """Return a class of seeds by its name or import path, without making one.

    Raises
    ------
    RegistryError
        If there is none of that name.
    """
    path = f"{__package__}.{_KNOWN[name]}" if name in _KNOWN else name
    module, colon, attribute = path.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, _KNOWN, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RegistryError(f"seeds: expected one of {', '.join(_KNOWN)} or package.module:Class, got {name!r}{hint}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in _KNOWN:
            raise
        raise RegistryError(f"seeds: {name!r} cannot be imported ({error}); check the path") from error


def check_sizes(what: str, min_atoms: int, max_atoms: int) -> None:
    """Raise `DataError` unless the limits of a size make sense."""
    if not 1 <= min_atoms <= max_atoms:
        raise DataError(f"{what}: expected 1 <= min_atoms <= max_atoms, got {min_atoms} and {max_atoms}")


def check_host(what: str, seeds: Any) -> None:
    """Raise `DataError` if there are options of hosts beside a host of its own, which would do nothing."""
    defaults = {one.name: one.default for one in dataclasses.fields(seeds)}
    void = [name for name in ("elemental", "classes") if getattr(seeds, name) != defaults[name]]
    if seeds.host is not None and void:
        raise DataError(
            f"{what}: expected {' and '.join(void)} among the options of the host, or no host, got both; a host of your own "
            "decides what it is made of"
        )


def check_share(what: str, name: str, value: float) -> None:
    """Raise `DataError` unless a share is one."""
    if not 0 <= value <= 1:
        raise DataError(f"{what}: expected {name} from 0 to 1, got {value!r}")


def rotation(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation matrix, shape (3, 3): a unit quaternion of normal numbers (Shoemake 1992)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
