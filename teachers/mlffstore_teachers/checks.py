"""Options of teachers: numbers that are whole, and devices that there are."""

from __future__ import annotations

from mlffstore.data.casting import integer
from mlffstore.errors import DataError, TeacherError


def check_whole(teacher: str, option: str, value: object) -> int:
    """Return an option that counts something; raise `TeacherError` unless it is an integer of at least 1."""
    try:
        return integer(option, value, least=1)
    except DataError as error:
        raise TeacherError(f"{teacher}: {error}") from None


def check_device(teacher: str, device: str) -> None:
    """Raise `TeacherError` if torch has no such device here: no sample is to be refused for it.

    Parameters
    ----------
    teacher : str
        Name of the teacher, for the message.
    device : str
        As torch names it, such as "cpu", "cuda" or "cuda:1".
    """
    import torch

    try:
        torch.empty(0, device=device)
    except Exception as error:  # RuntimeError for a name, AssertionError where torch was built without CUDA, others
        lines = str(error).splitlines() or [""]
        raise TeacherError(
            f"{teacher}: expected a device that torch has here, such as 'cpu', got device={device!r} "
            f"({type(error).__name__}: {lines[0][:200]})"
        ) from error
