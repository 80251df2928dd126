"""Real files into a store: anything that ASE reads, SPICE's HDF5 layout, SDF and SMILES; checked, never guessed at."""

from mlffstore.importing.run import ImportReport, import_files

__all__ = ["ImportReport", "import_files"]
