"""Which datasets of a release file are labels, and of which property and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlffstore.data.properties import PROPERTIES, Property, described_by
from mlffstore.data.schema import LABELS

if TYPE_CHECKING:
    import h5py


def property_in(name: str, dataset: h5py.Dataset) -> Property | None:
    """Return the property of a dataset of labels, None for another column.

    Energy, forces and stress are labels by their names, others by the attribute `property`.

    Raises
    ------
    DataError
        If the attributes that describe a property are wrong.
    """
    label = name.partition(".")[0]
    if label in LABELS:
        return PROPERTIES[label]
    if dataset.attrs.get("property") != label:
        return None
    spec = PROPERTIES.get(label)
    return spec or described_by(label, str(dataset.attrs.get("axis")), dict(dataset.attrs), dataset.dtype.name)
