"""A device that is not there is an error before any sample is asked for, and no reason to refuse samples."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from ase.build import bulk

import mlffstore as ml
from mlffstore.errors import TeacherError
from tests.command import cli

if TYPE_CHECKING:
    from pathlib import Path

TEACHERS = [
    name for name, package in (("chgnet", "chgnet"), ("sevennet-0", "sevenn")) if importlib.util.find_spec(package)
]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_device_that_is_not_there(tmp_path: Path, teacher: str) -> None:
    store = ml.create(tmp_path / "s")
    store.append([bulk("Cu", cubic=True)], require=())
    done = cli("label", store.url, "-t", teacher, "-O", "device=cdua", "--no-recheck", code=3)
    assert f"{teacher}: expected a device that torch has here" in done.stderr
    assert store.version == 1
    batch = store.snapshot().read()
    with pytest.raises(TeacherError, match="device='cdua'"):
        ml.get_teacher(teacher, device="cdua").hessian_product(batch, batch.positions)
