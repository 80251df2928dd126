"""mlffstore: a crash-safe, multi-writer store for distilling machine-learned force fields.

>>> import mlffstore as ml
>>> sorted(set(ml.__all__) & {"create", "open", "SampleBatch", "TorchDataset"})
['SampleBatch', 'TorchDataset', 'create', 'open']

Everything is imported on first use, so that ``import mlffstore`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlffstore.runtime.version import VERSION as __version__

if TYPE_CHECKING:
    from mlffstore import errors
    from mlffstore.analysis.statistics import statistics
    from mlffstore.analysis.validation import validate
    from mlffstore.contracts.registry import get_generator, get_teacher
    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.concatenation import concatenate
    from mlffstore.data.properties import Property
    from mlffstore.importing import import_files
    from mlffstore.pipeline.distillation.check import distil_check
    from mlffstore.release.exporter import export_release, get_exporter
    from mlffstore.release.samples import open_release
    from mlffstore.release.verify import verify_release
    from mlffstore.store.facade import Store
    from mlffstore.store.maintenance.verify import verify
    from mlffstore.store.opening import create, open
    from mlffstore.store.samples import Samples, Selection
    from mlffstore.store.snapshot import Snapshot
    from mlffstore.training.dataset import TorchDataset


_WHERE = {
    "Property": "mlffstore.data.properties",
    "SampleBatch": "mlffstore.data.batch",
    "Samples": "mlffstore.store.samples",
    "Selection": "mlffstore.store.samples",
    "Snapshot": "mlffstore.store.snapshot",
    "Store": "mlffstore.store.facade",
    "TorchDataset": "mlffstore.training.dataset",
    "concatenate": "mlffstore.data.concatenation",
    "create": "mlffstore.store.opening",
    "distil_check": "mlffstore.pipeline.distillation.check",
    "export_release": "mlffstore.release.exporter",
    "get_exporter": "mlffstore.release.exporter",
    "get_generator": "mlffstore.contracts.registry",
    "get_teacher": "mlffstore.contracts.registry",
    "import_files": "mlffstore.importing",
    "open": "mlffstore.store.opening",
    "open_release": "mlffstore.release.samples",
    "statistics": "mlffstore.analysis.statistics",
    "validate": "mlffstore.analysis.validation",
    "verify": "mlffstore.store.maintenance.verify",
    "verify_release": "mlffstore.release.verify",
}
__all__ = [
    "Property",
    "SampleBatch",
    "Samples",
    "Selection",
    "Snapshot",
    "Store",
    "TorchDataset",
    "__version__",
    "concatenate",
    "create",
    "distil_check",
    "errors",
    "export_release",
    "get_exporter",
    "get_generator",
    "get_teacher",
    "import_files",
    "open",
    "open_release",
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
