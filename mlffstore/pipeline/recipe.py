"""Recipes: the YAML that says what to make. Unknown keys are refused; every quantity states its unit."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from mlffstore.data.limits import MAX_FORCE, MIN_DISTANCE
from mlffstore.data.properties import ordered
from mlffstore.errors import RecipeError
from mlffstore.runtime.checked_yaml import Kind, read_document
from mlffstore.runtime.named_files import named_files
from mlffstore.runtime.version import SEMANTIC_VERSION

if TYPE_CHECKING:
    from pathlib import Path

#: What messages call a recipe.
RECIPE = Kind("recipe", "cannot be run", RecipeError)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


def _in_one_order(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return names of properties in one order, so that another order in the file is the same recipe."""
    if names is None:
        return None
    if not names or len(set(names)) != len(names):
        raise ValueError(f"expected one property or several different ones, got {', '.join(names) or 'none'}")
    return tuple(ordered(names))


#: What a teacher is asked for. Whether it gives that is known when the teacher is there.
Properties = Annotated[tuple[str, ...] | None, AfterValidator(_in_one_order)]
#: Units of what is asked for, as descriptions of keys state them.
_UNITS = (
    "energy (eV), forces (eV/angstrom), stress (eV/angstrom^3), atomic_energies (eV), charges (e), magmoms (Bohr magneton), "
    "dipole (e*angstrom), hessian_product (eV/angstrom^2), embedding"
)


class Strict(BaseModel):
    """A mapping whose unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any) -> Any:
        """Refuse yes, no, true and false, which pydantic would take for 1 and 0."""
        if isinstance(value, bool):  # no key of a recipe is a switch; the options of a plugin are mappings
            raise ValueError(
                f"expected a value, got {str(value).lower()} (yes, no, on and off mean true and false in YAML)"
            )
        return value


class Part(Strict):
    """One kind of samples: a generator, a teacher, and how many."""

    name: Name = Field(description="Name of the part; part of the idempotency keys.")
    generator: str = Field(description="Name of a generator, see `mlffstore generators`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the generator.")
    teacher: str = Field(description="Name of a teacher, see `mlffstore teachers`.")
    teacher_options: dict[str, Any] = Field(default_factory=dict, description="Options of the teacher.")
    properties: Properties = Field(
        default=None,
        description=f"What to store of the teacher's labels, such as {_UNITS}; energy and forces must be among them, since "
        "`checks` need them. By default all that the teacher gives without request.",
    )
    samples: int = Field(gt=0, description="Samples wanted. What is rejected is made up for from the same part.")
    samples_per_task: int = Field(default=32, gt=0, description="Structures of one task: one commit.")

    @field_validator("properties")
    @classmethod
    def _checks_can_be_made(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and not {"energy", "forces"} <= set(names):
            given = ", ".join(names or ())
            raise ValueError(f"expected energy and forces among the properties, since checks need them, got {given}")
        return names

    @property
    def n_tasks(self) -> int:
        """Number of tasks; the last one may be smaller."""
        return -(-self.samples // self.samples_per_task)


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does at a time, as one commit.

    Attributes
    ----------
    part : Part
    number : int
        In the part. Its random numbers depend on it.
    count : int
        Structures to make.
    """

    part: Part
    number: int
    count: int


def cut(part: Part, samples: int, first: int = 0) -> list[Task]:
    """Return the tasks that make so many samples of a part, numbered from `first`."""
    size = part.samples_per_task
    return [Task(part, first + i, min(size, samples - i * size)) for i in range(-(-samples // size))]


class Checks(Strict):
    """Limits that every labelled sample must keep; the others go to quarantine with the reason."""

    d_min: float = Field(default=MIN_DISTANCE, ge=0, description="Smallest distance of two atoms or images, angstrom.")
    force_max: float = Field(default=MAX_FORCE, gt=0, description="Largest force on an atom, eV/angstrom.")
    stress_max: float | None = Field(default=None, gt=0, description="Largest component of the stress, eV/angstrom^3.")
    n_atoms: tuple[int, int] = Field(default=(1, 1000), description="Fewest and most atoms.")
    elements: tuple[str, ...] | None = Field(default=None, description="Allowed elements; all by default.")

    @field_validator("n_atoms")
    @classmethod
    def _n_atoms_rise(cls, limits: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= limits[0] <= limits[1] or not limits[1]:
            raise ValueError(f"expected the fewest atoms and then the most, such as [1, 1000], got {list(limits)}")
        return limits

    @field_validator("elements")
    @classmethod
    def _elements_exist(cls, symbols: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ase.data import atomic_numbers

        unknown = [symbol for symbol in symbols or () if not atomic_numbers.get(symbol)]  # 0 is X, a dummy
        if unknown or symbols == ():
            got = ", ".join(map(repr, unknown)) or "none"
            raise ValueError(f"expected symbols of elements, such as [H, C, O], got {got}")
        return symbols


class MoreTeacher(Strict):
    """A teacher that labels the samples of all parts, beside that of the part."""

    teacher: str = Field(description="Name of a teacher, see `mlffstore teachers`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the teacher.")
    properties: Properties = Field(
        default=None,
        description="What to store of its labels, as in a part; by default all that it gives without request.",
    )


class ReleaseSettings(Strict):
    """The HDF5 files to cut when all tasks are done, one for each teacher."""

    folder: str = Field(default="release", description="Where; relative to the working folder.")
    version: str = Field(default="1.0.0", description="Version of the release.")

    @field_validator("version")
    @classmethod
    def _semantic(cls, version: str) -> str:
        if not SEMANTIC_VERSION.fullmatch(version):
            raise ValueError(f"expected a semantic version such as 1.0.0, got {version!r}")
        return version


class Splits(Strict):
    """Shares of the splits, decided by a hash of the root of each sample."""

    train: float = Field(default=0.8, ge=0, le=1, description="Share of roots that train.")
    val: float = Field(default=0.1, ge=0, le=1, description="Share of roots that validate.")
    test: float = Field(default=0.1, ge=0, le=1, description="Share of roots that test.")
    seed: int = Field(default=0, description="Another seed gives another split.")


class Recipe(Strict):
    """What to make."""

    name: Name = Field(description="Name of the dataset.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    store: str = Field(description="Path of the store; relative to the working folder.")
    precision: Literal["float32", "float64"] = Field(default="float32", description="dtype of stored positions.")
    splits: Splits = Splits()
    checks: Checks = Checks()
    more_teachers: tuple[MoreTeacher, ...] = Field(
        default=(),
        description="Teachers that label the samples of all parts, so that one zero of the energy spans them.",
    )
    parts: tuple[Part, ...] = Field(min_length=1)
    release: ReleaseSettings | None = None

    @model_validator(mode="after")
    def _unique_parts(self) -> Recipe:
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError(f"parts: expected different names, got {', '.join(names)}")
        return self

    def key(self, task: Task) -> str:
        """Return the idempotency key of a task.

        It names everything that decides the task's samples, so that a changed recipe makes new samples, and an
        unchanged part of a changed recipe does not run again. Files that options of the part name, such as those of seeds or
        weights, count with their content.
        """
        checks = self.checks.model_dump(mode="json")
        if checks["stress_max"] is None:  # keys are older than this limit
            del checks["stress_max"]
        decisive = {
            "seed": self.seed,
            "checks": checks,
            "precision": self.precision,
            # The number of tasks decides nothing but the size of the last one, so a part can grow.
            "part": _without_defaults(task.part.model_dump(mode="json", exclude={"samples"})),
            "count": task.count,
        }
        files = file_digests(
            [
                task.part.options,
                task.part.teacher_options,
                [more.options for more in self.more_teachers],
                task.part.teacher,
                [more.teacher for more in self.more_teachers],
            ]
        )
        if files:
            decisive["files"] = files
        if self.more_teachers:
            decisive["more_teachers"] = [_without_defaults(more.model_dump(mode="json")) for more in self.more_teachers]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        return f"run/{self.name}/{task.part.name}/{task.number}/{digest}"

    def tasks(self) -> list[Task]:
        """Return the planned tasks, the parts interleaved so that a store that still grows is representative."""
        made = [
            ((task.number + 0.5) / part.n_tasks, p, task)
            for p, part in enumerate(self.parts)
            for task in cut(part, part.samples)
        ]
        return [task for _, _, task in sorted(made, key=lambda entry: entry[:2])]


def _without_defaults(document: dict[str, Any]) -> dict[str, Any]:
    """Return a part or teacher without properties that it does not name: keys are older than these."""
    return {name: value for name, value in document.items() if name != "properties" or value is not None}


def file_digests(options: Any) -> list[str]:
    """Return SHA-256 digests of the files that options name."""
    return [_digest(*file) for file in named_files(options)]


@functools.lru_cache(maxsize=256)
def _digest(path: str, modified: int, size: int) -> str:
    """Return the SHA-256 digest of a file, read once for a time of modification and a size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    RecipeError
        The message lists all problems, each with its place in the file.
    """
    return read_document(path, Recipe, RECIPE)
