"""The tree of errors that the library raises.

::

    MlffstoreError
    ├── DataError (ValueError)               samples that may not be stored
    │   └── UnitError                        a unit that is unknown or does not fit the column
    ├── StoreError                           something about a store
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── StoreExistsError (FileExistsError)
    │   ├── FormatError (ValueError)         not a store, or of a format version this release cannot read
    │   ├── CorruptionError (OSError)        bytes on disk are not those that the log describes
    │   ├── ConflictError (RuntimeError)     a concurrent commit made this one impossible
    │   ├── StorageError (OSError)           the file system or object store refused
    │   └── ReadOnlyError (PermissionError)  opened for reading, or the folder cannot be written
    ├── TeacherError (RuntimeError)          a teacher cannot be loaded or used
    ├── RecipeError (ValueError)             a recipe is wrong
    ├── PolicyError (ValueError)             a validation policy is wrong
    ├── ReleaseError (ValueError)            a release that may not be published as asked for
    │   └── GateError                        its samples fail the validation
    ├── RegistryError (LookupError)          no plugin of that name, or no option of that name of a plugin
    ├── ExecutorError (RuntimeError)         workers die whatever they do, or the executor is gone
    ├── PluginError (RuntimeError)           an installed plugin cannot be imported, or fails with these options
    └── MissingDependencyError (ImportError) an optional package is not installed

Each message says what was expected, what was there, where, and what to do about it.
"""


class MlffstoreError(Exception):
    """Base of every error that mlffstore raises on purpose."""


class DataError(MlffstoreError, ValueError):
    """Samples that may not be stored as they are."""


class UnitError(DataError):
    """A unit that is unknown or has the wrong dimension."""


class StoreError(MlffstoreError):
    """Base of the errors about a store."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at that place."""


class StoreExistsError(StoreError, FileExistsError):
    """There is something at that place already."""


class FormatError(StoreError, ValueError):
    """Not a store, a damaged log entry, or a format version that this release cannot read."""


class CorruptionError(StoreError, OSError):
    """Bytes on disk are not those that the log describes."""


class ConflictError(StoreError, RuntimeError):
    """Another commit made this one impossible; read again and decide."""


class StorageError(StoreError, OSError):
    """The file system or object store refused an operation."""


class ReadOnlyError(StoreError, PermissionError):
    """A write to something that can only be read."""


class TeacherError(MlffstoreError, RuntimeError):
    """A teacher that cannot be loaded, or a label that it did not give."""


class RecipeError(MlffstoreError, ValueError):
    """A recipe that cannot be run."""


class PolicyError(MlffstoreError, ValueError):
    """A validation policy that cannot be used."""


class ReleaseError(MlffstoreError, ValueError):
    """A release that may not be published: it exists, fails validation, or lacks samples."""


class GateError(ReleaseError):
    """Samples that were to be published do not pass the validation."""


class RegistryError(MlffstoreError, LookupError):
    """No generator, teacher or exporter has that name, or none of its options has that name."""


class PluginError(MlffstoreError, RuntimeError):
    """An installed plugin that cannot be imported, or that fails in a way of its own."""


class ExecutorError(MlffstoreError, RuntimeError):
    """Worker processes that die whatever they do, or an executor that takes no more tasks."""


class MissingDependencyError(MlffstoreError, ImportError):
    """An optional package is missing; the message names the pip command."""


def missing_dependency(package: str, extra: str, purpose: str) -> MissingDependencyError:
    """Return the error for an absent optional package, with the command that installs it."""
    return MissingDependencyError(f"{purpose} needs the package {package!r}: pip install 'mlffstore[{extra}]'")


def problems_message(headline: str, problems: list[str], limit: int = 10) -> str:
    """Join several problems under one headline; the first `limit` are spelled out."""
    shown = problems[:limit]
    more = [f"... and {len(problems) - limit} more"] if len(problems) > limit else []
    return headline + "".join(f"\n  - {line}" for line in shown + more)
