"""Directions of Hessian-vector products. They follow from the structure, so that all teachers and students share them.

Definition (docs/format.md repeats it). With `mix` and G of `mlffstore.data.hashing`, h the content hash of the sample,
p = 1, 2, ... the number of the product, and i = 0, 1, ... 3 n_atoms - 1 the coordinates (x, y, z of the first atom first)::

    s   = mix(h + G * p)
    a_i = (mix(s + G * (2 i + 1)) >> 11) * 2**-53        b_i = (mix(s + G * (2 i + 2)) >> 11) * 2**-53
    u_i = sqrt(-2 ln(1 - a_i)) cos(2 pi b_i)             (Box and Muller, Ann. Math. Stat. 29, 610, 1958)

so that each coordinate is drawn from the normal distribution of mean 0 and variance 1: no direction in space is preferred,
and the mean of |H u|^2 over directions is the sum of the squares of all elements of H.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.data.hashing import GOLDEN, mix
from mlffstore.data.properties import PROPERTIES, Property

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from mlffstore.data.batch import SampleBatch

#: Largest number of a product.
MOST = 64
_NAME = re.compile(r"hessian_(product|probe|error)(?:_([2-9]|[1-5][0-9]|6[0-4]))?")


def probe(batch: SampleBatch, number: int = 1) -> npt.NDArray[np.float32]:
    """Return the direction of a Hessian-vector product of each sample, shape (A, 3).

    Parameters
    ----------
    batch : SampleBatch
    number : int, optional
        Number of the product, 1 or more.

    Examples
    --------
    >>> from mlffstore.data.batch import SampleBatch
    >>> probe(SampleBatch(n_atoms=[1], numbers=[1], positions=[[0, 0, 0]])).shape
    (1, 3)
    """
    seeds = mix(batch.content_hash.astype(np.uint64) + np.uint64(int(GOLDEN) * number % 2**64))
    owner = np.repeat(np.arange(len(batch)), 3 * batch.n_atoms)
    place = np.arange(len(owner), dtype=np.uint64) - (3 * batch.offsets[:-1]).astype(np.uint64)[owner]
    uniform = [
        (mix(seeds[owner] + GOLDEN * (np.uint64(2) * place + np.uint64(k))) >> np.uint64(11)) * 2.0**-53 for k in (1, 2)
    ]
    normal = np.sqrt(-2 * np.log1p(-uniform[0])) * np.cos(2 * np.pi * uniform[1])
    return np.asarray(normal, np.float32).reshape(-1, 3)


def number_of(name: str) -> int | None:
    """Return the number of a product, direction or error by its name; None for another property.

    Examples
    --------
    >>> number_of("hessian_product"), number_of("hessian_probe_3"), number_of("forces")
    (1, 3, None)
    """
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[2] or 1)


def names_of(number: int) -> tuple[str, str]:
    """Return the names of a product and of its direction, after registering those beyond the first.

    Examples
    --------
    >>> names_of(2)
    ('hessian_product_2', 'hessian_probe_2')
    """
    suffix = "" if number == 1 else f"_{number}"
    product, direction = (PROPERTIES[name] for name in ("hessian_product", "hessian_probe"))
    names = f"{product.name}{suffix}", f"{direction.name}{suffix}"
    if suffix:
        texts = f"Hessian times {names[1]}", f"direction of {names[0]}"
        for first, name, text in zip((product, direction), names, texts, strict=True):
            Property(name, first.axis, first.shape, first.unit, first.turns, first.dtype, long_name=text)
    return names


def error_of(number: int) -> str:
    """Return the name of the estimated error of a product by differences, after registering it."""
    product, name = names_of(number)[0], "hessian_error" + ("" if number == 1 else f"_{number}")
    text = f"estimated error of {product}, root mean square"
    Property(name, axis="sample", unit=PROPERTIES["hessian_product"].unit, long_name=text)
    return name


def is_error(name: str) -> bool:
    """Return whether a name is that of the estimated error of a product."""
    match = _NAME.fullmatch(name)
    return match is not None and match[1] == "error"


def with_partners(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of properties with the product and the direction that belong together, once each."""
    out: dict[str, None] = {}
    for name in names:
        number = number_of(name)
        out.update(dict.fromkeys((name,) if number is None else names_of(number)))
        if number is not None and is_error(name):
            out[error_of(number)] = None
    return tuple(out)
