"""SevenNet-0: an equivariant model of crystals whose weights come with its package."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlffstore.contracts.protocols import TeacherInfo
from mlffstore.errors import TeacherError, missing_dependency
from mlffstore_teachers.ase import ASETeacher

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

#: SevenNet's name of the model, and where its weights lie in the package.
_MODEL, _WEIGHTS = "7net-0", "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"


def sevennet_0(*, device: str = "cpu") -> ASETeacher:
    """SevenNet-0 (MPtrj, PBE and PBE+U): crystals of 89 elements; refuses molecules. Slower than CHGNet, more exact.

    Parameters
    ----------
    device : str, optional
        Device of torch.

    Notes
    -----
    Park et al., J. Chem. Theory Comput. 20, 4857 (2024). Version of July 2024; one sample a call.
    """
    return ASETeacher(_info(), functools.partial(_calculator, device))


@functools.lru_cache(maxsize=2)
def _loaded(device: str) -> Calculator:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # SevenNet recommends accelerators for GPUs, and deprecations of its own imports
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(_MODEL, device=device)


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
        precision="float32",
        conservative=True,
        licence="MIT",
        fingerprint=f"{_MODEL}, weights sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}",
        software={"sevenn": version("sevenn"), "torch": version("torch"), "ase": version("ase")},
    )
