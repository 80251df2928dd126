"""Real files into a store: anything that ASE reads, SPICE's HDF5 layout, SDF and SMILES; checked, never guessed at."""

from mlffstore.importing.account import KeyUse
from mlffstore.importing.report import ImportReport
from mlffstore.importing.run import import_files

__all__ = ["ImportReport", "KeyUse", "import_files"]
