"""A store as a lazy `xarray.Dataset`: engine, accessor, blocks of whole samples, plots."""
