"""Asking a teacher for properties: what it gives anyway, what it gives on request, and Hessian-vector products."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.contracts.answer import checked
from mlffstore.contracts.hessian import hessian_product, require_conservative
from mlffstore.contracts.probes import MOST, error_of, is_error, names_of, number_of, probe, with_partners
from mlffstore.contracts.protocols import HessianTeacher, RequestTeacher
from mlffstore.data.properties import ordered
from mlffstore.errors import DataError, TeacherError
from mlffstore.runtime.words import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlffstore.contracts.protocols import Teacher, TeacherInfo, TeacherLabels
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array


def on_request(info: TeacherInfo) -> tuple[str, ...]:
    """Return the properties that a teacher gives on request only, with the first Hessian-vector product."""
    hessian = ("hessian_product", "hessian_probe") if info.conservative else ()
    return tuple(ordered({*info.on_request, *hessian} - {*info.properties}))


def wanted(teacher: Teacher, properties: Sequence[str]) -> tuple[str, ...]:
    """Return the properties to ask a teacher for, in one order.

    Parameters
    ----------
    teacher : Teacher
    properties : sequence of str
        A Hessian-vector product brings its direction, and a direction its product.

    Raises
    ------
    DataError
        If the teacher does not give one of them; a teacher whose forces are no gradient has no Hessian.
    """
    info = teacher.info
    names = (properties,) if isinstance(properties, str) else tuple(properties)
    known = {*info.properties, *info.on_request}
    hessian = [name for name in names if name not in known and number_of(name) is not None]
    if hessian:
        try:
            require_conservative(info)
        except TeacherError as error:
            raise DataError(f"properties: {error}") from error
    if any(map(is_error, hessian)) and isinstance(teacher, HessianTeacher):
        raise DataError(
            f"properties: {info.name} differentiates its forces exactly, so that there is no hessian_error; leave it out"
        )
    unknown = [name for name in names if name not in known and name not in hessian]
    if unknown or not names:
        further = f", hessian_product_2 to hessian_product_{MOST}" if info.conservative else ""
        raise DataError(
            f"properties: expected some of what {info.name!r} gives ({', '.join(info.properties)}; on request "
            f"{', '.join(on_request(info)) or 'nothing more'}{further}), got {', '.join(map(str, unknown)) or 'none'}"
            f"{nearest(str(unknown[0]), (*info.properties, *on_request(info))) if unknown else ''}"
        )
    return tuple(ordered(with_partners(names)))


def label_with(teacher: Teacher, batch: SampleBatch, properties: Sequence[str] | None) -> TeacherLabels:
    """Return the labels of a teacher, with properties that it gives on request only.

    Parameters
    ----------
    teacher : Teacher
    batch : SampleBatch
    properties : sequence of str or None
        As `wanted` returns them; None for what `Teacher.label` gives. Labels may have more than was asked for.

    Raises
    ------
    DataError
        If what the teacher returns does not fit the batch, see `mlffstore.contracts.answer.checked`.
    """
    names = properties or ()
    extra = tuple(name for name in names if name in teacher.info.on_request)
    labels = teacher.label_with(batch, extra) if extra and isinstance(teacher, RequestTeacher) else teacher.label(batch)
    return with_products(teacher, batch, checked(teacher.info, batch, labels), names)


def with_products(
    teacher: Teacher, batch: SampleBatch, labels: TeacherLabels, properties: Sequence[str] | None
) -> TeacherLabels:
    """Return labels with the Hessian-vector products that are asked for, of the samples that the teacher labelled.

    Parameters
    ----------
    teacher : Teacher
    batch : SampleBatch
    labels : TeacherLabels
        What the teacher gave for the samples.
    properties : sequence of str or None
        As `wanted` returns them; those that are no Hessian-vector products are passed over.
    """
    names = properties or ()
    more = dict(labels.more)
    chosen = np.flatnonzero(labels.ok)
    for number in sorted({number for name in names if (number := number_of(name)) is not None}):
        more |= _products(teacher, batch, chosen, number, [name for name in names if is_error(name)])
    return replace(labels, more=more)


def _products(
    teacher: Teacher, batch: SampleBatch, chosen: Array, number: int, errors: Sequence[str]
) -> dict[str, Array]:
    """Return a Hessian-vector product with its direction, and its error if that is among `errors`, of chosen samples."""
    name, probe_name = names_of(number)
    direction = probe(batch, number)
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(batch)), batch.n_atoms), chosen))
    product = np.full(direction.shape, np.nan, np.float32)
    error = np.full(len(batch), np.nan)
    if len(chosen):
        part = batch.take(chosen)
        product[rows], each = hessian_product(teacher, part, direction[rows])
        if each is not None:
            squares = np.add.reduceat(np.square(each).mean(axis=1), part.offsets[:-1])
            error[chosen] = np.sqrt(squares / part.n_atoms)
    # A direction follows from the structure, and says nothing without its product.
    lacking = ~np.isfinite(np.add.reduceat(product.sum(axis=1), batch.offsets[:-1]))
    product[np.repeat(lacking, batch.n_atoms)] = np.nan
    direction[np.repeat(lacking, batch.n_atoms)] = np.nan
    out: dict[str, Array] = {name: product, probe_name: direction}
    if error_of(number) in errors:
        out[error_of(number)] = error
    return out
