"""The policy: which checks count as errors or warnings, their limits, and what a dataset must reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlffstore.errors import PolicyError, problems_message

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

Severity = Literal["error", "warning", "off"]
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

    severity: Severity | str
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
        ``"default"`` and ``"production"`` come with the package; a path is of a YAML file.

    Raises
    ------
    PolicyError
        If the policy is wrong; the message lists every problem.
    """
    if isinstance(policy, Policy):
        return policy
    default = _read(
        files("mlffstore.analysis.validation").joinpath("default.yaml").read_text(encoding="utf-8"), "default"
    )
    if policy is None or policy == "default":
        return _merged(default, {}, "default")
    if isinstance(policy, (str, Path)) or hasattr(policy, "__fspath__"):
        name = str(policy)
        if name in BUILT_IN:
            text = files("mlffstore.analysis.validation").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        else:
            try:
                text = Path(name).read_text(encoding="utf-8")
            except OSError as error:
                raise PolicyError(
                    f"policy: expected one of {', '.join(BUILT_IN)} or a YAML file, got {name!r} ({error.strerror})"
                ) from error
        return _merged(default, _read(text, name), name)
    return _merged(default, dict(policy), "policy")


def _read(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise PolicyError(f"{where}: expected YAML, got a syntax error: {error}") from error
    if not isinstance(document, dict):
        raise PolicyError(f"{where}: expected a mapping with checks and acceptance, got {type(document).__name__}")
    return document


def _merged(default: Mapping[str, Any], given: Mapping[str, Any], where: str) -> Policy:
    """Return the default policy changed by another; a table `acceptance` replaces the default one as a whole."""
    problems = [f"{name}: expected checks or acceptance" for name in given if name not in ("checks", "acceptance")]
    tables = {name: given.get(name) or {} for name in ("checks", "acceptance")}
    problems += [
        f"{name}: expected a mapping, got {value!r}" for name, value in tables.items() if not isinstance(value, dict)
    ]
    if problems:
        raise PolicyError(problems_message(f"{where}: this policy cannot be used:", problems))
    checks: dict[str, Rule] = {}
    given_checks = tables["checks"]
    problems += [f"checks.{name}: no such check; there are {', '.join(default['checks'])}"
                 for name in given_checks if name not in default["checks"]]  # fmt: skip
    for name, base in default["checks"].items():
        change = given_checks.get(name) or {}
        if not isinstance(change, dict):
            problems.append(f"checks.{name}: expected a mapping such as {base}, got {change!r}")
            continue
        rule = {**base, **change}
        severity, required = rule.pop("severity"), rule.pop("required", False)
        severity = "off" if severity is False else severity  # YAML 1.1 reads off as a boolean
        if severity not in ("error", "warning", "off"):
            problems.append(f"checks.{name}.severity: expected error, warning or off, got {severity!r}")
        if not isinstance(required, bool):
            problems.append(f"checks.{name}.required: expected true or false, got {required!r}")
        elif required and "required" not in base:
            problems.append(
                f"checks.{name}.required: expected only at checks of the whole dataset, not of single samples"
            )
        for limit, value in rule.items():
            if limit not in base:
                known = ", ".join(k for k in base if k not in ("severity", "required"))
                problems.append(f"checks.{name}.{limit}: no such limit; there are {known}")
            elif not _is_limit(value):
                problems.append(f"checks.{name}.{limit}: expected a number, got {value!r}")
        checks[name] = Rule(severity, {k: v for k, v in rule.items() if isinstance(v, (int, float))}, required is True)
    acceptance = given.get("acceptance", default["acceptance"]) or {}
    for name, limits in acceptance.items():
        if name not in QUANTITIES:
            problems.append(f"acceptance.{name}: no such quantity; there are {', '.join(QUANTITIES)}")
        elif not isinstance(limits, dict) or not limits or set(limits) - {"min", "max"}:
            problems.append(f"acceptance.{name}: expected min, max or both, got {limits!r}")
        elif not all(map(_is_limit, limits.values())):
            problems.append(f"acceptance.{name}: expected numbers, got {limits!r}")
        elif limits.get("min", -math.inf) > limits.get("max", math.inf):
            problems.append(f"acceptance.{name}: expected min to be at most max, got {limits!r}")
    if problems:
        raise PolicyError(problems_message(f"{where}: this policy cannot be used:", problems))
    return Policy(checks, {name: dict(limits) for name, limits in acceptance.items()})


def _is_limit(value: Any) -> bool:
    """Return whether a value is a number. NaN is none: every comparison with it is false, and nothing would fail."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


#: What an acceptance table may ask for, and its unit.
QUANTITIES = {
    "samples": "1", "samples_train": "1", "samples_val": "1", "samples_test": "1", "elements": "1",
    "n_atoms_min": "1", "n_atoms_max": "1", "periodic_fraction": "1", "invalid_fraction": "1", "leaked_samples": "1",
    "force_p99_eV_per_angstrom": "eV/angstrom", "d_min_angstrom": "angstrom", "gigabytes": "GB", "diversity": "1",
}  # fmt: skip
