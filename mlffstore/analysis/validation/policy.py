"""The policy: which checks count as errors or warnings, their limits, and what a dataset must reach."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from mlffstore.errors import PolicyError
from mlffstore.runtime.checked_yaml import Kind, check_document, read_document

Severity = Literal["error", "warning", "off"]
#: What messages call a policy.
POLICY = Kind("policy", "cannot be used", PolicyError)
#: What an acceptance table may ask for, and its unit.
QUANTITIES = {
    "samples": "1", "samples_train": "1", "samples_val": "1", "samples_test": "1", "elements": "1",
    "n_atoms_min": "1", "n_atoms_max": "1", "periodic_fraction": "1", "invalid_fraction": "1", "leaked_samples": "1",
    "force_p99_eV_per_angstrom": "eV/angstrom", "d_min_angstrom": "angstrom", "diversity": "1", "gigabytes": "GB",
}  # fmt: skip
#: Policies that come with the package.
BUILT_IN = ("default", "production")


@dataclass(frozen=True, slots=True)
class Rule:
    """A check.

    Attributes
    ----------
    severity : {"error", "warning", "off"}
    limits : mapping of str to float
        Its limits, with the unit in their names.
    required : bool
        Whether the dataset fails if the check could not be measured. Only for checks of the dataset as a whole.
    """

    severity: Severity
    limits: Mapping[str, float]
    required: bool = False

    def __getitem__(self, name: str) -> float:
        return self.limits[name]


@dataclass(frozen=True, slots=True)
class Policy:
    """Checks by name, and the acceptance table.

    Attributes
    ----------
    checks : dict of str to Rule
    acceptance : dict of str to dict
        Quantity -> ``{"min": ..., "max": ...}``, one of them or both.
    """

    checks: Mapping[str, Rule]
    acceptance: Mapping[str, Mapping[str, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the policy as plain types, as in the YAML."""
        checks = {
            name: {"severity": rule.severity, **({"required": True} if rule.required else {}), **rule.limits}
            for name, rule in self.checks.items()
        }
        return {"checks": checks, "acceptance": {name: dict(limits) for name, limits in self.acceptance.items()}}


def load_policy(policy: Policy | Mapping[str, Any] | str | os.PathLike[str] | None = None) -> Policy:
    """Return a policy. Entries that it leaves out are those of the default policy.

    Parameters
    ----------
    policy : Policy, mapping, name or path, optional
        ``"default"`` and ``"production"`` come with the package; a path is of a YAML file. A table `acceptance` replaces the
        default one as a whole.

    Raises
    ------
    PolicyError
        If the policy is wrong; the message lists every problem, for a file each with its line.
    """
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Mapping):
        return _policy(check_document(policy, _model(), POLICY, "policy"))
    name = "default" if policy is None else os.fspath(policy)
    if name in BUILT_IN:
        return _built_in(name)
    if not Path(name).is_file():
        raise PolicyError(f"policy: expected one of {', '.join(BUILT_IN)} or a YAML file, got {name!r} (no such file)")
    return _policy(read_document(name, _model(), POLICY))


def _file(name: str) -> Path:
    return Path(str(files("mlffstore.analysis.validation").joinpath(f"{name}.yaml")))


@functools.cache
def _built_in(name: str) -> Policy:
    return _policy(read_document(_file(name), _model(), POLICY))


def _policy(model: BaseModel) -> Policy:
    """Return the policy of a checked document."""
    document = model.model_dump(exclude_unset=True)
    tables = {**_defaults(), **document}
    checks = {
        name: {**base, **document.get("checks", {}).get(name, {})} for name, base in _defaults()["checks"].items()
    }
    rules = {name: Rule(rule.pop("severity"), rule, rule.pop("required", False)) for name, rule in checks.items()}
    return Policy(rules, tables["acceptance"])


def _limit(value: Any) -> Any:
    """Refuse what is no number. NaN is none: every comparison with it is false, and nothing would fail."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(value):
        raise ValueError(f"expected a number, got {value!r}")
    return value


#: A limit; None only stands for one that is not there.
Limit = Annotated[Any, BeforeValidator(_limit)]


class _Entry(BaseModel):
    """A mapping whose unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Bounds(_Entry):
    """What a quantity must reach."""

    min: Limit = None
    max: Limit = None

    @model_validator(mode="after")
    def _something(self) -> _Bounds:
        if not self.model_fields_set:
            raise ValueError("expected min, max or both, got neither")
        if {"min", "max"} <= self.model_fields_set and self.min > self.max:
            raise ValueError(f"expected min to be at most max, got {self.min} and {self.max}")
        return self


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the default policy as YAML gives it; it says which checks and limits there are."""
    import yaml

    document: dict[str, Any] = yaml.safe_load(_file("default").read_text(encoding="utf-8"))
    return document


@functools.cache
def _model() -> type[BaseModel]:
    """Return the model of policies, made of the names in the default one."""
    switches: dict[str, Any] = {
        # YAML 1.1 reads off as false.
        "severity": Annotated[Severity, BeforeValidator(lambda value: "off" if value is False else value)],
        "required": Annotated[bool, Field(strict=True)],
    }
    nothing = BeforeValidator(lambda value: {} if value is None else value)  # all entries below a key left out
    checks: dict[str, Any] = {}
    for name, rule in _defaults()["checks"].items():
        fields: dict[str, Any] = {key: (switches.get(key, Limit), None) for key in rule}
        checks[name] = (Annotated[create_model(name, __base__=_Entry, **fields), nothing], None)
    acceptance: dict[str, Any] = dict.fromkeys(QUANTITIES, (_Bounds, None))
    tables: dict[str, Any] = {
        "checks": (Annotated[create_model("Checks", __base__=_Entry, **checks), nothing], None),
        "acceptance": (Annotated[create_model("Acceptance", __base__=_Entry, **acceptance), nothing], None),
    }
    return create_model("Policy", __base__=_Entry, **tables)
