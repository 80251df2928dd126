"""Steps that planted faults share. Datasets are in memory, and are changed in place unless a function returns one."""

from __future__ import annotations

import numpy as np

from mlffstore.data.ragged import offsets


def starts(ds):
    return offsets(ds.n_atoms.values)


def owners(ds):
    """Return the sample of each atom."""
    return np.repeat(np.arange(ds.sizes["sample"]), ds.n_atoms.values)


def rows(ds, i):
    s = starts(ds)
    return slice(int(s[i]), int(s[i + 1]))


def periodic(ds):
    return ds.pbc.values.all(axis=1)


def molecules(ds):
    return ~ds.pbc.values.any(axis=1)


def scale(ds, *, energy=1.0, forces=1.0, stress=1.0):
    for name, factor in (("energy", energy), ("forces", forces), ("stress", stress)):
        if name in ds and factor != 1.0:
            ds[name].values[:] = (ds[name].values.astype(np.float64) * factor).astype(ds[name].dtype)
    return ds


def labelled_in_order(ds):
    """Return for each teacher the samples that it labelled."""
    return [np.flatnonzero(np.isfinite(ds.energy.values[:, t])) for t in range(ds.sizes["teacher"])]


def rehash(ds):
    """Give the samples the content hashes of their structures, as an import of them would have."""
    from mlffstore.data.hashing import content_hash
    from mlffstore.data.schema import STRUCTURE

    columns = {name: ds[name].values for name in STRUCTURE}
    ds.content_hash.values[:] = content_hash(**{**columns, "pbc": columns["pbc"].astype(bool)})
    return ds


def copies(ds, chosen):
    """Return the dataset with copies of some samples at the end, under other roots and in another split."""
    n, chosen = ds.sizes["sample"], np.asarray(chosen)
    out = ds.mlff.isel(np.concatenate([np.arange(n), chosen])).copy(deep=True)
    new = np.arange(n, n + len(chosen))
    out.root.values[new] ^= np.uint64(987654321)
    out.split.values[new] = (out.split.values[chosen] + 1) % 3
    return out, new


def keep_atoms(ds, keep):
    """Return the dataset without some atoms."""
    counts = np.bincount(owners(ds)[keep], minlength=ds.sizes["sample"]).astype(np.int32)
    return ds.isel(atom=np.flatnonzero(keep)).assign(n_atoms=ds.n_atoms.copy(data=counts)).copy(deep=True)


def replace_sample(ds, i, numbers, positions, cell=None):
    """Return the dataset with another structure as its sample `i`; labels per atom repeat, the energy grows alike."""
    import xarray as xr

    before, after = rows(ds, i), len(numbers)
    n = before.stop - before.start
    repeated = np.resize(np.arange(before.start, before.stop), after)
    index = np.concatenate([np.arange(before.start), repeated, np.arange(before.stop, ds.sizes["atom"])])
    out = ds.isel(atom=index).copy(deep=True)
    counts = out.n_atoms.values.copy()
    counts[i] = after
    out = out.assign(n_atoms=xr.DataArray(counts, dims="sample", attrs=out.n_atoms.attrs))
    place = slice(before.start, before.start + after)
    out.numbers.values[place] = numbers
    out.positions.values[place] = positions
    if cell is not None:
        out.cell.values[i] = cell
    out.energy.values[i] *= after / n
    return out
