"""mlffstore: a crash-safe, multi-writer store for distilling machine-learned force fields.

>>> import mlffstore as ml
>>> sorted(set(ml.__all__) & {"create", "open", "SampleBatch", "TorchDataset"})
['SampleBatch', 'TorchDataset', 'create', 'open']

Everything is imported on first use, so that ``import mlffstore`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlffstore import errors
    from mlffstore.batch import SampleBatch, concatenate
    from mlffstore.importing import import_files
    from mlffstore.maintenance.verify import verify
    from mlffstore.registry import export_release, get_exporter, get_generator, get_teacher
    from mlffstore.release.verify import verify_release
    from mlffstore.snapshot import Snapshot
    from mlffstore.stats import statistics
    from mlffstore.store import Store, create, open
    from mlffstore.training.dataset import TorchDataset
    from mlffstore.validation import validate

__version__ = "0.1.0"

_WHERE = {
    "SampleBatch": "mlffstore.batch",
    "Snapshot": "mlffstore.snapshot",
    "Store": "mlffstore.store",
    "TorchDataset": "mlffstore.training.dataset",
    "concatenate": "mlffstore.batch",
    "create": "mlffstore.store",
    "export_release": "mlffstore.registry",
    "get_exporter": "mlffstore.registry",
    "get_generator": "mlffstore.registry",
    "get_teacher": "mlffstore.registry",
    "import_files": "mlffstore.importing",
    "open": "mlffstore.store",
    "statistics": "mlffstore.stats",
    "validate": "mlffstore.validation",
    "verify": "mlffstore.maintenance.verify",
    "verify_release": "mlffstore.release.verify",
}
__all__ = [
    "SampleBatch",
    "Snapshot",
    "Store",
    "TorchDataset",
    "__version__",
    "concatenate",
    "create",
    "errors",
    "export_release",
    "get_exporter",
    "get_generator",
    "get_teacher",
    "import_files",
    "open",
    "statistics",
    "validate",
    "verify",
    "verify_release",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name == "errors":
        return import_module("mlffstore.errors")
    raise AttributeError(f"module 'mlffstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
