"""Our own exports as sources of an import: zarr, parquet, deepmd and nvalchemi come back with all that they hold."""
