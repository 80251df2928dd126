"""Teachers that are installed here and are exactly those that made the labels of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlffstore.contracts.registry import available, get_teacher
from mlffstore.errors import MlffstoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlffstore.contracts.protocols import Teacher


def teachers_at_hand(recorded: Mapping[str, Mapping[str, Any]]) -> tuple[list[Teacher], dict[str, str]]:
    """Return the teachers whose labels are there, and for each other name the reason why it is not at hand.

    A teacher made with its default options counts if its fingerprint, which names version and weights, is the recorded one.

    Parameters
    ----------
    recorded : mapping of str to mapping
        What is recorded of each teacher of the dataset, by name.
    """
    teachers, reasons = [], {}
    installed = available("teacher")
    for name, info in recorded.items():
        if name not in installed:
            reasons[name] = "no teacher of this name is installed; name the one that made the labels with --teacher"
            continue
        try:
            teacher = get_teacher(name)
        except (MlffstoreError, ImportError) as error:
            reasons[name] = f"the teacher cannot be used here ({str(error).splitlines()[0]})"
            continue
        if teacher.info.fingerprint != info.get("fingerprint"):
            made_by = info.get("fingerprint", "unknown")
            reasons[name] = (
                f"the teacher here is {teacher.info.fingerprint!r}, the labels are of {made_by!r}; "
                "pass it with --teacher and its options"
            )
            continue
        teachers.append(teacher)
    return teachers, reasons
